"""BDD100K's three flavours of labels: what is read, counted independently on real files, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, RecordList, notes_of
from prn_jax.data_pipelines.sources.bdd100k import NAMES
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def label(category: Any, **more: Any) -> dict[str, Any]:
  box = {"x1": 10.5, "y1": 5, "x2": 30.25, "y2": 35}
  entry = {"category": category, "box2d": box, "attributes": {"occluded": False, "crowd": False}} | more
  return {key: value for key, value in entry.items() if value is not ...}


LANE = {"category": "lane", "box2d": None, "poly2d": [{"vertices": [[1, 2], [3, 4]], "types": "LL", "closed": False}]}
SQUARE = [[10, 5], [30, 5], [30, 25], [10, 25]]


def bdd(root: Path, content: Any) -> str:
  write_image(root / "images" / "a.jpg")
  return f"bdd100k:{write(root / 'labels.json', json.dumps(content))}:{root / 'images'}"


def frames(*labels: Any) -> list[dict[str, Any]]:
  return [{"name": "a.jpg", "attributes": {"weather": "clear"}, "timestamp": 10000, "labels": list(labels)}]


OLD = [label("person"), label("motor"), label("bike"), label("traffic light"), LANE]
NEW = [label("pedestrian"), label("motorcycle"), label("bicycle"), label("traffic light"), label("trailer")]


def flavours(root: Path) -> dict[str, str]:
  """The same four objects in every form."""
  one = {"name": "a", "frames": [{"timestamp": 10000, "objects": OLD}], "attributes": {}}
  write(root / "each" / "train" / "a.json", json.dumps(one))
  return {
    "2018": bdd(root / "2018", frames(*OLD)),
    "one an image": f"{bdd(root / 'one', one)}",
    "folder": f"bdd100k:{root / 'each'}:{root / '2018' / 'images'}",
    "2020": bdd(root / "2020", frames(*NEW)),
    "scalabel": bdd(root / "scalabel", {"frames": frames(*NEW), "groups": None, "config": {}}),
  }


@pytest.mark.parametrize("flavour", ["2018", "one an image", "folder", "2020", "scalabel"])
def test_every_flavour_has_one_list_of_names(tmp_path: Path, flavour: str) -> None:
  dataset = open_spec(flavours(tmp_path)[flavour])
  assert dataset.names == NAMES
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  assert [NAMES[index] for index in record.classes] == ["person", "motor", "bike", "traffic light"]
  np.testing.assert_array_equal(record.boxes_xyxy_px, np.float32([[10.5, 5, 30.25, 35]] * 4))
  is_new = flavour in ("2020", "scalabel")
  assert record.ignored_xyxy_px.tolist() == ([[10.5, 5, 30.25, 35]] if is_new else [])


def test_crowds_and_ignored_objects_are_not_counted(tmp_path: Path) -> None:
  flags = [{}, {"crowd": True}, {"ignored": "true"}, {"crowd": False, "ignored": False}, None]
  record = open_spec(bdd(tmp_path, frames(*(label("car", attributes=one) for one in flags))))[0]
  assert record.is_crowd.tolist() == [False, True, True, False, False]


def test_frames_without_labels_show_no_objects(tmp_path: Path) -> None:
  write_image(tmp_path / "images" / "b.jpg")
  write_image(tmp_path / "images" / "clip" / "c-01.jpg")
  content = [{"name": "a.jpg"}, {"name": "b.jpg", "labels": None}, {"name": "c-01.jpg", "videoName": "clip"}]
  dataset = open_spec(bdd(tmp_path, content))
  assert [dataset[i].image_id for i in range(3)] == ["a", "b", "c-01"]
  assert [len(dataset[i].classes) for i in range(3)] == [0, 0, 0]


def test_objects_that_have_a_polygon_alone(tmp_path: Path) -> None:
  straight = {"vertices": SQUARE, "types": "LLLL", "closed": True}
  # A quarter of a bulge to the right: the curve's middle is (a + 3b + 3c + d) / 8 = 10/8 + 3*50/8 + 3*50/8 + 10/8 = 40.
  curved = {"vertices": [[10, 5], [50, 5], [50, 25], [10, 25]], "types": "LCCL", "closed": True}
  content = frames(*(label("car", box2d=..., poly2d=[one]) for one in (straight, curved)))
  dataset = open_spec(bdd(tmp_path, content), keep_polygons=True)
  assert dataset[0].boxes_xyxy_px.tolist() == [[10, 5, 30, 25], [10, 5, 40, 25]]
  [[square], [bulge]] = dataset[0].polygons_px or ()
  assert square.tolist() == SQUARE
  assert len(bulge) == 9
  assert notes_of(dataset) == ("2 objects have polygons and no box2d; the boxes around them are used",)


@pytest.mark.parametrize(
  ("bad", "message", "kind"),
  [
    (label("boat"), r"category 'boat' is none of BDD100K's ten", "unknown class"),
    (label(["car"]), r"category \['car'\] is none of BDD100K's ten", "unknown class"),
    (label("car", box2d=[1, 2, 3, 4]), r"box2d is \[1, 2, 3, 4\]; expected x1, y1, x2, y2", "malformed"),
    (label("car", box2d={"x1": 1, "y1": 2, "x2": 3}), r"box2d.y2 is None; expected a finite number", "malformed"),
    (label("car", box2d={"x1": 1, "y1": 2, "x2": 1, "y2": 9}), r"has size 0x7", "no size"),
    (label("car", box2d={"x1": 1, "y1": 2, "x2": 190, "y2": 9}), r"reaches 90 px outside", "outside the image"),
    (label("car", attributes={"crowd": "many"}), r"attributes.crowd is 'many'; expected true", "malformed"),
    (label("car", box2d=..., poly2d=[{"vertices": [[1, 2]], "closed": True}]), r"poly2d holds a polygon", "malformed"),
    (label("car", poly2d=[{"vertices": SQUARE, "types": "LCLL", "closed": True}]), r"of types 'LCLL'", "malformed"),
    ("car", r"it is 'car'; expected keys with values", "malformed"),
  ],
)
def test_bad_labels_stop_or_are_left_out(tmp_path: Path, bad: Any, message: str, kind: str) -> None:
  spec = bdd(tmp_path, frames(label("car"), bad))
  with pytest.raises(DataError, match=rf"labels\.json: image a\.jpg, label 2: .*{message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.kind for problem in dataset.problems] == [kind]
  assert dataset[0].classes[0] == 0


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({"a": 1}, r"has no list of frames; expected BDD100K's labels"),
    ({"name": "a", "frames": [{}, {}]}, r"has 2 frames of one image; expected one"),
    ([3], r"image number 1: it is 3; expected name and labels"),
    ([{"labels": []}], r"image number 1: name is None; expected text"),
    ([{"name": "a.jpg", "labels": 3}], r"image number 1: labels is 3; expected a list"),
    (frames() * 2, r"the image 'a\.jpg' is labelled again"),
    ([{"name": "b.jpg"}], r"b\.jpg: the image file does not exist"),
    ([], r"holds no images"),
  ],
)
def test_bad_files(tmp_path: Path, content: Any, message: str) -> None:
  with pytest.raises(DataError, match=message):
    open_spec(bdd(tmp_path, content))


def test_a_broken_file_of_many_is_left_out(tmp_path: Path) -> None:
  spec = flavours(tmp_path)["folder"]
  write(tmp_path / "each" / "b.json", "{")
  with pytest.raises(DataError, match=r"b\.json:1: it is no valid JSON"):
    open_spec(spec)
  assert len(open_spec(spec, "skip")) == 1
  with pytest.raises(DataError, match=r"labels\.json:1 is no valid JSON"):
    open_spec(spec.replace(str(tmp_path / "each"), str(write(tmp_path / "labels.json", "["))))
  with pytest.raises(DataError, match=r"holds no \.json file; expected BDD100K's labels"):
    open_spec(f"bdd100k:{tmp_path / '2018' / 'images'}:{tmp_path / '2018' / 'images'}")


def real(source: Path, root: Path) -> RecordList:
  """A data set of real labels with grey images of BDD100K's size, all of them one file."""
  image = write_image(root / "grey.jpg", 1280, 720)
  (root / "images").mkdir()
  for name in set(re.findall(r'"name": "([^"]*\.jpg)"', source.read_text())):
    (root / "images" / name).hardlink_to(image)
  dataset = open_spec(f"bdd100k:{source}:{root / 'images'}", keep_polygons=True)
  assert isinstance(dataset, RecordList)
  return dataset


def test_real_scalabel(shared: Path, tmp_path: Path) -> None:
  source = shared / "data" / "eval_golden" / "bdd100k_scalabel" / "track_sample_anns.json"
  dataset = real(source, tmp_path)
  counts = Counter(re.findall(r'"category": "([^"]*)"', source.read_text()))
  found = Counter(NAMES[index] for record in dataset.records for index in record.classes)
  old = {"pedestrian": "person", "motorcycle": "motor"}
  assert found == Counter({old.get(name, name): number for name, number in counts.items()})
  assert found.total() == 3241
  assert len(dataset) == 202
  crowds = source.read_text().count('"crowd": true')
  assert sum(int(record.is_crowd.sum()) for record in dataset.records) == crowds > 100
  left = sum(float(value) for value in re.findall(r'"x1": ([^,}]*)', source.read_text()))
  assert sum(float(record.boxes_xyxy_px[:, 0].sum()) for record in dataset.records) == pytest.approx(left, rel=1e-6)


def test_real_labels_with_other_things(shared: Path, tmp_path: Path) -> None:
  folder = shared / "data" / "formats" / "bdd100k"
  det = real(folder / "scalabel_det.json", tmp_path / "det")
  assert [NAMES[index] for index in det.records[0].classes] == ["traffic sign"] * 4
  polygons = real(folder / "example_annotation.json", tmp_path / "poly").records[0]
  text = (folder / "example_annotation.json").read_text()
  assert len(polygons.classes) == text.count('"category"') > 0
  assert sum(len(rings) for rings in polygons.polygons_px or ()) == text.count('"vertices"')
