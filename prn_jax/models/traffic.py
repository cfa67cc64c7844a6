"""Small detectors for road scenes of 4 classes, with heads at strides 8 and 16.

Reference: none; they are ours, for demonstration. traffic-tiny-prn is small enough to carry its trained weights in the
package. It keeps the head of yolov3-tiny-prn (partial residuals into both levels) on a backbone of a twentieth of its
size. traffic-nano-prn is made to be trained from scratch on two CPU cores in minutes: nothing at strides 1 and 2, where
most of the time of a training step would go, no max-pooling, wide where the maps are small.

The carried weights of traffic-tiny-prn took 48 minutes on 2 busy CPU cores, in two runs (`prn_jax/train/traffic_demo.py`
of commit fd0232b): 1,263 steps of 32 scenes with the CIoU loss of yolov4-tiny gave AP50 0.447 on 200 unseen scenes, then
18 minutes with the squared error of yolov3-tiny-prn 0.850.

The anchors are medians of k-means clusters (by IoU) of the boxes of 1,500 training scenes of `synthetic:traffic` at
256x192, scaled to 192x160 for traffic-nano-prn.

| model            | size    | parameters | BFLOPs |
|------------------|---------|------------|--------|
| traffic-nano-prn | 192x160 | 609,862    | 0.159  |
| traffic-tiny-prn | 256x192 | 225,894    | 0.283  |
"""

from __future__ import annotations

import functools

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, yolo_head
from prn_jax.models.registry import register

ANCHORS = ((8.0, 23.0), (13.0, 34.0), (21.0, 22.0), (31.0, 31.0), (50.0, 46.0), (78.0, 78.0))
NANO_ANCHORS = ((6.0, 19.0), (10.0, 28.0), (16.0, 18.0), (23.0, 26.0), (38.0, 38.0), (58.0, 65.0))
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


@register(
  "traffic-nano-prn",
  size=(192, 160),
  task="detect",
  reference="prn_jax: for synthetic:traffic",
  status="own",
  stride=32,
)
def traffic_nano_prn(g: Builder, num_classes: int = 4) -> None:
  conv = functools.partial(conv_bn, g, activation="leaky")
  head = functools.partial(yolo_head, g, anchors=NANO_ANCHORS, masks=MASKS, num_classes=num_classes)
  g.conv(32, 4, stride=4, batch_normalize=True, activation="leaky", name="stem")  # patches of 4x4 pixels
  p3 = _residual_stage(g, 3, 64, units=1)
  p4 = _residual_stage(g, 4, 96, units=2)
  _residual_stage(g, 5, 128, units=1)
  conv(64, 1, name="p5_reduce")
  g.upsample(stride=2, name="p4_up")
  joined = g.shortcut(p4, name="p4_skip_a")  # the partial residual: 64 of the 96 channels of p4
  conv(64, 3, name="p4_conv")
  branch = g.shortcut(joined, name="p4_skip_b")
  head("p4")
  g.route(branch, name="p3_from")
  conv(48, 1, name="p3_reduce")
  g.upsample(stride=2, name="p3_up")
  joined = g.shortcut(p3, name="p3_skip_a")  # 48 of the 64 channels of p3
  conv(48, 3, name="p3_conv")
  g.shortcut(joined, name="p3_skip_b")
  head("p3")


def _residual_stage(g: Builder, stage: int, filters: int, units: int) -> str:
  """Halves the map, then adds convolutions to it; returns the last layer."""
  x = conv_bn(g, filters, 3, "leaky", stride=2, name=f"stage{stage}_down")
  for unit in range(1, units + 1):
    conv_bn(g, filters, 3, "leaky", name=f"stage{stage}_unit{unit}_conv")
    x = g.shortcut(x, name=f"stage{stage}_unit{unit}_skip")
  return x
