"""The Flax network against outputs of the real Darknet, and against OpenCV on real trained weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.kinds import batchnorm
from prn_jax.network import (
  Network,
  expected_variables,
  flatten_variables,
  init_variables,
  unflatten_variables,
  wanted_layers,
)
from tests.conftest import SHARED, shared_params

AVX_IS_WRONG = {"spp_5_9_13"}  # the stock build's maxpool bug, not noise: compare with float64 alone


def manifest() -> dict[str, Any]:
  return json.loads((SHARED / "golden" / "manifest.json").read_text()) if SHARED else {}


MANIFEST = manifest()
GOLDENS = shared_params(
  *(f"golden/{name}" for name, entry in MANIFEST.items() if entry["kind"] in ("forward", "weights"))
)


def run(graph: Graph, variables: Any, x_nchw: np.ndarray) -> dict[str, np.ndarray]:
  """All outputs, NCHW."""
  apply = jax.jit(lambda v, x: Network(graph, precision="highest").apply(v, x, layers="all"))
  outputs = apply(variables, x_nchw.transpose(0, 2, 3, 1))
  return {name: np.asarray(value).transpose(0, 3, 1, 2) for name, value in outputs.items()}


def tolerance(folder: str, kind_of_input: str, index: int) -> float:
  try:
    noise = MANIFEST[folder]["inputs"][kind_of_input]["outputs"][str(index)]
  except KeyError:
    return 1e-5
  avx = 0.0 if folder in AVX_IS_WRONG else noise["err_vs_avx_ofast_build"]
  return max(1e-5, 10 * max(noise["err_vs_float64"], avx))


@pytest.mark.parametrize("folder", GOLDENS)
def test_outputs_are_darknets(folder: Path) -> None:
  graph = darknet_cfg.read(folder / "net.cfg").graph
  names = [layer.name for layer in graph]
  for weights in sorted(folder.glob("*.weights")):
    variables = darknet_weights.load(weights, graph).variables
    for kind_of_input, prefix in (("input", "output_"), ("input_dog", "output_dog_")):
      if not (folder / f"{kind_of_input}.npy").exists():
        assert kind_of_input == "input_dog"
        continue
      outputs = run(graph, variables, np.load(folder / f"{kind_of_input}.npy"))
      files = [f for f in folder.glob(f"{prefix}*.npy") if f.stem[len(prefix) :].isdigit()]
      assert files, (folder, prefix)
      for file in files:
        index = int(file.stem[len(prefix) :])
        expected = np.load(file)
        np.testing.assert_allclose(
          outputs[names[index]].reshape(expected.shape), expected,
          rtol=0, atol=tolerance(folder.name, kind_of_input, index), err_msg=f"{folder.name} layer {index}",
        )  # fmt: skip


@pytest.mark.parametrize("folder", GOLDENS)
def test_weights_come_back_byte_for_byte(folder: Path, tmp_path: Path) -> None:
  graph = darknet_cfg.read(folder / "net.cfg").graph
  files = sorted(folder.glob("*.weights"))
  assert files
  for weights in files:
    loaded = darknet_weights.load(weights, graph)
    assert loaded.missing == ()
    assert {k: v.shape for k, v in flatten_variables(loaded.variables).items()} == expected_variables(graph)
    darknet_weights.save(tmp_path / "again.weights", graph, loaded.variables, loaded.header)
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


def test_weights_format_has_three_headers(shared: Path) -> None:
  graph = darknet_cfg.read(shared / "golden/weights_format/net.cfg").graph
  folder = shared / "golden/weights_format"
  loaded = {f.name: darknet_weights.load(f, graph) for f in folder.glob("*.weights")}
  headers = {name: x.header for name, x in loaded.items()}
  assert {name: (h.size, h.transposed) for name, h in headers.items()} == {
    "v0.2_seen64.weights": (20, False),
    "v0.1_seen32.weights": (16, False),
    "v0.1001_transposed_seen64.weights": (20, True),
  }
  assert len({h.seen for h in headers.values()}) == 1
  first, *others = (x.variables for x in loaded.values())
  for other in others:
    jax.tree.map(np.testing.assert_array_equal, first, other)


REAL = shared_params("data/weights/*/*.weights")


@pytest.mark.parametrize("weights", REAL)
def test_trained_weights_give_opencvs_outputs(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """`head_input_layerN` is the output of cfg layer N as OpenCV computes it; tiny Darknet gives its softmax.

  OpenCV's Darknet reader adds 1e-6 to the variance where Darknet adds 1e-5, which moves these logits (up to 25)
  by up to 0.03. With OpenCV's value all else must agree; that ours is Darknet's, the goldens show.
  """
  assert batchnorm.EPSILON == 1e-5
  monkeypatch.setattr(batchnorm, "EPSILON", 1e-6)
  graph = darknet_cfg.read(weights.with_suffix(".cfg")).graph
  variables = darknet_weights.load(weights, graph).variables
  reference = np.load(weights.parent / "reference_dog.npz")
  x = reference["input_rgb_u8"].astype(np.float32).transpose(2, 0, 1)[None] / 255
  outputs = run(graph, variables, x)
  if "softmax" in reference:
    (head,) = graph.heads
    np.testing.assert_allclose(outputs[head.name].ravel(), reference["softmax"], rtol=0, atol=1e-4)
    return
  heads = {key: int(key.removeprefix("head_input_layer")) for key in reference if key != "input_rgb_u8"}
  assert len(heads) == len(graph.heads)
  for key, index in heads.items():
    np.testing.assert_allclose(outputs[graph.layers[index].name], reference[key], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", REAL)
def test_trained_weights_come_back_byte_for_byte(weights: Path, tmp_path: Path) -> None:
  graph = darknet_cfg.read(weights.with_suffix(".cfg")).graph
  loaded = darknet_weights.load(weights, graph)
  assert loaded.missing == ()
  darknet_weights.save(tmp_path / "again.weights", graph, loaded.variables, loaded.header)
  digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (weights, tmp_path / "again.weights")]
  assert digests[0] == digests[1]


def small_detector() -> Graph:
  g = Builder(32, 32, name="small", defaults={"activation": "leaky", "batch_normalize": True})
  c1 = g.conv(8, 3, padding=1, name="c1")
  g.conv(8, 3, padding=1, name="c2")
  g.shortcut(c1, name="skip")
  g.maxpool(2, 2, name="pool")
  g.conv(21, 1, activation="linear", batch_normalize=False, name="logits")
  g.yolo(classes=2, anchors=((4, 4), (8, 8), (16, 16)), name="head")
  return g.graph()


def test_init_gives_the_expected_variables() -> None:
  graph = small_detector()
  variables = init_variables(graph)
  flat = flatten_variables(variables)
  assert {key: value.shape for key, value in flat.items()} == expected_variables(graph)
  assert {value.dtype for value in flat.values()} == {np.dtype(np.float32)}
  assert all(isinstance(value, np.ndarray) for value in flat.values())
  bound = np.sqrt(2 / (3 * 3 * 3))  # Darknet: U(-1, 1) * sqrt(2 / (size^2 * channels))
  kernel = flat["params/c1/conv/kernel"]
  assert np.abs(kernel).max() <= bound
  assert np.abs(kernel).max() > 0.9 * bound
  assert np.ptp(flat["params/logits/conv/bias"]) == 0


def test_both_ways_to_initialise_follow_darknets_rules() -> None:
  """`init_variables` and Flax's own `init`: the same ranges, and the same constants."""
  g = Builder(8, 8)
  g.implicit(filters=500, mean=0.5, std=0.1, name="vector")
  g.conv(40, 1, name="plain")
  g.conv(40, 3, groups=4, padding=1, batch_normalize=True, name="grouped")
  g.shortcut("plain", weights_type="per_channel", weights_normalization="relu", name="sum")
  g.connected(30, name="dense")
  graph = g.graph()
  flax = Network(graph).init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
  ours, theirs = (flatten_variables(dict(v)) for v in (init_variables(graph), flax))
  assert ours.keys() == theirs.keys()
  bounds = {
    "params/vector/vector": (0.4, 0.6),
    "params/grouped/conv/kernel": (-np.sqrt(2 / 90), np.sqrt(2 / 90)),  # size^2 * channels / groups = 90
    "params/plain/conv/kernel": (-np.sqrt(2 / 500), np.sqrt(2 / 500)),
  }
  for key, (low, high) in bounds.items():
    for values in (np.asarray(ours[key]), np.asarray(theirs[key])):
      np.testing.assert_allclose([values.min(), values.max()], [low, high], atol=0.02 * (high - low), err_msg=key)
      np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.05 * (high - low), err_msg=key)
  for key in ours.keys() - bounds.keys() - {"params/dense/dense/kernel"}:
    np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_seed_decides() -> None:
  graph = small_detector()
  one, same, other = (init_variables(graph, seed)["params"]["c1"]["conv"]["kernel"] for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert not np.array_equal(one, other)


def test_unflatten_inverts_flatten() -> None:
  variables = init_variables(small_detector())
  again = unflatten_variables(flatten_variables(variables))
  assert jax.tree.structure(again) == jax.tree.structure(variables)


@pytest.mark.parametrize(
  ("layers", "expected"),
  [
    ("heads", ["head"]),
    ("all", ["c1", "c2", "skip", "pool", "logits", "head"]),
    ("skip", ["skip"]),
    (["head", "c1"], ["head", "c1"]),
  ],
)
def test_layers_that_are_asked_for(layers: Any, expected: list[str]) -> None:
  graph = small_detector()
  assert wanted_layers(graph, layers) == expected
  x = jnp.zeros((1, 32, 32, 3))
  out = Network(graph).apply(init_variables(graph), x, layers=layers)
  assert list(out) == expected


def test_unknown_layer_names_the_nearest() -> None:
  with pytest.raises(KeyError, match=r"network 'small' has no layer 'ship' \(did you mean 'skip'\?\)"):
    wanted_layers(small_detector(), ["ship"])


@pytest.mark.parametrize("name", ["apply", "graph", "init", "batch_stats", "parent", "dtype", "conv", "bn"])
def test_layers_may_have_any_name(name: str) -> None:
  """Names that are attributes of Flax's modules, or of ours, must not clash."""
  g = Builder(4, 4)
  g.conv(2, name=name, batch_normalize=True)
  graph = g.graph()
  variables = init_variables(graph)
  assert set(flatten_variables(variables)) == set(expected_variables(graph))
  assert Network(graph).apply(variables, np.ones((1, 4, 4, 3), np.float32))[name].shape == (1, 4, 4, 2)


def test_bfloat16_keeps_parameters_and_heads_in_float32() -> None:
  graph = small_detector()
  x = jnp.zeros((2, 32, 32, 3), jnp.bfloat16)
  run = lambda: Network(graph, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x, layers="all")  # noqa: E731
  outputs, variables = jax.eval_shape(run)
  assert outputs["c2"].dtype == outputs["skip"].dtype == outputs["logits"].dtype == jnp.bfloat16
  assert outputs["head"].dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_training_moves_the_rolling_statistics() -> None:
  """mean <- 0.99 * 0 + 0.01 * batch mean; variance <- 0.99 * 1 + 0.01 * biased batch variance."""
  g = Builder(2, 2, 1)
  g.batchnorm(name="bn0")
  variables = {
    "params": {"bn0": {"bn": {"scale": np.ones(1, np.float32), "bias": np.zeros(1, np.float32)}}},
    "batch_stats": {"bn0": {"bn": {"mean": np.zeros(1, np.float32), "var": np.ones(1, np.float32)}}},
  }
  x = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)  # mean 3.5, biased variance 5.25
  out, changed = Network(g.graph()).apply(variables, x, train=True, mutable=["batch_stats"])
  stats = changed["batch_stats"]["bn0"]["bn"]
  np.testing.assert_allclose(stats["mean"], [0.035], rtol=1e-6)
  np.testing.assert_allclose(stats["var"], [0.99 + 0.0525], rtol=1e-6)
  np.testing.assert_allclose(np.asarray(out["bn0"]), (x - 3.5) / np.sqrt(5.25 + 1e-5), rtol=1e-5)


def test_dropout_only_in_training() -> None:
  g = Builder(8, 8, 1)
  g.dropout(0.25, name="drop")
  network, x = Network(g.graph()), np.ones((4, 8, 8, 1), np.float32)
  np.testing.assert_array_equal(network.apply({}, x, layers="all")["drop"], x)
  out = np.asarray(network.apply({}, x, layers="all", train=True, rngs={"dropout": jax.random.key(0)})["drop"])
  assert set(np.unique(out).tolist()) == {0.0, np.float32(1 / 0.75)}
  assert 0.15 < (out == 0).mean() < 0.35


def test_a_network_that_is_used_traces_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
  """Flax traces an initialiser at every use, to check a shape; those of 12 kernels were a tenth of a first picture's time."""

  def refuse(*_: Any) -> jax.Array:
    raise AssertionError("random numbers")

  graph = small_detector()
  monkeypatch.setattr("prn_jax.kinds.conv.darknet_uniform", refuse)
  x = jnp.zeros((1, 32, 32, 3))
  assert set(Network(graph).apply(init_variables(graph), x)) == {"head"}
  with pytest.raises(AssertionError, match="random numbers"):
    Network(graph).init(jax.random.key(0), x)
