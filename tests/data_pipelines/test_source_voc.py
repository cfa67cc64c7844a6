"""Pascal VOC's folders: what is read, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.class_names import VOC_NAMES
from prn_jax.data_pipelines.records import DataError, notes_of
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
  assert dataset.names == ("cat", "dog")
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
  assert dataset[0].classes[0] == 0


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


# -- classes -----------------------------------------------------------------------------------------------------------


def of_voc(text: str) -> str:
  return text.replace("<annotation>", "<annotation><source><database>The VOC2007 Database</database></source>")


@pytest.mark.parametrize("shown", [("car", "person"), ("car",), ("cyclist", "truck"), ("car", "truck")])
def test_classes_are_those_of_all_splits(tmp_path: Path, shown: tuple[str, ...]) -> None:
  """A set of two classes has two, VOC's own or not, and a split that shows one of them has both."""
  spec = voc(tmp_path, item(shown[0]))
  for name in shown[1:]:
    write(tmp_path / "Annotations" / f"other_{name}.xml", f"<annotation>{item(name)}</annotation>")
  assert open_spec(spec).names == shown


def test_objects_that_cannot_be_used_count_for_every_split(tmp_path: Path) -> None:
  spec = voc(tmp_path, item("dog"), item("zebra", (5, 5, 5, 9)))
  write(tmp_path / "ImageSets" / "Main" / "other.txt", "b\n")
  write_image(tmp_path / "JPEGImages" / "b.jpg")
  write(tmp_path / "Annotations" / "b.xml", f"<annotation>{item('ant')}</annotation>")
  assert (
    open_spec(spec, "skip").names == open_spec(spec.replace("val", "other"), "skip").names == ("ant", "dog", "zebra")
  )


@pytest.mark.parametrize(("number", "is_marked", "classes"), [(20, False, 20), (10, True, 20), (10, False, 10), (9, True, 9)])  # fmt: skip
def test_excerpts_of_voc_have_its_twenty_classes(tmp_path: Path, number: int, is_marked: bool, classes: int) -> None:
  spec = voc(tmp_path, *map(item, VOC_NAMES[:number]))
  path = tmp_path / "Annotations" / "a.xml"
  path.write_text(of_voc(path.read_text()) if is_marked else path.read_text())
  assert open_spec(spec).names == VOC_NAMES[:classes]


# -- lists and files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("listed", "stems"),
  [
    ("img (1)\nimg (2)\n", ["img (1)", "img (2)"]),
    ("img (1) 1\nimg (2) -1\n", ["img (1)", "img (2)"]),
    ("img (1)  0\r\nimg (2)\t1\r\n", ["img (1)", "img (2)"]),
    ("photo 1\nphoto 0  1\n", ["photo 1", "photo 0"]),  # the blank and the number belong to the name
    ("img (1).png\nimg (2).xml\n", ["img (1)", "img (2)"]),
    ("JPEGImages\\img (1).png\n./JPEGImages/img (2).png\n", ["img (1)", "img (2)"]),
    ("JPEGImages/plain.png Annotations/plain.xml\n", ["plain"]),
    ("plain 1\n", ["plain"]),
    ("PLAIN.PNG\nplain\n", ["PLAIN", "plain"]),
  ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_as_tools_write_them(tmp_path: Path, listed: str, stems: list[str], encoding: str) -> None:
  voc(tmp_path, item())
  (tmp_path / "ImageSets" / "Main" / "val.txt").write_bytes(listed.encode(encoding))
  for stem in {"img (1)", "img (2)", "photo 1", "photo 0", "plain", "PLAIN", "img"}:
    write_image(tmp_path / "JPEGImages" / f"{stem}.png")
    write(tmp_path / "Annotations" / f"{stem}.xml", f"<annotation>{item()}</annotation>")
  dataset = open_spec(f"voc:{tmp_path}:val")
  assert [dataset[index].image_id for index in range(len(dataset))] == stems
  assert [dataset[index].image for index in range(len(dataset))] == [
    tmp_path / "JPEGImages" / f"{s}.png" for s in stems
  ]


def test_a_name_with_blanks_that_is_not_there_is_named_whole(tmp_path: Path) -> None:
  spec = voc(tmp_path, item(), listed="a\na copy (2)\n")
  with pytest.raises(DataError, match=r"a copy \(2\)\.xml: the annotation file does not exist"):
    open_spec(spec)


@pytest.mark.parametrize("filename", ["IMG_7.JPG", "img_7.jpg", "C:\\photos\\IMG_7.JPG", "sub\\IMG_7.JPG"])
def test_images_by_the_file_name_in_the_xml(tmp_path: Path, filename: str) -> None:
  spec = voc(tmp_path, f"<filename>{filename}</filename>", item())
  (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "IMG_7.JPG")
  assert open_spec(spec)[0].image == tmp_path / "JPEGImages" / "IMG_7.JPG"
  # A file name that was copied along with the XML means the image of another annotation.
  write(tmp_path / "Annotations" / "IMG_7.xml", f"<annotation>{item()}</annotation>")
  write(tmp_path / "Annotations" / "img_7.xml", f"<annotation>{item()}</annotation>")
  with pytest.raises(DataError, match=r"JPEGImages/a\.jpg: the image file does not exist"):
    open_spec(spec)


def test_two_images_of_one_stem(tmp_path: Path) -> None:
  spec = voc(tmp_path, "<filename>a.png</filename>", item())
  write_image(tmp_path / "JPEGImages" / "a.png")
  assert open_spec(spec)[0].image == tmp_path / "JPEGImages" / "a.png"


def test_a_file_that_is_not_taken_for_an_image_is_named(tmp_path: Path) -> None:
  spec = voc(tmp_path, item())
  (tmp_path / "JPEGImages" / "a.jpg").rename(tmp_path / "JPEGImages" / "a.psd")
  with pytest.raises(
    DataError, match=r"JPEGImages/a\.psd: not taken for an image, by its ending; expected one of \.jpg,"
  ):
    open_spec(spec)


def test_polygons_without_a_box(tmp_path: Path) -> None:
  roboflow = "<polygon><x1>10.5</x1><y1>5</y1><x2>40</x2><y2>8</y2><x3>20</x3><y3>30</y3></polygon>"
  points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((10, 5), (40, 8), (20, 30)))
  objects = [f"<object><name>dog</name>{shape}</object>" for shape in (roboflow, f"<polygon>{points}</polygon>")]
  both = item(box=(1, 1, 20, 30)).replace("</object>", f"{roboflow}</object>")
  dataset = open_spec(voc(tmp_path, *objects, both))
  expected = [[10.5, 5, 40, 30], [10, 5, 40, 30], [0, 0, 20, 30]]
  np.testing.assert_array_equal(dataset[0].boxes_xyxy_px, np.float32(expected))
  assert notes_of(dataset) == ("2 objects have a <polygon> and no <bndbox>; the boxes around them are used",)
  short = "<object><name>dog</name><polygon><x1>1</x1><y1>1</y1></polygon></object>"
  with pytest.raises(DataError, match="object 1: <bndbox> is missing, and <polygon> has 1 points; expected at least 3"):
    open_spec(voc(tmp_path, short))
