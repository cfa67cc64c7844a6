"""A detector small enough to carry its trained weights in the package: road scenes, 4 classes, strides 8 and 16.

Reference: none; it is ours, for demonstration. It keeps the head of yolov3-tiny-prn (partial residuals into both
levels) on a backbone of a twentieth of its size. The anchors are medians of k-means clusters (by IoU) of the boxes of
1,500 training scenes of `synthetic:traffic` at 256x192.

| model            | size    | parameters | BFLOPs |
|------------------|---------|------------|--------|
| traffic-tiny-prn | 256x192 | 225,894    | 0.283  |
"""

from __future__ import annotations

import functools

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, yolo_head
from prn_jax.models.registry import register

ANCHORS = ((8.0, 23.0), (13.0, 34.0), (21.0, 22.0), (31.0, 31.0), (50.0, 46.0), (78.0, 78.0))
MASKS = {"p3": (0, 1, 2), "p4": (3, 4, 5)}


@register(
  "traffic-tiny-prn",
  size=(256, 192),
  task="detect",
  reference="prn_jax: trained on synthetic:traffic",
  status="own",
  stride=16,
  weights="traffic-tiny-prn.weights",
  names=("car", "truck", "bus", "person"),
)
def traffic_tiny_prn(g: Builder, num_classes: int = 4) -> None:
  conv = functools.partial(conv_bn, g, activation="leaky")
  head = functools.partial(yolo_head, g, anchors=ANCHORS, masks=MASKS, num_classes=num_classes)
  conv(16, 3, stride=2, name="stem")
  for stage, filters in ((2, 24), (3, 40)):
    conv(filters, 3, name=f"stage{stage}_conv")
    g.maxpool(2, 2, name=f"stage{stage}_pool")
  p3 = conv(64, 3, name="stage4_conv")
  g.maxpool(2, 2, name="stage4_pool")
  p4 = conv(96, 3, name="stage5_conv")
  conv(96, 3, name="p4_conv1")
  g.shortcut(p4, activation="leaky", name="p4_backbone_skip")
  reduced = conv(48, 1, name="p4_reduce")
  branch = conv(48, 3, name="p4_conv2")
  g.shortcut(reduced, activation="leaky", name="p4_skip")
  head("p4")
  g.route(branch, name="p3_from")
  conv(48, 1, name="p3_reduce")
  up = g.upsample(stride=2, name="p3_up")
  g.shortcut(p3, activation="leaky", name="p3_skip_a")  # the partial residual: 48 of the 64 channels of p3
  conv(48, 3, name="p3_conv")
  g.shortcut(up, activation="leaky", name="p3_skip_b")
  g.shortcut(p3, activation="leaky", name="p3_skip_c")
  head("p3")
