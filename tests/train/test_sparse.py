"""Sparse training: the penalty by hand, its independence of micro-batches and precision, and a run that goes on exactly."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, init_variables
from prn_jax.train import loop
from prn_jax.train.config import ConfigError, TrainConfig, typed
from prn_jax.train.experiment import open_experiment
from prn_jax.train.gammas import EDGES
from prn_jax.train.optim import OptimConfig, OptimizerName, ScheduleConfig, make_optimizer
from prn_jax.train.sparse import SparseConfig, Sparsity, sparsity_figures, sparsity_of
from prn_jax.train.step import Batch, Constants, Metrics, Recipe, init_state, train_step
from tests.train.test_constants import config_in
from tests.train.test_step import batch_of, classifier, recipe_for
from tests.train.test_train_cli import classifier_files

LAYERS = ("a", "b")


def sparsity(steps: int = 10, **settings: Any) -> Sparsity:
  return Sparsity(SparseConfig(**{"strength": 0.5, **settings}), LAYERS, steps)


def scales(a: list[float], b: list[float]) -> dict[str, jax.Array]:
  return {"a": jnp.asarray(a, jnp.float32), "b": jnp.asarray(b, jnp.float32)}


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("settings", "expected"),
  [
    ({}, [0.5] * 5),
    ({"schedule": "global", "decay": 0.1, "decay_from": 0.4}, [0.5, 0.5, 0.05, 0.05, 0.05]),
    ({"schedule": "cosine", "decay": 0.0}, [0.5, 0.25 * (1 + np.sqrt(0.5)), 0.25, 0.25 * (1 - np.sqrt(0.5)), 0.0]),
    ({"schedule": "cosine", "decay": 0.2}, [0.5, 0.1 + 0.2 * (1 + np.sqrt(0.5)), 0.3, 0.1 + 0.2 * (1 - np.sqrt(0.5)), 0.1]),
  ],
)  # fmt: skip
def test_the_strength_over_a_run(settings: dict[str, Any], expected: list[float]) -> None:
  found = [float(sparsity(5, **settings).strength(step)) for step in range(5)]
  np.testing.assert_allclose(found, expected, atol=1e-7)


def test_local_decay_goes_on_with_the_smallest() -> None:
  """Four of five channels of both layers together: all but the two largest of ten."""
  one = sparsity(schedule="local", pressed=0.8, decay=0.1, decay_from=0.5)
  values = scales([0.1, -0.9, 0.2, 0.3, 0.0], [0.4, 0.5, -0.6, 0.7, 0.8])
  for step, large in ((4, 0.5), (5, 0.05)):
    found = one.strengths(step, values)
    np.testing.assert_allclose(found["a"], [0.5, large, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(found["b"], [0.5, 0.5, 0.5, 0.5, large])
  np.testing.assert_allclose(one.strengths(9, scales([1, 1], [1, 1]))["a"], [0.5, 0.5])  # equal ones: all go on
  none = sparsity(schedule="local", pressed=0.0, decay=0.1, decay_from=0.0)
  np.testing.assert_allclose(none.strengths(0, values)["b"], [0.05] * 5)


def tied() -> tuple[Graph, dict[str, Any]]:
  graph = classifier()
  return graph, jax.tree.map(jnp.asarray, init_variables(graph, 1)["params"])


def gammas_after(config: OptimConfig, one: Sparsity | None, gamma: list[float], steps: int = 1) -> np.ndarray:
  """Scales of layer `a` after steps whose gradient is 1 for the scales and 0 elsewhere."""
  graph, params = tied()
  params["a"]["bn"]["scale"] = jnp.asarray([*gamma, *[1.0] * (8 - len(gamma))], jnp.float32)
  tx, _ = make_optimizer(config, graph, 10, sparsity=one)
  state = tx.init(params)
  for _ in range(steps):
    grads = jax.tree.map(jnp.zeros_like, params)
    grads["a"]["bn"]["scale"] = jnp.ones(8)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return np.asarray(params["a"]["bn"]["scale"])[: len(gamma)]


SGD = OptimConfig(learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule=ScheduleConfig(policy="constant"))


def test_the_proximal_step_by_hand() -> None:
  """x - 0.1 by the gradient, then 0.1 * 0.5 nearer to 0, or at 0."""
  found = gammas_after(SGD, sparsity(), [1.0, -1.0, 0.12, 0.06, 0.1])
  np.testing.assert_allclose(found, [0.85, -1.05, 0.0, 0.0, 0.0], atol=1e-7)
  assert (found[2:] == 0).all()
  again = gammas_after(SGD, sparsity(strength=1.0), [0.1], 5)
  assert again == 0  # a gradient that is no stronger than the penalty does not move it


def test_the_subgradient_step_by_hand() -> None:
  found = gammas_after(SGD, sparsity(method="subgradient"), [1.0, -1.0, 0.12, 0.0])
  np.testing.assert_allclose(found, [0.85, -1.05, -0.03, -0.1], atol=1e-7)
  pressed = dataclasses.replace(
    SGD, momentum=0.9, clip_norm=1e-6
  )  # the clipped gradient is nothing, the penalty is whole
  found = gammas_after(pressed, sparsity(method="subgradient"), [1.0], 2)
  np.testing.assert_allclose(found, [1 - 0.1 * 0.5 * (1 + 1.9)], atol=1e-5)


@pytest.mark.parametrize("rule", list(OptimizerName))
@pytest.mark.parametrize("method", ["proximal", "subgradient"])
def test_only_the_scales_of_the_scope_are_pressed(rule: str, method: str) -> None:
  graph, params = tied()
  config = dataclasses.replace(SGD, name=rule, weight_decay=0.01)
  only_a = Sparsity(SparseConfig(strength=0.5, method=method), ("a",), 10)
  grads = jax.tree.map(lambda x: 0.01 * jnp.ones_like(x), params)
  results = []
  for one in (None, only_a):
    tx, _ = make_optimizer(config, graph, 10, sparsity=one)
    results.append(tx.update(grads, tx.init(params), params)[0])
  plain, pressed = results
  gamma = pressed["a"]["bn"].pop("scale"), plain["a"]["bn"].pop("scale")
  jax.tree.map(np.testing.assert_array_equal, pressed, plain)
  if method == "proximal" or rule == "sgd":
    np.testing.assert_allclose(gamma[0], gamma[1] - 0.05, atol=1e-6)


# -- what it must not depend on ----------------------------------------------------------------------------------------


def course(recipe: Recipe, batch: Batch, steps: int = 4) -> np.ndarray:
  """(steps, channels) the scales of both layers after every step."""
  state = init_state(init_variables(classifier(), 1), recipe)
  step: Callable[[Any, Any], Any] = jax.jit(lambda s, b: train_step(s, b, recipe))
  found = []
  for _ in range(steps):
    state, _ = step(state, batch)
    found.append(np.concatenate([state.params[name]["bn"]["scale"] for name in LAYERS]))
  return np.stack(found)


def recipe_with(method: str, accumulate: int, dtype: Any, **options: Any) -> Recipe:
  graph = classifier()
  one = sparsity(4, strength=0.3, method=method, schedule="global", decay=0.5)
  optim = dataclasses.replace(SGD, momentum=0.9)
  plain = recipe_for(graph, make_optimizer(optim, graph, 4, sparsity=one)[0], accumulate=accumulate, **options)
  return dataclasses.replace(plain, network=Network(graph, dtype=dtype))


def without_a_loss(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
  return 0 * jnp.mean(outputs["scores"].astype(jnp.float32)), {}


@pytest.mark.parametrize(
  ("method", "forms"),
  [("subgradient", [(1, None), (2, None), (4, jnp.bfloat16)]), ("proximal", [(1, None), (4, jnp.bfloat16)])],
)
def test_neither_micro_batches_nor_precision_change_the_penalty(method: str, forms: list[tuple[int, Any]]) -> None:
  """Where nothing else moves the scales, they move by the same bits."""
  batch = batch_of(8)
  courses = [course(dataclasses.replace(recipe_with(method, *form), loss_fn=without_a_loss), batch) for form in forms]
  for each in courses[1:]:
    np.testing.assert_array_equal(each, courses[0])
  assert (np.diff(courses[0], axis=0) < 0).all()


def test_with_a_loss_micro_batches_give_the_same_course() -> None:
  """Of equal images every micro-batch has the gradient of the whole batch; bfloat16 rounds to three digits."""
  batch = {key: np.repeat(value[:1], 8, 0) for key, value in batch_of(1).items()}
  whole = course(recipe_with("subgradient", 1, None), batch)
  np.testing.assert_allclose(course(recipe_with("subgradient", 4, None), batch), whole, atol=2e-6)
  np.testing.assert_allclose(course(recipe_with("subgradient", 2, jnp.bfloat16), batch), whole, atol=5e-3)
  assert np.abs(np.diff(whole, axis=0)).min() > 1e-3


# -- a whole run -------------------------------------------------------------------------------------------------------


def run_config(folder: Path, **settings: Any) -> TrainConfig:
  config = dataclasses.replace(config_in(folder, 4), batch_size=16)
  optim = dataclasses.replace(config.optim, ema_decay=0.5, accumulate=2)
  sparse = SparseConfig(**{"strength": 1.0, "scope": "coupled", "schedule": "cosine", **settings})
  return dataclasses.replace(config, optim=optim, sparse=sparse)


def test_a_run_goes_on_exactly_and_leaves_its_histograms(tmp_path: Path) -> None:
  classifier_files(tmp_path)
  config, whole = run_config(tmp_path), tmp_path / "whole"
  experiment = open_experiment(config)
  assert experiment.chosen[-1] == (
    "sparse training: 4 scales of 1 layers (scope coupled), strength 1, cosine, proximal"
  )
  done = loop.train(experiment, whole)
  rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
  assert [row["sparse/strength"] for row in rows] == pytest.approx([1.0, 0.7525, 0.2575, 0.01])
  assert {"sparse/below_0.01", "sparse/below_0.1", "sparse/mean", "sparse/max"} <= rows[-1].keys()
  found = json.loads((whole / "gammas.json").read_text())
  assert found["step"] == 4
  assert found["all"]["sparse/mean"] == pytest.approx(rows[-1]["sparse/mean"])
  (layer,) = found["layers"].values()
  assert sum(layer["counts"]) == layer["channels"] == 4
  assert len(layer["counts"]) == len(found["edges"]) - 1 == len(EDGES) - 1
  assert (whole / "gammas.png").stat().st_size > 5_000
  assert b"gamma/a" in b"".join(path.read_bytes() for path in whole.glob("events.*"))

  parts = tmp_path / "parts"
  shutil.copytree(whole, parts)
  shutil.rmtree(parts / "checkpoints" / "4")
  again = loop.train(open_experiment(config, is_resumed=True), parts)
  assert again.digest == done.digest
  assert (parts / "gammas.json").read_bytes() == (whole / "gammas.json").read_bytes()
  plain = loop.train(open_experiment(dataclasses.replace(config, sparse=SparseConfig())), tmp_path / "plain")
  assert plain.digest != done.digest
  assert not (tmp_path / "plain" / "gammas.json").exists()


def test_figures_of_scales() -> None:
  found = sparsity_figures([np.array([0.0, 0.005, -0.05]), np.array([-2.0])])
  assert found == {
    "sparse/below_0.001": 0.25, "sparse/below_0.01": 0.5, "sparse/below_0.1": 0.75, "sparse/mean": 2.055 / 4, "sparse/max": 2.0,
  }  # fmt: skip


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"strength": -1.0}, r"config.sparse: sparse.strength is -1.0; expected at least 0: the weight of the penalty"),
    ({"scope": "norml"}, r"sparse.scope is 'norml' \(did you mean 'normal'\?\); expected one of normal, all, residual"),
    ({"schedule": "linear"}, r"sparse.schedule is 'linear'; expected one of constant, global, local, cosine"),
    ({"method": "proximall"}, r"sparse.method is 'proximall' \(did you mean 'proximal'\?\)"),
    ({"decay": 2.0}, r"sparse.decay is 2.0; expected"),
  ],
)
def test_settings_without_a_meaning(settings: dict[str, Any], message: str) -> None:
  with pytest.raises(ConfigError, match=message):
    typed({"task": "detect", "sparse": settings}, is_complete=False)


def test_nothing_to_press() -> None:
  config, none = SparseConfig(strength=0.1, scope="residual"), frozenset[str]()
  g = Builder(8, 8, name="plain")
  g.conv(4, batch_normalize=True, name="a")
  g.conv(2, name="end")
  graph = g.graph()
  assert sparsity_of(SparseConfig(), graph, 10, none) is None
  message = (
    r"sparse.strength is 0.1, but network 'plain' has no layer .* in the scope 'residual'. .*: normal, all, coupled"
  )
  with pytest.raises(Exception, match=message):
    sparsity_of(config, graph, 10, none)
  with pytest.raises(
    Exception, match=r"all 1 layers of the scope 'all' are frozen. Freeze less \(optim.freeze_until\)"
  ):
    sparsity_of(SparseConfig(strength=0.1), graph, 10, frozenset(["a"]))
  with pytest.raises(Exception, match="Set it to 0: this network cannot be slimmed"):
    sparsity_of(config, classifier(batch_normalize=False), 10, none)
