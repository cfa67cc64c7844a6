"""Boxes and suppression inside of ONNX files, against our own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from prn_jax.cli.main import main
from prn_jax.detect import nms
from prn_jax.detect.decode import decode
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.export import onnx
from prn_jax.export.onnx_boxes import OutputOptions
from prn_jax.graph.graph import INPUT, Graph
from prn_jax.model import Model
from tests.export.test_onnx import classifier, gaussian, yolov2_like
from tests.nets import random_model, tiny_detector

onnx_package = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def run(model: Model, options: OutputOptions, x: np.ndarray, **inputs: float) -> dict[str, np.ndarray]:
  proto = onnx.to_proto(model, options=options)
  onnx_package.checker.check_model(proto, full_check=True)
  session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
  given = {name: np.asarray([value], np.float32) for name, value in inputs.items()}
  names = [output.name for output in session.get_outputs()]
  return dict(zip(names, session.run(names, {INPUT: x.transpose(0, 3, 1, 2)} | given), strict=True))


def images(graph: Graph, count: int = 3) -> np.ndarray:
  return np.random.default_rng(1).random((count, graph.height, graph.width, graph.channels), np.float32)


def corners_px(boxes_cxcywh_rel: np.ndarray, graph: Graph) -> np.ndarray:
  centre, half = np.asarray(boxes_cxcywh_rel)[..., :2], np.asarray(boxes_cxcywh_rel)[..., 2:] / 2
  return np.concatenate([centre - half, centre + half], -1) * np.tile([graph.width, graph.height], 2)


@pytest.mark.parametrize("graph", [tiny_detector(32), yolov2_like(), gaussian()], ids=lambda g: g.name)
def test_boxes_are_our_candidates(graph: Graph) -> None:
  model, x = random_model(graph), images(graph)
  found, ours = run(model, OutputOptions(output="boxes"), x), decode(model.forward(x), graph)
  expected = corners_px(ours.boxes_cxcywh_rel, graph)
  np.testing.assert_allclose(found["boxes"], expected, atol=1e-3, rtol=1e-5)
  np.testing.assert_allclose(found["scores"], ours.scores, atol=1e-5)


@pytest.mark.parametrize(("graph", "agnostic"), [(tiny_detector(32, classes=3), False), (yolov2_like(), True)])
def test_detections_are_ours(graph: Graph, agnostic: bool) -> None:
  """With the thresholds of the file, and with others given as inputs; at 20 slots some boxes find no place."""
  model, x = random_model(graph), images(graph)
  options = OutputOptions(output="detections", conf=0.3, nms=0.3, max_detections=20, class_agnostic=agnostic)
  counts = []
  for conf, overlap in ((0.3, 0.3), (0.05, 0.6)):
    found = run(model, options, x, **({} if conf == 0.3 else {"conf": conf, "nms": overlap}))
    ours = nms.postprocess(
      model.forward(x), graph, conf=conf, nms_threshold=overlap, max_detections=20, class_agnostic=agnostic
    )
    np.testing.assert_array_equal(found["count"], ours.count)
    np.testing.assert_allclose(found["scores"], ours.scores, atol=1e-5)
    np.testing.assert_array_equal(found["classes"], ours.classes)
    expected = corners_px(ours.boxes_cxcywh_rel, graph)
    np.testing.assert_allclose(found["boxes"], expected, atol=1e-3, rtol=1e-5)
    counts.append(int(found["count"].min()))
  assert counts[1] > 0


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
  model = random_model(tiny_detector(32), names=["a", "b"], resize="letterbox")
  onnx.save(tmp_path / "m.onnx", model, options=OutputOptions(output="detections", conf=0.1, max_detections=7))
  props = {p.key: p.value for p in onnx_package.load(tmp_path / "m.onnx").metadata_props}
  assert json.loads(props["names"]) == ["a", "b"]
  assert (props["output"], props["resize"], props["boxes"]) == (
    "detections",
    "letterbox",
    "x1, y1, x2, y2 in pixels of the input",
  )
  assert json.loads(props["input"]) == {
    "width": 32,
    "height": 32,
    "channels": "RGB",
    "layout": "NCHW",
    "values": [0, 1],
  }
  assert json.loads(props["suppression"]) == {"conf": 0.1, "nms": 0.45, "max_detections": 7, "class_agnostic": False}
  assert json.loads(props["anchors"])["p5_yolo"][0] == [10.0, 14.0]


def test_refusals() -> None:
  boxes = OutputOptions(output="boxes")
  with pytest.raises(PrnError, match=r"network 'classes' classifies; its output is heads"):
    onnx.to_proto(random_model(classifier()), options=boxes)
  with pytest.raises(PrnError, match=r"boxes needs one image size: leave --any-size out, or write heads"):
    onnx.to_proto(random_model(), any_size=True, options=boxes)
  graph = tiny_detector()
  layers = [dataclasses.replace(one, nms_kind="greedynms") if one.kind == "yolo" else one for one in graph]
  model = random_model(dataclasses.replace(graph, layers=tuple(layers)))
  with pytest.raises(OutOfScopeError, match=r"suppresses by greedynms.*with --nms-kind default, or write boxes"):
    onnx.to_proto(model, options=OutputOptions(output="detections"))
  onnx.to_proto(model, options=OutputOptions(output="detections", nms_kind="default"))


def test_detections_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  source, target = str(tmp_path / "m.safetensors"), str(tmp_path / "m.onnx")
  random_model().save(source)
  assert main(["convert", source, target, "--onnx-output", "detections", "--conf", "0.1"]) == 0
  assert "count: max difference 0\n" in capsys.readouterr().out
  assert main(["convert", source, target, "--onnx-output", "boxes", "--conf", "0.1"]) == 2
  assert "--conf is about suppression, which x.onnx holds with --onnx-output detections only" in capsys.readouterr().err
  assert main(["convert", source, str(tmp_path / "m.weights"), "--onnx-output", "boxes"]) == 2
  assert "is a choice for .onnx" in capsys.readouterr().err
