"""Partial residual heads, and YOLOv3-tiny with them.

Paper: Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination"
(ICCVW 2019), figure 4. Reference: yolov3-tiny-prn.cfg. Differs from the reference: nothing.

yolov3-tiny-prn-3l has no published cfg. Its author's advice (issue 13 of WongKinYiu/PartialResidualNetworks) is to
make three levels as yolov3-tiny_3l.cfg does; so level p3 repeats what p4 does, from p4's convolution, 128 channels
wide, with YOLOv3's nine anchors and masks.

| model              | size | parameters | BFLOPs |
|--------------------|------|------------|--------|
| yolov3-tiny-prn    | 416  | 4,935,182  | 3.467  |
| yolov3-tiny-prn-3l | 416  | 5,132,429  | 4.464  |
"""

from __future__ import annotations

import functools

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, Levels, conv_bn, yolo_head
from prn_jax.models.darknet import tiny_backbone
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import PRN_TABLE_3
from prn_jax.models.yolov3 import ANCHORS, TINY_ANCHORS, Head
from prn_jax.models.yolov3 import MASKS as THREE_MASKS

# Anchor 0 belongs to no level and anchor 3 to both: the published weights were trained with these masks.
MASKS = {"p4": (1, 2, 3), "p5": (3, 4, 5)}


def prn_level(g: Builder, level: str, source: str, skip: str, head: Head) -> str:
  """A level that adds (eq. 1) where YOLOv3 concatenates; returns its convolution, before the additions.

  Args:
    g: the network.
    level: "p4" or "p3".
    source: layer of the coarser level; it is narrowed to 128 channels and upsampled.
    skip: the backbone's map of this level; its first 128 channels are added, twice.
    head: appends the head of a level.
  """
  g.route(source, name=f"{level}_from")
  conv_bn(g, 128, 1, "leaky", name=f"{level}_reduce")
  up = g.upsample(stride=2, name=f"{level}_up")
  g.shortcut(skip, activation="leaky", name=f"{level}_skip_a")  # the partial residual: only 128 channels of skip
  conv = conv_bn(g, 128, 3, "leaky", name=f"{level}_conv")
  g.shortcut(up, activation="leaky", name=f"{level}_skip_b")
  g.shortcut(skip, activation="leaky", name=f"{level}_skip_c")  # and again
  head(level)
  return conv


def prn_pyramid(g: Builder, p4: str, head: Head) -> str:
  """Two levels that are joined by additions, p5 behind the last map and p4; returns the convolution of p4."""
  reduced = conv_bn(g, 256, 1, "leaky", name="p5_reduce")
  branch = conv_bn(g, 256, 3, "leaky", name="p5_conv2")
  g.shortcut(reduced, activation="leaky", name="p5_skip")
  head("p5")
  return prn_level(g, "p4", branch, p4, head)


def prn_pyramid_3l(g: Builder, levels: Levels, head: Head) -> None:
  """As `prn_pyramid`, with a third level that does what p4 does."""
  prn_level(g, "p3", prn_pyramid(g, levels.p4, head), levels.p3, head)


def tiny_prn(g: Builder, head: Head) -> tuple[Levels, str]:
  """YOLOv3-tiny's backbone, one unit on its last map, and the two levels."""
  levels = tiny_backbone(g)
  conv_bn(g, 512, 3, "leaky", name="p5_conv1")
  g.shortcut(levels.p5, activation="leaky", name="p5_backbone_skip")
  return levels, prn_pyramid(g, levels.p4, head)


@register(
  "yolov3-tiny-prn",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov3-tiny-prn.cfg",
  published=(Published(size=416, bflops=3.467, params_m=4.95, ap50=33.1, source=PRN_TABLE_3),),
)
def yolov3_tiny_prn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  tiny_prn(g, head)


@register(
  "yolov3-tiny-prn-3l",
  size=416,
  task="detect",
  status="reconstructed",
  reference="issue 13 of WongKinYiu/PartialResidualNetworks, after yolov3-tiny-prn.cfg and yolov3-tiny_3l.cfg",
)
def yolov3_tiny_prn_3l(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=THREE_MASKS, num_classes=num_classes)
  levels, p4 = tiny_prn(g, head)
  prn_level(g, "p3", p4, levels.p3, head)
