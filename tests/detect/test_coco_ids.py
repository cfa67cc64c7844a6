"""Ids in COCO's results: of images by their names, of classes by COCO's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.detect.coco_ids import image_ids, image_number
from prn_jax.detect.detections import Detections
from prn_jax.labels import COCO_CATEGORY_IDS, COCO_NAMES, VOC_NAMES, coco_category_ids
from tests.data_pipelines.test_class_names import COCO_SPELLING
from tests.nets import random_model


@pytest.mark.parametrize(
  ("path", "number"),
  [
    ("000000000042.jpg", 42),
    ("val/COCO_val2014_000000000042.jpg", 42),
    ("COCO_test2015_000000581929.png", 581929),
    ("http://images.net/val2017/000000000139.jpg", 139),
    ("frame_7.jpg", 7),
    ("0.jpg", 0),
    ("dog.jpg", None),
    ("42_dog.jpg", None),
    ("COCO_val2014_42b.jpg", None),
    ("000000000042_jpg.rf.0a1b.jpg", None),
    ("IMG-42.jpg", None),
    ("\u0664\u0662.jpg", None),  # digits, but not COCO's
    (f"{10**25}.jpg", None),
  ],
)
def test_the_number_in_a_name(path: str, number: int | None) -> None:
  assert image_number(path) == number


@pytest.mark.parametrize(
  ("names", "ids", "counted"),
  [
    (["a_73.jpg", "42.jpg"], (73, 42), ()),
    (["dog.jpg", "cat.jpg"], (0, 1), (0, 1)),
    (["dog.jpg", "1.jpg", "cat.jpg", "0.jpg"], (2, 1, 3, 0), (0, 2)),  # 0 is the number of another
    (["x/5.jpg", "y/5.jpg", "3.jpg"], (6, 7, 3), (0, 1)),  # which of them is 5 cannot be known
    ([], (), ()),
  ],
)
def test_ids_differ_and_positions_take_nobodys_number(
  names: list[str], ids: tuple[int, ...], counted: tuple[int, ...]
) -> None:
  assert image_ids(names) == (ids, counted)


def test_category_ids_follow_the_names() -> None:
  assert coco_category_ids(COCO_NAMES) == COCO_CATEGORY_IDS == coco_category_ids(COCO_SPELLING)
  upper = [name.upper().replace(" ", "_") for name in COCO_SPELLING]
  assert coco_category_ids(upper[::-1]) == COCO_CATEGORY_IDS[::-1]
  assert coco_category_ids([*COCO_NAMES[1:], "fox"]) is None
  assert coco_category_ids(VOC_NAMES) is coco_category_ids(()) is None


def test_rows_without_an_id_take_it_from_the_path() -> None:
  one = Detections(np.array([[0, 0, 4, 4]]), np.array([0.5]), np.array([79]), COCO_SPELLING, 8, 8)
  rows = [Detections(**vars(one) | {"path": path}).to_coco()[0] for path in ("a/b_12.jpg", "a/dog.v2.jpg", None)]
  assert [row["image_id"] for row in rows] == [12, "dog.v2", None]
  assert {row["category_id"] for row in rows} == {90}
  assert one.to_coco(3, range(100))[0]["category_id"] == 79


def test_predict_says_which_ids_are_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  model, photos, out = tmp_path / "model", tmp_path / "photos", tmp_path / "out"
  random_model().save(model)
  photos.mkdir()
  for name in ("COCO_val2014_000000000042.png", "000000000073.png", "dog.png"):
    Image.new("RGB", (40, 30), "gray").save(photos / name)

  def ids(*sources: Path) -> tuple[list[dict[str, object]], str]:
    assert (
      main(["predict", str(model), "--conf", "0", "--save", "coco", "--out", str(out), "--json", *map(str, sources)])
      == 0
    )
    said = capsys.readouterr()
    rows = json.loads((out / "coco.json").read_text())
    images = json.loads(said.out.splitlines()[-1])["coco"]["images"]
    assert {row["image_id"] for row in rows} == {image["id"] for image in images}
    return images, said.err

  images, said = ids(photos / "COCO_val2014_000000000042.png", photos / "000000000073.png")
  assert [image["id"] for image in images] == [42, 73]
  assert "positions" not in said
  assert "category ids are class numbers from 0" in said
  assert not (out / "coco_images.json").exists()
  images, said = ids(photos)
  assert {Path(str(image["file_name"])).name: (image["id"], image["id_is"]) for image in images} == {
    "000000000073.png": (73, "number in the name"),
    "COCO_val2014_000000000042.png": (42, "number in the name"),
    "dog.png": (74, "position"),
  }
  assert "coco.json: 1 of 3 image ids are positions, counted from 74" in said
  assert [image["id"] for image in json.loads((out / "coco_images.json").read_text())] == [73, 42, 74]
