"""A small network in 8 bits: rewritten, calibrated, saved, read, run by onnxruntime; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.errors import PrnError
from prn_jax.export import convert, onnx
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.kinds.quantize import Quantize
from prn_jax.kinds.quantized_conv import QuantizedConv
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.nested import flattened
from prn_jax.ops.quantizers import QSpec
from prn_jax.quantize import ptq, runtime
from prn_jax.quantize.equalize import equalized, groups, largest_values
from prn_jax.quantize.kernels import kernel_scales, on_grid, paired, within_pairs
from prn_jax.quantize.noise import noise, text
from prn_jax.quantize.observers import OBSERVERS, Seen, chosen_range
from prn_jax.quantize.presets import PRESETS, preset_of
from prn_jax.quantize.rewrite import kept_in_float, quantized_graph, quantized_variables
from prn_jax.quantize.rounding import rounded
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from tests.nets import random_model, tiny_detector


def residual() -> Graph:
  """Every structure that a rewrite knows: depthwise, shortcut with and without all channels, pool, upsample, route, SE."""
  g = Builder(16, 16, name="residual")
  g.conv(8, size=3, padding=1, stride=2, batch_normalize=True, activation="relu", name="stem")
  a = g.conv(8, name="a")
  g.conv(16, batch_normalize=True, activation="leaky", name="wide")
  g.depthwise(16, size=3, padding=1, batch_normalize=True, activation="leaky", name="each")
  g.conv(8, name="narrow")
  g.dropout(name="drop")
  g.shortcut(a, name="sum")
  g.conv(12, activation="leaky", name="more")
  g.shortcut("sum", name="partial")
  g.maxpool(2, 2, name="pool")
  g.upsample(2, name="up")
  g.route("up", "sum", name="both")
  g.se(name="attend")
  g.conv(6, name="out")
  return g.graph()


@pytest.fixture(scope="module")
def model() -> Model:
  return random_model(residual())


@pytest.fixture(scope="module")
def batches(model: Model) -> list[np.ndarray]:
  rng = np.random.default_rng(3)
  return [rng.random((4, 16, 16, 3)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def made(model: Model, batches: list[np.ndarray]) -> Model:
  return ptq.quantize(model, preset_of("ptq-mse"), batches, ptq.Options(equalize=True))


def test_the_rewrite_computes_the_same_while_nothing_is_known(model: Model, batches: list[np.ndarray]) -> None:
  folded, variables = fold_batchnorm(model.graph, model.variables)
  graph = quantized_graph(folded, preset_of("ptq-minmax"))
  before = Model(folded, variables).forward(batches[0])
  after = Model(graph, quantized_variables(graph, variables)).forward(batches[0])
  assert before.keys() == after.keys() == {"out"}
  assert np.asarray(before["out"]) == pytest.approx(np.asarray(after["out"]), rel=1e-4, abs=1e-4)


def test_ranges_are_shared_where_values_are_the_same() -> None:
  folded = fold_batchnorm(residual(), random_model(residual()).variables)[0]

  def owners(name: str) -> dict[str, str]:
    graph = quantized_graph(folded, preset_of(name))
    return {layer.name: layer.share for layer in graph if isinstance(layer, Quantize)}

  apart, common = owners("ptq-minmax"), owners("ptq-pow2")
  assert apart["pool_q"] == apart["up_q"] == "partial_q"  # the same values
  assert not apart["sum_q"]
  assert not apart["both_q"]
  # what an adder adds has one scale; its sum another, which is that of the next adder's and of what the route joins
  assert common["narrow_q"] == "a_q"
  assert common["more_q"] == common["partial_q"] == common["both_q"] == "sum_q"
  assert not common["sum_q"]
  assert not common["stem_q"]


def test_layers_that_stay_in_floats_are_named(model: Model) -> None:
  assert kept_in_float(model.graph) == {"attend": "se"}


def test_eight_bits_lose_little(model: Model, made: Model, batches: list[np.ndarray]) -> None:
  x = batches[0]
  wanted, found = (np.asarray(one.forward(x)["out"]) for one in (model, made))
  assert 20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(wanted - found)) > 25  # dB


def test_what_is_saved_is_what_was_made(made: Model, tmp_path: Path) -> None:
  convert.save(made, f"{tmp_path}/q/")
  back = load(tmp_path / "q")
  assert back.graph == made.graph
  assert back.digest() == made.digest()
  again = on_grid(back.graph, back.variables)
  assert all(
    np.array_equal(a, b) for a, b in zip(flattened(again).values(), flattened(back.variables).values(), strict=True)
  )


def test_onnxruntime_computes_the_convolutions_in_integers(made: Model, tmp_path: Path) -> None:
  path = tmp_path / "q.onnx"
  onnx.save(path, made)
  (difference,) = onnx.differences(made, path).values()
  assert difference < 1e-5  # neighbours leave room for each other: no sum overflows, on any processor
  found = runtime.fusion(made.graph, path)
  assert found.operations["QLinearConv"] == 6  # all but the last, whose result stays float
  assert found.operations["QLinearAdd"] == 2
  assert not [name for name in found.in_floats if not name.startswith(("out/", "attend/"))]


def test_neighbours_leave_room_for_each_other() -> None:
  """127 and 4 are 131: 3 too much, 2 of them from the larger one. Signs that differ, and a last one alone, stay."""
  kernel = np.array([127, 4, -127, -127, 127, -127, 60, 68, 127]).reshape(9, 1, 1, 1)
  assert within_pairs(kernel).ravel().tolist() == [125, 3, -64, -64, 127, -127, 60, 68, 127]
  again = within_pairs(within_pairs(kernel))
  assert np.array_equal(again, within_pairs(kernel))
  rng = np.random.default_rng(0)
  integers = rng.integers(-127, 128, (3, 3, 5, 4))
  found = within_pairs(integers)
  for pairs in (found.reshape(-1, 4)[:44].reshape(22, 2, 4), found[:, :, :4].reshape(18, 2, 4)):
    assert (255 * np.maximum(pairs, 0).sum(1) < 2**15).all()
    assert (255 * np.minimum(pairs, 0).sum(1) >= -(2**15)).all()
  assert np.array_equal(np.sign(found), np.sign(integers))


def test_onnxruntime_cuts_nothing_off_where_all_weights_are_large(tmp_path: Path) -> None:
  """White images and kernels of one size: sums of 255 x 127 + 255 x 127 do not fit into 16 bits."""
  g = Builder(8, 8, name="loud")
  g.conv(8, size=1, activation="relu", name="stem")
  g.conv(8, size=3, padding=1, groups=8, activation="relu", name="each")
  g.conv(8, size=3, padding=1, activation="relu", name="dense")
  g.conv(4, size=1, name="out")
  model = random_model(g.graph())
  for own in model.variables["params"].values():
    own["conv"]["kernel"] = np.sign(own["conv"]["kernel"]) * np.float32(0.1)
  images = [np.ones((2, 8, 8, 3), np.float32)]
  made = ptq.quantize(model, preset_of("ptq-minmax"), images)
  assert set(paired(made.graph)) == {"stem", "dense", "out"}
  onnx.save(tmp_path / "q.onnx", made)
  session = runtime.Session(made.graph, tmp_path / "q.onnx")
  (name,) = session.names
  found, wanted = session(None, images[0])[name], np.asarray(made.forward(images[0])[name])
  assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_equalising_changes_no_output_and_evens_ranges(model: Model, batches: list[np.ndarray]) -> None:
  graph, variables = fold_batchnorm(model.graph, model.variables)
  assert [group.maps for group in groups(graph)] == [("stem",), ("wide",), ("each",)]  # the others reach a route or SE
  for largest in (None, largest_values(graph, variables, batches)):
    after = equalized(graph, variables, largest)
    wanted, found = (np.asarray(Model(graph, v).forward(batches[0])["out"]) for v in (variables, after))
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4)
  for name, top in largest_values(graph, after, batches).items():
    assert top.max() / top.min() < 1.001, name


def test_values_in_front_of_a_slope_count_where_they_are_rounded() -> None:
  """-2 behind a slope of 0.1 was -20 in front of it: more than 5."""
  g = Builder(1, 2, channels=1, name="slope", defaults={"leaky_slope": 0.1})
  g.conv(1, activation="leaky", name="a")
  g.conv(1, name="b")
  variables = {
    "params": {
      name: {"conv": {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)}} for name in "ab"
    }
  }
  images = [np.float32([5, -20]).reshape(1, 2, 1, 1)]
  assert largest_values(g.graph(), variables, images)["a"].tolist() == [5]
  assert largest_values(g.graph(), variables, images, in_front=True)["a"].tolist() == [20]


def test_adaptive_rounding_beats_the_nearest_in_few_bits() -> None:
  """On inputs whose channels go together, errors of a filter can make up for each other."""
  rng = np.random.default_rng(0)
  layer = QuantizedConv(name="x", inputs=("input",), filters=8, size=1, bits=2, method="stored")
  kernel = rng.normal(size=(1, 1, 12, 8)).astype(np.float32)
  scale = kernel_scales(kernel, layer.spec(), "mse")
  windows = (rng.normal(size=(400, 1)) + 0.3 * rng.normal(size=(400, 12))).astype(np.float32)

  def error(rounded_kernel: np.ndarray) -> float:
    return float(((windows @ (rounded_kernel - kernel)[0, 0]) ** 2).mean())

  found = rounded(layer, kernel, scale, windows[..., None])
  integers = found / scale
  assert np.allclose(integers, np.rint(integers), atol=1e-5)
  assert np.abs(integers).max() <= 1.00001
  assert error(found) < 0.5 * error(layer.integers({"conv/kernel": kernel, "kernel_scale": scale})[0] * scale)


def test_noise_table(model: Model, made: Model, batches: list[np.ndarray]) -> None:
  graph = quantized_graph(fold_batchnorm(model.graph, model.variables)[0], preset_of("ptq-mse"))
  rows = noise(graph, made.variables, made.variables, batches)
  assert all(row.snr_db == float("inf") for row in rows)
  assert "stem" in text(rows)
  assert len(text(rows, 3).splitlines()) >= 4


@pytest.mark.parametrize("observer", OBSERVERS)
def test_observers_find_a_range_in_what_they_saw(observer: str) -> None:
  seen = Seen()
  rng = np.random.default_rng(0)
  for top in (1.0, 8.0, 2.0):
    seen.add(np.append(rng.normal(size=5000), top).astype(np.float32))
  low, high = chosen_range(seen, QSpec(bits=4, signed=False, symmetric=False), observer)
  assert -5 < low < -1
  assert 1 < high <= 8.5
  assert chosen_range(Seen(), QSpec(), observer) == (0, 0)


def test_cosine_chooses_the_power_of_two() -> None:
  seen = Seen()
  seen.add(np.float32([0.3, -0.7, 1.2, -1.45, 0.01]))
  for bits in (8, 4):
    assert chosen_range(seen, QSpec(bits=bits, pow2="nearest"), "cosine") == (-2, 2)


@pytest.mark.parametrize(
  ("name", "bits", "message"),
  [
    ("ptq-mean", None, "there is no preset 'ptq-mean' .did you mean"),
    ("ptq-mse", 16, "16 bits; expected 8, 4 or 2"),
    ("ptq-mse", 0, "0 bits; expected"),
    ("ptq-mse", 3, "3 bits; expected"),
    ("ptq-mse", 1, "Weights of one bit are a preset of their own: bwn or bnn"),
  ],
)
def test_no_such_preset(name: str, bits: int | None, message: str) -> None:
  with pytest.raises(PrnError, match=message):
    preset_of(name, bits)


def test_what_cannot_be_quantised(made: Model, model: Model, batches: list[np.ndarray]) -> None:
  with pytest.raises(PrnError, match=r"'residual' is quantised already .layer 'input_q' is a quantize"):
    ptq.quantize(made, preset_of("ptq-mse"), batches)
  with pytest.raises(PrnError, match="no image for the calibration"):
    ptq.quantize(model, preset_of("ptq-mse"), [])
  g = Builder(8, 8, name="none")
  g.maxpool(2, 2)
  with pytest.raises(PrnError, match="network 'none' has no convolution"):
    ptq.quantize(Model(g.graph(), {"params": {}}), preset_of("ptq-mse"), batches)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_network_that_can_be_written(name: str) -> None:
  graph = quantized_graph(fold_batchnorm(tiny_detector(), random_model().variables)[0], preset_of(name))
  assert {head.name for head in graph.heads} == {"p5_yolo", "p4_yolo"}
  from prn_jax.formats import darknet_cfg

  assert darknet_cfg.parse(darknet_cfg.dump(graph)).graph.canonical() == graph.canonical()
