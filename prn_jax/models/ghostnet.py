"""GhostNet.

Paper: Han, Wang, Tian, Guo, Xu, Xu, "GhostNet: More Features from Cheap Operations" (CVPR 2020), table 1. Half of the
channels of a ghost module come from a 1x1 convolution, the other half from a 3x3 filter on each of those. Two forms differ
in weights:

- "timm", that of the classifier here: the first half first, hidden widths of [se] that are multiples of 4, with biases,
  ImageNet's mean and deviation in front. timm's ghostnet_100.
- "cfg", that of the detectors (`backbones.py`): the cheap half first, [se] without biases and a quarter as wide as the map.

| model    | size | parameters | BFLOPs |
|----------|------|------------|--------|
| ghostnet | 224  | 5,182,508  | 0.283  |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Levels, conv_bn
from prn_jax.models.mobile import IMAGENET, multiple_of
from prn_jax.models.mobilenetv3 import hidden_classifier
from prn_jax.models.registry import Published, register

PAPER = "GhostNet paper"
README = "README of huawei-noah/ghostnet: errors of 26.066% and 8.614% (ImageNet)"


class Unit(NamedTuple):
  """Sizes of one ghost bottleneck."""

  kernel: int  # of the filters that stride, and of those around the unit
  expanded: int
  channels: int
  has_se: bool
  stride: int


# Paper, table 1.
STAGES = (
  (Unit(3, 16, 16, False, 1),),
  (Unit(3, 48, 24, False, 2),),
  (Unit(3, 72, 24, False, 1),),
  (Unit(5, 72, 40, True, 2),),
  (Unit(5, 120, 40, True, 1),),
  (Unit(3, 240, 80, False, 2),),
  (
    Unit(3, 200, 80, False, 1),
    *[Unit(3, 184, 80, False, 1)] * 2,
    Unit(3, 480, 112, True, 1),
    Unit(3, 672, 112, True, 1),
  ),
  (Unit(5, 672, 160, True, 2),),
  (Unit(5, 960, 160, False, 1), Unit(5, 960, 160, True, 1), Unit(5, 960, 160, False, 1), Unit(5, 960, 160, True, 1)),
)


class Form(NamedTuple):
  """What implementations differ in.

  Attributes:
    se: expanded channels -> fields of [se].
    cheap_first: the cheap half of the channels stands in front.
    is_normalized: ImageNet's mean and deviation in front.
  """

  se: Callable[[int], dict[str, Any]]
  cheap_first: bool
  is_normalized: bool


FORMS = {
  "timm": Form(lambda expanded: {"squeezed": multiple_of(expanded / 4, 4), "biased": True}, False, True),
  "cfg": Form(lambda expanded: {}, True, False),
}


def ghost_module(g: Builder, form: Form, place: str, filters: int, activation: str) -> str:
  """A 1x1 convolution of half of the filters, and a 3x3 filter on each of its channels; both joined."""
  primary = conv_bn(g, filters // 2, 1, activation, name=f"{place}_primary")
  cheap = conv_bn(g, filters // 2, 3, activation, groups=filters // 2, name=f"{place}_cheap")
  pair = (cheap, primary) if form.cheap_first else (primary, cheap)
  return g.route(*pair, name=f"{place}_concat")


def ghost_bottleneck(g: Builder, form: Form, place: str, unit: Unit) -> str:
  """Two ghost modules, with filters that stride and squeeze and excitation between them, and a way around."""
  x, inputs = g.last, g.shape().channels
  ghost_module(g, form, f"{place}_ghost1", unit.expanded, "relu")
  if unit.stride > 1:
    conv_bn(
      g, unit.expanded, unit.kernel, "linear", stride=unit.stride, groups=unit.expanded, name=f"{place}_depthwise"
    )
  if unit.has_se:
    g.se(**form.se(unit.expanded), name=f"{place}_se")
  branch = ghost_module(g, form, f"{place}_ghost2", unit.channels, "linear")
  if (inputs, 1) == (unit.channels, unit.stride):
    return g.shortcut(x, name=f"{place}_add")
  g.route(x, name=f"{place}_around_from")
  conv_bn(g, inputs, unit.kernel, "linear", stride=unit.stride, groups=inputs, name=f"{place}_around_depthwise")
  conv_bn(g, unit.channels, 1, "linear", name=f"{place}_around_project")
  return g.shortcut(branch, name=f"{place}_add")


def backbone(g: Builder, form_name: str) -> Levels:
  """Stem, sixteen bottlenecks and the last 1x1 convolution; a level is the last map of its size."""
  if form_name not in FORMS:
    hint = did_you_mean(str(form_name), FORMS)
    raise PrnError(f"model 'ghostnet': form={form_name!r}{hint}; expected {' or '.join(FORMS)}.")
  form = FORMS[form_name]
  if form.is_normalized:
    g.normalize(**IMAGENET, name="stem_normalize")
  conv_bn(g, 16, 3, "relu", stride=2, name="stem")
  stride, ends = 2, dict[int, str]()
  for i, stage in enumerate(STAGES, 1):
    for j, unit in enumerate(stage, 1):
      end = ghost_bottleneck(g, form, f"stage{i}_unit{j}", unit)
      stride *= unit.stride
      ends[stride] = end
  last = conv_bn(g, 960, 1, "relu", name=f"stage{len(STAGES) + 1}_conv")
  return Levels(ends[8], ends[16], last)


@register(
  "ghostnet",
  size=224,
  task="classify",
  reference=f"{PAPER}, table 1",
  published=(Published(size=224, params_m=5.2, top1=73.9, top5=91.4, source=f"{PAPER}, table 7; {README}"),),
)
def ghostnet(g: Builder, num_classes: int = 1000, form: str = "timm") -> None:
  backbone(g, form)
  hidden_classifier(g, num_classes, 1280, "relu", 0.2)
