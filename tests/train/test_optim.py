"""Update rules against loops written from docs/darknet.md e1, and what layers are spared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import LayerTraining, NetTraining
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.network import flatten_variables, init_variables, unflatten_variables
from prn_jax.train.optim import (
  OptimConfig,
  ScheduleConfig,
  darknet_optim,
  frozen_layers,
  make_optimizer,
  make_schedule,
)
from prn_jax.train.schedules import darknet_schedule
from tests.conftest import shared_params
from tests.nets import tiny_detector

Flat = dict[str, np.ndarray]
DECAYED = ("kernel", "vector")
CONSTANT = ScheduleConfig(policy="constant")
RULES = ("sgd", "adamw", "lars", "lamb")


def every_kind() -> Graph:
  """All kinds that have parameters: conv with and without BN, connected, batchnorm, weighted shortcut, implicit."""
  g = Builder(8, 8, name="every")
  stem = g.conv(4, 3, padding=1, batch_normalize=True, name="stem")
  g.conv(4, 3, padding=1, name="c1")
  g.shortcut(stem, weights_type="per_feature", weights_normalization="relu", name="fuse")
  g.batchnorm(name="norm")
  g.conv(2, 1, name="c2")
  g.connected(3, name="fc")
  g.implicit(filters=5, name="know")
  return g.graph()


def params_of(graph: Graph, seed: int = 0) -> Any:
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(0, 1, x.shape).astype(np.float32), init_variables(graph)["params"])


def gradients(graph: Graph, count: int) -> list[Any]:
  return [params_of(graph, seed=1 + i) for i in range(count)]


def run(tx: optax.GradientTransformation, params: Any, grads: list[Any]) -> tuple[list[Flat], Any]:
  """Parameters after each update, and the last state."""
  update, state, after = jax.jit(tx.update), tx.init(params), []
  for grad in grads:
    updates, state = update(grad, state, params)
    params = optax.apply_updates(params, updates)
    after.append({key: np.asarray(value) for key, value in flatten_variables(params).items()})
  return after, state


def darknet_loop(net: NetTraining, factors: dict[str, float], params: Any, grads: list[Any]) -> list[Flat]:
  """`network.c:update_network` in float64, where u holds sums over the `batch` images and moves along +delta."""
  weights = {key: value.astype(np.float64) for key, value in flatten_variables(params).items()}
  buffers = {key: np.zeros_like(value) for key, value in weights.items()}
  rate, after = darknet_schedule(net), []
  for i, grad in enumerate(grads):
    for key, g in flatten_variables(grad).items():
      lr = float(rate(i)) * factors.get(key.split("/")[0], 1.0)
      buffers[key] -= net.batch * g  # what the backward pass adds to it
      if key.endswith(DECAYED):
        buffers[key] -= net.decay * net.batch * weights[key]
      weights[key] = weights[key] + lr / net.batch * buffers[key]
      buffers[key] *= net.momentum
    after.append(dict(weights))
  return after


@pytest.mark.parametrize("policy", ["constant", "steps", "poly"])
def test_sgd_is_darknets(policy: str) -> None:
  graph = every_kind()
  net = NetTraining(
    batch=4, learning_rate=0.1, decay=0.05, policy=policy, burn_in=3, steps=(5.0, 7.0), scales=(0.1, 0.5), max_batches=9
  )
  layers = {"c1": LayerTraining(learning_rate=0.25), "know": LayerTraining(learning_rate=3.0)}
  tx, schedule = make_optimizer(darknet_optim(net), graph, net.max_batches, layers)
  params, grads = params_of(graph), gradients(graph, 9)
  after, _ = run(tx, params, grads)
  for i, expected in enumerate(darknet_loop(net, {"c1": 0.25, "know": 3.0}, params, grads)):
    assert after[i].keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_allclose(after[i][key], value, rtol=1e-5, atol=2e-6, err_msg=key)
    assert float(schedule(i)) == float(darknet_schedule(net)(i))


@pytest.mark.parametrize("path", shared_params("cfg/yolov4*.cfg", "cfg/resnet50.cfg", "cfg/enet-coco.cfg"))
def test_the_optimiser_of_public_cfgs(path: Any) -> None:
  cfg = darknet_cfg.read(path)
  net = cfg.training.net
  config = darknet_optim(net)
  assert (config.learning_rate, config.weight_decay, config.accumulate) == (
    net.learning_rate, net.decay, net.subdivisions
  )  # fmt: skip
  _, schedule = make_optimizer(config, cfg.graph, net.max_batches, cfg.training.layers)
  counts = np.array([0, 5, net.burn_in, net.max_batches // 2, net.max_batches - 1])
  np.testing.assert_array_equal(schedule(counts), darknet_schedule(net)(counts))


def direction_lars(w: np.ndarray, g: np.ndarray, c: OptimConfig, is_kernel: bool) -> np.ndarray:
  """You et al. 2017, equation 6, and the plain gradient elsewhere; the first update has no momentum."""
  if not is_kernel:
    return g
  g = g + c.weight_decay * w
  return c.trust_coefficient * np.linalg.norm(w) / np.linalg.norm(g) * g


def direction_adamw(w: np.ndarray, g: np.ndarray, c: OptimConfig, is_kernel: bool) -> np.ndarray:
  """Loshchilov and Hutter 2019; at the first update, both moments without bias are those of the gradient."""
  return g / (np.abs(g) + c.eps) + (c.weight_decay * w if is_kernel else 0)


def direction_lamb(w: np.ndarray, g: np.ndarray, c: OptimConfig, is_kernel: bool) -> np.ndarray:
  """You et al. 2020, algorithm 2."""
  d = direction_adamw(w, g, c, is_kernel)
  return np.linalg.norm(w) / np.linalg.norm(d) * d if is_kernel else d


@pytest.mark.parametrize(
  ("name", "direction"), [("lars", direction_lars), ("adamw", direction_adamw), ("lamb", direction_lamb)]
)
def test_first_update_of_the_others(name: str, direction: Callable[..., np.ndarray]) -> None:
  graph = every_kind()
  config = OptimConfig(name=name, learning_rate=0.1, weight_decay=0.3, schedule=CONSTANT)
  tx, _ = make_optimizer(config, graph, 10, {"c2": LayerTraining(learning_rate=0.5)})
  params, grads = params_of(graph), gradients(graph, 1)
  (after,), _ = run(tx, params, grads)
  flat_grads = flatten_variables(grads[0])
  for key, w in flatten_variables(params).items():
    rate = 0.1 * (0.5 if key.startswith("c2") else 1)
    expected = w - rate * direction(w, flat_grads[key], config, key.endswith(DECAYED))
    np.testing.assert_allclose(after[key], expected, rtol=1e-5, atol=1e-6, err_msg=key)


def test_nesterov_looks_ahead() -> None:
  graph = every_kind()
  config = OptimConfig(learning_rate=0.1, weight_decay=0, momentum=0.5, nesterov=True, schedule=CONSTANT)
  params, grads = params_of(graph), gradients(graph, 2)
  after, _ = run(make_optimizer(config, graph, 10)[0], params, grads)
  first, second = (flatten_variables(g)["c1/conv/bias"] for g in grads)
  moved = after[1]["c1/conv/bias"] - after[0]["c1/conv/bias"]
  np.testing.assert_allclose(moved, -0.1 * (second + 0.5 * (second + 0.5 * first)), rtol=1e-5)


def test_clipping_counts_what_is_trained() -> None:
  graph = every_kind()
  config = OptimConfig(learning_rate=1, momentum=0, weight_decay=0, clip_norm=0.5, freeze_until="c1", schedule=CONSTANT)
  params, grads = params_of(graph), gradients(graph, 1)
  (after,), _ = run(make_optimizer(config, graph, 10)[0], params, grads)
  before = flatten_variables(params)
  moved = np.sqrt(sum(((after[key] - before[key]) ** 2).sum() for key in before))
  assert moved == pytest.approx(0.5, rel=1e-5)


# -- what stays --------------------------------------------------------------------------------------------------------


def moved_layers(after: Flat, before: Any) -> set[str]:
  flat = flatten_variables(before)
  return {key.split("/")[0] for key in flat if not np.array_equal(after[key], flat[key])}


@pytest.mark.parametrize("name", RULES)
def test_frozen_layers_neither_move_nor_cost_memory(name: str) -> None:
  graph = every_kind()
  config = OptimConfig(name=name, freeze_until="fuse", weight_decay=0.5, clip_norm=1, schedule=CONSTANT)
  layers = {"fc": LayerTraining(dont_update=True)}
  assert frozen_layers(graph, config, layers) == {"stem", "c1", "fuse", "fc"}
  tx, _ = make_optimizer(config, graph, 10, layers)
  params = params_of(graph)
  after, state = run(tx, params, gradients(graph, 2))
  assert moved_layers(after[-1], params) == {"norm", "c2", "know"}
  trained = sum(
    value.size for key, value in flatten_variables(params).items() if key.split("/")[0] in ("norm", "c2", "know")
  )
  moments = 1 if name in ("sgd", "lars") else 2
  assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == moments * trained


def test_stopbackward_freezes_everything_before_it() -> None:
  graph = every_kind()
  layers = {"c1": LayerTraining(stopbackward=1)}
  assert frozen_layers(graph, OptimConfig(), layers) == {"stem", "c1"}
  assert frozen_layers(graph, OptimConfig()) == frozenset()


@pytest.mark.parametrize("name", RULES)
def test_layers_held_back_for_some_updates(name: str) -> None:
  """stopbackward=2 leaves out the first two updates; burnin_update=1 those whose number, from 1, is below burn_in."""
  graph = every_kind()
  schedule = ScheduleConfig(policy="constant", burn_in_steps=4)
  config = OptimConfig(name=name, learning_rate=1, weight_decay=0.5, schedule=schedule)  # moves beyond rounding
  layers = {"c1": LayerTraining(stopbackward=2), "fc": LayerTraining(burnin_update=1)}
  assert frozen_layers(graph, config, layers) == frozenset()
  params, grads = params_of(graph), gradients(graph, 5)
  after, _ = run(make_optimizer(config, graph, 10, layers)[0], params, grads)
  rest = {"fuse", "norm", "c2", "know"}
  moved = [
    moved_layers(a, unflatten_variables(b)) for a, b in zip(after, [flatten_variables(params), *after], strict=False)
  ]
  assert moved == [rest, rest, rest | {"stem", "c1"}, rest | {"stem", "c1", "fc"}, rest | {"stem", "c1", "fc"}]
  _, state = run(make_optimizer(config, graph, 10, layers)[0], params, grads[:2])
  held = [
    x for path, x in jax.tree_util.tree_leaves_with_path(state) if any(getattr(p, "key", "") == "c1" for p in path)
  ]
  assert held
  assert not any(np.any(x) for x in held)  # no momentum from before


def test_keys_without_effect_are_reported(caplog: pytest.LogCaptureFixture) -> None:
  with caplog.at_level(logging.WARNING):
    make_optimizer(OptimConfig(), every_kind(), 10, {"c2": LayerTraining(clip=1.0), "fc": LayerTraining(clip=2.0)})
  assert "key 'clip' of the layers c2, fc has no effect here" in caplog.text


# -- state -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_a_restored_state_goes_on_exactly(name: str) -> None:
  graph = tiny_detector()
  schedule = ScheduleConfig(burn_in_steps=2)
  config = OptimConfig(name=name, schedule=schedule, clip_norm=5, freeze_until="stem")
  layers = {"c2": LayerTraining(stopbackward=3, learning_rate=2)}
  params, grads = params_of(graph), gradients(graph, 6)
  whole, _ = run(make_optimizer(config, graph, 6, layers)[0], params, grads)
  half, state = run(make_optimizer(config, graph, 6, layers)[0], params, grads[:4])
  saved = jax.tree.map(np.asarray, state)  # all that a checkpoint keeps
  tx, _ = make_optimizer(config, graph, 6, layers)
  now = unflatten_variables(half[-1])
  for grad in grads[4:]:
    updates, saved = jax.jit(tx.update)(grad, saved, now)
    now = optax.apply_updates(now, updates)
  for key, value in flatten_variables(now).items():
    np.testing.assert_array_equal(value, whole[-1][key], err_msg=key)


@pytest.mark.parametrize("name", RULES)
def test_state_and_arithmetic_are_float32_for_bfloat16(name: str) -> None:
  graph = every_kind()
  tx, _ = make_optimizer(OptimConfig(name=name, schedule=CONSTANT), graph, 10)
  low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params_of(graph))
  state = tx.init(low)
  updates, state = tx.update(low, state, low)
  assert {leaf.dtype for leaf in jax.tree.leaves((state, updates))} == {np.dtype("float32"), np.dtype("int32")}
  assert {leaf.dtype for leaf in jax.tree.leaves(optax.apply_updates(low, updates))} == {jnp.dtype(jnp.bfloat16)}


# -- schedules and messages --------------------------------------------------------------------------------------------


def test_steps_as_shares_of_the_run() -> None:
  shares = ScheduleConfig(policy="steps", steps=(0.5, 90), scales=(0.1, 0.1))
  schedule = make_schedule(OptimConfig(learning_rate=1, schedule=shares), 100)
  np.testing.assert_allclose(schedule(np.array([48, 49, 88, 89])), [1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_steps_of_a_cfg_before_the_first_update_are_taken_at_once() -> None:
  net = NetTraining(learning_rate=0.1, policy="steps", steps=(-1.0, 3.0), scales=(0.1, 10.0), max_batches=9)
  schedule = make_schedule(darknet_optim(net), 9)
  np.testing.assert_allclose(schedule(np.arange(4)), [0.01, 0.01, 0.1, 0.1], rtol=1e-6)
  np.testing.assert_array_equal(schedule(np.arange(9)), darknet_schedule(net)(np.arange(9)))


def test_the_seed_is_of_the_policy_random() -> None:
  config = OptimConfig(learning_rate=1, schedule=ScheduleConfig(policy="random"))
  counts = np.arange(20)
  first, again, other = (make_schedule(config, 20, seed)(counts) for seed in (3, 3, 4))
  np.testing.assert_array_equal(first, again)
  assert not np.any(first == other)
  np.testing.assert_array_equal(make_schedule(config, 20)(counts), make_schedule(config, 20, 0)(counts))
  np.testing.assert_array_equal(make_optimizer(config, every_kind(), 20, seed=4)[1](counts), other)
  steady = OptimConfig(schedule=CONSTANT)
  np.testing.assert_array_equal(make_schedule(steady, 20, 3)(counts), make_schedule(steady, 20, 4)(counts))


def test_cosine_ends_at_its_end() -> None:
  cosine = ScheduleConfig(burn_in_steps=10, end_rate=0.01)
  schedule = make_schedule(OptimConfig(learning_rate=1, schedule=cosine), 100)
  np.testing.assert_allclose(schedule(np.array([0, 9, 10, 99])), [0.1, 1, 1, 0.01], rtol=1e-6)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: OptimConfig(name="adam"), r"optim.name is 'adam' \(did you mean 'adamw'\?\); expected one of sgd"),
    (lambda: OptimConfig(momentum=1.0), "optim.momentum is 1.0; expected at least 0 and below 1"),
    (lambda: OptimConfig(learning_rate=float("nan")), "optim.learning_rate is nan; expected at least 0"),
    (lambda: OptimConfig(accumulate=0), "optim.accumulate is 0; expected at least 1"),
    (lambda: ScheduleConfig(policy="cosin"), r"schedule.policy is 'cosin' \(did you mean 'cosine'\?\)"),
    (lambda: ScheduleConfig(policy="steps", scales=(0.1,)), r"steps are \[\] with scales \[0.1\]"),
    (lambda: ScheduleConfig(policy="steps", steps=(3,), scales=(-1,)), r"scales \[-1\]; .* scales of at least 0"),
    (lambda: ScheduleConfig(power=-4), "schedule.power is -4; expected at least 0"),
    (lambda: ScheduleConfig(sgdr_mult=0), "schedule.sgdr_mult is 0; expected at least 1"),
    (lambda: darknet_optim(NetTraining(adam=True)), "adam=1 is not supported; set optim.name to 'adamw'"),
    (lambda: make_optimizer(OptimConfig(), every_kind(), 0), "the run has 0 steps; expected at least 1"),
    (
      lambda: make_optimizer(OptimConfig(freeze_until="stemm"), every_kind(), 10),
      r"optim.freeze_until: network 'every' has no layer 'stemm' \(did you mean 'stem'\?\). 'prn summary' lists them",
    ),
    (
      lambda: make_optimizer(OptimConfig(), every_kind(), 10, {"c3": LayerTraining()}),
      r"settings of a layer: network 'every' has no layer 'c3'",
    ),
    (
      lambda: make_optimizer(OptimConfig(freeze_until="know"), every_kind(), 10),
      "no parameter is left to train: 7 of 7 layers are frozen. Freeze less",
    ),
  ],
)
def test_messages(make: Callable[[], Any], message: str) -> None:
  with pytest.raises(PrnError, match=message):
    make()
