"""Partial residual networks.

Paper: Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination"
(ICCVW 2019). Reference: yolov3-tiny-prn.cfg. Differs from the reference: nothing.

| model           | size | parameters | BFLOPs |
|-----------------|------|------------|--------|
| yolov3-tiny-prn | 416  | 4,935,182  | 3.467  |
"""

from __future__ import annotations

import functools

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, conv_bn, yolo_head
from prn_jax.models.darknet import tiny_backbone
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import PRN_TABLE_3
from prn_jax.models.yolov3 import TINY_ANCHORS, Head

# Anchor 0 belongs to no level and anchor 3 to both: the published weights were trained with these masks.
MASKS = {"p4": (1, 2, 3), "p5": (3, 4, 5)}


def prn_pyramid(g: Builder, p4: str, head: Head) -> None:
  """Two levels that are joined by additions (eq. 1) where YOLOv3-tiny concatenates.

  Args:
    g: stands at the map of level p5.
    p4: the backbone's map of level p4; its first 128 channels are added.
    head: appends the head of a level.
  """
  reduced = conv_bn(g, 256, 1, "leaky", name="p5_reduce")
  branch = conv_bn(g, 256, 3, "leaky", name="p5_conv2")
  g.shortcut(reduced, activation="leaky", name="p5_skip")
  head("p5")
  g.route(branch, name="p4_from")
  conv_bn(g, 128, 1, "leaky", name="p4_reduce")
  up = g.upsample(stride=2, name="p4_up")
  g.shortcut(p4, activation="leaky", name="p4_skip_a")  # the partial residual: only 128 channels of p4
  conv_bn(g, 128, 3, "leaky", name="p4_conv")
  g.shortcut(up, activation="leaky", name="p4_skip_b")
  g.shortcut(p4, activation="leaky", name="p4_skip_c")  # and again
  head("p4")


@register(
  "yolov3-tiny-prn",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov3-tiny-prn.cfg",
  published=(Published(size=416, bflops=3.467, params_m=4.95, ap50=33.1, source=PRN_TABLE_3),),
)
def yolov3_tiny_prn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  levels = tiny_backbone(g)
  conv_bn(g, 512, 3, "leaky", name="p5_conv1")
  g.shortcut(levels.p5, activation="leaky", name="p5_backbone_skip")
  prn_pyramid(g, levels.p4, head)
