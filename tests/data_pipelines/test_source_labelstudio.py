"""Label Studio's exports: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, notes_of
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image

NAME = "/data/upload/1/3f2a91bc-a.jpg"
RECTANGLE = {"x": 10, "y": 20, "width": 20, "height": 40, "rotation": 0}  # of 100 x 50: 10, 10, 30, 30


def region(kind: str = "rectanglelabels", label: Any = "dog", value: Any = None, **more: Any) -> dict[str, Any]:
  content = {kind: [label] if isinstance(label, str) else label} | (RECTANGLE if value is None else value)
  whole = {"id": "x", "type": kind, "original_width": 100, "original_height": 50, "image_rotation": 0, "value": content}
  return {key: one for key, one in (whole | more).items() if one is not ...}


def task(*regions: Any, number: int = 1, image: Any = NAME, **more: Any) -> dict[str, Any]:
  annotations = [{"id": 5, "was_cancelled": False, "result": list(regions)}]
  return {"id": number, "data": {"image": image}, "annotations": annotations, "predictions": []} | more


def labelstudio(root: Path, *tasks: Any) -> str:
  write_image(root / "images" / "a.jpg")
  return f"labelstudio:{write(root / 'export.json', json.dumps(list(tasks)))}:{root / 'images'}"


def test_regions(tmp_path: Path) -> None:
  """Turned by a quarter about its top left corner (40, 10), a rectangle of 20 x 10 lies to the left and below of it."""
  turned = {"x": 40, "y": 20, "width": 20, "height": 20, "rotation": 90}
  edge = {"x": 5, "y": 20, "width": 20, "height": 20, "rotation": 90}
  points = [[10, 10], [40, 16], [20, 60]]
  ellipse = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20, "rotation": 90}
  regions = [
    region(),
    region(label="cat"),
    region(value=turned),
    region(value=edge),
    region("polygonlabels", value={"points": points, "closed": True}),
    region("ellipselabels", value=ellipse),
    region("labels"),
    region(type="rectangle", value=RECTANGLE, label=[]) | {"value": RECTANGLE},
    region("keypointlabels", value={"x": 1, "y": 1, "width": 0.5}),
    region("brushlabels", value={"format": "rle", "rle": [0, 1]}),
    {"type": "choices", "value": {"choices": ["sunny"]}},
  ]
  dataset = open_spec(labelstudio(tmp_path, task(*regions)), keep_polygons=True)
  assert dataset.names == ("cat", "dog")
  record = dataset[0]
  assert (record.image_id, record.width, record.height) == ("a", 100, 50)
  assert record.classes.tolist() == [1, 0, 1, 1, 1, 1, 1]
  plain = [10, 10, 30, 30]
  expected = [plain, plain, [30, 10, 40, 30], [0, 10, 5, 30], [10, 5, 40, 30], [40, 5, 60, 45], plain]
  np.testing.assert_allclose(record.boxes_xyxy_px, expected, atol=1e-5)
  rings = record.polygons_px or ()
  assert [len(of_one) for of_one in rings] == [0, 0, 1, 1, 1, 0, 0]
  np.testing.assert_allclose(rings[2][0], [[40, 10], [40, 30], [30, 30], [30, 10]], atol=1e-9)
  np.testing.assert_allclose(rings[4][0], [[10, 5], [40, 8], [20, 30]])
  assert notes_of(dataset)[-1] == "2 masks and key points are not used"


def test_negative_sizes_reach_back(tmp_path: Path) -> None:
  """x, y is another corner than the first: 10, 10, 30, 30 from its last. Turned by a quarter, it lies above and to the right
  of where it would lie."""
  back = {"x": 30, "y": 60, "width": -20, "height": -40, "rotation": 0}
  quarter = {"x": 50, "y": 50, "width": -20, "height": 20, "rotation": 90}
  record = open_spec(labelstudio(tmp_path, task(region(value=back), region(value=quarter))))[0]
  np.testing.assert_allclose(record.boxes_xyxy_px, [[10, 10, 30, 30], [40, 5, 50, 25]], atol=1e-5)


def test_json_min(tmp_path: Path) -> None:
  flat = RECTANGLE | {"rectanglelabels": ["dog"], "original_width": 100, "original_height": 50}
  content = {"id": 1, "image": NAME, "label": [flat, flat], "annotator": 1, "choice": "sunny"}
  record = open_spec(labelstudio(tmp_path, content))[0]
  assert record.boxes_xyxy_px.tolist() == [[10, 10, 30, 30]] * 2


def test_which_annotation_counts(tmp_path: Path) -> None:
  for name in ("b", "c", "d"):
    write_image(tmp_path / "images" / f"{name}.jpg")
  one, two = {"result": [region()]}, {"result": [region(label="cat"), region()]}
  tasks = [
    task(annotations=[one, two, {"was_cancelled": True, "result": []}]),
    task(image="b.jpg", annotations=[]),
    task(image="c.jpg", annotations=[{"was_cancelled": True, "result": [region()]}]),
    task(image="d.jpg", annotations=[{"result": []}]),
  ]
  dataset = open_spec(labelstudio(tmp_path, *tasks))
  assert [(dataset[i].image_id, len(dataset[i].classes)) for i in range(len(dataset))] == [("a", 2), ("d", 0)]
  notes = notes_of(dataset)
  assert "2 tasks without a finished annotation are not used" in notes
  assert "1 tasks have several annotations, of which the last is used" in notes


@pytest.mark.parametrize(
  "image",
  [
    NAME, "a.jpg", "/data/local-files/?d=images/a.jpg", "s3://bucket/x/a.jpg",
    "http://localhost:8080/data/a.jpg?token=1", "C:\\photos\\a.jpg",
  ],
)  # fmt: skip
def test_names_of_images(tmp_path: Path, image: str) -> None:
  assert open_spec(labelstudio(tmp_path, task(region(), image=image)))[0].image == tmp_path / "images" / "a.jpg"


def test_two_uploads_of_one_name_are_told_apart(tmp_path: Path) -> None:
  tasks = [task(region()), task(region(), image=NAME.replace("3f", "4f"))]
  with pytest.raises(DataError, match=r"images/3f2a91bc-a\.jpg: the image file does not exist"):
    open_spec(labelstudio(tmp_path, *tasks))
  write_image(tmp_path / "images" / "3f2a91bc-a.jpg")
  write_image(tmp_path / "images" / "4f2a91bc-a.jpg")
  dataset = open_spec(labelstudio(tmp_path, *tasks))
  assert [dataset[i].image_id for i in range(2)] == ["3f2a91bc-a", "4f2a91bc-a"]


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (3, r"region 2: it is 3; expected a region"),
    (region(label=["dog", "cat"]), r"region 2: rectanglelabels is \['dog', 'cat'\]; expected one label"),
    (region(label=[7]), r"region 2: rectanglelabels is 7; expected text"),
    (region(image_rotation=90), r"region 2: it was drawn on an image turned by 90; draw it on the upright image"),
    (region(original_width=...), r"region 2: original_width is None; expected a whole number"),
    (region(value=RECTANGLE | {"x": "left"}), r"region 2: x is 'left'; expected a finite number"),
    (region(value=RECTANGLE | {"rotation": "x"}), r"region 2: rotation is 'x'"),
    (
      region("polygonlabels", value={"points": [[1, 2]]}),
      r"region 2: points is \[\[1, 2\]\]; expected a list of at least",
    ),
    (region("polygonlabels", value={"points": [[1, "x"]] * 3}), r"region 2: a coordinate of points is 'x'"),
    (region(value=RECTANGLE | {"width": 0}), r"region 2: box .* has size 0x20"),
    (region(value=RECTANGLE | {"x": 95}), r"region 2: box .* reaches 15 px outside"),
  ],
)
def test_bad_regions_stop_or_are_left_out(tmp_path: Path, bad: Any, message: str) -> None:
  spec = labelstudio(tmp_path, task(region(), bad, number=12))
  with pytest.raises(DataError, match=rf"export\.json: task 12: {message}"):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert len(dataset.problems) == 1
  assert dataset[0].boxes_xyxy_px[0].tolist() == [10, 10, 30, 30]


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (3, r"task number 2: it is 3; expected keys with values"),
    (task(region(), annotations=3), r"task 1: annotations is 3; expected a list"),
    (task(region(), annotations=[{"result": 3}]), r"task 1: result of its annotation is 3; expected a list"),
    (task(region(), image=7), r"task 1: its data has no text that ends like an image; expected one"),
    (task(region(), data={"x": "b.jpg", "y": "c.jpg"}), r"task 1: its data has 2 texts that end like an image"),
    (task(region()), r"task 1: the image '/data/upload/1/3f2a91bc-a.jpg' is annotated again"),
    (task(region(), image="b.jpg"), r"b\.jpg: the image file does not exist"),
  ],
)
def test_bad_tasks_stop_or_are_left_out(tmp_path: Path, bad: Any, message: str) -> None:
  spec = labelstudio(tmp_path, task(region()), bad)
  with pytest.raises(DataError, match=message):
    open_spec(spec)
  dataset = open_spec(spec, "skip")
  assert (len(dataset), len(dataset.problems)) == (1, 1)


def test_another_size_and_another_file(tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"it says 50x100 of .*a\.jpg, which is 100x50"):
    open_spec(labelstudio(tmp_path, task(region(original_width=50, original_height=100))))
  spec = labelstudio(tmp_path)
  write(tmp_path / "export.json", "{}")
  with pytest.raises(DataError, match=r"is no list of tasks; expected Label Studio's export 'JSON' or 'JSON-MIN'"):
    open_spec(spec)
