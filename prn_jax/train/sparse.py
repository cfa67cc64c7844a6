"""Sparse training: a penalty on the scales of batch norm, so that channels that a network can spare fade away.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017: strength * sum |gamma| is
added to the loss. It is added once per update, behind micro-batches and mixed precision, so that neither changes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.graph import Graph
from prn_jax.graph.prune_scopes import Scope, layers_in_scope
from prn_jax.ranges import at_least, between, check


class SparseSchedule(StrEnum):
  """The strength over the run."""

  CONSTANT = "constant"
  GLOBAL = "global"
  LOCAL = "local"
  COSINE = "cosine"


class SparseMethod(StrEnum):
  """How the penalty acts on the scales."""

  PROXIMAL = "proximal"
  SUBGRADIENT = "subgradient"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseConfig:
  """A penalty on the scales of batch norm.

  Attributes:
    strength: weight of the sum of their absolute values beside the mean loss per image, per update. A scale of 1 that nothing
      holds fades once the sum of (rate * strength) over the run is 1 (proximal).
    scope: whose scales: "normal", "all", "residual" or "coupled", see `graph.prune_scopes.Scope`.
    schedule: "constant"; "global": times `decay` after `decay_from` of the run; "local": so only for the channels with the
      largest scales, beyond the share `pressed`; "cosine": from all to `decay` of it along half a cosine.
    decay, decay_from, pressed: shares that the schedules read.
    method: "proximal" draws each scale by rate * strength towards 0, and no further, after the update: scales become exactly 0,
      and stay there while their gradient is smaller than the strength. "subgradient" adds strength * sign(scale) to the gradient,
      as in the paper: it goes through momentum and moments (momentum 0.9 presses ten times as hard), and scales swing about 0.
  """

  strength: float = dataclasses.field(default=0.0, metadata=at_least(0, "the weight of the penalty; 0 is off"))
  scope: str = "all"
  schedule: str = "constant"
  decay: float = dataclasses.field(default=0.01, metadata=between(0, 1, "the share of the strength that is left"))
  decay_from: float = dataclasses.field(default=0.5, metadata=between(0, 1, "the share of the run before the decay"))
  pressed: float = dataclasses.field(
    default=0.85, metadata=between(0, 1, "the share of the channels that the schedule local goes on pressing")
  )
  method: str = "proximal"

  def __post_init__(self) -> None:
    for key, kind in (("scope", Scope), ("schedule", SparseSchedule), ("method", SparseMethod)):
      value, known = getattr(self, key), list(kind)
      if value not in known:
        raise PrnError(f"sparse.{key} is '{value}'{did_you_mean(value, known)}; expected one of {', '.join(known)}.")
    check(self, PrnError, "sparse.{}")


@dataclasses.dataclass(frozen=True)
class Sparsity:
  """The penalty of one run.

  Attributes:
    config: see there.
    layers: whose scales are pressed.
    total_steps: updates of the run.
  """

  config: SparseConfig
  layers: tuple[str, ...]
  total_steps: int

  def strength(self, count: jax.typing.ArrayLike) -> jax.Array:
    """() float32: the strength of update `count` (0 is the first); of the channels that "local" goes on pressing."""
    config, done = self.config, jnp.asarray(count, jnp.float32)
    match SparseSchedule(config.schedule):
      case SparseSchedule.GLOBAL:
        factor = jnp.where(self._has_decayed(done), config.decay, 1.0)
      case SparseSchedule.COSINE:
        share = jnp.clip(done / max(self.total_steps - 1, 1), 0, 1)
        factor = config.decay + (1 - config.decay) * 0.5 * (1 + jnp.cos(np.float32(np.pi) * share))
      case SparseSchedule.CONSTANT | SparseSchedule.LOCAL:
        factor = jnp.ones((), jnp.float32)
    return jnp.asarray(config.strength * factor, jnp.float32)

  def strengths(self, count: jax.typing.ArrayLike, scales: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The strength for every channel of update `count`: layer -> () or (channels,) float32."""
    strength = self.strength(count)
    if SparseSchedule(self.config.schedule) is not SparseSchedule.LOCAL:
      return dict.fromkeys(scales, strength)
    ordered = jnp.sort(jnp.abs(jnp.concatenate(list(scales.values()))))
    num_pressed = round(self.config.pressed * ordered.size)
    limit = ordered[num_pressed - 1] if num_pressed else jnp.float32(-1)
    has_decayed = self._has_decayed(jnp.asarray(count, jnp.float32))
    return {
      name: jnp.where(has_decayed & (jnp.abs(scale) > limit), strength * self.config.decay, strength)
      for name, scale in scales.items()
    }

  def scales(self, params: Any) -> dict[str, Any]:
    """Layer -> (channels,) the scales of the layers."""
    return {name: params[name]["bn"]["scale"] for name in self.layers}

  def text(self, graph: Graph) -> str:
    """One line for people."""
    config, channels = self.config, sum(graph.shapes[name].channels for name in self.layers)
    return (
      f"sparse training: {channels:,} scales of {len(self.layers)} layers (scope {config.scope}), strength "
      f"{config.strength:g}, {config.schedule}, {config.method}"
    )

  def _has_decayed(self, done: jax.Array) -> jax.Array:
    return done >= np.float32(self.config.decay_from * self.total_steps)


def sparsity_of(config: SparseConfig, graph: Graph, total_steps: int, frozen: frozenset[str]) -> Sparsity | None:
  """The penalty of a run; None where the strength is 0.

  Args:
    config: see there.
    graph: the network.
    total_steps: updates of the run.
    frozen: layers that stay as they are; their scales are left alone.

  Raises:
    PrnError: no scale is left to press.
  """
  if not config.strength:
    return None
  found = layers_in_scope(graph, config.scope)
  layers = tuple(name for name in found if name not in frozen)
  if layers:
    return Sparsity(config, layers, total_steps)
  if found:
    raise PrnError(
      f"config.sparse.strength is {config.strength:g}, but all {len(found)} layers of the scope '{config.scope}' are frozen. "
      "Freeze less (optim.freeze_until), or set the strength to 0."
    )
  others = [scope for scope in Scope if layers_in_scope(graph, scope)]
  advice = f"Scopes that have some: {', '.join(others)}." if others else "Set it to 0: this network cannot be slimmed."
  raise PrnError(
    f"config.sparse.strength is {config.strength:g}, but network '{graph.name}' has no layer with batch norm in the scope "
    f"'{config.scope}'. {advice}"
  )


# -- stages of an optimiser --------------------------------------------------------------------------------------------


class PressedState(NamedTuple):
  """Updates done: what the schedule is asked with, so that a restored run goes on exactly."""

  num_updates: jax.Array


def add_subgradient(sparsity: Sparsity) -> optax.GradientTransformation:
  """Adds strength * sign(scale) to the gradients of the scales; 0 at 0."""

  def change(gradient: jax.Array, scale: jax.Array, strength: jax.Array) -> jax.Array:
    return gradient + strength * jnp.sign(scale)

  return _stage(sparsity, change)


def soft_threshold(sparsity: Sparsity, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Turns updates of the scales into those that end rate * strength nearer to 0, or at 0: the proximal step of |scale|.

  Source: proximal gradient descent (ISTA; Beck and Teboulle, SIAM J. Imaging Sci. 2009). It stands behind the learning rate;
  `schedule` gives the rate of each update.
  """

  def change(update: jax.Array, scale: jax.Array, threshold: jax.Array) -> jax.Array:
    wanted = scale + update
    return jnp.sign(wanted) * jnp.maximum(jnp.abs(wanted) - threshold, 0) - scale

  return _stage(sparsity, change, schedule)


def _stage(
  sparsity: Sparsity,
  change: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
  schedule: optax.Schedule = lambda count: jnp.ones((), jnp.float32),
) -> optax.GradientTransformation:
  """change(update, scale, strength * schedule) for the scales of the layers; the others stay."""

  def init(params: Any) -> PressedState:
    return PressedState(jnp.zeros((), jnp.int32))

  def update(updates: Any, state: PressedState, params: Any = None) -> tuple[Any, PressedState]:
    scales = sparsity.scales(params)
    factor = jnp.asarray(schedule(state.num_updates), jnp.float32)
    strengths = sparsity.strengths(state.num_updates, scales)
    changed = dict(updates)
    for name, scale in scales.items():
      own = updates[name]
      value = change(own["bn"]["scale"], scale, factor * strengths[name])
      changed[name] = {**own, "bn": {**own["bn"], "scale": value}}
    return changed, PressedState(optax.safe_increment(state.num_updates))

  return optax.GradientTransformation(init, update)


# -- figures -----------------------------------------------------------------------------------------------------------

SMALL = (0.001, 0.01, 0.1)  # shares of scales below these are logged


def sparsity_figures(scales: Sequence[np.ndarray]) -> dict[str, float]:
  """Shares of scales whose absolute value is below each of `SMALL`, their mean and largest, by the names of the log."""
  values = np.abs(np.concatenate([np.asarray(one, np.float64) for one in scales]))
  shares = {f"sparse/below_{limit:g}": float(np.mean(values < limit)) for limit in SMALL}
  return shares | {"sparse/mean": float(values.mean()), "sparse/max": float(values.max())}
