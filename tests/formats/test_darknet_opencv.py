"""An independent reader of our files: OpenCV's Darknet importer on cfgs and weights that we wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from prn_jax.files.disk import write_text
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.graph import Graph
from prn_jax.kinds import batchnorm
from prn_jax.network import Network, Variables, flatten_variables, init_variables, unflatten_variables

cv2 = pytest.importorskip("cv2")
if not hasattr(cv2.dnn, "readNetFromDarknet"):
  pytest.skip("this OpenCV has no Darknet reader (5.0 dropped it)", allow_module_level=True)


def random_variables(graph: Graph) -> Variables:
  """He kernels, and batch norms that are neither trivial nor extreme."""
  random = np.random.default_rng(0)
  ranges = {
    "bn/scale": (0.5, 1.5),
    "bn/var": (0.5, 1.5),
    "bn/bias": (-0.3, 0.3),
    "bn/mean": (-0.3, 0.3),
    "conv/bias": (-1, 1),
  }

  def value(key: str, initial: np.ndarray) -> np.ndarray:
    role = key.split("/", 2)[2]
    return random.uniform(*ranges[role], initial.shape).astype(np.float32) if role in ranges else initial * 1.7

  flat = flatten_variables(init_variables(graph))
  return unflatten_variables({key: value(key, initial) for key, initial in flat.items()})


@pytest.mark.parametrize("name", ["yolov3-tiny-prn", "yolov3-tiny", "yolov4-tiny"])
def test_opencv_computes_the_same(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """The convolutions before the heads, at 64x96; OpenCV applies [yolo] by itself, with other rules.

  Its importer adds 1e-6 to variances, Darknet 1e-5; here both use OpenCV's value. Tolerance: 1e-4 of the largest
  output (measured 1e-5).
  """
  monkeypatch.setattr(batchnorm, "EPSILON", 1e-6)
  cfg = darknet_cfg.read(shared / "cfg" / f"{name}.cfg")
  graph = dataclasses.replace(cfg.graph.resized(96, 64))
  variables = random_variables(graph)
  write_text(tmp_path / "net.cfg", darknet_cfg.dump(graph, cfg.training))
  darknet_weights.save(tmp_path / "net.weights", graph, variables)

  x = np.random.default_rng(1).random((1, graph.height, graph.width, 3), np.float32)
  outputs = jax.jit(lambda v, x: Network(graph, precision="highest").apply(v, x, layers="all"))(variables, x)
  cv2.setNumThreads(1)
  net = cv2.dnn.readNetFromDarknet(str(tmp_path / "net.cfg"), str(tmp_path / "net.weights"))
  net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
  net.setInput(x.transpose(0, 3, 1, 2))
  logits = [head.inputs[0] for head in graph.heads]
  assert len(logits) == 2
  layers = list(graph)
  for layer_name in logits:
    index = layers.index(graph[layer_name])
    found = np.asarray(outputs[layer_name]).transpose(0, 3, 1, 2)
    expected = net.forward(f"conv_{index}")
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=layer_name)


def test_opencv_adds_partial_shortcuts_alike(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """yolov3-tiny-prn's layers 22 and 25: 128 channels plus the first 128 of 256."""
  monkeypatch.setattr(batchnorm, "EPSILON", 1e-6)
  graph = darknet_cfg.read(shared / "cfg" / "yolov3-tiny-prn.cfg").graph.resized(64, 64)
  variables = random_variables(graph)
  write_text(tmp_path / "net.cfg", darknet_cfg.dump(graph))
  darknet_weights.save(tmp_path / "net.weights", graph, variables)
  x = np.random.default_rng(2).random((1, 64, 64, 3), np.float32)
  outputs = jax.jit(lambda v, x: Network(graph, precision="highest").apply(v, x, layers="all"))(variables, x)
  net = cv2.dnn.readNetFromDarknet(str(tmp_path / "net.cfg"), str(tmp_path / "net.weights"))
  net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
  net.enableFusion(False)
  net.setInput(x.transpose(0, 3, 1, 2))
  for index in (13, 16, 22, 24, 25):
    layer = graph.layers[index]
    assert layer.kind == "shortcut"
    expected = net.forward(f"leaky_{index + 1}")  # OpenCV counts an activation to the layer behind it
    found = np.asarray(outputs[layer.name]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=layer.name)
