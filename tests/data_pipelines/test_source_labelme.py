"""labelme's JSON: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

TRIANGLE = [[10, 5], [40, 8], [20, 30]]
SQUARE = [[30, 5], [40, 15], [30, 25], [20, 15]]


def shape(kind: Any, points: Any, label: Any = "dog", **more: Any) -> dict[str, Any]:
  return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


BOX = shape("rectangle", [[30, 35], [10, 5]])


def labelme(root: Path, *shapes: Any, name: str = "a", **changes: Any) -> str:
  write_image(root / f"{name}.jpg")
  content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.jpg", "imageData": None}
  content |= {"imageHeight": 50, "imageWidth": 100} | changes
  write(root / f"{name}.json", json.dumps({key: value for key, value in content.items() if value is not ...}))
  return f"labelme:{root}"


def test_shapes(tmp_path: Path) -> None:
  """Corners in any order; a circle by its centre and a point 5 away; lines and points have no area."""
  shapes = [
    BOX,
    shape("rectangle", [[10, 5], [30, 5], [30, 35], [10, 35]], "cat"),
    shape("polygon", TRIANGLE),
    shape(None, TRIANGLE),
    shape("circle", [[50, 20], [53, 24]]),
    shape("circle", [[2, 20], [2, 25]]),
    shape("rotation", SQUARE),
    shape("mask", [[1, 2], [3, 5]], mask="iVBORw0KGgo="),
    shape("line", TRIANGLE[:2]),
    shape("point", TRIANGLE[:1]),
  ]
  dataset = open_spec(labelme(tmp_path, *shapes), keep_polygons=True)
  assert dataset.names == ("cat", "dog")
  record = dataset[0]
  assert record.classes.tolist() == [1, 0, 1, 1, 1, 1, 1, 1]
  around = [10, 5, 40, 30]
  expected = [[10, 5, 30, 35]] * 2 + [around] * 2 + [[45, 15, 55, 25], [0, 15, 7, 25], [20, 5, 40, 25], [1, 2, 3, 5]]
  assert record.boxes_xyxy_px.tolist() == expected
  rings = [[ring.tolist() for ring in of_one] for of_one in record.polygons_px or ()]
  assert rings == [[], [], [TRIANGLE], [TRIANGLE], [], [], [SQUARE], []]
  assert notes_of(dataset) == ("2 points and lines are not used: they have no area",)


def test_parts_of_one_group_are_one_object(tmp_path: Path) -> None:
  moved = [[x + 50, y] for x, y in TRIANGLE]
  shapes = [
    shape("polygon", TRIANGLE, group_id=1), shape("polygon", moved, group_id=1),
    shape("polygon", TRIANGLE, "cat", group_id=1), shape("polygon", TRIANGLE), shape("polygon", TRIANGLE),
  ]  # fmt: skip
  record = open_spec(labelme(tmp_path, *shapes), keep_polygons=True)[0]
  assert record.classes.tolist() == [1, 0, 1, 1]
  assert record.boxes_xyxy_px[0].tolist() == [10, 5, 90, 30]
  assert [len(rings) for rings in record.polygons_px or ()] == [2, 1, 1, 1]


@pytest.mark.parametrize("named", ["..\\photos\\a.jpg", "a.jpg", "elsewhere/b.jpg", ..., None])
def test_the_image_is_beside_its_file(tmp_path: Path, named: Any) -> None:
  write_image(tmp_path / "deep" / "c.jpg")
  dataset = open_spec(labelme(tmp_path / "deep", BOX, imagePath=named).replace("/deep", ""))
  assert dataset[0].image == tmp_path / "deep" / "a.jpg"
  assert notes_of(dataset)[-1] == f"1 images without a JSON file are not used, as {tmp_path / 'deep' / 'c.jpg'}"


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (3, r"shape 2: it is 3; expected keys with values"),
    (shape("rectangle", [[1, 2]]), r"shape 2: the rectangle has 1 points; expected 2 or 4"),
    (shape("circle", TRIANGLE), r"shape 2: the circle has 3 points; expected 2"),
    (shape("polygon", TRIANGLE[:2]), r"shape 2: the polygon has 2 points; expected at least 3"),
    (shape("star", TRIANGLE), r"shape 2: shape_type is 'star'; expected one of polygon, rectangle, mask"),
    (shape(["polygon"], TRIANGLE), r"shape 2: shape_type is \['polygon'\]"),
    (shape("polygon", 3), r"shape 2: points is 3; expected a list of \[x, y\]"),
    (shape("polygon", [[1, 2, 3]]), r"shape 2: points is \[\[1, 2, 3\]\]"),
    (shape("polygon", [[1, "x"]] * 3), r"shape 2: a coordinate of points is 'x'; expected a finite number"),
    (shape("polygon", TRIANGLE, 7), r"shape 2: label is 7; expected text"),
    (shape("polygon", TRIANGLE, group_id="x"), r"shape 2: group_id is 'x'; expected a whole number"),
    (shape("rectangle", [[5, 5], [5, 9]]), r"shape 2: box .* has size 0x4"),
    (shape("polygon", [[x + 90, y] for x, y in TRIANGLE]), r"shape 2: box .* reaches 30 px outside its 100x50 image"),
  ],
)
def test_bad_shapes_stop_or_are_left_out(tmp_path: Path, bad: Any, message: str) -> None:
  spec = labelme(tmp_path, BOX, bad)
  with pytest.raises(DataError, match=rf"a\.json: {message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert len(dataset.problems) == 1
  assert dataset[0].boxes_xyxy_px[0].tolist() == [10, 5, 30, 35]


def test_bad_files_stop_or_are_left_out(tmp_path: Path) -> None:
  spec = labelme(tmp_path, BOX)
  for name, changes in (("b", {"shapes": 3}), ("c", {"imageWidth": 200}), ("d", {"imagePath": "a.jpg"})):
    labelme(tmp_path, BOX, name=name, **changes)
  write(tmp_path / "e.json", "{")
  write(tmp_path / "f.json", json.dumps({"shapes": [], "imagePath": "f.png"}))
  with pytest.raises(DataError, match=r"b\.json: it has no list 'shapes'; expected what labelme writes"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert [problem.path.name for problem in dataset.problems] == ["b.json", "d.json", "e.json", "c.json", "f.png"]
  kinds = [problem.kind for problem in dataset.problems]
  assert kinds == ["malformed", "duplicate", "malformed", "malformed", "missing image"]
  assert "it says 200x50 of" in dataset.problems[3].reason
  assert [dataset[i].image_id for i in range(len(dataset))] == ["a"]
  with pytest.raises(DataError, match=r"data 'labelme:.*nowhere': there is no folder"):
    open_spec(f"{spec}/nowhere")


def test_as_many_shapes_as_the_files_hold(tmp_path: Path) -> None:
  """Random rectangles in several files, counted and summed by another reader."""
  rng = np.random.default_rng(0)
  for number in range(5):
    corners = rng.uniform(0, 50, (int(rng.integers(0, 9)), 2, 2)).tolist()
    labelme(tmp_path, *(shape("rectangle", pair, rng.choice(["x", "y"]).item()) for pair in corners), name=str(number))
  shapes = [one for file in tmp_path.glob("*.json") for one in json.loads(file.read_text())["shapes"]]
  dataset = open_spec(f"labelme:{tmp_path}")
  names = [dataset.names[k] for i in range(len(dataset)) for k in dataset[i].classes]
  assert sorted(names) == sorted(one["label"] for one in shapes)
  area = sum(abs((a[0] - b[0]) * (a[1] - b[1])) for a, b in (one["points"] for one in shapes))
  sides = np.concatenate(
    [np.diff(dataset[i].boxes_xyxy_px.reshape(-1, 2, 2), axis=1)[:, 0] for i in range(len(dataset))]
  )
  assert sides.prod(1).sum() == pytest.approx(area, rel=1e-5)
