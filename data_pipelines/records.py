"""Annotated images as every source gives them, and what was wrong with them. Nothing is decoded here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.class_names import match_names
from prn_jax.data_pipelines.findings import Check, Finding, ProblemKind
from prn_jax.errors import PrnError, did_you_mean, printable

EDGE_TOLERANCE_PX = 1.0
"""A box may reach this far outside its image: labels are rounded, and some tools count pixels from 1."""

ImageId = int | str

Box = tuple[float, float, float, float]
Rings = tuple[NDArray[np.float64], ...]
"""The outline of an object: rings of (k, 2) points x, y in pixels, each closed without repeating its first point."""


class Place(NamedTuple):
  """Where an entry stands: its file, its line where the format has lines, and what messages call it ("box 3: ").

  `way` leads to it where the line is known only to who reads the file again (`reading.lines`): in XML its tag and which of
  that tag it is, from 1; in JSON keys, and positions from 0.
  """

  file: Path
  line: int | None = None
  prefix: str = ""
  way: tuple[str | int, ...] = ()


def no_boxes() -> NDArray[np.float32]:
  """(0, 4) float32."""
  return np.zeros((0, 4), np.float32)


class DataError(PrnError):
  """A data set that cannot be used as it is."""


class OnBadData(StrEnum):
  """What happens to an entry that cannot be right."""

  STOP = "stop"
  SKIP = "skip"


class Task(StrEnum):
  """What the annotations of a data set are of."""

  DETECT = "detect"  # boxes
  CLASSIFY = "classify"  # one class for every image


@dataclass(frozen=True)
class Problem:
  """One entry that cannot be right: what sources, `TrainBatches.report`, `EvalBatches` and `Evaluator` list.

  Attributes:
    path: the file; of an image that is no file of its own, its id.
    line: counted from 1; None where the file has no lines.
    reason: what is wrong, with the values.
    check: the check that found it, of those that leave something out; its value is the problem's id.
  """

  path: Path
  line: int | None
  reason: str
  check: Check = Check.LABEL_MALFORMED

  @property
  def kind(self) -> ProblemKind:
    assert self.check.kind is not None
    return self.check.kind

  @property
  def place(self) -> str:
    return f"{self.path}{'' if self.line is None else f':{self.line}'}"

  @property
  def finding(self) -> Finding:
    return Finding(self.check, self.place, self.reason)

  def __str__(self) -> str:
    return f"{self.place}: {self.reason}"

  def to_json(self) -> dict[str, str | int | None]:
    """{"id", "path", "line", "kind", "reason"}; line is None where the file has none."""
    path, reason = printable(str(self.path)), printable(self.reason)
    return {"id": str(self.check), "path": path, "line": self.line, "kind": str(self.kind), "reason": reason}


class ProblemLog:
  """Follows the policy for bad data: raises at the first problem (stop), or notes it and goes on (skip).

  Args:
    policy: stop or skip.
    keep_polygons: what a source is also told: whether its records shall hold outlines. Only a conversion needs them,
      and those of a large set fill half a gigabyte.
    keep_places: likewise, whether records shall say where each box stands. Only a doctor who has found something asks.
  """

  def __init__(
    self, policy: OnBadData | str = OnBadData.STOP, *, keep_polygons: bool = False, keep_places: bool = False
  ) -> None:
    if policy not in list(OnBadData):
      raise DataError(f"on_bad_data is {policy!r}; expected 'stop' or 'skip'")
    self.policy = OnBadData(policy)
    self.keep_polygons, self.keep_places = keep_polygons, keep_places
    self.problems: list[Problem] = []
    self.notes: list[Finding] = []

  def note(self, check: Check, place: Path, text: str | None) -> None:
    """Notes something that was understood but is worth a look; None is nothing."""
    if text is not None and text not in map(str, self.notes):
      self.notes.append(Finding(check, str(place), text))

  def report(self, path: Path, line: int | None, reason: str, check: Check, consequence: str) -> None:
    """Notes one problem.

    Args:
      path: the file that holds the bad entry.
      line: its line, counted from 1; None where the format has none.
      reason: what is wrong, with the values.
      check: what was found, one that has a kind.
      consequence: what skipping it means, as "the box is left out".

    Raises:
      DataError: the policy is stop.
    """
    problem = Problem(path, line, reason, check)
    if self.policy is OnBadData.STOP:
      raise DataError(f"{problem}.\nWith on_bad_data='skip' (--on-bad-data skip) {consequence}, counted and listed.")
    self.problems.append(replace(problem, reason=f"{reason}; {consequence}"))


def count_problems(problems: Iterable[Problem]) -> dict[str, int]:
  """Number of problems of each kind, the most frequent first."""
  return {str(kind): number for kind, number in Counter(problem.kind for problem in problems).most_common()}


@dataclass(frozen=True, eq=False)
class Record:
  """One image and what is known of it.

  Attributes:
    image: path of the encoded image, or its encoded bytes.
    image_id: unique in the data set; COCO's number, elsewhere the file's stem (or its path, where stems repeat).
    width, height: pixels as seen, that is after the EXIF rotation; None where the source does not say.
    boxes_xyxy_px: (n, 4) float32 corners, continuous: a box over the whole image is [0, 0, width, height].
    classes: (n,) int32 in 0..len(names)-1.
    is_crowd: (n,) bool, COCO's regions of uncounted objects.
    is_difficult: (n,) bool, VOC's and Darknet's objects that nobody must find.
    area_px: (n,) float64, COCO's area of the segmentation; None where the source has boxes alone.
    boxes_xywh_px: (n, 4) float64, the same boxes as corner and size to the last digit of COCO's file, for the
      evaluation: an overlap of exactly .95 must stay one. None elsewhere.
    label: class of the whole image, for classification; None elsewhere.
    ignored_xyxy_px: (m, 4) float32, regions in which objects of any class are not annotated: nothing in them is learnt
      or counted. (A crowd is a region of one class.)
    polygons_px: for each of the n objects the rings of its outline as the source has them, not clipped; () for an
      object that has a box alone. None where no object of the image has an outline, or `open_spec` was not asked to
      keep them. Prepared data holds none.
    places: where each of the n boxes stands; None unless `open_spec` was asked to keep them, and of sources of which
      `doctor.written` reads the files again.
    annotated: (number of classes,) bool, False for classes of which the image may show objects that the data set has no
      boxes for, as in several sets that are used as one; None: all are annotated.
  """

  image: Path | bytes
  image_id: ImageId
  width: int | None
  height: int | None
  boxes_xyxy_px: NDArray[np.float32]
  classes: NDArray[np.int32]
  is_crowd: NDArray[np.bool_]
  is_difficult: NDArray[np.bool_]
  area_px: NDArray[np.float64] | None = None
  boxes_xywh_px: NDArray[np.float64] | None = None
  label: int | None = None
  ignored_xyxy_px: NDArray[np.float32] = field(default_factory=no_boxes)
  polygons_px: tuple[Rings, ...] | None = None
  places: tuple[Place, ...] | None = None
  annotated: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Object:
  """One labelled object while a source is being read; `polygon_px` is () where it has a box alone, `place` None where
  nobody asks for it."""

  box_xyxy_px: Box
  class_index: int
  is_crowd: bool = False
  is_difficult: bool = False
  area_px: float | None = None
  box_xywh_px: Box | None = None
  polygon_px: Rings = ()
  place: Place | None = None


def make_record(
  image: Path | bytes,
  image_id: ImageId,
  size: tuple[int, int] | None,
  objects: Sequence[Object] = (),
  label: int | None = None,
  ignored_xyxy_px: Sequence[Box] = (),
) -> Record:
  """A record from its objects and ignored regions; `size` is (width, height), or None where unknown."""
  has_area = bool(objects) and all(item.area_px is not None for item in objects)
  has_polygons = any(item.polygon_px for item in objects)
  places = tuple(item.place for item in objects if item.place is not None)
  has_xywh = bool(objects) and all(item.box_xywh_px is not None for item in objects)
  return Record(
    image=image,
    image_id=image_id,
    width=size[0] if size else None,
    height=size[1] if size else None,
    boxes_xyxy_px=np.array([item.box_xyxy_px for item in objects], np.float32).reshape(-1, 4),
    classes=np.array([item.class_index for item in objects], np.int32),
    is_crowd=np.array([item.is_crowd for item in objects], np.bool_),
    is_difficult=np.array([item.is_difficult for item in objects], np.bool_),
    area_px=np.array([item.area_px for item in objects], np.float64) if has_area else None,
    boxes_xywh_px=np.array([item.box_xywh_px for item in objects], np.float64) if has_xywh else None,
    label=label,
    ignored_xyxy_px=np.array(ignored_xyxy_px, np.float32).reshape(-1, 4),
    polygons_px=tuple(item.polygon_px for item in objects) if has_polygons else None,
    places=places if places and len(places) == len(objects) else None,
  )


def image_name(record: Record) -> str:
  """What messages call an image: its file, or its id where it is in memory."""
  return str(record.image_id if isinstance(record.image, bytes) else record.image)


@runtime_checkable
class Dataset(Protocol):
  """What every source gives: annotated images by index, their class names, and what was wrong."""

  @property
  def names(self) -> tuple[str, ...]:
    """Class names; `Record.classes` and `Record.label` index them."""
    ...

  @property
  def category_ids(self) -> tuple[int, ...]:
    """The source's own number of every class (COCO's 1..90); 0..k-1 where it has none."""
    ...

  @property
  def task(self) -> Task:
    """Whether every record has boxes, or every one a label of the whole image."""
    ...

  @property
  def problems(self) -> Sequence[Problem]:
    """What was left out, under the policy skip."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


@dataclass(frozen=True)
class RecordList:
  """A data set whose annotations are in memory: all of today's file formats."""

  names: tuple[str, ...]
  category_ids: tuple[int, ...]
  records: tuple[Record, ...]
  problems: tuple[Problem, ...] = ()
  notes: tuple[Finding, ...] = ()
  task: Task = Task.DETECT

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> Record:
    return self.records[index]


def source_notes(dataset: Dataset) -> tuple[Finding, ...]:
  """What was understood but is worth a look: names of another machine, polygons, files that were not taken."""
  inner = dataset.dataset if isinstance(dataset, Renumbered) else dataset
  return tuple(getattr(inner, "notes", ()))


def notes_of(dataset: Dataset) -> tuple[str, ...]:
  """The texts of `source_notes`."""
  return tuple(map(str, source_notes(dataset)))


@dataclass(frozen=True)
class Renumbered:
  """A data set with its classes numbered by other names; see `with_names`."""

  dataset: Dataset
  names: tuple[str, ...]
  category_ids: tuple[int, ...]
  new_index: NDArray[np.int32]

  @property
  def task(self) -> Task:
    return self.dataset.task

  @property
  def problems(self) -> Sequence[Problem]:
    return self.dataset.problems

  def __len__(self) -> int:
    return len(self.dataset)

  def __getitem__(self, index: int) -> Record:
    record = self.dataset[index]
    label = None if record.label is None else int(self.new_index[record.label])
    annotated = None
    if record.annotated is not None:
      annotated = np.zeros(len(self.names), np.bool_)
      annotated[self.new_index[np.flatnonzero(record.annotated)]] = True
    return replace(record, classes=self.new_index[record.classes], label=label, annotated=annotated)


def with_names(dataset: Dataset, names: Sequence[str]) -> Dataset:
  """The same images, with the classes numbered by `names`, such as the names of the network that will see them.

  Args:
    dataset: any data set.
    names: class names in the wanted order, without repeats; more than the data set has, if need be. They need not be
      spelt as in the data set, see `class_names.match_names`.

  Raises:
    DataError: `names` repeats a name, or lacks one that the data set uses.
  """
  if len(set(names)) != len(names):
    repeated = next(name for name, number in Counter(names).items() if number > 1)
    raise DataError(f"the class name '{repeated}' occurs twice among the {len(names)} names; names must differ")
  unknown = unknown_classes(dataset, names)
  if unknown:
    raise DataError(
      f"the data set has objects of {classes_text(unknown)}, not among the {len(names)} given "
      f"names{did_you_mean(unknown[0], names)}. Give the names that the network was trained with."
    )
  new_index = np.array(match_names(dataset.names, names), np.int32)
  ids = {int(new): number for new, number in zip(new_index, dataset.category_ids, strict=True)}
  # A class that the data set does not know has no number of its own; it must only differ from all others.
  fallback = max(dataset.category_ids, default=0) + 1
  category_ids = tuple(ids.get(index, fallback + index) for index in range(len(names)))
  return Renumbered(dataset, tuple(names), category_ids, new_index)


def unknown_classes(dataset: Dataset, names: Sequence[str]) -> list[str]:
  """The data set's classes that `names` lack although there are objects (or images) of them.

  A class that no image shows may be unknown: exports list such as begin with the project's name.
  """
  places = match_names(dataset.names, names)
  missing = {index for index, place in enumerate(places) if place < 0}
  return [dataset.names[index] for index in sorted(missing & _used_classes(dataset, missing))] if missing else []


def classes_text(names: Sequence[str], most: int = 8) -> str:
  """ "class 'dog'" or "classes 'cat', 'dog'", in messages."""
  shown = ", ".join(f"'{name}'" for name in names[:most])
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return f"class{'es' if len(names) > 1 else ''} {shown}{more}"


def _used_classes(dataset: Dataset, wanted: set[int]) -> set[int]:
  """Classes that occur, as far as they are among the wanted ones; looks no further when all have been seen."""
  used: set[int] = set()
  for index in range(len(dataset)):
    record = dataset[index]
    used.update(record.classes.tolist() if record.label is None else (record.label,))
    if wanted <= used:
      break
  return used


def finish(
  names: Sequence[str],
  ids: Sequence[int],
  records: Sequence[Record],
  log: ProblemLog,
  where: str,
  task: Task = Task.DETECT,
) -> RecordList:
  """The data set of a source that has read everything.

  Raises:
    DataError: no record is left.
  """
  if not records:
    skipped = f": all entries were left out, the first because of {log.problems[0]}" if log.problems else ""
    raise DataError(f"{where} holds no images{skipped}. Expected at least one; is the path right?")
  return RecordList(tuple(names), tuple(ids), tuple(records), tuple(log.problems), tuple(log.notes), task)


@dataclass(frozen=True)
class BoxFault:
  """What is wrong with a box; `clipped` is its part inside the image, None if there is none."""

  check: Check
  reason: str
  clipped: Box | None = None


def box_fault(box_xyxy_px: Box, size: tuple[int, int] | None) -> BoxFault | None:
  """What is wrong with a box, or None.

  Args:
    box_xyxy_px: corners x1, y1, x2, y2 in pixels, continuous.
    size: (width, height) of the image in pixels; None where unknown, then only the box itself is judged.

  Returns:
    The fault: a number that is not finite, no or negative size, or more than `EDGE_TOLERANCE_PX` outside the image.
  """
  x1, y1, x2, y2 = box_xyxy_px
  if size is not None and 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]:
    return None  # nearly always
  text = f"box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] (x1, y1, x2, y2 in pixels)"
  if not np.isfinite(box_xyxy_px).all():
    return BoxFault(Check.LABEL_NOT_FINITE, f"{text} is not finite")
  if x2 <= x1 or y2 <= y1:
    return BoxFault(Check.LABEL_NO_SIZE, f"{text} has size {x2 - x1:g}x{y2 - y1:g}; expected more than 0x0")
  if size is None:
    return None
  width, height = size
  reach = max(-x1, -y1, x2 - width, y2 - height)
  if reach <= EDGE_TOLERANCE_PX:
    return None
  clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
  is_inside = clipped[2] > clipped[0] and clipped[3] > clipped[1]
  reason = f"{text} reaches {reach:g} px outside its {width}x{height} image"
  return BoxFault(Check.LABEL_OUTSIDE, reason, clipped if is_inside else None)


def checked_box(
  box_xyxy_px: Box,
  size: tuple[int, int] | None,
  log: ProblemLog,
  where: Place,
) -> Box | None:
  """The box itself, its part inside the image, or None where nothing usable is left; faults go to the log.

  Args:
    box_xyxy_px, size: the arguments of `box_fault`.
    log: follows the policy.
    where: for the message.
  """
  fault = box_fault(box_xyxy_px, size)
  if fault is None:
    return box_xyxy_px
  consequence = "the box is left out" if fault.clipped is None else "the box is clipped to the image"
  log.report(where.file, where.line, where.prefix + fault.reason, fault.check, consequence)
  return fault.clipped


def image_ids_of(paths: Sequence[Path]) -> list[str]:
  """File stems as image ids; where a stem repeats, the whole path."""
  counts = Counter(path.stem for path in paths)
  return [path.stem if counts[path.stem] == 1 else path.as_posix() for path in paths]
