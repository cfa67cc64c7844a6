"""Quantisers: a value is rounded to a grid and stays a float, and the gradient passes as if nothing had happened.

y = scale * (clip(round(x / scale) + zero, qmin, qmax) - zero), where round(1.5) is 2 and round(-1.5) is -2. The gradient to
x is 1 between the ends of the grid and 0 beyond (Bengio et al. 2013, straight-through; Jacob et al. 2018, section 3).

Every formula has its paper in the docstring. What is not copied: a scale of 0 for a tensor of zeros (their quotient is NaN;
here zeros stay zeros), BNN weights in {0, 1}, ternary and binary factors per tensor instead of per filter, and a power-of-two
scale that is snapped in place, so that no gradient step can move it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

BITS = (1, 2, 4, 8)
POW2 = ("none", "ceil", "floor", "nearest")
LEAST_RANGE = 1e-30  # the range of a tensor of zeros: its values stay 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class QSpec:
  """A grid.

  Attributes:
    bits: 8, 4, 2 or 1.
    signed: the integers are -2^(b-1) to 2^(b-1) - 1, else 0 to 2^b - 1.
    symmetric: 0 is the integer 0; else the grid has a zero point, and its ends are those of the range.
    per_channel: a scale for every output channel (of kernels).
    pow2: scales are powers of two: of the range, the next one ("ceil"), the one below ("floor"), or the nearest ("nearest":
      1.5 is 1, 1.51 is 2), so that a multiplication is a shift. "none": any.
    narrow: signed integers are -(2^(b-1) - 1) to 2^(b-1) - 1, so that a change of sign needs no other grid.

  Raises:
    ValueError: there is no such grid.
  """

  bits: int = 8
  signed: bool = True
  symmetric: bool = True
  per_channel: bool = False
  pow2: str = "none"
  narrow: bool = False

  def __post_init__(self) -> None:
    if self.bits not in BITS:
      raise ValueError(f"bits={self.bits}; expected one of {', '.join(map(str, BITS))}.")
    if self.pow2 not in POW2:
      raise ValueError(f"pow2={self.pow2}; expected one of {', '.join(POW2)}.")
    if self.bits == 1 and self.signed:
      raise ValueError("bits=1 has no signed grid: binary weights are a method of their own (bwn, bnn).")
    if self.narrow and not self.signed:
      raise ValueError("narrow=1 is for signed grids.")

  @property
  def qmin(self) -> int:
    return (-(2 ** (self.bits - 1)) + self.narrow) if self.signed else 0

  @property
  def qmax(self) -> int:
    return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1


def round_half_away(x: Any, xp: Any = jnp) -> Any:
  """To the nearest integer, halves away from 0: 0.5, -0.5, 1.5, 2.5 are 1, -1, 2, 3.

  Args:
    x: floats; those from 2^23 on are integers already.
    xp: `jax.numpy`, or `numpy` for work on the host, where JAX would compile every operation for every shape.
  """
  x = xp.asarray(x)
  whole = xp.trunc(x)
  return whole + xp.sign(x) * (xp.abs(x - whole) >= 0.5)  # not floor(|x| + 0.5): 0.49999997 + 0.5 is 1 in float32


def snap_pow2(value: Any, how: str, xp: Any = jnp) -> Any:
  """Positive values as powers of two, exact; see `QSpec.pow2`. "none" leaves them."""
  value = xp.asarray(value, xp.float32)
  if how == "none":
    return value
  mantissa, exponent = xp.frexp(xp.maximum(value, LEAST_RANGE))  # mantissa in [0.5, 1)
  low = xp.ldexp(xp.ones_like(value), exponent - 1)
  high = xp.where(mantissa == 0.5, low, 2 * low)
  if how == "floor":
    return low
  return high if how == "ceil" else xp.where(value > 1.5 * low, high, low)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def snapped(value: jax.Array, how: str) -> jax.Array:
  """`snap_pow2` with a gradient: d snapped / d value = snapped / value, so that the logarithm passes straight through
  (Jain et al. 2020, "Trained quantization thresholds", section 3)."""
  return snap_pow2(value, how)


@snapped.defjvp
def _snapped_jvp(how: str, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
  (value,), (tangent,) = primals, tangents
  result = snap_pow2(value, how)
  return result, tangent * result / jnp.maximum(value, LEAST_RANGE)


def scale_and_zero(low: Any, high: Any, spec: QSpec, xp: Any = jnp) -> tuple[Any, Any]:
  """The grid of a range.

  Args:
    low, high: ends of the range, of one shape; 0 is taken into it.
    spec: the form of the grid.
    xp: see `round_half_away`.

  Returns:
    scale > 0 and zero point (an integer in float32; 0 if symmetric), of that shape.

  Source: Jacob et al. 2018, section 2.1. With a power-of-two range the scale is range / 2^(b-1), so that it is one as well,
  else range / qmax, so that the end of the range is on the grid.
  Example: scale_and_zero(-0.7, 1.45, QSpec(pow2="nearest")) is (1/128, 0).
  """
  low, high = xp.minimum(xp.asarray(low, xp.float32), 0), xp.maximum(xp.asarray(high, xp.float32), 0)
  top = xp.maximum(-low, high) if spec.signed else high
  if not spec.symmetric:
    scale = snap_pow2(xp.maximum(high - low, LEAST_RANGE), spec.pow2, xp) / (
      2**spec.bits - 1 if spec.pow2 == "none" else 2**spec.bits
    )
    return scale, xp.clip(round_half_away(spec.qmin - low / scale, xp), spec.qmin, spec.qmax)
  top = xp.maximum(top, LEAST_RANGE)
  scale = top / max(spec.qmax, 1) if spec.pow2 == "none" else snap_pow2(top, spec.pow2, xp) / (spec.qmax + 1)
  return scale, xp.zeros_like(scale)


def to_integers(x: Any, scale: Any, zero: Any, spec: QSpec, xp: Any = jnp) -> Any:
  """The integers of x on a grid, in float32."""
  return xp.clip(round_half_away(x / scale, xp) + zero, spec.qmin, spec.qmax)


def fake_quant(x: jax.Array, scale: Any, zero: Any, spec: QSpec) -> jax.Array:
  """x on a grid, float32; the gradient to x is 1 within the grid and 0 beyond, none reaches scale and zero.

  Args:
    x: any shape.
    scale, zero: shapes that broadcast with x.
  """
  scale, zero = lax.stop_gradient(scale), lax.stop_gradient(zero)
  return _straight_through(x, scale, zero, spec)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _straight_through(x: jax.Array, scale: Any, zero: Any, spec: QSpec) -> jax.Array:
  return (to_integers(x, scale, zero, spec) - zero) * scale


def _straight_forward(x: jax.Array, scale: Any, zero: Any, spec: QSpec) -> tuple[jax.Array, Any]:
  place = round_half_away(x / scale) + zero
  inside = (place >= spec.qmin) & (place <= spec.qmax)
  return (jnp.clip(place, spec.qmin, spec.qmax) - zero) * scale, (inside, scale, zero)


def _straight_backward(spec: QSpec, kept: Any, dy: jax.Array) -> tuple[jax.Array, Any, Any]:
  inside, scale, zero = kept
  return dy * inside, jnp.zeros_like(scale), jnp.zeros_like(zero)


_straight_through.defvjp(_straight_forward, _straight_backward)


def lsq(x: jax.Array, step: jax.Array, spec: QSpec, count: int) -> jax.Array:
  """Learned step size (Esser et al. 2020, eq. 1-5): as `fake_quant`, and d y / d step is round(x/s) - x/s within the grid,
  qmin or qmax beyond, times 1 / sqrt(count * qmax).

  Args:
    x: the values.
    step: the scale, learned; broadcasts with x.
    spec: a symmetric grid.
    count: values that share a step (of a feature map: its channels).
  """
  slowed = 1.0 / (count * max(spec.qmax, 1)) ** 0.5
  step = jnp.maximum(jnp.abs(step), LEAST_RANGE)
  step = step * slowed + lax.stop_gradient(step * (1 - slowed))
  place = jnp.clip(x / step, spec.qmin, spec.qmax)
  return _rounded(place) * step


def tqt(x: jax.Array, log2_top: jax.Array, spec: QSpec) -> jax.Array:
  """Trained quantisation threshold (Jain et al. 2020, eq. 4-8): the scale is 2^ceil(log2_top) / 2^(b-1), and the gradient
  to log2_top passes the ceiling straight through."""
  log2_top = log2_top + lax.stop_gradient(jnp.ceil(log2_top) - log2_top)
  step = jnp.exp2(log2_top) / (spec.qmax + 1)
  return _rounded(jnp.clip(x / step, spec.qmin, spec.qmax)) * step


def _rounded(x: jax.Array) -> jax.Array:
  return x + lax.stop_gradient(round_half_away(x) - x)


def dorefa_weights(w: jax.Array, bits: int) -> jax.Array:
  """DoReFa's weights (Zhou et al. 2016, eq. 9): 2 r(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1 with r to multiples of
  1 / (2^bits - 1). They fill [-1, 1]; batch norm behind takes the size up. For bits=2, 0 is not on the grid."""
  t = jnp.tanh(w)
  unit = t / (2 * jnp.maximum(lax.stop_gradient(jnp.max(jnp.abs(t))), LEAST_RANGE)) + 0.5
  levels = 2**bits - 1
  return 2 * _rounded(unit * levels) / levels - 1


def dorefa_activations(x: jax.Array, bits: int, factor: float = 1.0) -> jax.Array:
  """DoReFa's activations (Zhou et al. 2016, eq. 11): clip(factor * x, 0, 1) to multiples of 1 / (2^bits - 1)."""
  levels = 2**bits - 1
  return _rounded(jnp.clip(factor * x, 0, 1) * levels) / levels


def signs(w: jax.Array) -> jax.Array:
  """-1 and 1 (0 is 1); the gradient passes where |w| <= 1 (Hubara et al. 2016, eq. 1 and 4)."""
  bounded = jnp.clip(w, -1, 1)
  return bounded + lax.stop_gradient(jnp.where(w >= 0, 1.0, -1.0) - bounded)


def bwn_weights(w: jax.Array) -> jax.Array:
  """Binary weights with a factor, the mean of |w| over each filter (last axis; Rastegari et al. 2016, eq. 6)."""
  return signs(w) * jnp.mean(jnp.abs(w), tuple(range(w.ndim - 1)), keepdims=True)


def ternary_weights(w: jax.Array) -> jax.Array:
  """-a, 0 and a for each filter (last axis): 0 where |w| <= 0.7 mean|w|, a the mean of |w| elsewhere (Li et al. 2016,
  eq. 6); the gradient passes straight through."""
  axes = tuple(range(w.ndim - 1))
  size = jnp.abs(w)
  large = size > 0.7 * jnp.mean(size, axes, keepdims=True)
  factor = jnp.sum(size * large, axes, keepdims=True) / jnp.maximum(jnp.sum(large, axes, keepdims=True), 1)
  return w + lax.stop_gradient(jnp.sign(w) * large * factor - w)
