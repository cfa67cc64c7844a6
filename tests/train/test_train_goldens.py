"""Three updates of the real program: weights, costs and rates after each (golden/README.md, train_*).

`train_ab_cpu_convbn_yolo` is not compared: it documents quirks of AlexeyAB's CPU code (biases behind batch norm are
never trained, the rolling average keeps 0.9) that its GPU code, our reference, does not have.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.graph import Context, Graph, WeightArray
from prn_jax.kinds.batchnorm import EPSILON
from prn_jax.network import Network, flatten_variables
from prn_jax.train.losses import LossConfig, make_loss
from prn_jax.train.optim import darknet_optim, make_optimizer
from prn_jax.train.step import Recipe, init_state, train_step
from tests.conftest import shared_params

Arrays = dict[str, np.ndarray]
TOLERANCE = 1e-5  # of golden/README.md, its smallest
LEAVES = {  # leaf in the golden -> ours, with and without batch norm
  "weights": ("conv/kernel", "conv/kernel"),
  "biases": ("bn/bias", "conv/bias"),
  "scales": ("bn/scale", ""),
  "rolling_mean": ("bn/mean", ""),
  "rolling_variance": ("bn/var", ""),
}


@dataclasses.dataclass(frozen=True)
class Golden:
  """One folder.

  Attributes:
    cfg: network and settings.
    variables: before the first update.
    images: (update, micro-batch, image, h, w, c).
    truth: (update, micro-batch, image, ...), one-hot labels or boxes.
    after: for each update, the variables behind it.
    meta: costs per micro-batch, rates per update.
  """

  cfg: darknet_cfg.DarknetCfg
  variables: dict[str, Any]
  images: np.ndarray
  truth: np.ndarray
  after: list[Arrays]
  meta: dict[str, Any]


def read_golden(folder: Path) -> Golden:
  cfg = darknet_cfg.read(folder / "net.cfg")
  after = np.load(folder / "after.npz")
  return Golden(
    cfg=cfg,
    variables=darknet_weights.load(folder / "net.weights", cfg.graph).variables,
    images=np.load(folder / "input.npy").transpose(0, 1, 2, 4, 5, 3),
    truth=np.load(folder / "truth.npy"),
    after=[dict(variables_of(cfg.graph, after, f"iter{i + first_number(after)}")) for i in range(3)],
    meta=json.loads((folder / "meta.json").read_text()),
  )


def first_number(after: Any) -> int:
  return min(int(key.split("_")[0].removeprefix("iter")) for key in after)


def variables_of(graph: Graph, after: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
  """The arrays of one update under our names, in our layout."""
  for i, layer in enumerate(graph):
    arrays: dict[str, WeightArray] = {array.path: array for array in graph.arrays(layer)}
    for leaf, (with_bn, without) in LEAVES.items():
      key = f"{prefix}_layer{i}_{leaf}"
      if key in after:
        array = arrays[with_bn if "bn/bias" in arrays else without]
        yield f"{array.collection}/{layer.name}/{array.path}", darknet_weights.from_file(after[key], array)


def train(golden: Golden) -> tuple[list[Arrays], list[float], list[float]]:
  """Variables after each update, costs of the updates (per image, summed over the micro-batches), and their rates."""
  graph, training = golden.cfg.graph, golden.cfg.training
  optim = darknet_optim(training.net)
  tx, schedule = make_optimizer(optim, graph, training.net.max_batches, training.layers)
  layers, loss_fn = make_loss(graph, LossConfig(), training)
  network = Network(graph, precision=jax.lax.Precision.HIGHEST)
  recipe = Recipe(network, tx, loss_fn, layers, accumulate=optim.accumulate)
  step, state = jax.jit(functools.partial(train_step, recipe=recipe)), init_state(golden.variables, recipe)
  after, costs, rates = [], [], []
  for i in range(len(golden.images)):
    state, metrics = step(state, batch_of(golden, i))
    costs.append(float(metrics["loss"][0]))
    rates.append(float(schedule(i)))
    variables = flatten_variables({"params": state.params, "batch_stats": state.batch_stats})
    after.append({key: np.asarray(value) for key, value in variables.items()})
  return after, costs, rates


def batch_of(golden: Golden, i: int) -> dict[str, np.ndarray]:
  """Batch `i` in the order of `train_step`: micro-batch k has the rows k, k + 2, ..."""
  images, truth = (x[i].swapaxes(0, 1).reshape(-1, *x.shape[3:]) for x in (golden.images, golden.truth))
  return {"image": images} | ({"truth": truth[..., :5]} if golden.cfg.graph.detects else {"label": truth.argmax(-1)})


def golden_costs(golden: Golden) -> np.ndarray:
  """One per update, as `train` gives them."""
  num_updates, micro_batches, images_each = golden.images.shape[:3]
  return np.array(golden.meta["loss"]).reshape(num_updates, micro_batches).sum(1) / images_each


# -- pjreddie's batch norm: variance / (N - 1) -------------------------------------------------------------------------


@jax.custom_vjp
def normalize_unbiased(x: jax.Array) -> jax.Array:
  """(n, h, w, c), normalised over all but the channels as pjreddie's `blas.c:normalize_cpu` does: the variance is
  / (N - 1), and the epsilon of the forward pass stands beside the root."""
  return (x - x.mean((0, 1, 2), keepdims=True)) / (jnp.sqrt(unbiased_variance(x)) + 1e-6)


def unbiased_variance(x: jax.Array) -> jax.Array:
  return x.var((0, 1, 2), ddof=1, keepdims=True)


def _backward(x: jax.Array, d: jax.Array) -> tuple[jax.Array]:
  """As coded there (docs/darknet.md e4): 2 / N stands where the variance / (N - 1) has the derivative 2 / (N - 1)."""
  count, sums = x.size // x.shape[-1], functools.partial(jnp.sum, axis=(0, 1, 2), keepdims=True)
  centred, root = x - x.mean((0, 1, 2), keepdims=True), jnp.sqrt(unbiased_variance(x) + EPSILON)
  d_var, d_mean = -sums(d * centred) / (2 * root**3), -sums(d) / root
  return (d / root + d_var * 2 * centred / count + d_mean / count,)


normalize_unbiased.defvjp(lambda x: (normalize_unbiased(x), x), _backward)


class UnbiasedBatchNorm(nn.Module):
  """linen.BatchNorm with the variance / (N - 1); variables as there."""

  momentum: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = x.shape[-1:]
    scale, bias = (self.param(leaf, nn.initializers.ones, shape) for leaf in ("scale", "bias"))
    for leaf, value in (("mean", x.mean((0, 1, 2))), ("var", unbiased_variance(x).reshape(shape))):
      rolling = self.variable("batch_stats", leaf, jnp.zeros, shape)
      rolling.value = self.momentum * rolling.value + (1 - self.momentum) * jax.lax.stop_gradient(value)
    return normalize_unbiased(x) * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


def unbiased_batch_norm(x: jax.Array, ctx: Context, epsilon: float = 0.0) -> jax.Array:
  assert not epsilon  # Darknet's own
  return UnbiasedBatchNorm(ctx.bn_momentum, name="bn")(x)


# -- the tests ---------------------------------------------------------------------------------------------------------


def check_all(golden: Golden) -> None:
  after, costs, rates = train(golden)
  assert rates == golden.meta["rate"]
  np.testing.assert_allclose(costs, golden_costs(golden), rtol=TOLERANCE)
  for mine, theirs in zip(after, golden.after, strict=True):
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
      np.testing.assert_allclose(mine[key], value, rtol=0, atol=TOLERANCE, err_msg=key)


@pytest.mark.parametrize("folder", shared_params("golden/train_ab_conv_*"))
def test_three_updates_of_alexeyabs_darknet(folder: Path) -> None:
  check_all(read_golden(folder))


@pytest.mark.parametrize("folder", shared_params("golden/train_pj_*"))
def test_three_updates_of_pjreddies_darknet_with_its_variance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr("prn_jax.kinds.conv.batch_norm", unbiased_batch_norm)
  check_all(read_golden(folder))


@pytest.mark.parametrize("folder", shared_params("golden/train_pj_*"))
def test_three_updates_of_pjreddies_darknet_with_our_variance(folder: Path) -> None:
  """Against the variance / (N - 1), ours makes normalised values larger by sqrt(N / (N - 1)), 1 / (2 N) to first order.
  An update passes every batch norm twice, forward and backward: its relative error is the sum of 1 / N over them."""
  golden = read_golden(folder)
  graph, before = golden.cfg.graph, flatten_variables(golden.variables)
  shapes = [graph.shapes[layer.name] for layer in graph if getattr(layer, "batch_normalize", False)]
  bound = sum(1 / (golden.images.shape[2] * shape.height * shape.width) for shape in shapes)
  after, costs, rates = train(golden)
  assert rates == golden.meta["rate"]
  np.testing.assert_allclose(costs, golden_costs(golden), rtol=bound)
  for i, (mine, theirs) in enumerate(zip(after, golden.after, strict=True)):
    for collection, kept in (("params", 1.0), ("batch_stats", 0.99 ** (2 * (i + 1)))):
      keys = [key for key in theirs if key.startswith(collection)]
      error = norm(mine[key] - theirs[key] for key in keys) / norm(theirs[key] - kept * before[key] for key in keys)
      assert 10 * TOLERANCE < error < bound, (i, collection)


def norm(arrays: Iterable[np.ndarray]) -> float:
  return float(np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays)))
