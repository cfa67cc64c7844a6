"""One evaluator: nothing is lost in crowded scenes, and data of the other task is refused."""

from __future__ import annotations

import numpy as np
import pytest

from prn_jax.data_pipelines.records import DataError
from prn_jax.detect import nms
from prn_jax.errors import PrnError
from prn_jax.run import detector
from prn_jax.run.defaults import MOST_DETECTIONS
from prn_jax.run.detector import DetectOptions
from prn_jax.run.evaluate import Evaluator, NotFiniteError, for_protocol, run_model
from prn_jax.run.mesh import make_mesh
from tests.data_pipelines.pipeline_data import numbered
from tests.nets import random_model, tiny_detector


def test_no_candidate_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
  """Where there are more than the program has room for, it is compiled with more, and gives what one with room gives."""
  model, data, options = random_model(), numbered(3), DetectOptions(conf=0.0, max_detections=MOST_DETECTIONS)
  expected = run_model(model, data, options)
  assert min(len(result) for result in expected.results.values()) > 64  # type: ignore[arg-type]
  monkeypatch.setattr(nms, "MAX_CANDIDATES", 32)
  found = run_model(model, data, options)
  for image_id, result in expected.results.items():
    np.testing.assert_array_equal(found.results[image_id].boxes_xyxy_px, result.boxes_xyxy_px)  # type: ignore[union-attr]
  monkeypatch.setattr("prn_jax.run.eval_program.MOST_CANDIDATES", 64)
  with pytest.raises(PrnError, match=r"more than 131,072 boxes and classes exceed conf=0 in one image\. Raise conf"):
    run_model(model, data, options)
  assert detector.MOST_CANDIDATES == 131072


def test_data_of_the_other_task_is_refused() -> None:
  with pytest.raises(DataError, match=r"classes of whole images, no boxes, but network 'tiny' detects\. Use data with"):
    Evaluator(tiny_detector(32, 5), numbered(3, labelled=True), make_mesh())


def test_a_broken_network_is_told_with_the_image() -> None:
  model = random_model()
  model.variables["params"]["stem"]["conv"]["kernel"] = np.full((3, 3, 3, 6), np.nan, np.float32)
  with pytest.raises(
    NotFiniteError, match=r"NaN or infinity in \d+ boxes for image 'picture_0': .* exploded"
  ) as caught:
    run_model(model, numbered(2))
  assert caught.value.image_id == "picture_0"


def test_darknets_own_protocol_takes_the_suppression_of_the_cfg() -> None:
  assert for_protocol(DetectOptions(), "coco").nms_kind == "default"
  assert for_protocol(DetectOptions(), "darknet").nms_kind is None
  assert for_protocol(DetectOptions(nms_kind="diounms"), "voc").nms_kind == "diounms"
