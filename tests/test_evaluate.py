"""A model on annotated data: images that do not belong to their annotations, and the pictures of an evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError, RecordList
from prn_jax.detect.detections import Detections
from prn_jax.evaluate import Run, detection_data, draw_examples, run_model
from tests.data_pipelines.pipeline_data import jpeg, numbered
from tests.nets import random_model


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
