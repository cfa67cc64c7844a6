"""The train step: the same numbers on one device and on many, in one piece and in micro-batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.errors import PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import make_mesh, put_batch, put_state
from prn_jax.train import sharding
from prn_jax.train.losses import LossConfig, make_loss
from prn_jax.train.step import NEVER, Recipe, TrainState, eval_variables, init_state, mean, train_step

SIZE, CLASSES = 16, 3


def classifier(batch_normalize: bool = True) -> Graph:
  g = Builder(SIZE, SIZE, name="small")
  a = g.conv(8, 3, padding=1, stride=2, batch_normalize=batch_normalize, activation="leaky", name="a")
  g.conv(12, 3, padding=1, batch_normalize=batch_normalize, activation="leaky", name="b")
  g.shortcut(a, name="skip")  # partial: 8 of 12 channels
  g.avgpool(name="pool")
  g.conv(CLASSES, 1, name="scores")
  g.softmax(name="probabilities")
  return g.graph()


def recipe_for(graph: Graph, tx: optax.GradientTransformation | None = None, **options: Any) -> Recipe:
  layers, loss_fn = make_loss(graph, LossConfig(label_smoothing=0.1))
  return Recipe(Network(graph), tx or optax.sgd(0.1, momentum=0.9), loss_fn, layers, **options)


def batch_of(n: int, seed: int = 0) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (n, SIZE, SIZE, 3)).astype(np.uint8)
  return {"image": image, "label": rng.integers(0, CLASSES, n).astype(np.int32)}


def run(graph: Graph, recipe: Recipe, batch: dict[str, np.ndarray], devices: int, scope: str = "global") -> Any:
  mesh = make_mesh(jax.devices()[:devices])
  state = put_state(jax.device_get(init_state(init_variables(graph, 1), recipe)), mesh)
  state, metrics = sharding.compile_step(recipe, mesh, scope)(state, put_batch(batch, mesh), ())
  return jax.device_get(state), mean(jax.device_get(metrics))


def assert_close(a: Any, b: Any, atol: float) -> None:
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("devices", [2, 8])
def test_many_devices_compute_what_one_computes(devices: int) -> None:
  graph = classifier()
  recipe = recipe_for(graph, ema_decay=0.9)
  one, many = (run(graph, recipe, batch_of(16), n) for n in (1, devices))
  assert_close(one[0], many[0], 2e-6)
  assert many[1]["loss"] == pytest.approx(one[1]["loss"], rel=1e-6)
  assert many[1]["top1"] == one[1]["top1"]


def test_per_device_statistics_are_those_of_each_devices_share() -> None:
  """The gradient is the mean over shards, each normalised by itself: the hand-made version on one device."""
  graph, batch = classifier(), batch_of(16)
  recipe = recipe_for(graph, optax.sgd(0.1))
  state, metrics = run(graph, recipe, batch, 4, "per_device")
  shards = [run(graph, recipe, {k: v[i * 4 : i * 4 + 4] for k, v in batch.items()}, 1) for i in range(4)]
  assert_close(state.params, jax.tree.map(lambda *p: np.mean(p, 0), *[s[0].params for s in shards]), 1e-6)
  assert_close(state.batch_stats, jax.tree.map(lambda *p: np.mean(p, 0), *[s[0].batch_stats for s in shards]), 1e-6)
  assert metrics["loss"] == pytest.approx(np.mean([s[1]["loss"] for s in shards]), rel=1e-6)
  whole, _ = run(graph, recipe, batch, 4)
  difference = jax.tree.map(lambda x, y: np.abs(x - y).max(), state.params, whole.params)
  assert max(jax.tree.leaves(difference)) > 1e-5, "global statistics give another result"


@pytest.mark.parametrize("devices", [1, 4])
def test_micro_batches_add_up_to_the_batch(devices: int) -> None:
  graph = classifier(batch_normalize=False)
  whole = run(graph, recipe_for(graph), batch_of(16), devices)
  parts = run(graph, recipe_for(graph, accumulate=4), batch_of(16), devices)
  assert_close(whole[0].params, parts[0].params, 1e-6)
  assert parts[1]["loss"] == pytest.approx(whole[1]["loss"], rel=1e-6)


def test_micro_batches_update_the_statistics_one_after_the_other() -> None:
  """Darknet's subdivisions: rolling statistics move once per micro-batch, which has every second row."""
  graph, batch = classifier(), batch_of(8)
  state, _ = run(graph, recipe_for(graph, accumulate=2), batch, 1)
  frozen = optax.set_to_zero()
  expected = init_state(init_variables(graph, 1), recipe_for(graph, frozen))
  for part in (0, 1):
    micro = {k: jnp.asarray(v[part::2]) for k, v in batch.items()}
    expected, _ = train_step(expected, micro, recipe_for(graph, frozen))
  assert_close(state.batch_stats, jax.device_get(expected.batch_stats), 1e-6)


def test_remat_changes_memory_not_numbers() -> None:
  graph = classifier()
  plain, saving = (recipe_for(graph, remat=on) for on in (False, True))
  assert_close(run(graph, plain, batch_of(8), 1)[0], run(graph, saving, batch_of(8), 1)[0], 2e-6)


def test_a_step_that_is_not_finite_changes_nothing_but_its_mark() -> None:
  graph = classifier()
  recipe = recipe_for(graph, ema_decay=0.5)
  before = init_state(init_variables(graph, 1), recipe)
  bad = batch_of(8) | {"image": np.full((8, SIZE, SIZE, 3), np.inf, np.float32)}
  step = jax.jit(lambda s, b: train_step(s, b, recipe))
  after, _ = step(before, bad)
  assert int(after.bad_step) == 0
  assert_close(jax.device_get(after._replace(bad_step=before.bad_step)), jax.device_get(before), 0)
  later, _ = step(after, batch_of(8) | {"image": np.zeros((8, SIZE, SIZE, 3), np.float32)})
  assert int(later.bad_step) == 0, "the first bad step is remembered"
  assert_close(jax.device_get(later), jax.device_get(after), 0)


def test_averages_follow_the_weights() -> None:
  graph = classifier()
  recipe = recipe_for(graph, ema_decay=0.999)
  before = jax.device_get(init_state(init_variables(graph, 1), recipe))
  after, _ = run(graph, recipe, batch_of(8), 1)
  for old, new, averaged in (
    (before.params, after.params, after.ema_params),
    (before.batch_stats, after.batch_stats, after.ema_batch_stats),
  ):
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, old, new)  # (1 + 0) / (10 + 0) at the first step
    assert_close(averaged, expected, 1e-6)
  assert eval_variables(after)["params"] is after.ema_params
  plain, _ = run(graph, recipe_for(graph), batch_of(8), 1)
  assert eval_variables(plain)["params"] is plain.params
  assert plain.ema_params == {}


def test_frozen_layers_keep_weights_and_statistics() -> None:
  graph = classifier()
  before = init_variables(graph, 1)["batch_stats"]
  after, _ = run(graph, recipe_for(graph, frozen=frozenset(["a"])), batch_of(8), 1)
  assert_close(after.params["a"], init_variables(graph, 1)["params"]["a"], 0)
  assert_close(after.batch_stats["a"], before["a"], 0)
  assert np.abs(after.batch_stats["b"]["bn"]["mean"] - before["b"]["bn"]["mean"]).max() > 0


def test_one_program_for_many_steps() -> None:
  graph = classifier()
  recipe, mesh = recipe_for(graph, ema_decay=0.9), make_mesh()
  step = sharding.compile_step(recipe, mesh)
  state: TrainState = put_state(jax.device_get(init_state(init_variables(graph), recipe)), mesh)
  for seed in range(4):
    state, _ = step(state, put_batch(batch_of(8, seed), mesh), ())
  assert step._cache_size() == 1  # type: ignore[attr-defined]
  assert int(state.step) == 4
  assert int(state.bad_step) == NEVER


def test_state_is_donated() -> None:
  graph = classifier()
  recipe, mesh = recipe_for(graph), make_mesh(jax.devices()[:1])
  state = put_state(jax.device_get(init_state(init_variables(graph), recipe)), mesh)
  sharding.compile_step(recipe, mesh)(state, put_batch(batch_of(8), mesh), ())
  assert state.params["a"]["conv"]["kernel"].is_deleted()


def test_batch_that_cannot_be_divided() -> None:
  with pytest.raises(
    PrnError, match=r"batch_size 20 cannot be divided among 8 devices x 2 micro-batches.*such as 32 or 16"
  ):
    sharding.check_batch_size(20, 2, make_mesh())


def test_dropout_differs_from_step_to_step_and_repeats() -> None:
  g = Builder(SIZE, SIZE, name="dropping")
  g.conv(8, 3, padding=1, name="a")
  g.dropout(0.5, name="drop")
  g.avgpool(name="pool")
  g.conv(CLASSES, 1, name="scores")
  g.softmax(name="probabilities")
  graph = g.graph()
  recipe = recipe_for(graph, optax.set_to_zero())
  state, batch = init_state(init_variables(graph), recipe), batch_of(8)
  step = jax.jit(lambda s, b: train_step(s, b, recipe))
  first, again = (step(state, batch)[1]["loss"][0] for _ in range(2))
  second = step(state._replace(step=state.step + 1), batch)[1]["loss"][0]
  assert first == again
  assert first != second
  assert dataclasses.asdict(recipe)["seed"] == 0
