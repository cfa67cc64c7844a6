"""Pascal VOC's folders: what is read, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.sources.voc import VOC_NAMES
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

GOOD = (1, 1, 20, 30)


def item(name: str = "dog", box: tuple[object, ...] = GOOD, difficult: str = "<difficult>0</difficult>") -> str:
  corners = "".join(
    f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
  )
  return f"<object><name>{name}</name>{difficult}<bndbox>{corners}</bndbox></object>"


def voc(tmp_path: Path, *items: str, listed: str = "a\n") -> str:
  write(tmp_path / "ImageSets" / "Main" / "val.txt", listed)
  write_image(tmp_path / "JPEGImages" / "a.jpg")
  write(tmp_path / "Annotations" / "a.xml", f"<annotation>{''.join(items)}</annotation>")
  return f"voc:{tmp_path}:val"


def test_values(tmp_path: Path) -> None:
  items = (item(), item("cat", (11, 6, 100, 50), "<difficult>1</difficult>"), item(difficult=""))
  dataset = open_spec(voc(tmp_path, *items))
  assert dataset.names == tuple(VOC_NAMES)
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  # Pixels 1..20 of a row are the stretch from 0 to 20.
  np.testing.assert_array_equal(record.boxes_xyxy_px, np.float32([[0, 0, 20, 30], [10, 5, 100, 50], [0, 0, 20, 30]]))
  assert [dataset.names[index] for index in record.classes] == ["dog", "cat", "dog"]
  assert record.is_difficult.tolist() == [False, True, False]
  assert record.area_px is None


def test_other_names_are_those_of_all_splits(tmp_path: Path) -> None:
  spec = voc(tmp_path, item("zebra"))
  write(tmp_path / "Annotations" / "other_split.xml", f"<annotation>{item('ant')}</annotation>")
  write(tmp_path / "Annotations" / "broken.xml", "<annotation>")
  assert open_spec(spec).names == ("ant", "zebra")


def test_parts_of_a_person_are_no_objects(tmp_path: Path) -> None:
  part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
  dataset = open_spec(voc(tmp_path, item("person").replace("</object>", f"{part}</object>")))
  assert [dataset.names[index] for index in dataset[0].classes] == ["person"]


BAD = [
  (item(box=(5, 5, 5, 9)), r"object 2 \('dog'\): box .* has size 0x4", "no size"),
  (item(box=(5, 5, 3, 9)), r"object 2 \('dog'\): box .* has size -2x4", "no size"),
  (item(box=(5, 5, 130, 9)), r"object 2 \('dog'\): box .* reaches 30 px outside its 100x50 image", "outside the image"),
  (item(box=(5, "x", 30, 9)), r"object 2: <bndbox/ymin> is 'x'; expected a number", "malformed"),
  (item(box=(5, "nan", 30, 9)), r"object 2 \('dog'\): box .* is not finite", "not finite"),
  (item(box=(5, 5, 30)), r"object 2: <bndbox/ymax> is missing or empty", "malformed"),
  (item(name=""), r"object 2: <name> is missing or empty", "malformed"),
  (
    item(difficult="<difficult>maybe</difficult>"),
    r"object 2: <difficult> is 'maybe'; expected true or false",
    "malformed",
  ),
]


@pytest.mark.parametrize(("bad", "message", "kind"), BAD, ids=[f"{number}" for number in range(len(BAD))])
def test_bad_objects_stop_or_are_left_out(tmp_path: Path, bad: str, message: str, kind: str) -> None:
  spec = voc(tmp_path, item(), bad)
  with pytest.raises(DataError, match=rf"a\.xml:1: {message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset[0].classes[0] == VOC_NAMES.index("dog")


@pytest.mark.parametrize(
  ("listed", "message", "kind"),
  [
    ("a\nb\n", r"b\.xml: the annotation file does not exist", "missing label"),
    ("a\n\na 1\n", r"val\.txt:3: image 'a' is listed again \(first in line 1\)", "duplicate"),
  ],
)
def test_bad_lists(tmp_path: Path, listed: str, message: str, kind: str) -> None:
  spec = voc(tmp_path, item(), listed=listed)
  with pytest.raises(DataError, match=message):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert len(dataset) == 1
  assert [problem.kind for problem in dataset.problems] == [kind]


def test_broken_xml_and_missing_image(tmp_path: Path) -> None:
  spec = voc(tmp_path, item(), listed="a\nb\nc\n")
  write(tmp_path / "Annotations" / "b.xml", "<annotation>\n<object>")
  with pytest.raises(DataError, match=r"b\.xml:2: it is no valid XML: no element found"):
    open_spec(spec)
  write(tmp_path / "Annotations" / "c.xml", f"<annotation>{item()}</annotation>")
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == ["malformed", "missing image"]
  assert dataset.problems[1].path == tmp_path / "JPEGImages" / "c.jpg"


def test_wrong_folders(tmp_path: Path) -> None:
  spec = voc(tmp_path / "VOCdevkit" / "VOC2007", item())
  with pytest.raises(DataError, match=r"no split 'vall' in .*Main \(did you mean 'val'\?\); found val"):
    open_spec(spec + "l")
  with pytest.raises(DataError, match=r"is no VOC root: there is no folder .*Did you mean .*VOC2007\?"):
    open_spec(f"voc:{tmp_path / 'VOCdevkit'}:val")


def test_real_voc(shared: Path) -> None:
  dataset = open_spec(f"voc:{shared / 'data' / 'voc_sample'}:all")
  records = [dataset[index] for index in range(len(dataset))]
  assert len(records) == 45
  assert sum(len(record.classes) for record in records) == 112
  assert sum(int(record.is_difficult.sum()) for record in records) == 22
  assert dataset.names == tuple(VOC_NAMES)


def test_known_defects_of_bccd(shared: Path) -> None:
  spec = f"voc:{shared / 'data' / 'bccd' / 'BCCD'}:trainval"
  with pytest.raises(DataError, match=r"BloodImage_00338\.xml:158: object 13 \('RBC'\): box \[504, 337, 504, 337\]"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert dataset.names == ("Platelets", "RBC", "WBC")
  assert [problem.path.stem for problem in dataset.problems] == ["BloodImage_00338", "BloodImage_00343"]
  assert sum(len(dataset[index].classes) for index in range(len(dataset))) == 3943 - 2


@pytest.mark.parametrize(
  ("written", "is_difficult"),
  [("False", False), ("true", True), ("Unspecified", False), ("no", False), ("1", True), ("", False), (" 0 ", False)],
)
def test_difficult_as_tools_write_it(tmp_path: Path, written: str, is_difficult: bool) -> None:
  dataset = open_spec(voc(tmp_path, item(difficult=f"<difficult>{written}</difficult>")))
  assert dataset[0].is_difficult.tolist() == [is_difficult]


@pytest.mark.parametrize(
  ("encoding", "name"), [("GB2312", "狗"), ("GBK", "龍"), ("windows-1251", "пёс"), ("utf-16", "犬")]
)
def test_names_in_the_encoding_that_the_file_declares(tmp_path: Path, encoding: str, name: str) -> None:
  spec = voc(tmp_path, item(name=name))
  path = tmp_path / "Annotations" / "a.xml"
  text = f'<?xml version="1.0" encoding="{encoding}"?>\n{path.read_text(encoding="utf-8")}'
  path.write_bytes(text.encode(encoding))
  assert open_spec(spec).names == (name,)
  path.write_bytes(text.replace("<xmin>", "<xmin>x").encode(encoding))
  with pytest.raises(DataError, match=r"a\.xml:2: object 1: <bndbox/xmin> is 'x"):  # the line is found in it, too
    open_spec(spec)


def test_an_encoding_that_nobody_knows_is_named(tmp_path: Path) -> None:
  spec = voc(tmp_path, item(), listed="a\nb\n")
  write(tmp_path / "Annotations" / "b.xml", '<?xml version="1.0" encoding="x-mine"?><annotation/>')
  with pytest.raises(
    DataError, match=r"b\.xml: it declares the encoding 'x-mine', which is not known; save it as UTF-8"
  ):
    open_spec(spec)
  assert len(open_spec(spec, "skip")) == 1
