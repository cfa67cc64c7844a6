"""The train step of a detector. Everything it needs is passed in; it knows neither files nor devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from prn_jax.network import Network

Metrics = dict[str, jax.Array]
LossFn = Callable[[dict[str, jax.Array], Any], tuple[jax.Array, Metrics]]


class TrainState(NamedTuple):
  """What a step changes.

  Attributes:
    step: updates done so far.
    params, batch_stats: the network's variables.
    opt_state: of the optimiser.
    ema: running average of `params`, for evaluation.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any


def init_state(variables: dict[str, Any], tx: optax.GradientTransformation) -> TrainState:
  params = jax.tree.map(jax.numpy.asarray, variables["params"])
  stats = jax.tree.map(jax.numpy.asarray, variables.get("batch_stats", {}))
  ema = jax.tree.map(jax.numpy.copy, params)  # buffers of its own: the step donates both
  return TrainState(jax.numpy.zeros((), jax.numpy.int32), params, stats, tx.init(params), ema)


@functools.partial(jax.jit, static_argnames=("network", "tx", "loss_fn", "layers"), donate_argnames="state")
def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  network: Network,
  tx: optax.GradientTransformation,
  loss_fn: LossFn,
  layers: tuple[str, ...],
  ema_decay: float | jax.Array,
) -> tuple[TrainState, Metrics]:
  """One update.

  Args:
    state: before; its buffers are reused.
    batch: {"image": (n, h, w, 3) in [0, 1], ...}; the rest is for `loss_fn`.
    network, tx: the network and its optimiser.
    loss_fn: (layer name -> output, batch) -> loss per batch, metrics.
    layers: names of the outputs that `loss_fn` reads.
    ema_decay: share of the old running average.

  Returns:
    The state after, and the metrics with "loss" and "grad_norm".
  """

  def loss(params: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
    outputs, new = network.apply(
      {"params": params, "batch_stats": state.batch_stats},
      batch["image"],
      train=True,
      layers=layers,
      mutable=["batch_stats"],
    )
    value, metrics = loss_fn(outputs, batch)
    return value, (new["batch_stats"], metrics)

  (value, (batch_stats, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, state.ema, params)
  metrics = metrics | {"loss": value, "grad_norm": optax.global_norm(grads)}
  return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics
