"""YOLOv2 and its tiny form.

Paper: Redmon and Farhadi, "YOLO9000: Better, Faster, Stronger" (CVPR 2017).
Reference: yolov2.cfg, yolov2-tiny.cfg. Differs from the references: nothing.

| model       | size | parameters | BFLOPs |
|-------------|------|------------|--------|
| yolov2      | 416  | 50,962,889 | 29.475 |
| yolov2-tiny | 416  | 11,232,057 | 5.412  |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, conv_bn, float_pairs
from prn_jax.models.darknet import darknet19_backbone, tiny_backbone
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import YOLO_PAGE

# (width, height) in cells of the output map: k-means over COCO.
ANCHORS = (
  (0.57273, 0.677385),
  (1.87446, 2.06253),
  (3.33843, 5.47434),
  (7.88282, 3.52778),
  (9.77052, 9.16828),
)


def region_head(g: Builder, num_classes: int, anchors: Anchors) -> None:
  """1x1 convolution and [region] with softmax over the classes."""
  pairs = float_pairs(anchors)
  g.conv(len(pairs) * (5 + num_classes), 1, name="head_conv")
  g.region(classes=num_classes, anchors=pairs, softmax=True, name="head_region")


@register(
  "yolov2",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov2.cfg",
  published=(Published(size=608, bflops=62.94, ap50=48.1, source=YOLO_PAGE),),
)
def yolov2(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  levels = darknet19_backbone(g)
  conv_bn(g, 1024, 3, "leaky", name="p5_conv1")
  coarse = conv_bn(g, 1024, 3, "leaky", name="p5_conv2")
  # The passthrough: the finer map brings its 2x2 blocks as channels.
  g.route(levels.p4, name="p4_from")
  conv_bn(g, 64, 1, "leaky", name="p4_reduce")
  fine = g.reorg(stride=2, name="p4_reorg")
  g.route(fine, coarse, name="p5_concat")
  conv_bn(g, 1024, 3, "leaky", name="p5_conv3")
  region_head(g, num_classes, anchors)


@register(
  "yolov2-tiny",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov2-tiny.cfg",
  published=(Published(size=416, bflops=5.41, ap50=23.7, source=YOLO_PAGE),),
)
def yolov2_tiny(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  tiny_backbone(g)
  conv_bn(g, 1024, 3, "leaky", name="p5_conv1")
  conv_bn(g, 512, 3, "leaky", name="p5_conv2")
  region_head(g, num_classes, anchors)
