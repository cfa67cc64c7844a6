"""Inverted bottlenecks, of which MobileNetV3, EfficientNet and EfficientNet-Lite are made, and the forms they come in.

A unit widens the map by a 1x1 convolution, filters each channel by itself, may weigh the channels (squeeze and
excitation), and narrows it again without an activation; where sizes allow, its input is added. Papers: Sandler et al.,
"MobileNetV2" (CVPR 2018), section 3; Howard et al., "Searching for MobileNetV3" (ICCV 2019), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Levels

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of pixels in [0, 1]
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # pixels in [-1, 1], as TensorFlow's networks take them


class Unit(NamedTuple):
  """Sizes of one inverted bottleneck."""

  kernel: int
  expanded: int  # 0: the map is not widened first
  channels: int
  has_se: bool
  activation: str
  stride: int


Stages = Sequence[Sequence[Unit]]


class Form(NamedTuple):
  """What implementations of one network differ in.

  Attributes:
    normalize: fields of [normalize] in front; None: the network takes pixels in [0, 1] as they are.
    se: (expanded, input) channels of a unit -> fields of its [se].
    always_expands: a unit whose map is not to be widened has the 1x1 convolution all the same.
    activations: what stands for an activation of the table.
    depthwise: "depthwise", or "conv": [convolutional] with groups, which Darknet reads.
    same: TensorFlow's padding.
    bn_epsilon: what batch norm adds to the variance.
  """

  normalize: Mapping[str, Any] | None = None
  se: Callable[[int, int], dict[str, Any]] = lambda expanded, inputs: {}
  always_expands: bool = False
  activations: Mapping[str, str] = {}
  depthwise: str = "depthwise"
  same: bool = False
  bn_epsilon: float = 1e-5


def multiple_of(width: float, divisor: int = 8) -> int:
  """The nearest multiple of `divisor`, but not less than 90% of `width`: the rounding of MobileNets' widths."""
  rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * width else rounded


def conv(
  g: Builder,
  form: Form,
  filters: int,
  size: int,
  activation: str,
  *,
  name: str,
  stride: int = 1,
  is_depthwise: bool = False,
) -> str:
  """Convolution, batch norm and activation in the paddings and constants of `form`."""
  fields = {
    "filters": filters,
    "size": size,
    "stride": stride,
    "padding": 0 if form.same else size // 2,
    "same": form.same and size > 1,
    "batch_normalize": True,
    "bn_epsilon": form.bn_epsilon,
    "activation": form.activations.get(activation, activation),
  }
  if is_depthwise and form.depthwise == "depthwise":
    return g.depthwise(**fields, name=name)
  return g.conv(**fields, groups=filters if is_depthwise else 1, name=name)


def inverted_bottleneck(g: Builder, form: Form, place: str, unit: Unit) -> str:
  x, inputs = g.last, g.shape().channels
  expanded = unit.expanded or inputs
  if unit.expanded or form.always_expands:
    conv(g, form, expanded, 1, unit.activation, name=f"{place}_expand")
  conv(
    g, form, expanded, unit.kernel, unit.activation, stride=unit.stride, is_depthwise=True, name=f"{place}_depthwise"
  )
  if unit.has_se:
    g.se(**form.se(expanded, inputs), name=f"{place}_se")
  conv(g, form, unit.channels, 1, "linear", name=f"{place}_project")
  if unit.stride == 1 and unit.channels == inputs:
    g.shortcut(x, name=f"{place}_add")
  return g.last


def mobile_backbone(g: Builder, form: Form, stages: Stages, *, stem: int, stem_activation: str, last: int) -> Levels:
  """Normalisation where the form has it, a strided stem, the units, and a 1x1 convolution of `last` channels; a level is
  the last map of its size."""
  if form.normalize:
    g.normalize(**form.normalize, name="stem_normalize")
  conv(g, form, stem, 3, stem_activation, stride=2, name="stem")
  stride, ends = 2, dict[int, str]()
  for i, stage in enumerate(stages, 1):
    for j, unit in enumerate(stage, 1):
      end = inverted_bottleneck(g, form, f"stage{i}_unit{j}", unit)
      stride *= unit.stride
      ends[stride] = end
  last_conv = conv(g, form, last, 1, stem_activation, name=f"stage{len(stages) + 1}_conv")
  return Levels(ends[8], ends[16], last_conv)


def chosen_form(model: str, forms: Mapping[str, Form], form: str) -> Form:
  """The form of that name; PrnError naming the nearest."""
  if form not in forms:
    raise PrnError(f"model '{model}': form={form!r}{did_you_mean(str(form), forms)}; expected {' or '.join(forms)}.")
  return forms[form]
