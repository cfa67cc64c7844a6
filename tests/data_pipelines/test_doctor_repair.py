"""Corrected copies: what is certain is put right, what is not stays, the original is untouched, twice is once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.doctor.photos import Photo
from prn_jax.data_pipelines.doctor.repair import Repaired, repair, turn_boxes
from prn_jax.data_pipelines.doctor.split import open_split
from prn_jax.data_pipelines.images.orientation import upright
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.doctor_faults import FAULTS, Fault, add, turn
from tests.data_pipelines.little_sets import make_set, pixels
from tests.data_pipelines.test_doctor import diagnose, places

CERTAIN = {
  "boxes.repeated",
  "boxes.outside_file",
  "boxes.unrotated_frame",
  "images.exif_rotated",
  "images.unreadable",
  "labels.no_size",
  "labels.outside_image",
}


def fix(spec: str, folder: Path) -> Repaired:
  return repair(open_split(spec, decode=True, keep_polygons=True), folder)


def content(folder: Path) -> dict[str, bytes]:
  return {
    path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
  }


@pytest.mark.parametrize("number", range(1, 9))
def test_boxes_turn_as_pixels_do(number: int) -> None:
  stored = np.zeros((5, 7), np.uint8)
  stored[1:3, 2:6] = 200  # x from 2 to 6, y from 1 to 3
  picture = Image.fromarray(stored)
  picture.getexif()[0x0112] = number
  rows, columns = np.nonzero(np.asarray(upright(picture)))
  box = turn_boxes(np.array([[2.0, 1, 6, 3]]), Photo("PNG", "L", (7, 5), number, False, 1))
  assert box.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_what_is_certain_is_put_right(tmp_path: Path) -> None:
  sick = make_set("coco", tmp_path / "sick")
  turn(sick.image(11), 6, pixels(11))
  turn(sick.image(10), 3, pixels(10))
  sick.image(9).write_bytes(b"")
  with sick.coco() as data:
    data["annotations"][0]["bbox"] = [100, 20, 40, 30]  # clipped to 20 x 30
    data["annotations"][2]["bbox"] = [100, 20, 20.5, 30]  # half a pixel outside, which a reader forgives
    add(data, 3, [5, 5, 0, 4])
    data["annotations"].append(data["annotations"][8] | {"id": 77})
    data["annotations"].append(data["annotations"][9] | {"id": 78, "category_id": 9})
    del data["images"][5]["width"]
    data["annotations"][1] |= {"segmentation": [[61, 31, 80, 31, 80, 50]], "area": 180.5, "iscrowd": 0}
  before = content(sick.root)
  done = fix(sick.spec, tmp_path / "out")
  assert content(sick.root) == before
  assert done.corrected == {
    "boxes clipped at the last pixel": 1,
    "boxes clipped, or left out where they are wholly outside": 1,
    "boxes without size left out": 1,
    "images stored upright": 2,
    "images whose boxes were turned along": 1,
    "repeated boxes left out": 1,
    "sizes of images stated": 1,
    "unreadable images left out": 1,
  }
  assert done.left_out == {"labels.unknown_class": 1}
  assert (done.num_images, done.num_objects) == (11, 22)
  assert places(diagnose(done.spec)) == {}
  notes = json.loads((tmp_path / "out" / "doctor.json").read_text())
  assert [entry["id"] for entry in notes["left_out"]] == ["labels.unknown_class"]
  copy = open_spec(done.spec, keep_polygons=True)
  assert copy[0].boxes_xyxy_px[0].tolist() == [100, 20, 120, 50]
  assert copy[0].area_px is not None
  assert copy[0].area_px.tolist() == [432, 180.5]
  assert copy[0].polygons_px is not None
  assert copy[0].polygons_px[1][0].tolist() == [[61, 31], [80, 31], [80, 50]]
  assert copy[1].boxes_xyxy_px[0].tolist() == [100, 20, 120, 50]
  turned = next(copy[index] for index in range(len(copy)) if copy[index].image_id == 11)
  assert (turned.width, turned.height) == (90, 120)
  # EXIF 6: x' = 90 - y, y' = x. The cat at [21, 13, 56, 53].
  assert turned.boxes_xyxy_px[0].tolist() == [90 - 53, 21, 90 - 13, 56]


def test_what_needs_a_human_stays(tmp_path: Path) -> None:
  sick = make_set("coco", tmp_path / "sick")
  sick.image(9).write_bytes(sick.image(4).read_bytes())
  turn(sick.image(0), 6, pixels(0))  # its boxes fit both ways
  with sick.coco() as data:
    data["images"][7] |= {"width": 240, "height": 180}
  found = places(diagnose(sick.spec))
  done = fix(sick.spec, tmp_path / "out")
  assert {key: len(value) for key, value in places(diagnose(done.spec)).items()} == {
    key: len(value) for key, value in found.items()
  }
  assert set(found) == {
    "boxes.unrotated_frame", "images.copies", "images.exif_rotated", "images.other_size", "labels.copies_differ"
  }  # fmt: skip
  assert (tmp_path / "out" / "images" / "fixed" / "0.jpg").read_bytes() == sick.image(0).read_bytes()


QUICK = [one for one in FAULTS if one.name != "very_large"]  # 27 million pixels, which are read five times here


@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_copy_has_nothing_left_to_correct(tmp_path: Path, one: Fault) -> None:
  sick = make_set(one.kind, tmp_path / "sick")
  one.make(sick)
  done = fix(sick.spec, tmp_path / "out")
  assert not CERTAIN & places(diagnose(done.spec)).keys()
  first = content(tmp_path / "out")
  fix(sick.spec, tmp_path / "out")
  assert content(tmp_path / "out") == first
  again = fix(done.spec, tmp_path / "again")
  assert again.corrected == {}
  first.pop("doctor.json")
  assert {name: data for name, data in content(tmp_path / "again").items() if name != "doctor.json"} == first


def test_other_folders_are_not_replaced(tmp_path: Path) -> None:
  one = make_set("yolo", tmp_path / "set")
  split = open_split(one.spec, decode=True)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.tex").write_text("x")
  with pytest.raises(
    DataError, match=r"'.*mine' holds 'thesis.tex', which no --fix has written. Give an OUT that is new"
  ):
    repair(split, tmp_path / "mine")
  done = repair(split, tmp_path / "out")
  with pytest.raises(DataError, match=r"lie in '.*out', which would be replaced. Give another OUT"):
    repair(open_split(done.spec, decode=True), tmp_path / "out")
  assert content(tmp_path / "out")


def test_classes_of_images_are_refused(tmp_path: Path) -> None:
  for number in range(2):
    (tmp_path / "photos" / "cat").mkdir(parents=True, exist_ok=True)
    pixels(number).save(tmp_path / "photos" / "cat" / f"{number}.jpg")
  split = open_split(f"imagefolder:{tmp_path / 'photos'}", decode=True)
  with pytest.raises(DataError, match="has classes of whole images; a corrected copy is for data with boxes"):
    repair(split, tmp_path / "out")
