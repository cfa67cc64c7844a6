"""Darknet's .data and YOLO's data.yaml: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.doctor.summary import summarize
from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.sources.darknet import darknet_label_path, read_data_file
from prn_jax.data_pipelines.sources.yolo import yolo_label_path
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

GOOD = "1 0.5 0.5 0.2 0.4\n"


def darknet(tmp_path: Path, label: str | None = GOOD, listed: str = "img/a.jpg\n", extra: str = "") -> str:
  write_image(tmp_path / "img" / "a.jpg")
  if label is not None:
    write(tmp_path / "img" / "a.txt", label)
  write(tmp_path / "valid.txt", listed)
  write(tmp_path / "x.names", "cat\ndog\n\n")
  path = write(tmp_path / "x.data", f"# a comment\nclasses= 2\nvalid  = valid.txt\nnames = x.names\n{extra}")
  return f"darknet:{path}:valid"


def yolo(tmp_path: Path, yaml: str, label: str | None = GOOD) -> Path:
  for name in ("a", "b"):
    write_image(tmp_path / "images" / "val" / f"{name}.jpg")
  if label is not None:
    write(tmp_path / "labels" / "val" / "a.txt", label)
  return write(tmp_path / "data.yaml", yaml)


def test_darknet_values(tmp_path: Path) -> None:
  dataset = open_spec(darknet(tmp_path))
  assert dataset.names == ("cat", "dog")
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  np.testing.assert_allclose(record.boxes_xyxy_px, [[40, 15, 60, 35]], atol=1e-5)
  assert record.classes.tolist() == [1]


def test_relative_labels_refer_to_the_upright_image(tmp_path: Path) -> None:
  spec = darknet(tmp_path)
  exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
  write_image(tmp_path / "img" / "a.jpg", exif=exif)
  record = open_spec(spec)[0]
  assert (record.width, record.height) == (50, 100)
  np.testing.assert_allclose(record.boxes_xyxy_px, [[20, 30, 30, 70]], atol=1e-5)


@pytest.mark.parametrize(
  ("image", "label"),
  [
    ("/d/coco/images/train2017/1.jpg", "/d/coco/labels/train2017/1.txt"),
    ("/d/coco/images/val2014/1.jpg", "/d/coco/labels/val2014/1.txt"),
    ("/d/VOC2007/JPEGImages/1.png", "/d/VOC2007/labels/1.txt"),
    ("/d/images/1.jpg", "/d/images/1.txt"),  # beside the image: Darknet knows only the folders above
    ("img/a.b.JPEG", "img/a.b.txt"),
  ],
)
def test_darknet_label_paths(image: str, label: str) -> None:
  assert darknet_label_path(Path(image)) == Path(label)


@pytest.mark.parametrize(
  ("image", "label"),
  [
    ("/d/images/train/1.jpg", "/d/labels/train/1.txt"),
    ("/d/images/images/1.jpg", "/d/images/labels/1.txt"),
    ("/d/photos/1.jpg", "/d/photos/1.txt"),
    ("/d/photos/images.jpg", "/d/photos/images.txt"),
  ],
)
def test_yolo_label_paths(image: str, label: str) -> None:
  assert yolo_label_path(Path(image)) == Path(label)


BAD = [
  ("0 .5 .5 .2", r"'0 .5 .5 .2' has 4 values; expected 'class x y w h'", "malformed"),
  (
    "0 .1 .1 .2 .1 .2 .2 .4",
    r"'0 .*' has 8 values; expected .* or a polygon 'class x1 y1 x2 y2 x3 y3 ...'",
    "malformed",
  ),
  ("0 .5 x .2 .2", r"'0 .5 x .2 .2' holds what is no number", "malformed"),
  ("2 .5 .5 .2 .2", r"class id 2 is not among the 2 classes 0..1", "unknown class"),
  ("-1 .5 .5 .2 .2", r"class id -1 is not among", "unknown class"),
  ("0.5 .5 .5 .2 .2", r"class id 0.5 is not among", "unknown class"),
  ("nan .5 .5 .2 .2", r"class id nan is not among", "unknown class"),
  ("0 .5 .5 0 .2", r"box width 0 and height 0.2 \(relative\) must be positive", "no size"),
  ("0 .5 .5 -.1 .2", r"box width -0.1 and height 0.2 \(relative\) must be positive", "no size"),
  ("0 .5 nan .2 .2", r"x y w h = 0.5 nan 0.2 0.2: box .* is not finite", "not finite"),
  ("0 1.5 .5 .2 .2", r"x y w h = 1.5 .* reaches 60 px outside its 100x50 image", "outside the image"),
]


@pytest.mark.parametrize(("bad", "message", "kind"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_bad_lines_stop_or_are_left_out(tmp_path: Path, bad: str, message: str, kind: str) -> None:
  spec = darknet(tmp_path, f"\n{bad}\n{GOOD}")
  with pytest.raises(DataError, match=rf"a\.txt:2: {message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert dataset[0].classes.tolist() == [1]
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset.problems[0].line == 2


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
  assert open_spec(darknet(tmp_path, "1.0 .5 .5 .2 .2"))[0].classes.tolist() == [1]


def test_no_text_in_a_label_file(tmp_path: Path) -> None:
  spec = darknet(tmp_path)
  (tmp_path / "img" / "a.txt").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(DataError, match=r"a\.txt: it is no text: byte 2 is no UTF-16"):
    open_spec(spec)


@pytest.mark.parametrize(
  ("listed", "message", "kind"),
  [
    ("img/a.jpg\nimg/b.jpg\n", r"b\.jpg: the image file does not exist", "missing image"),
    ("img/a.jpg\nimg/empty.jpg\n", r"empty\.jpg: the file is empty", "unreadable image"),
    (
      "img/a.jpg\nimg/text.jpg\n",
      r"text\.jpg: the file is not an image: it starts with b'no image'",
      "unreadable image",
    ),
    ("img/a.jpg\n\nimg/a.jpg\n", r"valid\.txt:3: .*a\.jpg is listed again", "duplicate"),
  ],
)
def test_bad_images_stop_or_are_left_out(tmp_path: Path, listed: str, message: str, kind: str) -> None:
  spec = darknet(tmp_path, listed=listed)
  write(tmp_path / "img" / "empty.jpg", "")
  write(tmp_path / "img" / "text.jpg", "no image")
  with pytest.raises(DataError, match=message):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert len(dataset) == 1
  assert [problem.kind for problem in dataset.problems] == [kind]


def test_an_image_without_label_file_has_no_objects(tmp_path: Path) -> None:
  spec = darknet(tmp_path, listed="img/a.jpg\nimg/b.jpg\n")
  write_image(tmp_path / "img" / "b.jpg")
  dataset = open_spec(spec)
  assert [len(dataset[index].classes) for index in range(2)] == [1, 0]


def test_no_label_file_at_all_is_an_error(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"none of 1 images has a label file; expected e\.g\. .*img/a\.txt"):
    open_spec(darknet(tmp_path, label=None))


def test_difficult_labels_run_beside_the_list(tmp_path: Path) -> None:
  write(tmp_path / "difficult.txt", "hard/a.jpg\n")
  write(tmp_path / "hard" / "a.txt", "0 .5 .5 .1 .1\n")
  spec = darknet(tmp_path, extra="difficult = difficult.txt\n")
  record = open_spec(spec)[0]
  assert record.classes.tolist() == [1, 0]
  assert record.is_difficult.tolist() == [False, True]
  write(tmp_path / "difficult.txt", "hard/a.jpg\nhard/b.jpg\n")
  with pytest.raises(DataError, match=r"difficult\.txt lists 2 images and .*valid\.txt 1; they run in parallel"):
    open_spec(spec)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("classes 2\n", r"x\.data:1: 'classes 2' is no 'key = value'"),
    ("valid = valid.txt\n", r"x\.data has no 'names = ...'; found valid"),
    ("names = x.names\n", r"x\.data has no 'valid = ...'; found names"),
    ("names = y.names\n", r"names of .*x\.data: there is no file 'y\.names'; looked for"),
    ("names = x.names\nclasses = 3\n", r"classes = 3, but .*x\.names holds 2 names; they must agree"),
    ("names = x.names\nclasses = many\n", r"classes is 'many'; expected a whole number"),
    ("names = x.names\nvalid = none.txt\n", r"valid of .*x\.data: there is no file 'none\.txt'"),
    ("names = twice.names\n", r"twice\.names: the class name 'cat' occurs twice"),
    ("names = x.names\nvalid = empty.txt\n", r"empty\.txt \(valid of .*x\.data\) holds no images"),
  ],
)
def test_bad_data_files(tmp_path: Path, text: str, message: str) -> None:
  spec = darknet(tmp_path)
  write(tmp_path / "twice.names", "cat\ncat\n")
  write(tmp_path / "empty.txt", "\n")
  write(tmp_path / "x.data", text)
  with pytest.raises(DataError, match=message):
    open_spec(spec)


def test_split_of_darknet_is_train_or_valid(tmp_path: Path) -> None:
  with pytest.raises(DataError, match="the split is 'val'; expected train or valid"):
    open_spec(darknet(tmp_path)[:-2])


def test_real_data_file(shared: Path) -> None:
  path = shared / "data" / "weights" / "yolo-fastest-1.1" / "coco.data"
  assert read_data_file(path)["names"] == "coco.names"
  with pytest.raises(DataError, match=r"valid of .*coco\.data: there is no file '~/COCO/val2017\.txt'"):
    open_spec(f"darknet:{path}:valid")


@pytest.mark.parametrize(
  "yaml",
  [
    "names: [cat, dog]\nval: images/val\n",
    "names: {0: cat, 1: dog}\nnc: 2\nval: [images/val]\n",
    "names: {'0': cat, '1': dog}\nnc: '2'\nval: images/val\n",
    "names: [cat, dog]\nnc: 2.0\nval: images/val\ntest:\n",
    "names: [cat, dog]\npath: .\nval: val.txt\n",
    "names: [cat, dog]\nval: ../images/val\n",  # as Roboflow writes it
    "names: [cat, dog]\nvalid: images/val\n",
    "names: [cat, dog]\n",  # the folder ROOT/images/val
  ],
)
def test_yolo_values(tmp_path: Path, yaml: str) -> None:
  write(tmp_path / "val.txt", "images/val/a.jpg\n\nimages/val/b.jpg\n")
  dataset = open_spec(f"yolo:{yolo(tmp_path, yaml)}:val")
  assert dataset.names == ("cat", "dog")
  assert [dataset[index].image_id for index in range(len(dataset))] == ["a", "b"]
  np.testing.assert_allclose(dataset[0].boxes_xyxy_px, [[40, 15, 60, 35]], atol=1e-5)
  assert len(dataset[1].classes) == 0


@pytest.mark.parametrize(
  ("yaml", "message"),
  [
    ("names: [cat, dog\n", "is no valid YAML"),
    ("train: x\n", "has no 'names'; .* found train"),
    ("- a\n", "has no 'names'; "),
    ("names: {0: cat, 2: dog}\nval: images/val\n", r"names has the keys \['0', '2'\]; expected 0..1"),
    ("names: cat\nval: images/val\n", "names is 'cat'; expected a list of class names"),
    ("names: [cat, dog]\nnc: 3\nval: images/val\n", "nc is 3, but there are 2 names; they must agree"),
    ("names: [cat, dog]\nnc: two\nval: images/val\n", r"data\.yaml:2: nc is 'two'; expected a whole number"),
    ("names: [cat, null]\nval: images/val\n", r"data\.yaml:1: names\[1\] is None; expected text"),
    ("names: {0: cat, x: dog}\nval: images/val\n", "names has a key that is 'x'; expected a whole number"),
    ("names: [cat, dog]\nval: {a: b}\n", r"data\.yaml:2: val is \{'a': 'b'\}; expected text"),
    ("names: [cat, cat]\nval: images/val\n", "the class name 'cat' occurs twice"),
    ("names: [cat, dog]\nval: nowhere\n", "'val' is 'nowhere', but there is no .*nowhere"),
    ("names: [cat, dog]\nval: /\n", "'val' is '/', which is the whole disk; expected a folder of images"),
    ("names: [cat, dog]\nval: labels\n", "split 'val', holds no images; expected files ending in"),
  ],
)
def test_bad_yaml(tmp_path: Path, yaml: str, message: str) -> None:
  with pytest.raises(DataError, match=message):
    open_spec(f"yolo:{yolo(tmp_path, yaml)}:val")


def test_unknown_split_lists_what_there_is(tmp_path: Path) -> None:
  path = yolo(tmp_path, "names: [cat, dog]\nval: images/val\n")
  with pytest.raises(DataError, match=r"has no split 'test' \(it has val\), and there is no folder .*test/images or"):
    open_spec(f"yolo:{path}:test")
  path = yolo(tmp_path, "names: [cat, dog]\n")
  with pytest.raises(
    DataError, match=r"has no split 'test' \(it names no split: write 'test: FOLDER OF IMAGES' into it\),"
  ):
    open_spec(f"yolo:{path}:test")


@pytest.mark.parametrize(
  ("folder", "split", "num_images", "num_boxes"),
  [
    ("traffic_atl", "images", 211, 3727),
    ("vehicles_openimages", "train", 439, 838),
    ("vehicles_openimages", "test", 63, 129),
  ],
)
def test_real_yolo(shared: Path, folder: str, split: str, num_images: int, num_boxes: int) -> None:
  dataset = open_spec(f"yolo:{shared / 'data' / folder / 'data.yaml'}:{split}")
  assert len(dataset) == num_images
  assert sum(len(dataset[index].classes) for index in range(len(dataset))) == num_boxes


def test_names_are_what_is_written(tmp_path: Path) -> None:
  names = ["no", "yes", "on", "off", "y", "007", "1.10", "true", "2020-01-01", "0x1F"]
  assert list(open_spec(f"yolo:{yolo(tmp_path, 'names: [' + ', '.join(names) + ']')}:val").names) == names


@pytest.mark.parametrize(
  "value", ["~nobody_of_this_name", "~", "/", "\\0", "x" * 5000, "9" * 5000, "&a [*a]", "[[[]]]", "inf"]
)
@pytest.mark.parametrize("key", ["names", "nc", "path", "val"])
def test_hostile_values_of_a_yaml_are_named(tmp_path: Path, key: str, value: str) -> None:
  lines = {"names": "[cat, dog]", "val": "images/val"} | {key: f'"{value}"' if value == "\\0" else value}
  with contextlib.suppress(DataError):
    open_spec(f"yolo:{yolo(tmp_path, ''.join(f'{key}: {each}' + chr(10) for key, each in lines.items()))}:val")


# -- data of other machines and tools ----------------------------------------------------------------------------------


def pictures(root: Path, *names: str, label: str = GOOD) -> None:
  for name in names:
    write_image(root / name)
    write((root / name).with_suffix(".txt"), label)


@pytest.mark.parametrize(
  "listed",
  [
    "img\\a.png\r\nimg\\b.png\r\n",
    "C:\\work\\set\\img\\a.png\nC:\\work\\set\\img\\b.png\n",
    "\\\\server\\share\\img\\a.png\n\\\\server\\share\\img\\b.png\n",
    "/home/somebody/set/img/a.png\n/home/somebody/set/img/b.png\n",
    "data/img/a.png\ndata/img/b.png\n",
    "./img/a.png  \n  ./img/b.png\n",
    "\"img/a.png\"\n'img/b.png'\n",
    "file:///C:/set/img/a.png\nfile:///home/x/img/b.png\n",
    "IMG/A.PNG\nImg/b.Png\n",
    "../img/a.png\n../img/b.png\n",
  ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_lists_of_other_machines(tmp_path: Path, listed: str, encoding: str) -> None:
  pictures(tmp_path, "img/a.png", "img/b.png")
  (tmp_path / "train.txt").write_bytes(listed.encode(encoding))
  (tmp_path / "x.names").write_bytes("猫\r\n狗\r\n".encode(encoding))
  (tmp_path / "x.data").write_bytes("classes = 2\ntrain = data\\train.txt\nnames = /w/x.names\n".encode(encoding))
  dataset = open_spec(f"darknet:{tmp_path / 'x.data'}:train")
  assert dataset.names == ("猫", "狗")
  assert [dataset[index].image for index in range(2)] == [tmp_path / "img" / name for name in ("a.png", "b.png")]
  assert [len(dataset[index].classes) for index in range(2)] == [1, 1]
  assert dataset.problems == ()
  first = listed.splitlines()[0].strip()
  said = f"2 names in {tmp_path / 'train.txt'} taken for files of this machine, e.g. '{first}' for {tmp_path}/img/a.png"
  assert notes_of(dataset) == (() if listed.startswith("./") else (said,))


def test_a_list_of_images_that_are_not_here_says_so(tmp_path: Path) -> None:
  spec = darknet(tmp_path, listed="obj\\x.png\nobj\\y.png\n")
  with pytest.raises(DataError, match=r"valid\.txt: none of its 2 images exists; the first would be .*/obj/x\.png\."):
    open_spec(spec, "skip")


def test_a_missing_image_beside_others_is_missing(tmp_path: Path) -> None:
  pictures(tmp_path, "img/a.png", "b.png")  # b.png is another picture than img/b.png
  write(tmp_path / "val.txt", "img/a.png\nimg/b.png\n")
  yaml = write(tmp_path / "data.yaml", "names: [cat, dog]\nval: val.txt\n")
  with pytest.raises(DataError, match=r"img/b\.png: the image file does not exist"):
    open_spec(f"yolo:{yaml}:val")


def test_cvat_unzipped_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  root = tmp_path / "export"
  pictures(root, "obj_train_data/frame_000000.PNG")
  write(root / "obj.names", "cat\ndog\n")
  write(root / "train.txt", "data/obj_train_data/frame_000000.PNG\n")
  write(root / "obj.data", "classes = 2\nnames = data/obj.names\ntrain = data/train.txt\nbackup = backup/\n")
  # Another export in a folder called data, where the command is run, is not the one that was asked for.
  pictures(tmp_path / "data", "obj_train_data/frame_000000.PNG", "obj_train_data/frame_000001.PNG")
  write(tmp_path / "data" / "train.txt", "data/obj_train_data/frame_000001.PNG\n")
  write(tmp_path / "data" / "obj.names", "ant\nbee\n")
  monkeypatch.chdir(tmp_path)
  dataset = open_spec("darknet:export/obj.data:train")
  assert dataset.names == ("cat", "dog")
  assert [str(dataset[index].image) for index in range(len(dataset))] == ["export/obj_train_data/frame_000000.PNG"]


@pytest.mark.parametrize("yaml", ["path: D:\\data\\set\nval: images\\val\n", "path: /other/set\nval: /other/set/images/val\n",
                                  "val: set/images/val\n", "val: ../images/val/\n", "path: '~nobody/x'\nval: images/VAL\n"])  # fmt: skip
def test_yaml_paths_of_other_machines(tmp_path: Path, yaml: str) -> None:
  dataset = open_spec(f"yolo:{yolo(tmp_path, f'names: [cat, dog]{chr(10)}{yaml}')}:val")
  assert [dataset[index].image_id for index in range(len(dataset))] == ["a", "b"]


@pytest.mark.parametrize(
  ("images", "labels"),
  [
    ("images", "labels"),
    ("images/train", "labels/train"),
    ("train/images", "train/labels"),
    ("JPEGImages", "labels"),
    ("my_images", "my_labels"),
    ("Images", "Labels"),
    ("images/deep/images", "images/deep/labels"),
    ("images/deep/er", "labels/deep/er"),
    ("photos", "photos"),
    ("images", "images"),
  ],
)
@pytest.mark.parametrize("kind", ["darknet", "yolo"])
def test_layouts_of_labels(tmp_path: Path, images: str, labels: str, kind: str) -> None:
  write_image(tmp_path / images / "a.jpg")
  write(tmp_path / labels / "a.txt", GOOD)
  write(tmp_path / "list.txt", f"{images}/a.jpg\n")
  write(tmp_path / "x.names", "cat\ndog\n")
  data = write(tmp_path / "x.data", "train = list.txt\nnames = x.names\n")
  yaml = write(tmp_path / "x.yaml", f"names: [cat, dog]\ntrain: {images}\n")
  dataset = open_spec(f"darknet:{data}:train" if kind == "darknet" else f"yolo:{yaml}:train")
  assert dataset[0].classes.tolist() == [1]


def test_two_sets_of_labels_are_never_mixed(tmp_path: Path) -> None:
  pictures(tmp_path, "images/a.jpg")
  write_image(tmp_path / "images" / "b.jpg")  # nothing is on it, say the labels beside it
  write(tmp_path / "labels" / "b.txt", GOOD)
  write(tmp_path / "list.txt", "images/a.jpg\nimages/b.jpg\n")
  write(tmp_path / "x.names", "cat\ndog\n")
  data = write(tmp_path / "x.data", "train = list.txt\nnames = x.names\n")
  dataset = open_spec(f"darknet:{data}:train")
  assert [len(dataset[index].classes) for index in range(2)] == [1, 0]


def test_labels_that_are_not_used_are_named(tmp_path: Path) -> None:
  path = yolo(tmp_path, "names: [cat, dog]\nval: images/val\n")
  for name in ("c", "d", "gone"):
    write(tmp_path / "labels" / "val" / f"{name}.txt", GOOD)
  write(tmp_path / "images" / "val" / "c.psd", "")
  write(tmp_path / "images" / "val" / "d", "")
  write(tmp_path / "labels" / "val" / "classes.txt", "cat\ndog\n")
  labels, images = tmp_path / "labels" / "val", tmp_path / "images" / "val"
  assert notes_of(open_spec(f"yolo:{path}:val")) == (
    f"2 files with labels not taken for images, by their ending: {images}/c.psd, {images}/d",
    f"1 label file without an image: {labels}/gone.txt",
  )


def test_polygons_are_read_as_the_boxes_around_them(tmp_path: Path) -> None:
  label = "1 .2 .2 .6 .4 .4 .8\n0 .5 .5 .2 .4\n0 0.1 0.1 0.9 0.1 0.9 0.5 0.1 0.5\n"
  dataset = open_spec(darknet(tmp_path, label))
  expected = [[20, 10, 60, 40], [40, 15, 60, 35], [10, 5, 90, 25]]
  np.testing.assert_allclose(dataset[0].boxes_xyxy_px, expected, atol=1e-5)
  assert dataset[0].classes.tolist() == [1, 0, 0]
  assert notes_of(dataset) == ("2 of 3 labels are polygons; their bounding boxes are used",)
  summary = summarize(dataset, "x", decode=False)
  assert str(summary.notes[0]) == "2 of 3 labels are polygons; their bounding boxes are used"


def test_boxes_with_keypoints_are_no_polygons(tmp_path: Path) -> None:
  label = "0 .5 .5 .2 .4 .45 .45 2 .55 .55 2\n"  # 11 values, as of a polygon with five points
  path = yolo(tmp_path, "names: [cat, dog]\nval: images/val\nkpt_shape: [2, 3]\n", label)
  dataset = open_spec(f"yolo:{path}:val")
  np.testing.assert_allclose(dataset[0].boxes_xyxy_px, [[40, 15, 60, 35]], atol=1e-5)
  assert notes_of(dataset) == ()
  path = yolo(tmp_path, "names: [cat, dog]\nval: images/val\n", label)
  with pytest.raises(DataError, match=r"a\.txt:1: polygon of 5 points .* look like pixels"):
    open_spec(f"yolo:{path}:val")  # a 2 is no share of the image
  path = yolo(tmp_path, "names: [cat, dog]\nval: images/val\nkpt_shape: [17, 3]\n", label)
  with pytest.raises(DataError, match=r"has 11 values; expected 'class x y w h' and 51 values of keypoints"):
    open_spec(f"yolo:{path}:val")
