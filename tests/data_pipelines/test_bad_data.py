"""What can be wrong with data, over the formats: the policy stop names the place, skip counts it and goes on.

Every row damages one file of a good data set of three images, a, b and c of 100 x 50, with two objects each (one class
for image folders). `stop` is what the message must say, from the end of the path on; `left` is what skip leaves of
(images, objects). Every row goes through `prn data inspect`, through the batches of a training and through those of an
evaluation, which all look at the pixels too: what one of them refuses, none of them may use.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.augment import NO_CLASSIFICATION_AUGMENT, NO_DETECTION_AUGMENT
from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS
from prn_jax.data_pipelines.doctor.summary import summarize
from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, batch_at, train_batches
from prn_jax.data_pipelines.findings import ProblemKind
from prn_jax.data_pipelines.records import DataError, Problem, count_problems
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write

Change = Callable[[str], str | bytes]
MALFORMED, NOT_FINITE, NO_SIZE, OUTSIDE, CLASS, IMAGE, DUPLICATE, MISSING, UNREADABLE, NO_LABEL = ProblemKind


def picture(shade: int, size: tuple[int, int] = (100, 50), orientation: int = 1) -> bytes:
  exif = Image.Exif()
  exif[0x0112] = orientation
  buffer = io.BytesIO()
  Image.linear_gradient("L").resize(size).point(lambda v: v ^ shade).save(buffer, "JPEG", exif=exif)
  return buffer.getvalue()


# -- good data ---------------------------------------------------------------------------------------------------------

LABEL = "0 .5 .5 .2 .4\n1 .3 .4 .1 .2\n"
XML = """<annotation>
<size><width>100</width><height>50</height></size>
<object><name>cat</name><difficult>0</difficult>
  <bndbox><xmin>41</xmin><ymin>16</ymin><xmax>60</xmax><ymax>35</ymax></bndbox></object>
<object><name>dog</name><difficult>0</difficult>
  <bndbox><xmin>26</xmin><ymin>16</ymin><xmax>35</xmax><ymax>25</ymax></bndbox></object>
</annotation>
"""


def good_coco() -> dict[str, Any]:
  images = [{"id": k, "file_name": f"{name}.jpg", "width": 100, "height": 50} for k, name in enumerate("abc")]
  annotations = [
    {"id": 2 * k + n, "image_id": k, "category_id": 1 + n, "bbox": [40, 15, 20, 20], "area": 400, "iscrowd": 0}
    for k in range(3)
    for n in range(2)
  ]
  return {
    "images": images,
    "annotations": annotations,
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
  }


def make(kind: str, root: Path) -> str:
  """Writes the good data set; returns its SPEC."""
  folder = {"coco": "images", "voc": "JPEGImages", "darknet": "img", "yolo": "images/val", "imagefolder": "photos/cat"}[
    kind
  ]
  for shade, name in enumerate("abc"):
    path = root / folder / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(shade))
    if kind == "voc":
      write(root / "Annotations" / f"{name}.xml", XML)
    if kind in ("darknet", "yolo"):
      write(root / {"darknet": "img", "yolo": "labels/val"}[kind] / f"{name}.txt", LABEL)
  write(root / "ImageSets" / "Main" / "val.txt", "a\nb\nc\n")
  write(root / "list.txt", "img/a.jpg\nimg/b.jpg\nimg/c.jpg\n")
  write(root / "x.names", "cat\ndog\n")
  write(root / "x.data", "classes = 2\nvalid = list.txt\nnames = x.names\n")
  write(root / "data.yaml", "names: [cat, dog]\nval: images/val\n")
  write(root / "a.json", json.dumps(good_coco()))
  return {
    "coco": f"coco:{root / 'a.json'}:{root / 'images'}",
    "voc": f"voc:{root}:val",
    "darknet": f"darknet:{root / 'x.data'}:valid",
    "yolo": f"yolo:{root / 'data.yaml'}:val",
    "imagefolder": f"imagefolder:{root / 'photos'}",
  }[kind]


# -- damage ------------------------------------------------------------------------------------------------------------


def line(text: str) -> Change:
  """The first line of a label file."""
  return lambda old: f"{text}\n{old.splitlines()[1]}\n"


def swap(old: str, new: str) -> Change:
  def change(content: str) -> str:
    assert old in content
    return content.replace(old, new, 1)

  return change


def corners(*values: object) -> Change:
  """The corners of the first object of an XML."""
  tags = zip(("xmin", "ymin", "xmax", "ymax"), values, strict=False)
  new = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
  return swap("<xmin>41</xmin><ymin>16</ymin><xmax>60</xmax><ymax>35</ymax>", new)


def entry(table: str, **changes: Any) -> Change:
  """Changes the first entry of a table of the JSON; ... takes a key away."""

  def change(content: str) -> str:
    values = json.loads(content)
    first = values[table][0] | changes
    values[table][0] = {key: value for key, value in first.items() if value is not ...}
    return json.dumps(values)

  return change


def top(**changes: Any) -> Change:
  return lambda content: json.dumps(
    {key: value for key, value in (json.loads(content) | changes).items() if value is not ...}
  )


def replaced(content: str | bytes) -> Change:
  return lambda old: content


CUT = picture(1)[:-120]
OTHER_SIZE = picture(1, (64, 64))
HALF_SIZE = picture(1, (50, 25))
TURNED = picture(1, orientation=6)  # 100 x 50 for tools that do not know EXIF, 50 x 100 for all that show it
OBJECT_A = r"/a\.xml:3: object 1"
GONE: None = None


@dataclasses.dataclass(frozen=True)
class Row:
  """One way to be wrong; `kind` is None where nothing is left to skip, so that both policies raise."""

  what: str
  format: str
  file: str
  change: Change | None
  stop: str
  kind: ProblemKind | None
  left: tuple[int, int] = (3, 5)


def labels(what: str, change: Change | None, stop: str, kind: ProblemKind, left: tuple[int, int] = (3, 5)) -> list[Row]:
  """Darknet and YOLO have the same label files."""
  return [
    Row(what, "darknet", "img/a.txt", change, rf"/img/a\.txt:1: {stop}", kind, left),
    Row(what, "yolo", "labels/val/a.txt", change, rf"/labels/val/a\.txt:1: {stop}", kind, left),
  ]


def image_files(what: str, change: Change | None, stop: str, kind: ProblemKind) -> list[Row]:
  """Image files are the same everywhere; `stop` follows the path."""
  return [
    Row(what, kind_of_data, file, change, rf"/{file}'?:? {stop}", kind, (2, 4 if kind_of_data != "imagefolder" else 0))
    for kind_of_data, file in (
      ("coco", "images/b.jpg"),
      ("voc", "JPEGImages/b.jpg"),
      ("darknet", "img/b.jpg"),
      ("yolo", "images/val/b.jpg"),
      ("imagefolder", "photos/cat/b.jpg"),
    )
    if not (change is GONE and kind_of_data in ("yolo", "imagefolder"))  # found in a folder: nobody misses them
  ]


OUT = r"reaches \d+ px outside its 100x50 image"
ROWS = [
  # boxes
  *labels("box partly outside", line("0 .9 .5 .4 .2"), rf"x y w h = .* {OUT}", OUTSIDE, (3, 6)),
  Row("box partly outside", "voc", "Annotations/a.xml", corners(61, 16, 130, 35), rf"{OBJECT_A} .* {OUT}", OUTSIDE, (3, 6)),
  Row("box partly outside", "coco", "a.json", entry("annotations", bbox=[90, 5, 30, 9]), rf"a\.json: annotation 0: box .* {OUT}", OUTSIDE, (3, 6)),
  *labels("box outside", line("0 1.5 .5 .2 .2"), rf"x y w h = .* {OUT}", OUTSIDE),
  Row("box outside", "voc", "Annotations/a.xml", corners(201, 16, 230, 35), rf"{OBJECT_A} .* {OUT}", OUTSIDE),
  Row("box outside", "coco", "a.json", entry("annotations", bbox=[-90, 5, 30, 9]), rf"annotation 0: box .* {OUT}", OUTSIDE),
  *labels("zero size", line("0 .5 .5 0 .2"), r"box width 0 and height 0\.2 \(relative\) must be positive", NO_SIZE),
  Row("zero size", "voc", "Annotations/a.xml", corners(5, 9, 5, 9), rf"{OBJECT_A} .* has size 0x0", NO_SIZE),
  Row("zero size", "coco", "a.json", entry("annotations", bbox=[9, 9, 0, 3]), r"annotation 0: box .* has size 0x3", NO_SIZE),
  *labels("negative size", line("0 .5 .5 .2 -.2"), r"box width 0\.2 and height -0\.2", NO_SIZE),
  Row("negative size", "voc", "Annotations/a.xml", corners(60, 35, 41, 16), rf"{OBJECT_A} .* has size -19x-19", NO_SIZE),
  Row("negative size", "coco", "a.json", entry("annotations", bbox=[9, 9, -3, 3]), r"annotation 0: box .* has size -3x3", NO_SIZE),
  *labels("not a number", line("0 nan .5 .2 .2"), r"x y w h = nan .* is not finite", NOT_FINITE),
  Row("not a number", "voc", "Annotations/a.xml", corners("nan", 5, 9, 9), rf"{OBJECT_A} .* is not finite", NOT_FINITE),
  Row("not a number", "coco", "a.json", entry("annotations", bbox=[9, float("nan"), 3, 3]), r"annotation 0: box .* is not finite", NOT_FINITE),
  *labels("infinite", line("0 .5 .5 inf .2"), r"x y w h = .* inf .* is not finite", NOT_FINITE),
  *labels("pixels instead of shares", line("0 50 25 20 20"), "x y w h = 50 25 20 20 look like pixels; expected values", MALFORMED),
  Row("shares instead of pixels", "voc", "Annotations/a.xml", corners(0.4, 0.3, 0.6, 0.7), rf"{OBJECT_A} .* looks relative to the image; expected pixels", MALFORMED),
  Row("shares instead of pixels", "coco", "a.json", entry("annotations", bbox=[0.4, 0.3, 0.2, 0.4]), r"annotation 0: bbox .* looks relative", MALFORMED),
  # fields
  *labels("text for a number", line("0 .5 x .2 .2"), r"'0 \.5 x \.2 \.2' holds what is no number; expected 'class x y w h'", MALFORMED),
  Row("text for a number", "voc", "Annotations/a.xml", corners(5, "x", 30, 9), rf"{OBJECT_A}: <bndbox/ymin> is 'x'; expected a number", MALFORMED),
  Row("text for a number", "coco", "a.json", entry("annotations", bbox=[1, "2", 3, 4]), r"annotation 0: bbox is \[1, '2', 3, 4\]; expected four numbers", MALFORMED),
  *labels("too few fields", line("0 .5 .5 .2"), r"'0 \.5 \.5 \.2' has 4 values; expected 'class x y w h'", MALFORMED),
  Row("too few fields", "voc", "Annotations/a.xml", corners(5, 5, 9), rf"{OBJECT_A}: <bndbox/ymax> is missing or empty", MALFORMED),
  Row("too few fields", "coco", "a.json", entry("annotations", bbox=[1, 2, 3]), r"annotation 0: bbox is \[1, 2, 3\]; expected four numbers", MALFORMED),
  *labels("too many fields", line("0 .5 .5 .2 .2 .9"), r"'0 .*' has 6 values; .*the sixth looks like the confidence", MALFORMED),
  *labels("a track", line("0 .5 .5 .2 .2 .9 12"), r"'0 .*' has 7 values, the last a whole number: a triangle, or a box with", MALFORMED),
  *labels("half a point", line("0 .1 .1 .2 .1 .2 .2 .3"), r"'0 .*' has 8 values; expected 'class x y w h', or a polygon", MALFORMED),
  *labels("polygon in pixels", line("0 10 10 20 10 20 20 10 20"), r"polygon of 4 points from 10 10 to 20 20 look like pixels", MALFORMED),
  *labels("polygon without area", line("0 .1 .1 .2 .1 .3 .1"), r"box width 0\.2 and height 0 \(relative\) must be positive", NO_SIZE),
  *labels("polygon of no numbers", line("0 .1 .1 nan .1 .3 .3"), r"polygon of 3 points from nan .* is not finite", NOT_FINITE),
  Row("missing key", "coco", "a.json", entry("annotations", bbox=...), r"annotation 0: bbox is None; expected four numbers", MALFORMED),
  Row("missing name", "voc", "Annotations/a.xml", swap("<name>cat</name>", ""), rf"{OBJECT_A}: <name> is missing or empty", MALFORMED),
  Row("odd difficult", "voc", "Annotations/a.xml", swap("<difficult>0<", "<difficult>maybe<"), rf"{OBJECT_A}: <difficult> is 'maybe'; expected true or false", MALFORMED),
  # classes
  *labels("class id too large", line("2 .5 .5 .2 .2"), r"class id 2 is not among the 2 classes 0\.\.1", CLASS),
  *labels("negative class id", line("-1 .5 .5 .2 .2"), r"class id -1 is not among", CLASS),
  *labels("broken class id", line("0.5 .5 .5 .2 .2"), r"class id 0\.5 is not among", CLASS),
  *labels("class name for its id", line("cat .5 .5 .2 .2"), r"'cat \.5 \.5 \.2 \.2' holds what is no number", MALFORMED),
  Row("unknown category", "coco", "a.json", entry("annotations", category_id=9), r"annotation 0: category_id 9 is not among the 2 categories", CLASS),
  Row("duplicate category id", "coco", "a.json", entry("categories", id=2), r"a\.json: two entries of kind category have id 2", DUPLICATE, (3, 3)),
  Row("duplicate category name", "coco", "a.json", entry("categories", name="dog"), r"the categories 1 and 2 are both called 'dog'", DUPLICATE, (3, 6)),
  Row("duplicate class name", "darknet", "x.names", replaced("cat\ncat\n"), r"x\.names: the class name 'cat' occurs twice", None),
  Row("duplicate class name", "yolo", "data.yaml", swap("dog", "cat"), r"data\.yaml: the class name 'cat' occurs twice", None),
  Row("wrong number of classes", "darknet", "x.data", swap("= 2", "= 80"), r"classes = 80, but .*x\.names holds 2 names", None),
  # images
  *image_files("missing image", GONE, r"(the image file does not exist|the image of id 1 in .*a\.json does not exist)", MISSING),
  *image_files("empty image", replaced(b""), r"(is empty \(0 bytes\)|the file is empty)", UNREADABLE),
  *image_files("truncated image", replaced(CUT), r"is truncated", UNREADABLE),
  *image_files("no image", replaced(b"<html>404</html>"), r"(the file )?is not an image: it starts with b'<html", UNREADABLE),
  Row("image of another size", "coco", "images/b.jpg", replaced(OTHER_SIZE), r"b\.jpg' is 64x64, but the annotations say 100x50", MALFORMED, (2, 4)),
  Row("image of another size", "voc", "JPEGImages/b.jpg", replaced(OTHER_SIZE), r"/b\.xml:2: <size> is 100x50, but .*b\.jpg is 64x64", MALFORMED, (2, 4)),
  Row("scaled image", "coco", "images/b.jpg", replaced(HALF_SIZE), r"b\.jpg' is 50x25, but the annotations say 100x50", MALFORMED, (2, 4)),
  Row("scaled image", "voc", "JPEGImages/b.jpg", replaced(HALF_SIZE), r"/b\.xml:2: <size> is 100x50, but .*b\.jpg is 50x25", MALFORMED, (2, 4)),
  Row("turned image", "coco", "images/b.jpg", replaced(TURNED), r"b\.jpg' is 50x100, but the annotations say 100x50", MALFORMED, (2, 4)),
  Row("turned image", "voc", "JPEGImages/b.jpg", replaced(TURNED), r"/b\.xml:2: <size> is 100x50, but .*b\.jpg is 50x100", MALFORMED, (2, 4)),
  Row("image without file name", "coco", "a.json", entry("images", file_name=...), r"a\.json: the image of id 0 has file_name None", MALFORMED, (2, 4)),
  # identities
  Row("duplicate image id", "coco", "a.json", entry("images", id=1), r"a\.json: two entries of kind image have id 1", DUPLICATE, (2, 4)),
  Row("duplicate annotation id", "coco", "a.json", entry("annotations", id=1), r"a\.json: two annotations of image 0 have id 1", DUPLICATE),
  Row("broken segmentation", "coco", "a.json", entry("annotations", bbox=..., segmentation=[[1, 2, 3]]), r"annotation 0: it has no bbox, and its segmentation holds a polygon that", MALFORMED),
  Row("odd ignore", "coco", "a.json", entry("annotations", ignore="maybe"), r"annotation 0: ignore is 'maybe'; expected true or false", MALFORMED),
  Row("odd ignored region", "coco", "a.json", entry("images", ignored_regions=[[1, 2, 3]]), r"ignored region 1 of image 0: it is \[1, 2, 3\]; expected four numbers", MALFORMED, (3, 6)),
  Row("ignored region outside", "voc", "Annotations/a.xml", swap("</annotation>", "<ignored><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>110</xmax><ymax>9</ymax></bndbox></ignored></annotation>"), r"a\.xml:7: ignored region 1: box .* reaches 10 px outside", OUTSIDE, (3, 6)),
  Row("unknown image id", "coco", "a.json", entry("annotations", image_id=9), r"annotation 0: image_id 9 is not among the 3 images", IMAGE),
  Row("image listed twice", "darknet", "list.txt", lambda old: old + "img/a.jpg\n", r"list\.txt:4: .*img/a\.jpg is listed again", DUPLICATE, (3, 6)),
  Row("image listed twice", "voc", "ImageSets/Main/val.txt", lambda old: old + "a\n", r"val\.txt:4: image 'a' is listed again \(first in line 1\)", DUPLICATE, (3, 6)),
  # files
  Row("missing label file", "voc", "Annotations/a.xml", GONE, r"a\.xml: the annotation file does not exist", NO_LABEL, (2, 4)),
  Row("label file of bytes", "darknet", "img/a.txt", replaced(b"\x89PNG\xff"), r"a\.txt: it is no text: byte 0 is no UTF-8; expected UTF-8, or UTF-16 with its mark", MALFORMED, (3, 4)),
  Row("label file of bytes", "yolo", "labels/val/a.txt", replaced(b"\x89PNG\xff"), r"a\.txt: it is no text: byte 0 is no UTF-8; expected UTF-8, or UTF-16 with its mark", MALFORMED, (3, 4)),
  Row("broken XML", "voc", "Annotations/a.xml", swap("</annotation>", ""), r"a\.xml:8: it is no valid XML: no element found", MALFORMED, (2, 4)),
  Row("empty XML", "voc", "Annotations/a.xml", replaced(""), r"a\.xml:1: it is no valid XML: no element found", MALFORMED, (2, 4)),
  Row("truncated JSON", "coco", "a.json", lambda old: old[:-30], r"a\.json:1 is no valid JSON: .* at column \d+", None),
  Row("JSON of bytes", "coco", "a.json", replaced(b"\x89PNG\xff\xfe"), r"a\.json is no text: byte 0 is no UTF-8", None),
  Row("JSON of a list", "coco", "a.json", replaced("[1, 2]"), r"a\.json has no list 'images'; expected COCO's", None),
  Row("JSON without annotations", "coco", "a.json", top(annotations=...), r"a\.json has no list 'annotations'", None),
  Row("annotations of another type", "coco", "a.json", top(annotations={"1": 2}), r"has no list 'annotations'", None),
  Row("no images", "coco", "a.json", top(images=[], annotations=[]), r"a\.json holds no images", None),
  Row("empty list", "darknet", "list.txt", replaced("\n \n"), r"list\.txt \(valid of .*x\.data\) holds no images", None),
  Row("empty list", "voc", "ImageSets/Main/val.txt", replaced(""), r"split 'val', holds no images", None),
  Row("list of bytes", "darknet", "list.txt", replaced(b"\xff\xfe\0"), r"list\.txt is no text: byte 2 is no UTF-16", None),
  Row("list of bytes", "voc", "ImageSets/Main/val.txt", replaced(b"\xff\xfe\0"), r"val\.txt is no text: byte 2 is no UTF-16", None),
  Row("broken YAML", "yolo", "data.yaml", replaced("names: [cat, dog\n"), r"data\.yaml:1 is no valid YAML: did not find expected", None),
  Row("YAML without names", "yolo", "data.yaml", replaced("val: images/val\n"), r"data\.yaml has no 'names'", None),
  Row("YAML of another type", "yolo", "data.yaml", replaced("- 1\n- 2\n"), r"data\.yaml has no 'names'", None),
  Row("folder of another name", "yolo", "data.yaml", swap("images/val", "images/vla"), r"'val' is 'images/vla', but there is no", None),
  Row("broken .data", "darknet", "x.data", replaced("classes 2\n"), r"x\.data:1: 'classes 2' is no 'key = value'", None),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Used:
  """What was left of the data, and what was not."""

  images: int
  objects: int
  problems: tuple[Problem, ...]


def inspect(spec: str, policy: str) -> Used:
  """What `prn data inspect` shows."""
  summary = summarize(open_spec(spec, policy), spec, on_bad_data=policy)
  return Used(len(summary.image_ids), len(summary.classes), summary.problems)


def train(spec: str, policy: str) -> Used:
  """What is in the batch of a whole epoch."""
  dataset = open_spec(spec, policy)
  is_classification = dataset[0].label is not None
  augment = NO_CLASSIFICATION_AUGMENT if is_classification else NO_DETECTION_AUGMENT
  config = PipelineConfig(
    seed=0, batch_size=len(dataset), sizes=((32, 32),), max_boxes=4, threads=0, on_bad_data=policy
  )
  with train_batches(dataset, augment, config, num_steps=1) as batches:
    ((_, batch),) = batches
  again = batch_at(dataset, augment, config, 0)
  assert all(again[key].tobytes() == value.tobytes() for key, value in batch.items())
  _, first = np.unique(batch["index"], return_index=True)
  is_object = lambda rows: (rows[..., 2] > 0) & (rows[..., 4] != IGNORED_CLASS)  # noqa: E731
  objects = 0 if is_classification else int(is_object(batch["truth"][first]).sum())
  return Used(len(first), objects, (*dataset.problems, *batches.report.problems))


def evaluate(spec: str, policy: str) -> Used:
  """What an evaluation compares."""
  dataset = open_spec(spec, policy)
  with eval_batches(dataset, (32, 32), batch_size=2, threads=0, on_bad_data=policy) as batches:
    used = [int(index) for batch in batches for index in batch["index"][batch["mask"]]]
  objects = sum(len(dataset[index].classes) for index in used)
  return Used(len(used), objects, (*dataset.problems, *batches.problems))


USES = (inspect, train, evaluate)
Use = Callable[[str, str], Used]
each_use = pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)


def damage(row: Row, root: Path) -> str:
  spec = make(row.format, root)
  path = root / row.file
  if row.change is None:
    path.unlink()
    return spec
  old = path.read_bytes()
  new = row.change("" if path.suffix == ".jpg" else old.decode())
  path.write_bytes(new.encode() if isinstance(new, str) else new)
  return spec


def name(row: Row) -> str:
  return f"{row.what}-{row.format}".replace(" ", "_")


@each_use
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_stop_names_the_place(tmp_path: Path, row: Row, use: Use) -> None:
  with pytest.raises(DataError, match=row.stop) as caught:
    use(damage(row, tmp_path), "stop")
  if row.kind is not None:
    assert "on_bad_data='skip'" in str(caught.value)
    assert "With on_bad_data='skip' (--on-bad-data skip)" in str(caught.value) or use is not inspect


IDS = {  # of what is not told apart by its kind alone
  "pixels instead of shares": "labels.wrong_unit",
  "shares instead of pixels": "labels.wrong_unit",
  "polygon in pixels": "labels.wrong_unit",
  "too few fields": "labels.malformed",
  "broken XML": "labels.malformed",
  "image of another size": "images.other_size",
  "scaled image": "images.other_size",
  "turned image": "images.other_size",
  "image without file name": "images.malformed",
  "image listed twice": "images.duplicate",
  "duplicate category name": "classes.duplicate",
  "duplicate annotation id": "labels.duplicate",
  "box outside": "labels.outside_image",
  "truncated image": "images.unreadable",
}


@each_use
@pytest.mark.parametrize("row", [row for row in ROWS if row.kind is not None], ids=name)
def test_skip_counts_and_lists(tmp_path: Path, row: Row, use: Use) -> None:
  used = use(damage(row, tmp_path), "skip")
  assert (used.images, used.objects) == row.left
  counts = count_problems(used.problems)
  if row.what == "duplicate category id":  # the category that is left has no objects of the other id
    assert counts == {"unknown class": 3, "duplicate": 1}
  elif row.what == "duplicate image id":  # the file has no image 0 any more
    assert counts == {"unknown image": 2, "duplicate": 1}
  elif row.what == "image without file name":
    assert counts == {"malformed": 1}
  else:
    assert counts == {str(row.kind): 1}
  assert str(tmp_path) in str(used.problems[0])
  assert row.what not in IDS or [str(problem.check) for problem in used.problems] == [IDS[row.what]]


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind is None], ids=name)
def test_what_cannot_be_skipped_stops_both(tmp_path: Path, row: Row) -> None:
  with pytest.raises(DataError, match=row.stop):
    inspect(damage(row, tmp_path), "skip")


def test_the_table_is_long_enough() -> None:
  assert len({row.what for row in ROWS}) >= 25
  assert {row.format for row in ROWS} == {"coco", "voc", "darknet", "yolo", "imagefolder"}


FORMATS = ("coco", "voc", "darknet", "yolo", "imagefolder")


@each_use
@pytest.mark.parametrize("kind", FORMATS)
def test_good_data_has_no_problems(tmp_path: Path, kind: str, use: Use) -> None:
  assert use(make(kind, tmp_path), "stop") == Used(3, 0 if kind == "imagefolder" else 6, ())


@pytest.mark.parametrize(
  ("kind", "file", "change", "objects"),
  [
    ("yolo", "labels/val/a.txt", lambda old: "", 4),  # an image of which somebody says that nothing is on it
    ("darknet", "img/a.txt", lambda old: "\n  \n", 4),
    ("yolo", "labels/val/a.txt", None, 4),  # both formats say so by leaving the file out
    ("darknet", "img/a.txt", None, 4),
    ("voc", "Annotations/a.xml", lambda old: "<annotation></annotation>", 4),
    ("yolo", "labels/val/a.txt", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),  # as Windows writes it
    ("darknet", "img/a.txt", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("darknet", "list.txt", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("darknet", "x.data", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("darknet", "x.names", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("voc", "ImageSets/Main/val.txt", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("voc", "Annotations/a.xml", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("coco", "a.json", lambda old: "\ufeff" + old, 6),
    ("yolo", "data.yaml", lambda old: "\ufeff" + old.replace("\n", "\r\n"), 6),
    ("voc", "Annotations/a.xml", lambda old: old.replace("<width>100", "<width>0"), 6),  # a tool that never knew
  ],
)
def test_what_only_looks_bad(tmp_path: Path, kind: str, file: str, change: Change | None, objects: int) -> None:
  spec = damage(Row("", kind, file, change, "", None), tmp_path)
  assert [use(spec, "stop") for use in USES] == [Used(3, objects, ())] * len(USES)
  assert open_spec(spec).names[:2] == ("cat", "dog") or kind == "voc"
