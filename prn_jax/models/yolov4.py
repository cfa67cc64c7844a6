"""YOLOv4, its tiny form, and Scaled-YOLOv4's CSP form.

Papers: Bochkovskiy, Wang, Liao, "YOLOv4" (2020); Wang, Bochkovskiy, Liao, "Scaled-YOLOv4" (CVPR 2021).
Reference: yolov4.cfg, yolov4-tiny.cfg, yolov4-csp.cfg. Differs from the references: nothing.

| model       | size | parameters | BFLOPs  |
|-------------|------|------------|---------|
| yolov4      | 608  | 64,363,101 | 128.459 |
| yolov4-tiny | 416  | 6,056,606  | 6.910   |
| yolov4-csp  | 512  | 52,921,437 | 77.003  |
"""

from __future__ import annotations

import functools

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, Levels, conv_bn, pan_merge_down, pan_merge_up, spp, yolo_head
from prn_jax.models.darknet import CSDARKNET53_STAGES, csdarknet53_backbone, csp_stage, residual_stage
from prn_jax.models.prn import MASKS as TINY_MASKS
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import ALEXEYAB_README, SPURSLIPU_README
from prn_jax.models.yolov3 import MASKS, TINY_ANCHORS, TOWERS, squeeze_expand, tiny_pyramid

# (width, height) in pixels of the input, for COCO at 512.
ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
# Grid sensitivity of each level (YOLOv4, section 3.4).
SCALE_X_Y = {"p3": 1.2, "p4": 1.1, "p5": 1.05}
TINY_STAGES = (64, 128, 256)  # channels of the CSP stages


@register(
  "yolov4",
  size=608,
  task="detect",
  reference=f"{ALEXEYAB}yolov4.cfg",
  published=(
    Published(size=320, bflops=35.5, ap=38.0, ap50=60.0, source=ALEXEYAB_README),
    Published(size=416, bflops=60.1, ap=41.2, ap50=62.8, source=ALEXEYAB_README),
    Published(size=512, bflops=91.1, ap=43.0, ap50=64.9, source=ALEXEYAB_README),
    Published(size=608, bflops=128.5, ap=43.5, ap50=65.7, source=ALEXEYAB_README),
    Published(size=608, ap=43.8, ap50=65.0, source=SPURSLIPU_README),
  ),
)
def yolov4(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes, nms_kind="greedynms")
  levels = csdarknet53_backbone(g)
  squeeze_expand(g, "p5", TOWERS["p5"], count=3)
  spp(g, "p5")
  p5 = squeeze_expand(g, "p5", TOWERS["p5"], count=3, first=4)[-1]
  pan_merge_up(g, "p4", levels.p4, 256, "leaky")
  p4 = squeeze_expand(g, "p4", TOWERS["p4"], count=5)[-1]
  pan_merge_up(g, "p3", levels.p3, 128, "leaky")
  branch = squeeze_expand(g, "p3", TOWERS["p3"], count=6)[-2]
  head("p3", scale_x_y=SCALE_X_Y["p3"])
  for place, level, skip, filters in (("n4", "p4", p4, 256), ("n5", "p5", p5, 512)):
    g.route(branch, name=f"{place}_from")
    pan_merge_down(g, place, skip, filters, "leaky")
    branch = squeeze_expand(g, place, (filters, 2 * filters), count=6)[-2]
    head(level, scale_x_y=SCALE_X_Y[level])


def tiny_csp_stage(g: Builder, stage: int, channels: int) -> str:
  """Half of the channels go through two convolutions, all go around; returns the map before the last join."""
  place = f"stage{stage}"
  x = conv_bn(g, channels, 3, "leaky", name=f"{place}_conv")
  g.route(x, groups=2, group_id=1, name=f"{place}_split")
  first = conv_bn(g, channels // 2, 3, "leaky", name=f"{place}_part_conv1")
  second = conv_bn(g, channels // 2, 3, "leaky", name=f"{place}_part_conv2")
  g.route(second, first, name=f"{place}_part_concat")
  transition = conv_bn(g, channels, 1, "leaky", name=f"{place}_transition")
  g.route(x, transition, name=f"{place}_concat")
  g.maxpool(size=2, stride=2, name=f"{place}_pool")
  return transition


@register(
  "yolov4-tiny",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov4-tiny.cfg",
  published=(
    Published(size=416, bflops=6.9, ap50=40.2, source=ALEXEYAB_README),
    Published(size=608, ap=22.5, ap50=43.5, source=SPURSLIPU_README),
  ),
)
def yolov4_tiny(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(
    yolo_head,
    g,
    anchors=anchors,
    masks=TINY_MASKS,
    num_classes=num_classes,
    scale_x_y=1.05,
    nms_kind="greedynms",
  )
  conv_bn(g, 32, 3, "leaky", stride=2, name="stem")
  conv_bn(g, 64, 3, "leaky", stride=2, name="stage1_down")
  stages = [tiny_csp_stage(g, i, channels) for i, channels in enumerate(TINY_STAGES, 1)]
  conv_bn(g, 512, 3, "leaky", name="p5_conv1")
  tiny_pyramid(g, stages[-1], head)


def csp_block(g: Builder, place: str, filters: int) -> str:
  """CSP form of the five convolutions of a neck level (Scaled-YOLOv4, "CSP-ized YOLOv4")."""
  fused = conv_bn(g, filters, 1, "mish", name=f"{place}_fuse")
  part1 = conv_bn(g, filters, 1, "mish", name=f"{place}_part1")
  g.route(fused, name=f"{place}_part2_from")
  conv_bn(g, filters, 1, "mish", name=f"{place}_conv1")
  conv_bn(g, filters, 3, "mish", name=f"{place}_conv2")
  conv_bn(g, filters, 1, "mish", name=f"{place}_conv3")
  last = conv_bn(g, filters, 3, "mish", name=f"{place}_conv4")
  g.route(last, part1, name=f"{place}_part_concat")
  return conv_bn(g, filters, 1, "mish", name=f"{place}_transition")


def csp_spp(g: Builder, p5: str) -> str:
  """CSP form of the pyramid pooling."""
  part1 = conv_bn(g, 512, 1, "mish", name="p5_part1")
  g.route(p5, name="p5_part2_from")
  conv_bn(g, 512, 1, "mish", name="p5_conv1")
  conv_bn(g, 512, 3, "mish", name="p5_conv2")
  conv_bn(g, 512, 1, "mish", name="p5_conv3")
  spp(g, "p5")
  conv_bn(g, 512, 1, "mish", name="p5_conv4")
  last = conv_bn(g, 512, 3, "mish", name="p5_conv5")
  g.route(last, part1, name="p5_part_concat")
  return conv_bn(g, 512, 1, "mish", name="p5_transition")


def csp_backbone(g: Builder) -> Levels:
  """CSPDarknet-53 whose first stage is Darknet-53's."""
  conv_bn(g, 32, 3, "mish", name="stem")
  residual_stage(g, 1, 64, 1, "mish")
  ends = [csp_stage(g, i, sizes, "mish") for i, sizes in enumerate(CSDARKNET53_STAGES[1:], 2)]
  return Levels(*ends[1:])


@register(
  "yolov4-csp",
  size=512,
  task="detect",
  reference=f"{ALEXEYAB}yolov4-csp.cfg",
  published=(
    Published(size=512, bflops=77.0, ap=46.2, ap50=64.8, source=ALEXEYAB_README),
    Published(size=640, bflops=120.0, ap=47.5, ap50=66.2, source=ALEXEYAB_README),
  ),
)
def yolov4_csp(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  def output(place: str, level: str, filters: int) -> str:
    """A CSP block and its head; returns the block."""
    block = csp_block(g, place, filters)
    conv_bn(g, 2 * filters, 3, "mish", name=f"{place}_expand")
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
    return block

  levels = csp_backbone(g)
  p5 = csp_spp(g, levels.p5)
  pan_merge_up(g, "p4", levels.p4, 256, "mish")
  p4 = csp_block(g, "p4", 256)
  pan_merge_up(g, "p3", levels.p3, 128, "mish")
  branch = output("p3", "p3", 128)
  for place, level, skip, filters in (("n4", "p4", p4, 256), ("n5", "p5", p5, 512)):
    g.route(branch, name=f"{place}_from")
    pan_merge_down(g, place, skip, filters, "mish")
    branch = output(place, level, filters)
