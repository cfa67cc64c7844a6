"""Optimisers: Darknet's SGD to the bit, AdamW, LARS and LAMB, with the rules about layers that Darknet's cfgs have.

What is decayed, frozen or slowed down follows from the graph: kernels (of convolutions and connected layers, and the
vectors of implicit layers) are decayed, biases, batch norm and the fusion weights of shortcuts are not (docs/darknet.md e1,
as on GPU). Gradients are means over the images of a batch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats.darknet_training import LayerTraining, NetTraining
from prn_jax.graph.graph import Graph
from prn_jax.ranges import at_least, below, check
from prn_jax.train.schedules import Policy, cosine_schedule, darknet_schedule
from prn_jax.train.sparse import SparseMethod, Sparsity, add_subgradient, soft_threshold

COSINE = "cosine"
DECAYED_LEAVES = ("kernel", "vector")
NO_EFFECT = ("clip", "onlyforward", "train_only_bn")  # keys of layers that nothing here follows
_LOG = logging.getLogger(__name__)


class OptimizerName(StrEnum):
  """Update rules."""

  SGD = "sgd"
  ADAMW = "adamw"
  LARS = "lars"
  LAMB = "lamb"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
  """The learning rate over time; names and meanings as in [net] of a cfg (docs/darknet.md e2), counted in updates.

  Attributes:
    policy: "cosine", or Darknet's: constant, step, steps, exp, poly, sigmoid, sgdr, random.
    burn_in_steps: updates until the full rate: along a power with Darknet's policies, a line with "cosine".
    power: exponent of the burn-in, and of the policies poly and random.
    steps: the updates at which the rate is multiplied by the `scales` of the same place. Below 1: a share of the run (0.8).
    scales: factors, 1 where missing.
    step, scale: for the policies step and sigmoid, updates between multiplications (or the middle), and the factor.
    gamma: the base of the policy exp, the slope of sigmoid.
    sgdr_cycle_steps, sgdr_mult: first cycle (0: the whole run), and how much longer each one is than the last.
    end_rate: the rate at the end of a cosine, also of those of sgdr.
  """

  policy: str = COSINE
  burn_in_steps: int = dataclasses.field(
    default=0, metadata=at_least(0, "updates until the full rate; 0 starts with it")
  )
  power: float = dataclasses.field(
    default=4.0, metadata=at_least(0, "the exponent of the burn-in, and of the policies poly and random")
  )
  steps: tuple[float, ...] = ()
  scales: tuple[float, ...] = ()
  step: int = 1
  scale: float = dataclasses.field(default=1.0, metadata=at_least(0, "the factor of the policy step"))
  gamma: float = 1.0
  sgdr_cycle_steps: int = dataclasses.field(
    default=0, metadata=at_least(0, "updates of the first cycle; 0 is the whole run")
  )
  sgdr_mult: int = dataclasses.field(default=2, metadata=at_least(1, "how much longer each cycle is than the last"))
  end_rate: float = dataclasses.field(default=0.0, metadata=at_least(0, "the rate at the end of a cosine"))

  def __post_init__(self) -> None:
    known = [*Policy, COSINE]
    if self.policy not in known:
      raise PrnError(
        f"schedule.policy is '{self.policy}'{did_you_mean(self.policy, known)}; expected one of {', '.join(known)}."
      )
    check(self, PrnError, "schedule.{}")
    too_many = len(self.scales) > len(self.steps)
    if too_many or not all(step > 0 for step in self.steps) or not all(scale >= 0 for scale in self.scales):
      raise PrnError(
        f"schedule.steps are {list(self.steps)} with scales {list(self.scales)}; expected steps above 0, scales of at "
        "least 0, and no more scales than steps."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
  """The optimiser.

  Attributes:
    name: sgd (Darknet's), adamw, lars or lamb.
    learning_rate: highest rate of the schedule; for the mean gradient of a whole batch.
    momentum, nesterov: settings of sgd and lars.
    weight_decay: share of the kernels added to their gradient (sgd, lars) or update (adamw, lamb).
    b1, b2, eps: of adamw and lamb.
    trust_coefficient: the trust coefficient of lars.
    clip_norm: largest norm of the gradient of all trained parameters together; 0: any.
    freeze_until: this layer and all before it stay as they are, batch-norm statistics included; "": none.
    ema_decay: share of the old running average of the weights per update; 0: no average.
    accumulate: micro-batches per update (Darknet's subdivisions).
    schedule: the learning rate over time.
  """

  name: str = "sgd"
  learning_rate: float = dataclasses.field(default=0.001, metadata=at_least(0, "the highest rate of the schedule"))
  momentum: float = dataclasses.field(default=0.9, metadata=below(0, 1, "the share of the last update"))
  nesterov: bool = False
  weight_decay: float = dataclasses.field(default=0.0005, metadata=at_least(0, "the share of the kernels; 0 is off"))
  b1: float = dataclasses.field(default=0.9, metadata=below(0, 1, "of adamw and lamb"))
  b2: float = dataclasses.field(default=0.999, metadata=below(0, 1, "of adamw and lamb"))
  eps: float = dataclasses.field(default=1e-8, metadata=at_least(0, "of adamw and lamb"))
  trust_coefficient: float = dataclasses.field(default=0.001, metadata=at_least(0, "of lars"))
  clip_norm: float = dataclasses.field(default=0.0, metadata=at_least(0, "the largest norm of the gradient; 0 is any"))
  freeze_until: str = ""
  ema_decay: float = dataclasses.field(default=0.0, metadata=below(0, 1, "the share of the old average; 0 keeps none"))
  accumulate: int = dataclasses.field(default=1, metadata=at_least(1, "micro-batches per update"))
  schedule: ScheduleConfig = ScheduleConfig()

  def __post_init__(self) -> None:
    names = list(OptimizerName)
    if self.name not in names:
      raise PrnError(
        f"optim.name is '{self.name}'{did_you_mean(self.name, names)}; expected one of {', '.join(names)}."
      )
    check(self, PrnError, "optim.{}")


def darknet_optim(net: NetTraining) -> OptimConfig:
  """The optimiser of a cfg: Darknet's SGD with the keys of [net]. `ema_alpha` and `subdivisions` come along.

  Source: Darknet `network.c` (docs/darknet.md e1, e2, e12). Differs: `ema_alpha` averages from the first update on, rolling
  statistics of batch norm included, and the average is what is evaluated and kept. Darknet's `ema_update` starts at
  half of max_batches, leaves the rolling statistics out, and puts the average in the place of the weights once, 1,000
  updates before the end.

  A step below 1 (steps=-1,100) is one that the first update has passed; Darknet knows no shares of the run.

  Raises:
    PrnError: adam=1, whose decay goes through the moments; choose "adamw" instead.
  """
  if net.adam:
    raise PrnError("[net] adam=1 is not supported; set optim.name to 'adamw' and choose its weight_decay.")
  schedule = ScheduleConfig(
    policy=net.policy,
    burn_in_steps=net.burn_in,
    power=net.power,
    steps=tuple(max(step, 1.0) for step in net.steps),
    scales=net.scales[: len(net.steps)],
    step=net.step,
    scale=net.scale,
    gamma=net.gamma,
    sgdr_cycle_steps=net.sgdr_cycle,
    sgdr_mult=net.sgdr_mult,
    end_rate=net.learning_rate_min,
  )
  return OptimConfig(
    learning_rate=net.learning_rate,
    momentum=net.momentum,
    weight_decay=net.decay,
    ema_decay=net.ema_alpha,
    accumulate=net.subdivisions,
    schedule=schedule,
  )


def make_schedule(config: OptimConfig, total_steps: int, seed: int = 0) -> optax.Schedule:
  """Number of updates done -> float32 rate of the next one.

  Args:
    config: the rate and its schedule.
    total_steps: updates of the whole run.
    seed: the seed of the policy "random".

  Raises:
    PrnError: the run is shorter than 1 step or than its warm-up, or keys of the policy have no meaning.
  """
  s = config.schedule
  if total_steps < 1:
    raise PrnError(f"the run has {total_steps} steps; expected at least 1.")
  if s.policy == COSINE:
    return cosine_schedule(config.learning_rate, total_steps, warmup_steps=s.burn_in_steps, end=s.end_rate)
  net = NetTraining(
    learning_rate=config.learning_rate,
    learning_rate_min=s.end_rate,
    max_batches=total_steps,
    policy=s.policy,
    burn_in=s.burn_in_steps,
    power=s.power,
    step=s.step,
    scale=s.scale,
    steps=tuple(round(step * total_steps) if step < 1 else step for step in s.steps),
    scales=s.scales,
    gamma=s.gamma,
    sgdr_cycle=s.sgdr_cycle_steps,
    sgdr_mult=s.sgdr_mult,
  )
  return darknet_schedule(net, seed)


def make_optimizer(
  config: OptimConfig,
  graph: Graph,
  total_steps: int,
  layers: Mapping[str, LayerTraining] | None = None,
  *,
  seed: int = 0,
  sparsity: Sparsity | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optimiser of a network.

  Args:
    config: see there.
    graph: the network; parameters are {layer: {"conv": {"kernel": ...}}}, as `network.init_variables` makes them.
    total_steps: updates of the whole run.
    layers: settings of single layers, as a cfg has them: learning_rate is a factor; dont_update and stopbackward
      freeze (the latter all layers before, too; above 1 until that update); burnin_update holds until so many
      burn-ins are over. `NO_EFFECT` keys are reported in the log.
    seed: the seed of the policy "random"; other policies have no chance in them.
    sparsity: a penalty on scales of batch norm, if there is one. It is not clipped with the gradient.

  Returns:
    The transformation, which takes mean gradients over the images, and the schedule, for the log. The state is
    float32 whatever the parameters are, has nothing for frozen layers, and holds the number of updates that the
    schedule is asked with, so that a restored run goes on exactly.

  Raises:
    PrnError: a layer does not exist, or nothing is left to train.
  """
  layers = layers or {}
  frozen = frozen_layers(graph, config, layers)
  _warn_without_effect(layers)
  if not any(
    array.collection == "params" for layer in graph if layer.name not in frozen for array in graph.arrays(layer)
  ):
    raise PrnError(
      f"network '{graph.name}': no parameter is left to train: {len(frozen)} of {len(graph)} layers are frozen. Freeze "
      f"less (optim.freeze_until is '{config.freeze_until}')."
    )
  schedule = make_schedule(config, total_steps, seed)
  factors = {name: keys.learning_rate for name, keys in layers.items() if keys.learning_rate != 1}
  stages = _update_rule(config, graph, sparsity)
  tx = optax.chain(*stages, optax.scale_by_schedule(lambda count: -schedule(count)))
  if factors:
    tx = optax.chain(tx, _scale_layers(factors))
  if sparsity and SparseMethod(sparsity.config.method) is SparseMethod.PROXIMAL:
    tx = optax.chain(tx, soft_threshold(sparsity, schedule))
  held = _held_steps(graph, config, layers)
  if held:
    tx = _hold(tx, held)
  if frozen:
    tx = optax.partition(
      {"trained": tx, "frozen": optax.set_to_zero()},
      lambda params: _map_layers(params, lambda name, _: "frozen" if name in frozen else "trained"),
    )
  return _in_float32(tx), schedule


def frozen_layers(
  graph: Graph, config: OptimConfig, layers: Mapping[str, LayerTraining] | None = None
) -> frozenset[str]:
  """Names of the layers that never change: up to `freeze_until`, up to a stopbackward=1, and those with dont_update.
  Their batch-norm statistics must not change either; that is the train step's part.

  Raises:
    PrnError: `freeze_until` or a key of `layers` is no layer of the graph.
  """
  names = [layer.name for layer in graph]
  layers = layers or {}
  for name, what in ((config.freeze_until, "optim.freeze_until"), *((name, "settings of a layer") for name in layers)):
    if name and name not in names:
      raise PrnError(
        f"{what}: network '{graph.name}' has no layer '{name}'{did_you_mean(name, names)}. 'prn summary' lists them."
      )
  stops = [config.freeze_until] if config.freeze_until else []
  stops += [name for name, keys in layers.items() if keys.stopbackward == 1]
  last = max((names.index(name) for name in stops), default=-1)
  return frozenset(names[: last + 1]) | {name for name, keys in layers.items() if keys.dont_update}


def _held_steps(graph: Graph, config: OptimConfig, layers: Mapping[str, LayerTraining]) -> dict[str, int]:
  """Layer -> number of first updates that leave it alone (stopbackward above 1, burnin_update)."""
  held: dict[str, int] = {}
  until = 0
  for name in reversed([layer.name for layer in graph]):
    keys = layers.get(name, LayerTraining())
    until = max(until, keys.stopbackward if keys.stopbackward > 1 else 0)
    own = keys.burnin_update * config.schedule.burn_in_steps - 1  # Darknet compares with the update that is being done
    if max(until, own) > 0:
      held[name] = max(until, own)
  return held


def _warn_without_effect(layers: Mapping[str, LayerTraining]) -> None:
  for key in NO_EFFECT:
    given = [name for name, keys in layers.items() if getattr(keys, key)]
    if given:
      _LOG.warning("key '%s' of the layers %s has no effect here.", key, ", ".join(given))


# -- update rules ------------------------------------------------------------------------------------------------------


def _update_rule(
  config: OptimConfig, graph: Graph, sparsity: Sparsity | None
) -> Iterator[optax.GradientTransformation]:
  """The stages from the mean gradient to the step before the learning rate."""
  if config.clip_norm:
    yield optax.clip_by_global_norm(config.clip_norm)
  if sparsity and SparseMethod(sparsity.config.method) is SparseMethod.SUBGRADIENT:
    yield add_subgradient(sparsity)
  is_decayed = decay_mask(graph)
  decay = optax.add_decayed_weights(config.weight_decay, mask=is_decayed)
  momentum = optax.trace(config.momentum, nesterov=config.nesterov)
  moments = optax.scale_by_adam(config.b1, config.b2, config.eps)
  match OptimizerName(config.name):
    case OptimizerName.SGD:
      yield from (decay, momentum)
    case OptimizerName.ADAMW:
      yield from (moments, decay)
    case OptimizerName.LARS:
      trust = optax.scale_by_trust_ratio(trust_coefficient=config.trust_coefficient)
      yield from (decay, optax.masked(trust, is_decayed), momentum)
    case OptimizerName.LAMB:
      yield from (moments, decay, optax.masked(optax.scale_by_trust_ratio(), is_decayed))


def decay_mask(graph: Graph) -> Callable[[Any], Any]:
  """A function from parameters to the same tree of booleans: True for what is decayed (and scaled by trust ratios)."""
  decayed = {
    (layer.name, *array.path.split("/"))
    for layer in graph
    for array in graph.arrays(layer)
    if array.collection == "params" and array.path.split("/")[-1] in DECAYED_LEAVES
  }

  def mask(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: tuple(part.key for part in path) in decayed, params)

  return mask


def _map_layers(params: Any, function: Callable[[str, Any], Any]) -> Any:
  """The tree of function(layer name, leaf)."""
  return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path[0].key, leaf), params)


def _scale_layers(factors: Mapping[str, float]) -> optax.GradientTransformation:
  return optax.stateless(lambda updates, _: _map_layers(updates, lambda name, u: u * factors.get(name, 1.0)))


class HoldState(NamedTuple):
  """Updates done, and the state of the transformation that is held back."""

  num_updates: jax.Array
  inner: Any


def _hold(inner: optax.GradientTransformation, until: Mapping[str, int]) -> optax.GradientTransformation:
  """Leaves layers alone for their first `until` updates. Seeing zeros for gradient and weights, every rule gives
  them zero updates, and keeps their moments at zero."""

  def init(params: Any) -> HoldState:
    return HoldState(jnp.zeros((), jnp.int32), inner.init(params))

  def update(grads: Any, state: HoldState, params: Any = None) -> tuple[Any, HoldState]:
    def shown(name: str, x: jax.Array) -> jax.Array:
      return jnp.where(state.num_updates < until[name], jnp.zeros_like(x), x) if name in until else x

    updates, inner_state = inner.update(_map_layers(grads, shown), state.inner, _map_layers(params, shown))
    return updates, HoldState(state.num_updates + 1, inner_state)

  return optax.GradientTransformation(init, cast(Any, update))


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """Computes and remembers in float32, also for gradients and parameters in bfloat16."""

  def convert(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    return inner.update(convert(grads), state, convert(params))

  return optax.GradientTransformation(lambda params: inner.init(convert(params)), update)
