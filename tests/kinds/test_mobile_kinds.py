"""[depthwise], [se], [normalize], same padding and other epsilons, against their formulas in plain numpy."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from tests.nets import random_model

NET = "[net]\nwidth=5\nheight=6\nchannels={}\n"


def outputs(model: Model, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """An image, and what the last layer makes of it; both (h, w, c)."""
  graph = model.graph
  x = np.random.default_rng(seed).normal(size=(1, graph.height, graph.width, graph.channels)).astype(np.float32)
  return x[0], np.asarray(model.forward(x, layers=graph.layers[-1].name)[graph.layers[-1].name])[0]


def parsed(text: str, channels: int = 4) -> Graph:
  return darknet_cfg.parse(NET.format(channels) + text).graph


@pytest.mark.parametrize("channels", [1, 4])
def test_depthwise_is_a_convolution_with_groups(channels: int) -> None:
  keys = f"filters={2 * channels}\nsize=3\nstride=2\npad=1\nbatch_normalize=1\nactivation=relu6\n"
  ours, darknets = parsed(f"[depthwise]\n{keys}", channels), parsed(f"[conv]\ngroups={channels}\n{keys}", channels)
  model = random_model(ours)
  renamed = {kind: {"conv_0": layers["depthwise_0"]} for kind, layers in model.variables.items()}
  _, found = outputs(model)
  np.testing.assert_array_equal(found, outputs(Model(darknets, renamed))[1])
  assert found.shape == (3, 3, 2 * channels)
  assert [row.macs for row in cost(ours).layers] == [row.macs for row in cost(darknets).layers] == [9 * found.size]


def test_depthwise_stores_what_a_convolution_stores(tmp_path: Path) -> None:
  """beta, gamma, mean, variance, kernel: channel by channel."""
  graph = parsed("[depthwise]\nfilters=4\nsize=3\nbatch_normalize=1\nactivation=linear\n")
  values = np.arange(4 * 4 + 4 * 9, dtype="<f4")
  (tmp_path / "x.weights").write_bytes(darknet_weights.Header().pack() + values.tobytes())
  loaded = darknet_weights.load(tmp_path / "x.weights", graph).variables
  layer = loaded["params"]["depthwise_0"]
  assert layer["bn"]["bias"].tolist() == [0, 1, 2, 3]
  assert loaded["batch_stats"]["depthwise_0"]["bn"]["var"].tolist() == [12, 13, 14, 15]
  assert layer["conv"]["kernel"].shape == (3, 3, 1, 4)
  assert layer["conv"]["kernel"][..., 0, 1].reshape(-1).tolist() == list(range(25, 34))


@pytest.mark.parametrize(
  "keys", ["", "reduction=2\n", "filters=4\n", "squeezed=3\nbiased=1\nactivation=swish\ngate=logistic\n"]
)
def test_se_is_its_formula(keys: str) -> None:
  model = random_model(parsed(f"[se]\n{keys}"))
  params = model.variables["params"]["se_0"]
  w, v = (np.asarray(params[name]["kernel"], np.float64) for name in ("reduce", "expand"))
  a, b = (np.asarray(params[name].get("bias", 0.0), np.float64) for name in ("reduce", "expand"))
  x, found = outputs(model)
  hidden = x.mean((0, 1)) @ w + a
  if "swish" in keys:
    gate = 1 / (1 + np.exp(-((hidden / (1 + np.exp(-hidden))) @ v + b)))
  else:
    gate = np.clip(np.maximum(hidden, 0) @ v + b + 3, 0, 6) / 6
  np.testing.assert_allclose(found, x * gate, rtol=1e-5, atol=1e-6)
  assert w.shape[1] == {"": 1, "reduction=2\n": 2, "filters=4\n": 1}.get(keys, 3)
  assert cost(model.graph).layers[0].macs == 2 * w.size


def test_se_stores_the_narrowing_matrix_first(tmp_path: Path) -> None:
  """(hidden, channels), then (channels, hidden), as its inventors' files have them."""
  graph = parsed("[se]\nreduction=2\n")
  (tmp_path / "x.weights").write_bytes(darknet_weights.Header().pack() + np.arange(16, dtype="<f4").tobytes())
  params = darknet_weights.load(tmp_path / "x.weights", graph).variables["params"]["se_0"]
  assert params["reduce"]["kernel"].T.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
  assert params["expand"]["kernel"].T.tolist() == [[8, 9], [10, 11], [12, 13], [14, 15]]


def test_normalize_is_its_formula() -> None:
  model = Model(parsed("[normalize]\nmean=0.5,1\nstd=0.25,2\n", 2), {"params": {}})
  x, found = outputs(model)
  np.testing.assert_allclose(found, (x - [0.5, 1]) / [0.25, 2], rtol=1e-6)


def correlated(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
  """A convolution with TensorFlow's padding, in loops: output i reads rows from i * stride - before on."""
  size = kernel.shape[0]
  shape = [-(-side // stride) for side in x.shape[:2]]
  before = [max((out - 1) * stride + size - side, 0) // 2 for out, side in zip(shape, x.shape[:2], strict=True)]
  found = np.zeros((*shape, kernel.shape[3]))
  for i, j, y, z in itertools.product(*map(range, (*shape, size, size))):
    row, column = i * stride - before[0] + y, j * stride - before[1] + z
    if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
      found[i, j] += x[row, column] @ kernel[y, z]
  return found


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2), (2, 1), (1, 2)])
def test_same_padding_is_tensorflows(size: int, stride: int) -> None:
  model = random_model(parsed(f"[conv]\nfilters=3\nsize={size}\nstride={stride}\nsame=1\nactivation=linear\n", 2))
  conv = model.variables["params"]["conv_0"]["conv"]
  x, found = outputs(model)
  expected = correlated(x.astype(np.float64), np.asarray(conv["kernel"], np.float64), stride) + conv["bias"]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("section", ["conv", "depthwise", "connected", "batchnorm"])
def test_epsilon_of_batch_norm(section: str) -> None:
  """y = gamma (z - mean) / sqrt(var + epsilon) + beta, also where it is folded into the kernel."""
  keys = {"batchnorm": "", "connected": "output=4\nbatch_normalize=1\nactivation=linear\n"}
  text = keys.get(section, "filters=4\nbatch_normalize=1\nactivation=linear\n")
  model = random_model(parsed(f"[{section}]\n{text}bn_epsilon=0.25\n"))
  graph, variables = model.graph, model.variables
  layer = graph.layers[0]
  stats, bn = variables["batch_stats"][layer.name]["bn"], variables["params"][layer.name]["bn"]
  plain = dataclasses.replace(graph, layers=(dataclasses.replace(layer, bn_epsilon=0.0),))
  scaled = bn["scale"] * np.sqrt((stats["var"] + 1e-5) / (stats["var"] + 0.25))
  changed = {**variables["params"][layer.name], "bn": {"bias": bn["bias"], "scale": scaled}}
  expected = outputs(Model(plain, {**variables, "params": {layer.name: changed}}))[1]
  np.testing.assert_allclose(outputs(model)[1], expected, rtol=1e-5, atol=1e-6)
  folded = Model(*fold_batchnorm(graph, variables))
  np.testing.assert_allclose(outputs(folded)[1], expected, rtol=1e-5, atol=1e-6)


def test_darknets_epsilon_is_not_written() -> None:
  """Layers that say 0.00001 and that say nothing are equal; a cfg has the key only where it differs."""
  g = Builder(4, 4)
  g.conv(4, batch_normalize=True, bn_epsilon=1e-5, name="a")
  g.depthwise(4, batch_normalize=True, bn_epsilon=1e-5, name="b")
  assert "bn_epsilon" not in darknet_cfg.dump(g.graph())
  assert g.graph()["a"].bn_epsilon == 0


def test_defaults_stay_out_of_the_cfg() -> None:
  g = Builder(4, 4)
  g.conv(4, activation="linear", name="a")
  g.se(name="b")
  assert darknet_cfg.dump(g.graph()).endswith("[se]\n# name = b\n")


def test_an_unknown_gate_is_told(caplog: pytest.LogCaptureFixture) -> None:
  assert parsed("[se]\ngate=hard_sigmod\n").layers[0].gate == "relu"
  assert (
    "[se] has gate=hard_sigmod, which Darknet does not know and computes as relu; so do we (did you mean" in caplog.text
  )
