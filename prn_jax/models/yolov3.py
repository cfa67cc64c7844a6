"""YOLOv3, with and without spatial pyramid pooling, and its tiny forms with two and three heads.

Paper: Redmon and Farhadi, "YOLOv3: An Incremental Improvement" (2018). The SPP and tiny forms have no paper.
Reference: yolov3.cfg, yolov3-spp.cfg, yolov3-tiny.cfg, yolov3-tiny_3l.cfg. Differs from the references: nothing.
yolov3-tiny_3l.cfg is written for 2 classes, so that is the default here; yolov3-tiny3 is the same network for COCO's
classes and YOLOv3's anchors.

yolov3-spp3 pools in all three levels. Its cfg is described, not given: in p4 behind a 3x3 convolution, in p3 somewhere.
Its published number of parameters leaves one way: behind a 1x1 convolution in p3. Which of the 3x3 and of the 1x1
convolutions it does not tell; here the first behind which as many are left as in p5.

| model          | size | classes | parameters | BFLOPs  |
|----------------|------|---------|------------|---------|
| yolov3         | 416  | 80      | 61,949,149 | 65.879  |
| yolov3-spp     | 608  | 80      | 62,998,749 | 141.531 |
| yolov3-spp3    | 608  | 80      | 64,276,701 | 153.294 |
| yolov3-tiny    | 416  | 80      | 8,852,366  | 5.571   |
| yolov3-tiny3   | 416  | 80      | 9,213,453  | 7.386   |
| yolov3-tiny-3l | 608  | 2       | 9,003,087  | 15.172  |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, Levels, conv_bn, fpn_merge, spp, yolo_head
from prn_jax.models.darknet import darknet53_backbone, tiny_backbone
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import ALEXEYAB_README, PRN_TABLE_2, PRN_TABLE_3, SPURSLIPU_README, SPURSLIPU_REPOSITORY

Head = Callable[..., str]  # `yolo_head` of all but the level
Widths = tuple[int, int]  # of the 1x1 and of the 3x3 convolutions, which stand in turn
Towers = Mapping[str, Widths]  # level -> widths of the six convolutions in front of its head

# (width, height) in pixels of the input: k-means over COCO, from small to large. Paper, section 2.3.
ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
TOWERS: Towers = {"p5": (512, 1024), "p4": (256, 512), "p3": (128, 256)}
MASKS = {"p3": (0, 1, 2), "p4": (3, 4, 5), "p5": (6, 7, 8)}
TINY_ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
TINY_MASKS = {"p4": (0, 1, 2), "p5": (3, 4, 5)}
TINY_3L_ANCHORS = ((4, 7), (7, 15), (13, 25), (25, 42), (41, 67), (75, 94), (91, 162), (158, 205), (250, 332))


def squeeze_expand(g: Builder, place: str, widths: Widths, count: int, first: int = 1) -> list[str]:
  """`count` convolutions, 1x1 and 3x3 in turn, of these widths; numbered from `first`."""
  return [conv_bn(g, widths[i % 2], 3 if i % 2 else 1, "leaky", name=f"{place}_conv{first + i}") for i in range(count)]


def pyramid(g: Builder, levels: Levels, head: Head, towers: Towers = TOWERS) -> None:
  """The two finer levels behind the p5 branch `levels.p5`, and their heads. Paper, section 2.3."""
  source = levels.p5
  for level, skip, filters in (("p4", levels.p4, 256), ("p3", levels.p3, 128)):
    fpn_merge(g, level, source, skip, filters)
    source = squeeze_expand(g, level, towers[level], count=6)[-2]  # the last 1x1 convolution
    head(level)


def branches(g: Builder, levels: Levels, head: Head, towers: Towers = TOWERS) -> None:
  """YOLOv3's three branches and heads behind a backbone whose last map is the last layer."""
  branch = squeeze_expand(g, "p5", towers["p5"], count=6)[-2]
  head("p5")
  pyramid(g, levels._replace(p5=branch), head, towers)


def detector(g: Builder, levels: Levels, num_classes: int, anchors: Anchors, towers: Towers = TOWERS) -> None:
  """`branches` with YOLOv3's heads."""
  branches(g, levels, functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes), towers)


def pooled_branch(g: Builder, head: Head) -> str:
  """The branch of p5 with spatial pyramid pooling, and its head; returns the last 1x1 convolution."""
  squeeze_expand(g, "p5", TOWERS["p5"], count=3)
  spp(g, "p5")
  branch = squeeze_expand(g, "p5", TOWERS["p5"], count=4, first=4)[-2]
  head("p5")
  return branch


def pooled_branches(g: Builder, levels: Levels, head: Head) -> None:
  """As `branches`, with spatial pyramid pooling in p5."""
  pyramid(g, levels._replace(p5=pooled_branch(g, head)), head)


@register(
  "yolov3",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov3.cfg",
  published=(
    Published(size=320, bflops=38.973, ap=28.2, source=PRN_TABLE_2),
    Published(size=416, bflops=65.864, ap=31.0, source=PRN_TABLE_2),
    Published(size=416, bflops=65.9, ap50=55.3, source=ALEXEYAB_README),
    Published(size=608, ap=34.0, ap50=58.0, source=SPURSLIPU_README),
  ),
)
def yolov3(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  detector(g, darknet53_backbone(g), num_classes, anchors)


@register(
  "yolov3-spp",
  size=608,
  task="detect",
  reference=f"{ALEXEYAB}yolov3-spp.cfg",
  published=(Published(size=608, bflops=141.5, ap50=60.6, source=ALEXEYAB_README),),
)
def yolov3_spp(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  pooled_branches(g, darknet53_backbone(g), head)


@register(
  "yolov3-spp3",
  size=608,
  task="detect",
  status="reconstructed",
  reference=f"{SPURSLIPU_REPOSITORY} cfg/yolov3/yolov3-spp3.cfg, by its number of parameters",
)
def yolov3_spp3(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  levels = darknet53_backbone(g)
  fpn_merge(g, "p4", pooled_branch(g, head), levels.p4, 256)
  squeeze_expand(g, "p4", TOWERS["p4"], count=2)
  spp(g, "p4")
  branch = squeeze_expand(g, "p4", TOWERS["p4"], count=4, first=3)[-2]
  head("p4")
  fpn_merge(g, "p3", branch, levels.p3, 128)
  squeeze_expand(g, "p3", TOWERS["p3"], count=3)
  spp(g, "p3")
  conv_bn(g, TOWERS["p3"][1], 3, "leaky", name="p3_conv4")
  squeeze_expand(g, "p3", TOWERS["p3"], count=2, first=5)
  head("p3")


def tiny_pyramid(g: Builder, p4: str, head: Head) -> str:
  """Both levels of the tiny detectors behind their first p5 convolution; returns the last one of p4."""
  branch = conv_bn(g, 256, 1, "leaky", name="p5_reduce")
  conv_bn(g, 512, 3, "leaky", name="p5_conv2")
  head("p5")
  fpn_merge(g, "p4", branch, p4, 128)
  last = conv_bn(g, 256, 3, "leaky", name="p4_conv")
  head("p4")
  return last


@register(
  "yolov3-tiny",
  size=416,
  task="detect",
  reference=f"{ALEXEYAB}yolov3-tiny.cfg",
  published=(
    Published(size=416, bflops=5.571, params_m=8.86, ap50=33.1, source=PRN_TABLE_3),
    Published(size=608, ap=16.8, ap50=34.7, source=SPURSLIPU_README),
  ),
)
def yolov3_tiny(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=TINY_MASKS, num_classes=num_classes)
  levels = tiny_backbone(g)
  conv_bn(g, 1024, 3, "leaky", name="p5_conv1")
  tiny_pyramid(g, levels.p4, head)


def three_level_detector(g: Builder, num_classes: int, anchors: Anchors) -> None:
  """YOLOv3-tiny with a third level."""
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  levels = tiny_backbone(g)
  conv_bn(g, 1024, 3, "leaky", name="p5_conv1")
  tiny_pyramid_3l(g, levels, head)


def tiny_pyramid_3l(g: Builder, levels: Levels, head: Head) -> None:
  """As `tiny_pyramid`, and a third level that does what p4 does."""
  p4 = tiny_pyramid(g, levels.p4, head)
  fpn_merge(g, "p3", p4, levels.p3, 128)
  conv_bn(g, 128, 3, "leaky", name="p3_conv")
  head("p3")


@register("yolov3-tiny-3l", size=608, task="detect", reference=f"{ALEXEYAB}yolov3-tiny_3l.cfg")
def yolov3_tiny_3l(g: Builder, num_classes: int = 2, anchors: Anchors = TINY_3L_ANCHORS) -> None:
  three_level_detector(g, num_classes, anchors)


@register(
  "yolov3-tiny3", size=416, task="detect", reference="yolov3-tiny_3l.cfg of AlexeyAB/darknet 59596d78, for COCO"
)
def yolov3_tiny3(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  three_level_detector(g, num_classes, anchors)
