"""EfficientNet-B0, and the partial residual detector on it.

Papers: Tan and Le, "EfficientNet" (ICML 2019), table 1; for the neck of enet-b0-prn: see prn.py.
Reference: efficientnet_b0.cfg, enet-coco.cfg. Differs from the references: nothing.
The references differ from the paper: the stage of 80 channels has stride 1 and that of 112 stride 2 (the paper:
the other way round); expansions are 192, 384, 576, 960 channels wide where the paper has 240, 480, 672, 1152;
squeezed widths are multiples of 8; the first unit has an expansion too, from 32 to 32 channels; dropout drops
single values instead of whole branches.

| model           | size | parameters | BFLOPs |
|-----------------|------|------------|--------|
| efficientnet-b0 | 224  | 4,853,720  | 0.915  |
| enet-b0-prn     | 416  | 4,770,414  | 3.731  |
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, Levels, conv_bn, pooled_classifier, yolo_head
from prn_jax.models.prn import MASKS, prn_pyramid
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import CSP_README, PRN_README, PRN_TABLE_3
from prn_jax.models.yolov3 import TINY_ANCHORS


class Stage(NamedTuple):
  """Sizes of a row of mobile inverted bottlenecks."""

  channels: int
  kernel: int
  stride: int  # of the first unit
  units: tuple[tuple[int, int], ...]  # (expanded, squeezed) channels of each


STAGES = (
  Stage(16, 3, 1, ((32, 8),)),
  Stage(24, 3, 2, ((96, 16), (144, 8))),
  Stage(40, 5, 2, ((144, 8), (192, 16))),
  Stage(80, 3, 1, ((192, 16), (384, 24), (384, 24))),
  Stage(112, 5, 2, ((384, 24), (576, 32), (576, 32))),
  Stage(192, 5, 2, ((576, 32), (960, 64), (960, 64), (960, 64))),
  Stage(320, 3, 1, ((960, 64),)),
)
P3 = "stage5_unit1_expand"  # the last and widest map that is 8 times smaller than the image
P4 = "stage6_unit1_expand"  # 16 times


def squeeze_excite(g: Builder, place: str, squeezed: int) -> str:
  """Scales the channels of the last map by weights from their means (Hu et al. 2018)."""
  x = g.last
  channels = g.shape().channels
  g.avgpool(name=f"{place}_se_pool")
  g.conv(squeezed, 1, activation="swish", name=f"{place}_se_reduce")
  g.conv(channels, 1, activation="logistic", name=f"{place}_se_expand")
  return g.scale_channels(x, name=f"{place}_se_scale")


def backbone(g: Builder, dropout: float) -> Levels:
  """Stem, seven stages and the last 1x1 convolution; `dropout` is applied before every addition."""
  conv_bn(g, 32, 3, "swish", stride=2, name="stem")
  for i, stage in enumerate(STAGES, 1):
    for unit, (expanded, squeezed) in enumerate(stage.units, 1):
      place = f"stage{i}_unit{unit}"
      x = g.last
      stride = stage.stride if unit == 1 else 1
      conv_bn(g, expanded, 1, "swish", name=f"{place}_expand")
      conv_bn(g, expanded, stage.kernel, "swish", stride=stride, groups=expanded, name=f"{place}_depthwise")
      squeeze_excite(g, place, squeezed)
      conv_bn(g, stage.channels, 1, "linear", name=f"{place}_project")
      if unit > 1:
        g.dropout(dropout, name=f"{place}_drop")
        g.shortcut(x, name=f"{place}_add")
  return Levels(P3, P4, conv_bn(g, 1280, 1, "swish", name="stage8_conv"))


@register(
  "efficientnet-b0",
  size=224,
  task="classify",
  reference=f"{ALEXEYAB}efficientnet_b0.cfg",
  published=(Published(size=224, bflops=0.915, params_m=4.81, top1=71.3, top5=90.4, source=CSP_README),),
)
def efficientnet_b0(g: Builder, num_classes: int = 1000) -> None:
  backbone(g, dropout=0.2)
  pooled_classifier(g, num_classes, dropout=0.2)


@register(
  "enet-b0-prn",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}enet-coco.cfg",
  published=(
    Published(size=320, bflops=2.208, ap50=41.0, source=PRN_TABLE_3),
    Published(size=416, bflops=3.730, ap50=45.5, source=PRN_README),
  ),
)
def enet_b0_prn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  backbone(g, dropout=0.0)
  prn_pyramid(g, P4, head)
