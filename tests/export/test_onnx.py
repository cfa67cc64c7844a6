"""ONNX files in the programs that read them: onnxruntime, and OpenCV's own importer, which asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax.cli.main import main
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.export import convert, onnx
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import INPUT, Graph
from prn_jax.models import build_graph, get_spec, list_models
from tests.conftest import shared_params
from tests.nets import narrow, random_model, tiny_detector

cv2 = pytest.importorskip("cv2")
onnxruntime = pytest.importorskip("onnxruntime")

ROUNDING = 1e-3  # relative to the largest value of a head; yolov4_w8 amplifies rounding (measured 7e-4), others 1e-5


def random_images(graph: Graph, size: Sequence[int] | None = None, count: int = 2) -> np.ndarray:
  """(count, c, h, w) float32; `size` is (width, height)."""
  width, height = size or (graph.width, graph.height)
  return np.random.default_rng(1).random((count, graph.channels, height, width), np.float32)


def run_onnxruntime(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  names = [output.name for output in session.get_outputs()]
  return dict(zip(names, session.run(names, {INPUT: x}), strict=True))


def expect_the_same_in_opencv(path: Path, x: np.ndarray) -> None:
  """Every head, for the whole batch and for one image."""
  expected = run_onnxruntime(path, x)
  network = cv2.dnn.readNetFromONNX(str(path))
  for count in (len(x), 1):
    network.setInput(x[:count])
    for name, found in zip(expected, network.forward(list(expected)), strict=True):
      wanted = expected[name][:count]
      assert found.shape == wanted.shape
      np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * np.abs(wanted).max(), err_msg=name)


@pytest.mark.parametrize("name", list_models())
def test_every_registered_network_runs_in_opencv(name: str, tmp_path: Path) -> None:
  """An eighth of the width, at a small size: all kinds of layers, links and shapes, in a tenth of a second."""
  size = max(64, get_spec(name).stride)
  model = random_model(narrow(build_graph(name, width=size, height=size), 8))
  model.save(tmp_path / "m.onnx")
  expect_the_same_in_opencv(tmp_path / "m.onnx", random_images(model.graph))


@pytest.mark.parametrize("folder", shared_params("golden/*/net.weights"))
def test_every_kind_of_layer_runs_in_opencv(folder: Path, tmp_path: Path) -> None:
  model = prn_jax.load(folder.parent / "net.cfg", weights=folder)
  model.save(tmp_path / "m.onnx")
  expect_the_same_in_opencv(tmp_path / "m.onnx", random_images(model.graph))


def test_shortcuts_between_sizes_and_a_channel_maximum_with_a_rest(tmp_path: Path) -> None:
  """Every second cell of a larger map, cells with zeros between of a smaller one; 7 channels in threes."""
  g = Builder(12, 8)
  large = g.conv(7, 3, padding=1, name="large")
  small = g.conv(9, 3, stride=2, padding=1, name="small")
  g.shortcut(large, activation="leaky", name="down")
  g.route(large, name="back")
  g.shortcut(small, name="up")
  g.maxpool(depth_out=3, name="channels")
  g.conv(2, 1, name="out")
  model = random_model(g.graph())
  proof = convert.convert(model, tmp_path / "m.onnx", any_size=True)
  assert max(proof.outputs.values()) < 1e-5
  assert np.abs(np.asarray(model.forward(np.ones((1, 8, 12, 3), np.float32))["out"])).max() > 0.1
  expect_the_same_in_opencv(tmp_path / "m.onnx", random_images(model.graph))


# -- any size ----------------------------------------------------------------------------------------------------------


def yolov2_like() -> Graph:
  """The structures whose ONNX would hold numbers of one size: reorg, both ways, a pool that keeps odd maps, region."""
  g = Builder(32, 32, name="v2")
  conv = {"size": 3, "padding": 1, "activation": "leaky"}
  g.conv(4, stride=2, name="stem", **conv)
  g.maxpool(2, 1, name="same")
  fine = g.conv(8, stride=2, name="fine", **conv)
  coarse = g.conv(8, stride=2, name="coarse", **conv)
  g.route(fine, name="fine_from")
  reorged = g.reorg(2, name="reorged")
  g.route(coarse, reorged, name="joined")
  g.reorg(2, reverse=True, name="spread")
  g.conv(2 * 8, 1, name="out")
  g.region(3, ((1.0, 2.0), (3.0, 2.5)), softmax=True, name="region")
  return g.graph()


def gaussian() -> Graph:
  g = Builder(32, 32, name="gaussian")
  g.conv(2 * 11, 3, stride=2, padding=1, name="out")
  g.gaussian_yolo(2, ((8.0, 9.0), (12.0, 14.0)), scale_x_y=1.1, name="head")
  return g.graph()


def classifier() -> Graph:
  g = Builder(16, 16, name="classes")
  g.conv(6, 3, stride=2, padding=1, activation="leaky", name="c1")
  g.local_avgpool(3, 2, name="mean")
  g.avgpool(name="pool")
  g.connected(5, name="fc")  # behind the global mean any size is welcome
  g.softmax(name="softmax")
  return g.graph()


@pytest.mark.parametrize(
  ("graph", "step"), [(tiny_detector(32), 8), (yolov2_like(), 8), (gaussian(), 1), (classifier(), 1)]
)
def test_any_size_and_batch(graph: Graph, step: int, tmp_path: Path) -> None:
  model = random_model(graph)
  model.save(tmp_path / "m.onnx", any_size=True)
  assert onnx.size_step(graph) == step
  for count, columns, rows in ((1, 0, 0), (3, 1, 4), (2, 5, 2)):
    size = (graph.width + columns * step, graph.height + rows * step)
    x = random_images(graph, size, count)
    theirs, ours = run_onnxruntime(tmp_path / "m.onnx", x), model.forward(x.transpose(0, 2, 3, 1))
    for name in ours:
      np.testing.assert_allclose(theirs[name].transpose(0, 2, 3, 1), ours[name], rtol=1e-5, atol=1e-5)
    if graph.name != "v2":  # its reorg needs numbers: OpenCV refuses it while loading; write one size for OpenCV
      expect_the_same_in_opencv(tmp_path / "m.onnx", x)


def test_a_file_for_any_size_says_how_sizes_follow(tmp_path: Path) -> None:
  import onnx as onnx_package

  random_model(tiny_detector(32)).save(tmp_path / "m.onnx", any_size=True)
  proto = onnx_package.load(tmp_path / "m.onnx")
  dims = {t.name: [d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in proto.graph.input}
  dims |= {t.name: [d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in proto.graph.output}
  assert dims == {
    "input": ["batch", 3, "height", "width"],
    "p5_yolo": ["batch", 21, "height/8", "width/8"],
    "p4_yolo": ["batch", 21, "height/4", "width/4"],
  }
  assert {p.key: p.value for p in proto.metadata_props}["size_step"] == "8"


def test_networks_of_one_size_are_refused(tmp_path: Path) -> None:
  g = Builder(8, 8, name="dense")
  g.conv(4, 3, stride=2, padding=1, name="c1")
  g.connected(5, name="fc")
  with pytest.raises(
    OutOfScopeError, match=r"layer 'fc' \(connected\) of network 'dense' has weights for images of 8x8"
  ):
    random_model(g.graph()).save(tmp_path / "m.onnx", any_size=True)
  g = Builder(8, 8, name="cut")
  g.crop(6, 6, name="middle")
  g.conv(4, 3, name="c1")
  with pytest.raises(OutOfScopeError, match=r"layer 'middle' \(crop\) cuts 6x6 out of the middle of one image size"):
    random_model(g.graph()).save(tmp_path / "m.onnx", any_size=True)
  with pytest.raises(PrnError, match=r"cannot be written for any image size .*a choice for \.onnx"):
    random_model().save(tmp_path / "m.safetensors", any_size=True)
  assert not list(tmp_path.iterdir())


def test_any_size_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  random_model().save(tmp_path / "m.safetensors")
  source = str(tmp_path / "m.safetensors")
  assert main(["convert", source, str(tmp_path / "m.onnx"), "--any-size"]) == 0
  assert "at 32x32 and 40x48; sides may differ by multiples of 8" in capsys.readouterr().out
  assert main(["convert", source, str(tmp_path / "m.weights"), "--any-size"]) == 2
  assert "that is a choice for .onnx" in capsys.readouterr().err
