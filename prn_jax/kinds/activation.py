"""Activation functions by Darknet's names (docs/darknet.md a4), and the [activation] layer.

Darknet computes ReLU for every name that it does not know; h_swish and hard_sigmoid are not its own, but those of
MobileNetV3's cfg files. Quirks that we do not copy: relu6 is constant 0 on AlexeyAB's CPU path; swish, mish and hard_mish give 0 outside convolutions on CPU.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import did_you_mean
from prn_jax.graph.channels import Reads, keep
from prn_jax.graph.graph import Context, Layer, Shape, register_kind
from prn_jax.graph.section import Section, Value, Wires
from prn_jax.lazy import jax, jnp

if TYPE_CHECKING:
  from jax import Array

  from prn_jax.graph.onnx_builder import OnnxBuilder

LEAKY_SLOPE = 0.1  # Darknet's constant; timm's Darknet53 uses 0.01


def _hard_sigmoid(x: Array) -> Array:
  return jnp.clip(x / 6 + 0.5, 0.0, 1.0)


def _hard_mish(x: Array) -> Array:
  return jnp.where(x > 0, x, jnp.where(x > -2, x * x / 2 + x, 0.0))


def _expm1(x: Array) -> Array:
  return jnp.expm1(jnp.minimum(x, 0.0))  # the minimum keeps the unused branch's gradient finite


def _gelu(x: Array) -> Array:
  return 0.5 * x * (1 + jnp.tanh(0.797885 * x + 0.035677 * x**3))


def _plse(x: Array) -> Array:
  return jnp.where(x < -4, 0.01 * (x + 4), jnp.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def _lhtan(x: Array) -> Array:
  return jnp.where(x < 0, 0.001 * x, jnp.where(x > 1, 0.001 * (x - 1) + 1, x))


def _stair(x: Array) -> Array:
  n = jnp.floor(x)
  return jnp.where(n % 2 == 0, jnp.floor(x / 2), (x - n) + jnp.floor(x / 2))


def _normalize_channels(x: Array) -> Array:
  positive = jnp.maximum(x, 0.0)
  return positive / (1e-4 + positive.sum(-1, keepdims=True))


def _normalize_channels_softmax(x: Array) -> Array:
  e = jnp.exp(x)
  return e / (1e-4 + e.sum(-1, keepdims=True))


def _normalize_channels_softmax_maxval(x: Array) -> Array:
  return _normalize_channels_softmax(x - x.max(-1, keepdims=True))


def _onnx_hard_sigmoid(o: OnnxBuilder, x: str) -> str:
  """Not ONNX's HardSigmoid, which OpenCV 4.14 computes wrongly on maps of one cell."""
  return o.op("Mul", [_onnx_clip(o, o.op("Add", [x, o.const(3)]), 0, 6), o.const(1 / 6)])


def _onnx_clip(o: OnnxBuilder, x: str, least: float, most: float) -> str:
  return o.op("Clip", [x, o.const(least), o.const(most)])


def _onnx_line(o: OnnxBuilder, x: str, slope: float, shift: float) -> str:
  return o.op("Add", [o.op("Mul", [x, o.const(slope)]), o.const(shift)])


def _onnx_bent(o: OnnxBuilder, x: str, slope: float, inner: tuple[float, float, float], shift: float) -> str:
  """A line with another slope between two places: `inner` is what it rises more there, and the places."""
  more, least, most = inner
  return o.op("Add", [_onnx_line(o, x, slope, shift), o.op("Mul", [_onnx_clip(o, x, least, most), o.const(more)])])


def _onnx_hard_mish(o: OnnxBuilder, x: str) -> str:
  bowl = _onnx_clip(o, x, -2, 0)
  return o.op("Add", [o.op("Relu", [x]), o.op("Mul", [bowl, _onnx_line(o, bowl, 0.5, 1)])])


def _onnx_gelu(o: OnnxBuilder, x: str) -> str:
  cube = o.op("Mul", [x, o.op("Mul", [x, x])])
  inner = o.op("Add", [o.op("Mul", [x, o.const(0.797885)]), o.op("Mul", [cube, o.const(0.035677)])])
  return o.op("Mul", [x, _onnx_line(o, o.op("Tanh", [inner]), 0.5, 0.5)])


def _onnx_stair(o: OnnxBuilder, x: str) -> str:
  floor, half = o.op("Floor", [x]), o.op("Floor", [o.op("Mul", [x, o.const(0.5)])])
  is_odd = o.op("Sub", [floor, o.op("Add", [half, half])])
  return o.op("Add", [half, o.op("Mul", [is_odd, o.op("Sub", [x, floor])])])


def _onnx_share(o: OnnxBuilder, x: str) -> str:
  """What each channel has of the sum over the channels."""
  total = o.op("ReduceSum", [x, o.ints([1])], keepdims=1)
  return o.op("Div", [x, o.op("Add", [total, o.const(1e-4)])])


def _onnx_below_largest(o: OnnxBuilder, x: str) -> str:
  return o.op("Sub", [x, o.op("ReduceMax", [x], axes=[1], keepdims=1)])


class Function(NamedTuple):
  """One activation.

  Attributes:
    apply: (x of shape (..., channels), leaky slope) -> the same shape.
    onnx: (builder, name of x, leaky slope) -> name of the result.
    is_monotonic: it never falls (with a leaky slope of at least 0), so that it commutes with a maximum.
    mixes_channels: a value depends on all channels of its cell; else on nothing but itself.
    keeps_zero: it gives 0 for 0.
  """

  apply: Callable[[Array, float], Array]
  onnx: Callable[[OnnxBuilder, str, float], str]
  is_monotonic: bool = False
  mixes_channels: bool = False
  keeps_zero: bool = True


def _per_element(
  apply: Callable[[Array], Array],
  onnx: Callable[[OnnxBuilder, str], str],
  *,
  is_monotonic: bool = False,
  keeps_zero: bool = True,
) -> Function:
  """A function without a slope."""
  return Function(lambda x, _: apply(x), lambda o, x, _: onnx(o, x), is_monotonic, keeps_zero=keeps_zero)


def _across(apply: Callable[[Array], Array], onnx: Callable[[OnnxBuilder, str], str], *, keeps_zero: bool) -> Function:
  return Function(lambda x, _: apply(x), lambda o, x, _: onnx(o, x), mixes_channels=True, keeps_zero=keeps_zero)


_LEAKY = Function(
  lambda x, slope: jnp.where(x > 0, x, slope * x), lambda o, x, slope: o.op("LeakyRelu", [x], alpha=slope), True
)
ACTIVATIONS: dict[str, Function] = {
  "leaky": _LEAKY,
  "revleaky": _LEAKY,
  "linear": _per_element(lambda x: x, lambda o, x: x, is_monotonic=True),
  "relu": _per_element(lambda x: jnp.maximum(x, 0.0), lambda o, x: o.op("Relu", [x]), is_monotonic=True),
  "relu6": _per_element(
    lambda x: jnp.clip(x, 0.0, 6.0), lambda o, x: o.op("Clip", [x, o.const(0), o.const(6)]), is_monotonic=True
  ),
  "logistic": _per_element(
    lambda x: jax.nn.sigmoid(x), lambda o, x: o.op("Sigmoid", [x]), is_monotonic=True, keeps_zero=False
  ),
  "tanh": _per_element(lambda x: jnp.tanh(x), lambda o, x: o.op("Tanh", [x]), is_monotonic=True),
  "swish": _per_element(lambda x: x * jax.nn.sigmoid(x), lambda o, x: o.op("Mul", [x, o.op("Sigmoid", [x])])),
  "mish": _per_element(
    lambda x: x * jnp.tanh(jax.nn.softplus(x)), lambda o, x: o.op("Mul", [x, o.op("Tanh", [o.op("Softplus", [x])])])
  ),
  "hard_sigmoid": _per_element(_hard_sigmoid, _onnx_hard_sigmoid, is_monotonic=True, keeps_zero=False),
  "h_swish": _per_element(lambda x: x * _hard_sigmoid(x), lambda o, x: o.op("Mul", [x, _onnx_hard_sigmoid(o, x)])),
  "hard_mish": _per_element(_hard_mish, _onnx_hard_mish),
  "elu": _per_element(lambda x: jnp.where(x >= 0, x, _expm1(x)), lambda o, x: o.op("Elu", [x]), is_monotonic=True),
  "selu": _per_element(
    lambda x: jnp.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * _expm1(x)),
    lambda o, x: o.op("Selu", [x], alpha=1.6732, gamma=1.0507),
    is_monotonic=True,
  ),
  "gelu": _per_element(_gelu, _onnx_gelu),
  "ramp": _per_element(
    lambda x: jnp.maximum(x, 0.0) + 0.1 * x,
    lambda o, x: o.op("Add", [o.op("Relu", [x]), o.op("Mul", [x, o.const(0.1)])]),
    is_monotonic=True,
  ),
  "relie": _per_element(
    lambda x: jnp.where(x > 0, x, 0.01 * x), lambda o, x: o.op("LeakyRelu", [x], alpha=0.01), is_monotonic=True
  ),
  "hardtan": _per_element(lambda x: jnp.clip(x, -1.0, 1.0), lambda o, x: _onnx_clip(o, x, -1, 1), is_monotonic=True),
  "lhtan": _per_element(_lhtan, lambda o, x: _onnx_bent(o, x, 0.001, (0.999, 0, 1), 0), is_monotonic=True),
  "loggy": _per_element(
    lambda x: 2 * jax.nn.sigmoid(x) - 1, lambda o, x: _onnx_line(o, o.op("Sigmoid", [x]), 2, -1), is_monotonic=True
  ),
  "plse": _per_element(
    _plse, lambda o, x: _onnx_bent(o, x, 0.01, (0.115, -4, 4), 0.5), is_monotonic=True, keeps_zero=False
  ),
  "stair": _per_element(_stair, _onnx_stair, is_monotonic=True),
  "normalize_channels": _across(_normalize_channels, lambda o, x: _onnx_share(o, o.op("Relu", [x])), keeps_zero=True),
  "normalize_channels_softmax": _across(
    _normalize_channels_softmax, lambda o, x: _onnx_share(o, o.op("Exp", [x])), keeps_zero=False
  ),
  "normalize_channels_softmax_maxval": _across(
    _normalize_channels_softmax_maxval,
    lambda o, x: _onnx_share(o, o.op("Exp", [_onnx_below_largest(o, x)])),
    keeps_zero=False,
  ),
}
NAMES = tuple(ACTIVATIONS)


def activate(x: Array, name: str, leaky_slope: float = LEAKY_SLOPE) -> Array:
  """Applies the activation `name` to `x` (..., channels)."""
  return ACTIVATIONS[name].apply(x, leaky_slope)


def onnx_activate(o: OnnxBuilder, x: str, name: str, leaky_slope: float) -> str:
  """Adds the nodes of an activation; returns the name of the result."""
  return ACTIVATIONS[name].onnx(o, x, leaky_slope)


def activated(name: str, output: Shape, *reads: Reads) -> tuple[Reads, ...]:
  """What a layer reads whose result, read as `reads` say, passes the activation `name` in the end."""
  if ACTIVATIONS[name].mixes_channels:
    return tuple(one.mixed(output.channels) for one in reads)
  return reads


def check_activation(name: str) -> None:
  """Raises ValueError naming the nearest activation if there is none called `name`."""
  if name not in ACTIVATIONS:
    raise ValueError(f"there is no activation '{name}'{did_you_mean(name, NAMES)}.")


def read_activation(section: Section, default: str = "linear", key: str = "activation") -> str:
  """The activation of a cfg section; an unknown name is ReLU, as in Darknet, with a warning."""
  name = section.text(key, default)
  if name in ACTIVATIONS:
    return name
  logging.getLogger(__name__).warning(
    "%s has %s=%s, which Darknet does not know and computes as relu; so do we%s.",
    section.where(key),
    key,
    name,
    did_you_mean(name, NAMES),
  )
  return "relu"


def write_activation(activation: str, leaky_slope: float, default: str) -> dict[str, Value]:
  """Keys for an activation; a slope other than Darknet's is our own key, which Darknet reports as unused."""
  keys: dict[str, Value] = {} if activation == default else {"activation": activation}
  return keys if leaky_slope == LEAKY_SLOPE else {**keys, "leaky_slope": leaky_slope}


@register_kind
@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(Layer):
  """An activation as a layer of its own."""

  kind = "activation"
  sections = ("activation",)

  activation: str = "linear"
  leaky_slope: float = LEAKY_SLOPE

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    check_activation(self.activation)
    return inputs[0]

  def reads(self, inputs: Sequence[Shape], output: Shape) -> tuple[Reads, ...]:
    return activated(self.activation, output, keep(output.channels))

  @classmethod
  def from_cfg(cls, section: Section, wires: Wires) -> Layer:
    slope = section.number("leaky_slope", LEAKY_SLOPE)
    return cls.wired(wires, (), activation=read_activation(section), leaky_slope=slope)

  def lower(self, xs: Sequence[Array], ctx: Context) -> Array:
    return activate(xs[0], self.activation, self.leaky_slope)

  def on_host(self, values: NDArray[Any]) -> NDArray[Any]:
    """The function of a list of values, as numpy; those whose channels depend on each other see one channel."""
    if self.activation == "leaky":  # the usual one, without JAX
      return np.where(values > 0, values, self.leaky_slope * values)
    return np.asarray(activate(jnp.asarray(values, jnp.float32)[:, None], self.activation, self.leaky_slope))[:, 0]

  def onnx(self, xs: Sequence[str], o: OnnxBuilder) -> str:
    return onnx_activate(o, xs[0], self.activation, self.leaky_slope)
