"""The train step, for detectors and classifiers alike. What it needs is passed in; it knows neither files nor devices.

Metrics are arrays [sum, count], so that micro-batches, devices and steps add up; `mean` divides.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from prn_jax.network import Network, Variables

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
Constants = Any  # a pytree of arrays that the loss reads and no step changes: the variables of a teacher, ranges
NEVER = -1  # TrainState.bad_step of a healthy run


class LossFn(Protocol):
  """(layer name -> output, batch, constants) -> mean loss per image, metrics."""

  def __call__(
    self, outputs: dict[str, jax.Array], batch: Batch, constants: Constants = (), /
  ) -> tuple[jax.Array, Metrics]: ...


class TrainState(NamedTuple):
  """What a step changes; everything that a checkpoint must hold.

  Attributes:
    step: () int32, updates done so far.
    params, batch_stats: the network's variables, float32.
    opt_state: the state of the optimiser.
    ema_params, ema_batch_stats: running averages of both, for evaluation; empty dicts without averaging.
    bad_step: () int32, the step whose loss or gradient was not finite, or `NEVER`. From then on nothing changes.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema_params: Any
  ema_batch_stats: Any
  bad_step: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """What stays the same from step to step.

  Attributes:
    network, tx: the network and its optimiser, which takes the mean gradient over the images.
    loss_fn: see `LossFn`. Arrays that it needs are its constants: those that it closes over would become a part of the
      compiled program.
    layers: names of the outputs that `loss_fn` reads.
    accumulate: micro-batches per update (Darknet's subdivisions). Batch norm sees one at a time.
    ema_decay: share of the old running average; 0 keeps none.
    frozen: layers that stay as they are, rolling statistics of batch norm included. They normalise with the batch, as
      in Darknet.
    axis: mesh axis to average over inside `shard_map`; None under plain `jit`, where the batch is whole.
    remat: keep only the results of convolutions for the gradient, and compute the rest again.
    seed: the seed of dropout.
  """

  network: Network
  tx: optax.GradientTransformation
  loss_fn: LossFn
  layers: tuple[str, ...]
  accumulate: int = 1
  ema_decay: float = 0.0
  frozen: frozenset[str] = frozenset()
  axis: str | None = None
  remat: bool = False
  seed: int = 0


def init_state(variables: Variables, recipe: Recipe) -> TrainState:
  """The state before the first step; `variables` may be numpy arrays, and are copied."""
  params = jax.tree.map(jnp.array, variables["params"])
  stats = jax.tree.map(jnp.array, variables.get("batch_stats", {}))
  averaged = recipe.ema_decay > 0
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=stats,
    opt_state=recipe.tx.init(params),
    ema_params=jax.tree.map(jnp.copy, params) if averaged else {},  # buffers of its own: the step donates both
    ema_batch_stats=jax.tree.map(jnp.copy, stats) if averaged else {},
    bad_step=jnp.full((), NEVER, jnp.int32),
  )


def eval_variables(state: TrainState) -> Variables:
  """The variables to evaluate and to keep: averaged ones where there are any."""
  if state.ema_params:
    return {"params": state.ema_params, "batch_stats": state.ema_batch_stats}
  return {"params": state.params, "batch_stats": state.batch_stats}


def train_step(
  state: TrainState, batch: Batch, recipe: Recipe, constants: Constants = ()
) -> tuple[TrainState, Metrics]:
  """One update.

  Args:
    state: before.
    batch: {"image": (n, h, w, 3) uint8, or float in [0, 1], ...}; the rest is for the loss.
    recipe: see there.
    constants: the constants of the loss; they get no gradient.

  Returns:
    The state after, and the metrics with "loss" and "grad_norm". If the loss or the gradient is not finite, only
    `bad_step` differs in the state.
  """
  grads, batch_stats, metrics = mean_gradients(state, batch, recipe, constants)
  updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  decay = jnp.minimum(recipe.ema_decay, (1 + state.step) / (10 + state.step))  # short while all is still moving
  after = TrainState(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema_params=_average(state.ema_params, params, decay),
    ema_batch_stats=_average(state.ema_batch_stats, batch_stats, decay),
    bad_step=state.bad_step,
  )
  grad_norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
  is_finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(grad_norm)
  return _guarded(state, after, is_finite), metrics | {"grad_norm": one_value(grad_norm)}


def mean_gradients(
  state: TrainState, batch: Batch, recipe: Recipe, constants: Constants = ()
) -> tuple[Any, Any, Metrics]:
  """The gradient of the mean loss per image, the new batch-norm statistics, and the metrics of a batch."""

  def add(carry: tuple[Any, Any], micro: tuple[jax.Array, Batch]) -> tuple[tuple[Any, Any], Metrics]:
    total, stats = carry
    grads, stats, metrics = _micro_gradients(state, stats, *micro, recipe, constants)
    return (jax.tree.map(jnp.add, total, grads), stats), metrics

  batch = with_images_seen(state, batch, recipe)
  zeros = jax.tree.map(jnp.zeros_like, state.params)
  parts = recipe.accumulate
  if parts == 1:
    (grads, stats), metrics = add((zeros, state.batch_stats), (jnp.zeros((), jnp.int32), batch))
  else:
    (grads, stats), metrics = lax.scan(
      add, (zeros, state.batch_stats), (jnp.arange(parts), micro_batches(batch, parts))
    )
    grads = jax.tree.map(lambda g: g / parts, grads)
    metrics = jax.tree.map(lambda m: m.sum(0), metrics)
  if recipe.axis is not None:
    grads, stats = lax.pmean((grads, stats), recipe.axis)
    metrics = lax.psum(metrics, recipe.axis)
  return grads, _keep_frozen(state.batch_stats, stats, recipe.frozen), metrics


def _micro_gradients(
  state: TrainState, stats: Any, index: jax.Array, batch: Batch, recipe: Recipe, constants: Constants
) -> tuple[Any, Any, Metrics]:
  """Gradient, batch-norm statistics and metrics of one micro-batch."""
  key = dropout_key(state, index, recipe)

  def forward(params: Any, image: jax.Array) -> tuple[dict[str, jax.Array], Any]:
    return recipe.network.apply(
      {"params": params, "batch_stats": stats},
      to_unit_range(image),
      train=True,
      layers=recipe.layers,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )

  if recipe.remat:
    forward = jax.checkpoint(forward, policy=_keep_convolutions)

  def loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
    params = {k: lax.stop_gradient(v) if k in recipe.frozen else v for k, v in params.items()}  # no work for nothing
    outputs, new = forward(params, batch["image"])
    value, metrics = recipe.loss_fn(outputs, batch, constants)
    return value, (new.get("batch_stats", {}), metrics | {"loss": one_value(value)})

  grads, (new_stats, metrics) = jax.grad(loss, has_aux=True)(state.params)
  return grads, new_stats, metrics


def micro_batches(batch: Batch, parts: int) -> Batch:
  """A batch as (parts, rows, ...). Micro-batch k has the rows k, k + parts, ...: each device has its share of every one."""
  return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def with_images_seen(state: TrainState, batch: Batch, recipe: Recipe) -> Batch:
  """The batch with "images_seen" (n,) int32: images of the run up to the micro-batch of each row, that one included.

  Losses that begin gently go by it ([region]). It stands still at about 10^9.
  """
  n = batch["image"].shape[0]
  whole = n if recipe.axis is None else n * lax.psum(1, recipe.axis)
  before = jnp.minimum(state.step, 2**30 // whole) * whole
  in_step = (jnp.arange(n, dtype=jnp.int32) % recipe.accumulate + 1) * (whole // recipe.accumulate)
  return batch | {"images_seen": before + in_step}


def dropout_key(state: TrainState, index: jax.Array, recipe: Recipe) -> jax.Array:
  """The random key of micro-batch `index` of the next step; each device has its own where the recipe has an axis."""
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), state.step), index)
  return key if recipe.axis is None else jax.random.fold_in(key, lax.axis_index(recipe.axis))


def to_unit_range(image: jax.Array) -> jax.Array:
  """Bytes become float32 in [0, 1]; floats stay."""
  return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image


def one_value(x: jax.Array) -> jax.Array:
  """A scalar as a metric: [x, 1]."""
  return jnp.stack([x.astype(jnp.float32), jnp.ones((), jnp.float32)])


def mean(metrics: dict[str, Any]) -> dict[str, float]:
  """Metrics [sum, count] as means; 0 where nothing was counted."""
  return {key: float(value[0]) / max(float(value[1]), 1e-9) for key, value in metrics.items()}


def _keep_convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
  return bool(primitive.name in ("conv_general_dilated", "dot_general"))


def _average(old: Any, new: Any, decay: jax.Array) -> Any:
  return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new) if old else old


def _keep_frozen(old: Any, new: Any, frozen: frozenset[str]) -> Any:
  return {layer: old[layer] if layer in frozen else stats for layer, stats in new.items()}


def _guarded(before: TrainState, after: TrainState, is_finite: jax.Array) -> TrainState:
  """`after`, or `before` with `bad_step` set, from the first step on that is not finite."""
  is_good = is_finite & (before.bad_step == NEVER)
  bad_step = jnp.where((before.bad_step == NEVER) & ~is_finite, before.step, before.bad_step)
  kept = jax.tree.map(lambda old, new: jnp.where(is_good, new, old), before, after)
  return kept._replace(bad_step=bad_step)
