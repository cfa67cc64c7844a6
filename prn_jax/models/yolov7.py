"""YOLOv7-tiny.

Paper: Wang, Bochkovskiy, Liao, "YOLOv7" (CVPR 2023). Reference: yolov7-tiny.cfg. Differs from the reference:
nothing.

| model       | size | parameters | BFLOPs |
|-------------|------|------------|--------|
| yolov7-tiny | 416  | 6,227,101  | 5.802  |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, conv_bn, pan_merge_down, pan_merge_up, spp, yolo_head
from prn_jax.models.registry import ALEXEYAB, register
from prn_jax.models.yolov3 import ANCHORS, MASKS

# Width of the four branches of each ELAN block; the block gives twice as many channels.
BACKBONE_WIDTHS = {"stage2": 32, "stage3": 64, "stage4": 128, "stage5": 256}
NECK_WIDTHS = {"p4": 64, "p3": 32, "n4": 64, "n5": 128}
HEAD_WIDTHS = {"p3": 128, "p4": 256, "p5": 512}  # of the 3x3 convolution before each head


def elan(g: Builder, place: str, width: int) -> str:
  """Efficient layer aggregation: joins a map after 1x1, 1x1, and one and two more 3x3 convolutions (figure 2c)."""
  x = g.last
  part1 = conv_bn(g, width, 1, "leaky", name=f"{place}_part1")
  g.route(x, name=f"{place}_part2_from")
  part2 = conv_bn(g, width, 1, "leaky", name=f"{place}_part2")
  conv1 = conv_bn(g, width, 3, "leaky", name=f"{place}_conv1")
  conv2 = conv_bn(g, width, 3, "leaky", name=f"{place}_conv2")
  g.route(part1, part2, conv1, conv2, name=f"{place}_part_concat")
  return conv_bn(g, 2 * width, 1, "leaky", name=f"{place}_transition")


def spp_csp(g: Builder) -> str:
  """Pyramid pooling with a path around it."""
  x = g.last
  part1 = conv_bn(g, 256, 1, "leaky", name="p5_part1")
  g.route(x, name="p5_part2_from")
  conv_bn(g, 256, 1, "leaky", name="p5_part2")
  spp(g, "p5")
  pooled = conv_bn(g, 256, 1, "leaky", name="p5_conv")
  g.route(part1, pooled, name="p5_part_concat")
  return conv_bn(g, 256, 1, "leaky", name="p5_transition")


@register("yolov7-tiny", size=416, task="detect", reference=f"{ALEXEYAB}yolov7-tiny.cfg")
def yolov7_tiny(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  conv_bn(g, 32, 3, "leaky", stride=2, name="stem")
  conv_bn(g, 64, 3, "leaky", stride=2, name="stage2_down")
  stages: dict[str, str] = {}
  for place, width in BACKBONE_WIDTHS.items():
    if stages:
      g.maxpool(size=2, stride=2, name=f"{place}_down")
    stages[place] = elan(g, place, width)
  outputs = {"p5": spp_csp(g)}
  for level, skip in (("p4", stages["stage4"]), ("p3", stages["stage3"])):
    pan_merge_up(g, level, skip, 2 * NECK_WIDTHS[level], "leaky")
    outputs[level] = elan(g, level, NECK_WIDTHS[level])
  for place, level in (("n4", "p4"), ("n5", "p5")):
    pan_merge_down(g, place, outputs[level], 2 * NECK_WIDTHS[place], "leaky")
    outputs[level] = elan(g, place, NECK_WIDTHS[place])
  for level, width in HEAD_WIDTHS.items():
    g.route(outputs[level], name=f"head_{level}_from")
    conv_bn(g, width, 3, "leaky", name=f"head_{level}_expand")
    yolo_head(
      g,
      level,
      anchors=anchors,
      masks=MASKS,
      num_classes=num_classes,
      scale_x_y=2.0,
      nms_kind="diounms",
      new_coords=True,
    )
