"""Scores by gradients: against differences of the loss, by hand, and on real heads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.network import Network, init_variables
from prn_jax.prune.command import PruneOptions, prune
from prn_jax.prune.cut import silenced
from prn_jax.prune.selection import Goal, Target
from prn_jax.prune.taylor import gate_gradients, taylor_scores
from prn_jax.prune.units import find_units
from prn_jax.train.losses import LossConfig, make_loss
from tests.nets import random_model, tiny_detector


def classifier() -> Graph:
  """A residual sum with a gate of squeeze and excite, a depthwise convolution, and a layer without batch norm."""
  g = Builder(8, 8)
  first = g.conv(4, 3, padding=1, batch_normalize=True, activation="swish", name="first")
  g.conv(6, batch_normalize=True, activation="swish", name="wide")
  g.conv(6, 3, padding=1, groups=6, batch_normalize=True, activation="swish", name="depthwise")
  g.conv(4, batch_normalize=True, name="narrow")
  g.shortcut(first, name="sum")
  g.conv(5, activation="swish", name="plain")
  g.avgpool()
  g.conv(3, name="logits")
  g.softmax()
  return g.graph()


def test_gradients_are_differences_of_the_loss() -> None:
  """By the gate of each unit: the scales of all that silences it, a little smaller and a little larger."""
  graph = classifier()
  model = random_model(graph)
  units, rng = find_units(graph), np.random.default_rng(0)
  batch = {"image": rng.random((2, 8, 8, 3), np.float32), "label": np.array([0, 2], np.int32)}
  found = np.asarray(gate_gradients(model, units)(batch))
  assert found.shape == (2, len(units))
  layers, loss_fn = make_loss(graph, LossConfig())

  @jax.jit
  def losses(variables: dict) -> jax.Array:
    outputs = Network(graph, precision="highest").apply(variables, batch["image"], layers=layers)
    return jnp.stack(
      [
        loss_fn({k: v[i : i + 1] for k, v in outputs.items()}, {k: v[i : i + 1] for k, v in batch.items()})[0]
        for i in (0, 1)
      ]
    )

  for i, unit in enumerate(units):
    quiet = silenced(graph, model.variables, [unit])
    wide = unit.family == ("wide", "depthwise")  # its gate is the depthwise one alone
    if wide:
      quiet["params"]["wide"] = model.variables["params"]["wide"]
      quiet["batch_stats"]["wide"] = model.variables["batch_stats"]["wide"]
    for name in unit.family:  # a kernel before batch norm is no matter of the gate
      if graph[name].has_batchnorm:
        quiet["params"][name]["conv"] = model.variables["params"][name]["conv"]
        quiet["batch_stats"][name] = model.variables["batch_stats"][name]
    at = [jax.tree.map(lambda x, y, e=e: x + e * (x - y), model.variables, quiet) for e in (-0.01, 0.01)]
    slope = (losses(at[1]) - losses(at[0])) / 0.02
    np.testing.assert_allclose(found[:, i], slope, rtol=2e-2, atol=2e-4)


def test_scores_are_mean_squares_over_the_images() -> None:
  """Of a detector, through its own loss; what is silent already is worth nothing."""
  graph = tiny_detector(64)
  model = random_model(graph)
  units = find_units(graph)
  name, channel = next(
    maker for unit in units for maker in unit.makers if len(unit.makers) == 1 and graph[maker[0]].has_batchnorm
  )
  model.variables["params"][name]["bn"]["scale"] = np.where(
    np.arange(graph.shapes[name].channels) == channel, 0, model.variables["params"][name]["bn"]["scale"]
  ).astype(np.float32)
  data = open_spec("synthetic:traffic:6")
  found = taylor_scores(model, units, data, images=5)
  assert (found >= 0).all()
  assert [unit.makers for unit, score in zip(units, found, strict=True) if score == 0] == [((name, channel),)]
  assert np.median(found) > 0


@pytest.mark.parametrize("method", ["taylor", "group-taylor", "eagle-eye"])
def test_without_data(method: str) -> None:
  graph = tiny_detector(64)
  model = Model(graph, init_variables(graph))
  with pytest.raises(
    PrnError, match=rf"the method '{method}' judges by .*, for which it needs annotated images: give those"
  ):
    prune(model, PruneOptions(method=method, target=Target(Goal.SHARE, 0.3)))


def test_gradients_that_are_not_finite() -> None:
  graph = tiny_detector(64)
  model = random_model(graph)
  layer = next(layer.name for layer in graph if layer.has_batchnorm)
  scale = model.variables["params"][layer]["bn"]["scale"]
  model.variables["params"][layer]["bn"]["scale"] = np.full_like(scale, np.nan)
  with pytest.raises(PrnError, match="has gradients that are not finite on this data"):
    taylor_scores(model, find_units(graph), open_spec("synthetic:traffic:2"), images=2)
