"""The scripts of docs/runtimes.md, as they stand there, find what `prn predict` finds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax.data_pipelines.images import read_image
from prn_jax.examples import example_image
from prn_jax.export import onnx
from prn_jax.export.onnx_boxes import OutputOptions
from prn_jax.run.detector import DetectOptions, Detector
from tests.conftest import REPO

pytest.importorskip("onnx")


@pytest.mark.parametrize(("title", "package", "output"), [
  ("onnxruntime in Python", "onnxruntime", "detections"),
  ("OpenCV", "cv2", "boxes"),
])  # fmt: skip
def test_a_script_finds_our_boxes(title: str, package: str, output: str, tmp_path: Path) -> None:
  """Nine tenths of each box and 0.05 of its score: they resize otherwise than Darknet, as their libraries do."""
  pytest.importorskip(package)
  model = prn_jax.load("traffic-tiny-prn")
  onnx.save(tmp_path / "x.onnx", model, options=OutputOptions(output=output))
  page = (REPO / "docs" / "runtimes.md").read_text().partition(f"## {title}\n")[2]
  (tmp_path / "script.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
  given = ["x.onnx", str(example_image()), *([str(model.graph.width), str(model.graph.height)] * (package == "cv2"))]
  done = subprocess.run(
    [sys.executable, "script.py", *given], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
  )
  rows = [line.split() for line in done.stdout.splitlines()]
  ours = Detector(model, DetectOptions(conf=0.5))([read_image(example_image())])[0]
  assert len(ours) > 2
  assert len(rows) == len(ours)
  for box, score, label in zip(ours.boxes_xyxy_px, ours.scores, ours.classes, strict=True):
    table = np.asarray([one[2:] for one in rows], float)
    overlaps = _overlaps(table, box)
    row = rows[int(overlaps.argmax())]
    assert overlaps.max() > 0.9
    assert row[0] in (ours.names[label], str(label))
    assert float(row[1]) == pytest.approx(score, abs=0.05)


def _overlaps(boxes_xyxy: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
  """Intersection over union of many boxes with one."""
  least, most = np.maximum(boxes_xyxy[:, :2], box_xyxy[:2]), np.minimum(boxes_xyxy[:, 2:], box_xyxy[2:])
  shared = (most - least).clip(0).prod(1)
  return shared / ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1) + (box_xyxy[2:] - box_xyxy[:2]).prod() - shared)
