"""DIOR's XML, horizontal and turned: what is read, counted independently on real files, and what is refused."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.class_names import plain
from prn_jax.data_pipelines.records import DataError, Dataset
from prn_jax.data_pipelines.sources.dior import NAMES
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

BOX = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
CORNERS = ((50, -5), (70, 15), (50, 35), (30, 15))  # a square on its tip, 5 pixels of which are above the image


def turned(corners: tuple[tuple[float, float], ...] = CORNERS) -> str:
  names = ("left_top", "right_top", "right_bottom", "left_bottom")
  tags = (f"<x_{name}>{x}</x_{name}><y_{name}>{y}</y_{name}>" for name, (x, y) in zip(names, corners, strict=True))
  return f"<robndbox>{''.join(tags)}</robndbox><angle>45</angle>"


def item(name: str, shape: str) -> str:
  return f"<object><name>{name}</name>{shape}</object>"


def dior(root: Path, *items: str, folder: str = "Horizontal Bounding Boxes") -> str:
  write(root / "ImageSets" / "Main" / "train.txt", "00001\n")
  write(root / "ImageSets" / "Main" / "val.txt", "00002\n")
  write(root / "ImageSets" / "Main" / "test.txt", "11726\n")
  for place, name in (("trainval", "00001"), ("trainval", "00002"), ("test", "11726")):
    write_image(root / f"JPEGImages-{place}" / f"{name}.jpg")
    size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
    write(root / "Annotations" / folder / f"{name}.xml", f"<annotation>{size}{''.join(items)}</annotation>")
  return f"dior:{root}"


def test_values(tmp_path: Path) -> None:
  spec = dior(tmp_path, item("Expressway-Service-area", BOX), item("golf_Field", BOX), item("overpass", BOX))
  record = open_spec(f"{spec}:train")[0]
  assert record.boxes_xyxy_px.tolist() == [[10, 5, 40, 30]] * 3
  assert [NAMES[index] for index in record.classes] == ["Expressway-Service-area", "golffield", "overpass"]
  assert tuple(sorted(NAMES, key=plain)) == NAMES


def test_splits(tmp_path: Path) -> None:
  spec = dior(tmp_path, item("ship", BOX))
  ids = lambda split: [record.image_id for record in open_spec(f"{spec}:{split}")]  # type: ignore[attr-defined]  # noqa: E731
  assert (ids("train"), ids("trainval"), ids("test")) == (["00001"], ["00001", "00002"], ["11726"])
  with pytest.raises(
    DataError, match=r"no split 'tests' in .*Main or .* \(did you mean 'test'\?\); found test, train, val"
  ):
    open_spec(f"{spec}:tests")


def test_turned_boxes(tmp_path: Path) -> None:
  """The rectangle around one is clipped, which is no fault; the outline is not."""
  dior(tmp_path, item("ship", BOX))
  spec = dior(tmp_path, item("ship", turned()), folder="Oriented Bounding Boxes")
  assert open_spec(f"{spec}:train")[0].boxes_xyxy_px.tolist() == [[10, 5, 40, 30]]
  assert open_spec(f"{spec}:train@horizontal")[0].boxes_xyxy_px.tolist() == [[10, 5, 40, 30]]
  record = open_spec(f"{spec}:train@oriented", keep_polygons=True)[0]
  assert record.boxes_xyxy_px.tolist() == [[30, 0, 70, 35]]
  assert [ring.tolist() for ring in (record.polygons_px or ())[0]] == [[list(corner) for corner in CORNERS]]
  with pytest.raises(DataError, match="'@turned' is neither @horizontal nor @oriented"):
    open_spec(f"{spec}:train@turned")


def test_turned_boxes_of_rolabelimg(tmp_path: Path) -> None:
  """A box of 20 x 10 about (50, 25), turned by a quarter; `voc:` reads it too."""
  shape = "<robndbox><cx>50</cx><cy>25</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>"
  dior(tmp_path, item("ship", shape))
  (tmp_path / "Annotations" / "Horizontal Bounding Boxes").rename(tmp_path / "a")
  shutil.rmtree(tmp_path / "Annotations")
  (tmp_path / "a").rename(tmp_path / "Annotations")
  (tmp_path / "JPEGImages-trainval").rename(tmp_path / "JPEGImages")
  for spec in (f"dior:{tmp_path}:train", f"voc:{tmp_path}:train"):
    record = open_spec(spec, keep_polygons=True)[0]
    np.testing.assert_allclose(record.boxes_xyxy_px, [[45, 15, 55, 35]], atol=1e-5)
    [[ring]] = record.polygons_px or ()
    np.testing.assert_allclose(ring, [[55, 15], [55, 35], [45, 35], [45, 15]], atol=1e-9)  # the first was top left


@pytest.mark.parametrize(
  ("bad", "message", "kind"),
  [
    (item("boat", BOX), r"object 1 \('boat'\): the name is not among the classes", "unknown class"),
    (item("ship", turned().replace("<x_left_top>50", "<x_left_top>x")), r"<x_left_top> is 'x'; expected", "malformed"),
    (item("ship", turned().replace("50", "nan")), r"is not finite", "not finite"),
    (item("ship", turned(((1, 1),) * 4)), r"has size 0x0", "no size"),
    (item("ship", turned(tuple((x + 200, y) for x, y in CORNERS))), r"reaches 170 px outside", "outside the image"),
  ],
)
def test_bad_objects_stop_or_are_left_out(tmp_path: Path, bad: str, message: str, kind: str) -> None:
  spec = dior(tmp_path, bad, item("dam", BOX))
  with pytest.raises(DataError, match=rf"00001\.xml:1: .*{message}"):
    open_spec(f"{spec}:train")
  dataset = open_spec(f"{spec}:train", "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset[0].classes.tolist() == [NAMES.index("dam")]


def test_what_is_no_root(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"is no DIOR root: there is no folder .*Horizontal Bounding Boxes or"):
    open_spec(f"dior:{tmp_path}:train")


def real(shared: Path, root: Path, kind: str) -> tuple[Dataset, Counter[str]]:
  """A data set of the real XML with grey images of the size that it says (once not 800 x 800), and its names counted by
  search for text."""
  source = shared / "data" / "formats" / "dior" / "Annotations" / kind
  shutil.copytree(source, root / "Annotations" / kind)
  files = sorted(source.glob("*.xml"))
  for file in files:
    width, height = (int(re.findall(rf"<{side}>(\d+)<", file.read_text())[0]) for side in ("width", "height"))
    write_image(root / "JPEGImages-trainval" / f"{file.stem}.jpg", width, height)
  write(root / "ImageSets" / "Main" / "val.txt", "".join(f"{file.stem}\n" for file in files))
  names = Counter(name for file in files for name in re.findall(r"<name>(.*?)</name>", file.read_text()))
  return open_spec(f"dior:{root}:val", keep_polygons=True), names


@pytest.mark.parametrize("kind", ["Horizontal Bounding Boxes", "Oriented Bounding Boxes"])
def test_real_files(shared: Path, tmp_path: Path, kind: str) -> None:
  dataset, names = real(shared, tmp_path, kind)
  found = Counter(NAMES[index] for i in range(len(dataset)) for index in dataset[i].classes)
  assert found == names
  assert (len(dataset), found.total()) == (36, 417)
  rings = [ring for i in range(len(dataset)) for of_one in dataset[i].polygons_px or () for ring in of_one]
  assert len(rings) == (417 if kind.startswith("Oriented") else 0)


def test_both_kinds_of_real_files_agree(shared: Path, tmp_path: Path) -> None:
  """The rectangle around a turned box is larger than the horizontal box, but has its centre: corners in another order, or
  x for y, would not."""
  flat, _ = real(shared, tmp_path / "flat", "Horizontal Bounding Boxes")
  turned, _ = real(shared, tmp_path / "turned", "Oriented Bounding Boxes")
  distances = []
  for i in range(len(flat)):
    a, b = flat[i], turned[i]
    assert (a.image_id, sorted(a.classes)) == (b.image_id, sorted(b.classes))
    centres = [(record.boxes_xyxy_px[:, :2] + record.boxes_xyxy_px[:, 2:]) / 2 for record in (a, b)]
    distances += np.linalg.norm(centres[0][:, None] - centres[1], axis=-1).min(1).tolist()
  assert np.median(distances) < 1.5
  assert np.quantile(distances, 0.95) < 10  # one horizontal box is 90 pixels off
