"""A model on annotated data: images that do not belong to their annotations, and the pictures of an evaluation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prn_jax import load
from prn_jax.data_pipelines.records import DataError, RecordList
from prn_jax.detect.detections import Detections
from prn_jax.formats import darknet_cfg
from prn_jax.labels import VOC_NAMES
from prn_jax.run.evaluate import Run, detection_data, draw_examples, open_data, run_model
from tests.data_pipelines.pipeline_data import jpeg, numbered
from tests.nets import random_model, tiny_detector


def of_another_size(index: int, image: Path | bytes) -> RecordList:
  """Four images of 40x30; one shows other pixels than its boxes speak of."""
  data = numbered(4)
  records = list(data.records)
  records[index] = dataclasses.replace(records[index], image=image)
  return dataclasses.replace(data, records=tuple(records))


@pytest.mark.parametrize("size", [(80, 60), (30, 40)], ids=["scaled", "turned"])
@pytest.mark.parametrize("is_file", [True, False])
def test_truths_and_detections_are_in_pixels_of_the_same_image(
  tmp_path: Path, size: tuple[int, int], is_file: bool
) -> None:
  (tmp_path / "b.jpg").write_bytes(jpeg(*size))
  data = of_another_size(2, tmp_path / "b.jpg" if is_file else jpeg(*size))
  model, name = random_model(), "b.jpg" if is_file else "picture_2"
  with pytest.raises(
    DataError, match=rf"image '\S*{name}' is {size[0]}x{size[1]}, but the annotations say 40x30.* skip"
  ):
    run_model(model, data, batch_size=3)
  run = run_model(model, data, batch_size=3, on_bad_data="skip")
  assert list(run.results) == ["picture_0", "picture_1", "picture_3"]
  assert [Path(failure.path).name for failure in run.failures] == [name]
  scored = detection_data(data, run)
  assert scored.image_ids == ("picture_0", "picture_1", "picture_3")
  assert len(scored.truth_classes) == 0 + 1 + 0, "the two boxes of the image that was left out count nowhere"


def test_a_bad_image_in_memory_is_named_by_its_id() -> None:
  with pytest.raises(DataError, match=r"image 'picture_1' .*is not an image"):
    run_model(random_model(), numbered(3, bad=(1,)))


def test_every_example_has_a_picture_of_its_own(tmp_path: Path) -> None:
  ids = ["a/1.jpg", "b/1.jpg", "b/1.png", "B/1", "plain", "dotted.v2", r"c\2.jpeg", "x" * 300 + "1", "x" * 300 + "2"]
  record = numbered(1)[0]
  data = RecordList(("a", "b"), (0, 1), tuple(dataclasses.replace(record, image_id=one) for one in ids))
  nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32), data.names, 40, 30)
  files = draw_examples(data, Run(dict.fromkeys(ids, nothing), (), {}), tmp_path, len(ids), 0.5)
  names = [file.name for file in files]
  assert names[:7] == ["a_1.jpg", "b_1.jpg", "b_1 (2).jpg", "B_1 (3).jpg", "plain.jpg", "dotted.v2.jpg", "c_2.jpg"]
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
  assert len({name.lower() for name in names}) == len(ids)
  assert max(map(len, names)) < 150


ROAD = ("person", "motorbike", "car")


def opened(
  tmp_path: Path, given: Sequence[str] | None, categories: Sequence[str], used: Sequence[int], classes: int = 3
) -> list[list[int]]:
  """Classes of every image of a COCO file, as a network of so many classes with these names numbers them."""
  (tmp_path / "1.jpg").write_bytes(jpeg(40, 30))
  content = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30}],
    "categories": [{"id": i + 1, "name": name} for i, name in enumerate(categories)],
    "annotations": [
      {"id": i, "image_id": 1, "category_id": k + 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
      for i, k in enumerate(used)
    ],
  }
  (tmp_path / "a.json").write_text(json.dumps(content))
  cfg = tmp_path / "net.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_detector(32, classes)))
  dataset = open_data(f"coco:{tmp_path}/a.json:{tmp_path}", load(cfg, names=given))
  return [dataset[i].classes.tolist() for i in range(len(dataset))]


@pytest.mark.parametrize(
  ("categories", "used", "expected"),
  [
    (("car", "motorcycle", "person"), (0, 1, 2), [2, 1, 0]),  # another order, another spelling
    (("road-scenes", "Car", "Person"), (1, 2), [2, 0]),  # a first category that no image shows, and one class less
    (("person",), (0, 0), [0, 0]),
    (("tree", "house", "person", "fox"), (2,), [0]),  # more categories than the network has classes
  ],
)
def test_classes_are_matched_by_name(
  tmp_path: Path, categories: tuple[str, ...], used: tuple[int, ...], expected: list[int]
) -> None:
  assert opened(tmp_path, ROAD, categories, used) == [expected]


def test_objects_of_an_unknown_class_are_refused(tmp_path: Path) -> None:
  message = (
    r"has objects of classes 'fox', 'cart', but network 'tiny' has 3 other names: 'person', 'motorbike', 'car'.*--names"
  )
  with pytest.raises(DataError, match=message):
    opened(tmp_path, ROAD, ("fox", "person", "cart", "tree"), (0, 1, 2))


@pytest.mark.parametrize(
  ("given", "categories", "who"),
  [
    (None, ("a", "b", "c"), "the network"),
    (("0", "1", "2"), ("a", "b", "c"), "the network"),
    (ROAD, "012", "the data"),
  ],
)
def test_position_decides_only_without_names_and_is_said(
  tmp_path: Path, caplog: pytest.LogCaptureFixture, given: Sequence[str] | None, categories: Sequence[str], who: str
) -> None:
  assert opened(tmp_path, given, categories, (0, 2)) == [[0, 2]]
  assert f"classes are matched by position, since {who} has no class names: class 0" in caplog.text
  caplog.clear()
  assert opened(tmp_path, ROAD, ROAD[::-1], (0, 2)) == [[2, 0]]
  assert not caplog.text
  with pytest.raises(
    DataError, match=rf"has 4 classes, but network 'tiny' has 3, and {who} has no class names.*--names"
  ):
    opened(tmp_path, given, [*categories, "3"], (0, 3))


def test_names_that_nobody_gave_are_weak(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
  """A network of 20 classes is VOC's, unless the data says otherwise in every name."""
  foreign = [f"species {i}" for i in range(20)]
  assert opened(tmp_path, None, VOC_NAMES[::-1], (0, 1), 20) == [[19, 18]]
  assert opened(tmp_path, None, foreign, (0, 1), 20) == [[0, 1]]
  assert "matched by position, since the network has no class names" in caplog.text
  with pytest.raises(
    DataError, match=r"objects of class 'species 1', but .* 20 other names \(assumed, since none were"
  ):
    opened(tmp_path, None, ["sofa", *foreign[1:]], (0, 1), 20)
  with pytest.raises(DataError, match=r"objects of class 'species 0', but .* 20 other names: 'aeroplane'"):
    opened(tmp_path, VOC_NAMES, foreign, (0,), 20)


def test_assumed_names_stay_assumed_in_saved_models(tmp_path: Path) -> None:
  random_model(tiny_detector(32, 20)).save(tmp_path / "0")
  for number in (0, 1):
    model = load(tmp_path / str(number))
    assert model.names == VOC_NAMES
    assert model.names_are_assumed
    model.save(tmp_path / str(number + 1))
  load(tmp_path / "0", names=VOC_NAMES).save(tmp_path / "named")
  assert not load(tmp_path / "named").names_are_assumed
