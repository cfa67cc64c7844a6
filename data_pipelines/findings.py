"""What can be found in data, each kind with an id that does not change: the registry behind `prn data inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from prn_jax.errors import printable


class ProblemKind(StrEnum):
  """Why an entry cannot be right; `count_problems` counts by it."""

  MALFORMED = "malformed"
  NOT_FINITE = "not finite"
  ZERO_SIZE = "no size"
  OUTSIDE_IMAGE = "outside the image"
  UNKNOWN_CLASS = "unknown class"
  UNKNOWN_IMAGE = "unknown image"
  DUPLICATE = "duplicate"
  MISSING_IMAGE = "missing image"
  UNREADABLE_IMAGE = "unreadable image"
  MISSING_LABEL = "missing label"


class Check(StrEnum):
  """Everything that is looked for; the value is the id, "PLACE.FAULT".

  An id is for programs that read `--json`, and stays: words of messages may change, ids are only added.

  Attributes:
    kind: why such an entry is left out; None of a note, which leaves nothing out.
    meaning: what was found, without its values.
    fix: what to do about it.
  """

  kind: ProblemKind | None
  meaning: str
  fix: str

  def __new__(cls, id: str, kind: ProblemKind | None, meaning: str, fix: str) -> Check:
    self = str.__new__(cls, id)
    self._value_, self.kind, self.meaning, self.fix = id, kind, meaning, fix
    return self

  # Annotations
  LABEL_MALFORMED = (
    "labels.malformed", ProblemKind.MALFORMED,
    "text for a number, missing or surplus fields, broken XML, a label file that is no text",
    "Write the entry as the message expects it, or export the labels again.",
  )  # fmt: skip
  LABEL_UNIT = (
    "labels.wrong_unit", ProblemKind.MALFORMED,
    "pixels where shares of the image belong, or the reverse",
    "Export the labels in the unit of their format: YOLO and Darknet 0 to 1, COCO and VOC pixels.",
  )  # fmt: skip
  LABEL_NOT_FINITE = (
    "labels.not_finite", ProblemKind.NOT_FINITE,
    "a box with NaN or infinity",
    "Correct or delete the box; the program that wrote it divided by zero.",
  )  # fmt: skip
  LABEL_NO_SIZE = (
    "labels.no_size", ProblemKind.ZERO_SIZE,
    "a box of zero or negative width or height",
    "Draw the box again, or delete it.",
  )  # fmt: skip
  LABEL_OUTSIDE = (
    "labels.outside_image", ProblemKind.OUTSIDE_IMAGE,
    "a box more than 1 pixel outside its image",
    "Compare the image with the one that was labelled; if it is the same, clip the box.",
  )  # fmt: skip
  LABEL_UNKNOWN_CLASS = (
    "labels.unknown_class", ProblemKind.UNKNOWN_CLASS,
    "a class id or category that is not among the names",
    "Add the class to the list of names, or correct the id.",
  )  # fmt: skip
  LABEL_UNKNOWN_IMAGE = (
    "labels.unknown_image", ProblemKind.UNKNOWN_IMAGE,
    "an annotation of an image that is not listed, or an image without its truth",
    "Add the image to the list, or delete the annotation.",
  )  # fmt: skip
  LABEL_DUPLICATE = (
    "labels.duplicate", ProblemKind.DUPLICATE,
    "two annotations of one image with the same id",
    "Delete one of them, or give it an id of its own.",
  )  # fmt: skip
  LABEL_MISSING = (
    "labels.missing", ProblemKind.MISSING_LABEL,
    "an image without the annotation file that its format wants",
    "Write the file, without objects if the image shows none, or take the image from the list.",
  )  # fmt: skip
  LABEL_RESPELT = (
    "labels.respelt", None,
    "classes of several sets that are spelt differently and were taken for one",
    "Look whether they mean the same; else give one of them another name under 'labels'.",
  )  # fmt: skip
  LABEL_LEFT_OVER = (
    "labels.left_over", None,
    "label files without an image, images without a label file where most have one",
    "Look whether images were moved, renamed or have an ending that is not taken for an image.",
  )  # fmt: skip
  LABEL_POLYGONS = (
    "labels.polygons", None,
    "segmentations, of which the boxes around them are used",
    "Nothing, if boxes are wanted.",
  )  # fmt: skip
  LABEL_SHARED_ID = (
    "labels.shared_id", None,
    "annotations that have the id of one of another image; all are used",
    "Number annotations throughout the file if another program is to read it.",
  )  # fmt: skip
  # Classes
  CLASS_MALFORMED = (
    "classes.malformed", ProblemKind.MALFORMED,
    "a category whose id is no number or whose name is no text",
    "Write the category as {\"id\": NUMBER, \"name\": \"TEXT\"}.",
  )  # fmt: skip
  CLASS_DUPLICATE = (
    "classes.duplicate", ProblemKind.DUPLICATE,
    "two categories of one id or one name",
    "Delete one of them, and give its objects the id of the other.",
  )  # fmt: skip
  CLASS_UNKNOWN = (
    "classes.unknown", ProblemKind.UNKNOWN_CLASS,
    "a whole class of images that is not among the names",
    "Take the list of names that belongs to these images.",
  )  # fmt: skip
  CLASS_NO_IMAGES = (
    "classes.no_images", ProblemKind.MISSING_IMAGE,
    "a class whose folder or archive holds no image",
    "Put images there, or delete the folder.",
  )  # fmt: skip
  CLASS_UNUSED = (
    "classes.unused", None,
    "classes without an object, or without an image",
    "Collect examples, or take the class from the list of names: it cannot be learnt.",
  )  # fmt: skip
  CLASS_FEW = (
    "classes.few_examples", None,
    "classes with fewer than 10 objects, or images",
    "Collect more examples, or join the class with another.",
  )  # fmt: skip
  # Images
  IMAGE_MALFORMED = (
    "images.malformed", ProblemKind.MALFORMED,
    "an entry of an image without id or file name",
    "Write the entry as {\"id\": NUMBER, \"file_name\": \"NAME\"}.",
  )  # fmt: skip
  IMAGE_MISSING = (
    "images.missing", ProblemKind.MISSING_IMAGE,
    "an image file that is not there",
    "Copy the file to where the message says, or take the image from the list.",
  )  # fmt: skip
  IMAGE_UNREADABLE = (
    "images.unreadable", ProblemKind.UNREADABLE_IMAGE,
    "a file that is empty, truncated, damaged, or no image at all",
    "Copy or download the file again, or take the image from the list.",
  )  # fmt: skip
  IMAGE_OTHER_SIZE = (
    "images.other_size", ProblemKind.MALFORMED,
    "an image of another size than its annotation says: scaled, turned or another picture",
    "Use the image that was labelled, or scale the boxes along (prn data prepare does).",
  )  # fmt: skip
  IMAGE_DUPLICATE = (
    "images.duplicate", ProblemKind.DUPLICATE,
    "an image that is listed twice, or two images of one id",
    "Delete the second entry, or give it an id of its own.",
  )  # fmt: skip
  IMAGE_REPEATED_ID = (
    "images.repeated_id", None,
    "image ids that are not unique, which an evaluation needs",
    "Give every image an id, or a file name, of its own.",
  )  # fmt: skip
  IMAGE_COPIES = (
    "images.copies", None,
    "image files that are equal byte by byte",
    "Keep one of them; copies in training and validation make figures too good.",
  )  # fmt: skip
  IMAGE_EMPTY = (
    "images.without_objects", None,
    "images without a labelled object",
    "Nothing, if they show none; else label them.",
  )  # fmt: skip
  IMAGE_OTHER_ENDING = (
    "images.other_ending", None,
    "files among the images that are not taken for images, by their ending",
    "Rename or convert those that are images.",
  )  # fmt: skip
  # Boxes
  BOX_REPEATED = (
    "boxes.repeated", None,
    "boxes that repeat another of their image exactly",
    "Delete all but one: each counts as an object.",
  )  # fmt: skip
  BOX_TINY = (
    "boxes.tiny", None,
    "boxes with a side below 4 pixels",
    "Look whether they are slips of the mouse; a network hardly sees what is so small.",
  )  # fmt: skip
  # Files
  PATH_FORGIVEN = (
    "paths.forgiven", None,
    "names of files as another machine writes them, for which files of this one were found",
    "Look whether the example is right; other programs may need the names as they are here.",
  )  # fmt: skip
  MEMBER_REFUSED = (
    "archives.refused_member", ProblemKind.MALFORMED,
    "an archive member that leads out of the archive, is too large, or is no plain file",
    "Pack the archive again from plain files.",
  )  # fmt: skip
  MEMBER_DUPLICATE = (
    "archives.duplicate_member", ProblemKind.DUPLICATE,
    "an archive member that occurs twice",
    "Pack the archive again.",
  )  # fmt: skip
  SHARD_DAMAGED = (
    "shards.damaged", ProblemKind.MALFORMED,
    "a shard of prepared data that is missing or not as it was written",
    "Run the command of prn data prepare again: it writes damaged shards anew.",
  )  # fmt: skip
  RECORD_UNREADABLE = (
    "records.unreadable", ProblemKind.MALFORMED,
    "a record that cannot be read from its file, or an image without a size",
    "Copy or prepare the file again.",
  )  # fmt: skip


@dataclass(frozen=True)
class Finding:
  """One thing that was found; `prn data inspect --json` lists them.

  Attributes:
    check: which of the things that are looked for; its value is the finding's id.
    place: a file with its line, or the data as a whole.
    text: what is wrong there, with the values.
  """

  check: Check
  place: str
  text: str

  def __str__(self) -> str:
    return self.text

  def to_json(self) -> dict[str, str]:
    """{"id", "place", "text", "fix"}."""
    place, text = printable(self.place), printable(self.text)
    return {"id": str(self.check), "place": place, "text": text, "fix": self.check.fix}


def table() -> str:
  """The registry as a table in Markdown, as docs/data.md has it."""
  rows = [(f"`{check}`", check.kind or "worth a look", check.meaning, check.fix) for check in sorted(Check)]
  lines = ["| id | counted as | what was found | what to do |", "|---|---|---|---|"]
  return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
