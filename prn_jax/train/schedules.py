"""Learning rates as functions of the iteration: Darknet's policies (docs/darknet.md e2), and cosine with warm-up.

An optax schedule is asked with the number of updates already done: 0 at the first. Darknet counts the update that is
being done: 1 at the first. `darknet_rate` speaks Darknet, `darknet_schedule` optax.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.formats.darknet_training import NetTraining

Rate = Callable[[jax.typing.ArrayLike], jax.Array]

_LAST_ITERATION = 2**31 - 1


class Policy(StrEnum):
  """Darknet's policies."""

  CONSTANT = "constant"
  STEP = "step"
  STEPS = "steps"
  EXP = "exp"
  POLY = "poly"
  SIGMOID = "sigmoid"
  SGDR = "sgdr"
  RANDOM = "random"


def darknet_schedule(net: NetTraining, seed: int = 0) -> optax.Schedule:
  """`darknet_rate` as an optax schedule: from the number of updates done to the rate of the next one."""
  rate = darknet_rate(net, seed)
  return lambda count: rate(jnp.asarray(count) + 1)


def darknet_rate(net: NetTraining, seed: int = 0) -> Rate:
  """The learning rate of a cfg.

  Args:
    net: the keys of [net]; those of the policy, learning_rate, burn_in and power are used.
    seed: the seed of the policy "random", whose rate depends on seed and iteration alone.

  Returns:
    A function from the iteration (a number or an array of them; 1 at the first update) to the float32 rate; it may be
    traced.

  Raises:
    PrnError: the policy does not exist (Darknet would take "constant"), or its keys have no meaning.

  Source: Darknet `network.c:get_current_rate`; differs: poly stays 0 after max_batches, where Darknet has stopped.
  """
  if net.policy not in list(Policy):
    raise PrnError(
      f"[net] policy={net.policy}{did_you_mean(net.policy, list(Policy))}: there is no such learning rate policy. "
      f"Expected one of {', '.join(Policy)}."
    )
  after_burn_in = _POLICIES[Policy(net.policy)](net, seed)

  def rate(iteration: jax.typing.ArrayLike) -> jax.Array:
    b = jnp.asarray(iteration)
    value = after_burn_in(b).astype(jnp.float32)
    if net.burn_in <= 0:
      return value
    burning = net.learning_rate * (b.astype(jnp.float32) / net.burn_in) ** net.power
    return jnp.where(b < net.burn_in, burning, value)

  return rate


def cosine_schedule(peak: float, total_steps: int, *, warmup_steps: int = 0, end: float = 0.0) -> optax.Schedule:
  """Linear warm-up from 0, then half a cosine down.

  Args:
    peak: rate after the warm-up.
    total_steps: updates of the whole run; later ones have the rate `end`.
    warmup_steps: updates until `peak`; the first has peak / warmup_steps, so that none is without effect.
    end: rate of the last update.

  Raises:
    PrnError: the warm-up does not fit into the run.
  """
  if not 0 <= warmup_steps < total_steps:
    raise PrnError(
      f"warm-up of {warmup_steps} steps in a run of {total_steps} (optim.schedule.burn_in_steps); expected fewer, and at "
      f"least 0. Set it with --config.optim.schedule.burn_in_steps={max(total_steps // 10, 0)}, or train for longer."
    )
  falling_steps = max(total_steps - warmup_steps - 1, 1)

  def schedule(count: jax.typing.ArrayLike) -> jax.Array:
    step = jnp.asarray(count, jnp.float32)
    share = jnp.clip((step - warmup_steps) / falling_steps, 0, 1)
    falling = end + (peak - end) * 0.5 * (1 + jnp.cos(np.float32(np.pi) * share))
    return jnp.where(step < warmup_steps, peak * (step + 1) / max(warmup_steps, 1), falling)

  return schedule


# -- Darknet's policies: from the keys to a function of the iteration b ------------------------------------------------


def _constant(net: NetTraining, seed: int) -> Rate:
  return lambda b: jnp.full(jnp.shape(b), net.learning_rate, jnp.float32)


def _step(net: NetTraining, seed: int) -> Rate:
  if net.step < 1:
    raise PrnError(f"[net] policy=step needs step of at least 1, not {net.step}.")
  return lambda b: net.learning_rate * jnp.float32(net.scale) ** (jnp.asarray(b) // net.step).astype(jnp.float32)


def _steps(net: NetTraining, seed: int) -> Rate:
  """One product per step, in float32 as in Darknet; a step that is not yet reached hides those after it."""
  scales = (*net.scales, *[1.0] * len(net.steps))  # missing ones are 1
  rates = [np.float32(net.learning_rate)]
  for _, scale in zip(net.steps, scales, strict=False):
    rates.append(rates[-1] * np.float32(scale))
  starts = np.maximum.accumulate(np.array([int(step) for step in net.steps], np.int32))
  return lambda b: jnp.asarray(rates)[jnp.searchsorted(jnp.asarray(starts), b, side="right")]


def _exp(net: NetTraining, seed: int) -> Rate:
  return lambda b: net.learning_rate * jnp.float32(net.gamma) ** jnp.asarray(b, jnp.float32)


def _poly(net: NetTraining, seed: int) -> Rate:
  if net.max_batches < 1:
    raise PrnError(f"[net] policy=poly needs max_batches of at least 1, not {net.max_batches}.")

  def rate(b: jax.typing.ArrayLike) -> jax.Array:
    b = jnp.asarray(b, jnp.float32)
    # Divided by a constant, XLA would multiply by its rounded inverse, and 1 - share would differ at the end.
    length = jnp.where(b < 0, 1.0, float(net.max_batches))
    left = 1 - b / length
    return net.learning_rate * jnp.maximum(left, 0) ** net.power

  return rate


def _sigmoid(net: NetTraining, seed: int) -> Rate:
  return lambda b: net.learning_rate * jax.nn.sigmoid(-net.gamma * (jnp.asarray(b, jnp.float32) - net.step))


def _sgdr(net: NetTraining, seed: int) -> Rate:
  """Cosines from learning_rate to learning_rate_min, each sgdr_mult times as long; a cycle includes its end."""
  length, mult = net.sgdr_cycle or net.max_batches, net.sgdr_mult
  if length < 1 or mult < 1:
    raise PrnError(
      f"[net] policy=sgdr has cycles of {length} iterations (sgdr_cycle, or max_batches) and sgdr_mult={mult}; expected "
      "at least 1 of both."
    )
  starts, lengths = [0], [length]
  while mult > 1 and starts[-1] + lengths[-1] < _LAST_ITERATION:
    starts.append(starts[-1] + lengths[-1])
    lengths.append(lengths[-1] * mult)
  ends = np.array([start + size for start, size in zip(starts, lengths, strict=True)][:-1], np.int32)

  def rate(iteration: jax.typing.ArrayLike) -> jax.Array:
    b = jnp.asarray(iteration)
    if mult == 1:
      start, size = jnp.maximum(b - 1, 0) // length * length, jnp.full(jnp.shape(b), length, jnp.float32)
    else:
      cycle = jnp.searchsorted(jnp.asarray(ends), b, side="left")
      start, size = jnp.asarray(starts, jnp.int32)[cycle], jnp.asarray(lengths, jnp.float32)[cycle]
    wave = 1 + jnp.cos((b - start).astype(jnp.float32) * np.float32(3.14159265) / size)
    return net.learning_rate_min + 0.5 * (net.learning_rate - net.learning_rate_min) * wave

  return rate


def _random(net: NetTraining, seed: int) -> Rate:
  key = jax.random.key(seed)

  def draw(b: jax.Array) -> jax.Array:
    return net.learning_rate * jax.random.uniform(jax.random.fold_in(key, b)) ** net.power

  return lambda b: jnp.vectorize(draw)(jnp.asarray(b))


_POLICIES: dict[Policy, Callable[[NetTraining, int], Rate]] = {
  Policy.CONSTANT: _constant,
  Policy.STEP: _step,
  Policy.STEPS: _steps,
  Policy.EXP: _exp,
  Policy.POLY: _poly,
  Policy.SIGMOID: _sigmoid,
  Policy.SGDR: _sgdr,
  Policy.RANDOM: _random,
}
