"""Darknet backbones and classifiers.

Papers: Darknet-19 and the tiny networks: Redmon and Farhadi, "YOLO9000" (CVPR 2017), table 6; Darknet-53:
Redmon and Farhadi, "YOLOv3" (2018), table 1; CSPDarknet-53: Wang et al., "CSPNet" (CVPRW 2020), with mish as
in Bochkovskiy et al., "YOLOv4" (2020), section 3.4.
Reference: darknet19.cfg, tiny.cfg, darknet53.cfg, csdarknet53-omega.cfg. Differs from the references: nothing.

| model             | size | parameters | BFLOPs |
|-------------------|------|------------|--------|
| darknet19         | 224  | 20,842,376 | 5.585  |
| tiny-darknet      | 224  | 1,042,104  | 0.985  |
| darknet53         | 256  | 41,609,928 | 18.576 |
| csdarknet53-omega | 256  | 27,642,184 | 13.071 |
"""

from __future__ import annotations

from typing import NamedTuple

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Levels, conv_bn, conv_classifier, pooled_classifier
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import IMAGENET_PAGE, TINY_DARKNET_PAGE

# Filters of each stage; kernels are 3x3 and 1x1 in turn. A 2x2 pool stands between the stages. YOLO9000 table 6.
DARKNET19_STAGES = (
  (32,),
  (64,),
  (128, 64, 128),
  (256, 128, 256),
  (512, 256, 512, 256, 512),
  (1024, 512, 1024, 512, 1024),
)
# (filters, kernel) of each stage, read off tiny.cfg; no paper.
TINY_DARKNET_STAGES = (
  ((16, 3),),
  ((32, 3),),
  ((16, 1), (128, 3), (16, 1), (128, 3)),
  ((32, 1), (256, 3), (32, 1), (256, 3)),
  ((64, 1), (512, 3), (64, 1), (512, 3), (128, 1)),
)
# Filters of the stages of the tiny detectors, each one 3x3 convolution and a pool.
TINY_STAGES = (16, 32, 64, 128, 256, 512)
# (channels, residual units) of each stage behind its strided convolution. YOLOv3 table 1.
DARKNET53_STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))


class CspStage(NamedTuple):
  """Sizes of a cross-stage partial stage."""

  channels: int  # of the strided convolution and of the result
  part: int  # of each of the two parts
  hidden: int  # of the 1x1 convolution in a residual unit
  units: int


# CSPNet halves every stage but the first.
CSDARKNET53_STAGES = (
  CspStage(64, 64, 32, 1),
  CspStage(128, 64, 64, 2),
  CspStage(256, 128, 128, 8),
  CspStage(512, 256, 256, 8),
  CspStage(1024, 512, 512, 4),
)


def darknet19_backbone(g: Builder) -> Levels:
  """18 convolutions; a level is the last map before its pool."""
  ends: list[str] = []
  for stage, widths in enumerate(DARKNET19_STAGES, 1):
    if ends:
      g.maxpool(size=2, stride=2, name=f"stage{stage - 1}_pool")
    for i, filters in enumerate(widths):
      last = conv_bn(g, filters, 1 if i % 2 else 3, "leaky", name=f"stage{stage}_conv{i + 1}")
    ends.append(last)
  return Levels(*ends[3:])


def tiny_backbone(g: Builder) -> Levels:
  """Six 3x3 convolutions with pools, the last of stride 1; a level is the map before its pool."""
  convs = []
  for stage, filters in enumerate(TINY_STAGES, 1):
    convs.append(conv_bn(g, filters, 3, "leaky", name=f"stage{stage}_conv"))
    g.maxpool(size=2, stride=2 if stage < len(TINY_STAGES) else 1, name=f"stage{stage}_pool")
  return Levels(*convs[3:])


def residual_unit(g: Builder, name: str, hidden: int, activation: str) -> str:
  """1x1 and 3x3 convolution around which the input is added."""
  x = g.last
  channels = g.shape().channels
  conv_bn(g, hidden, 1, activation, name=f"{name}_conv1")
  conv_bn(g, channels, 3, activation, name=f"{name}_conv2")
  return g.shortcut(x, name=f"{name}_add")


def residual_stage(g: Builder, stage: int, channels: int, units: int, activation: str) -> str:
  """Strided convolution and residual units."""
  last = conv_bn(g, channels, 3, activation, stride=2, name=f"stage{stage}_down")
  for unit in range(1, units + 1):
    last = residual_unit(g, f"stage{stage}_unit{unit}", channels // 2, activation)
  return last


def csp_stage(g: Builder, stage: int, size: CspStage, activation: str) -> str:
  """Strided convolution; part 2 goes through residual units, part 1 around them."""
  place = f"stage{stage}"
  down = conv_bn(g, size.channels, 3, activation, stride=2, name=f"{place}_down")
  part1 = conv_bn(g, size.part, 1, activation, name=f"{place}_part1")
  g.route(down, name=f"{place}_from")
  conv_bn(g, size.part, 1, activation, name=f"{place}_part2")
  for unit in range(1, size.units + 1):
    residual_unit(g, f"{place}_unit{unit}", size.hidden, activation)
  post = conv_bn(g, size.part, 1, activation, name=f"{place}_post")
  g.route(post, part1, name=f"{place}_concat")
  return conv_bn(g, size.channels, 1, activation, name=f"{place}_transition")


def darknet53_backbone(g: Builder) -> Levels:
  """52 convolutions."""
  conv_bn(g, 32, 3, "leaky", name="stem")
  ends = [residual_stage(g, i, *sizes, "leaky") for i, sizes in enumerate(DARKNET53_STAGES, 1)]
  return Levels(*ends[2:])


def csdarknet53_backbone(g: Builder, activation: str = "mish") -> Levels:
  """72 convolutions, all with one activation."""
  conv_bn(g, 32, 3, activation, name="stem")
  ends = [csp_stage(g, i, sizes, activation) for i, sizes in enumerate(CSDARKNET53_STAGES, 1)]
  return Levels(*ends[2:])


@register(
  "darknet19",
  size=224,
  task="classify",
  reference=f"{ALEXEYAB}darknet19.cfg",
  published=(Published(size=256, bflops=7.29, top1=72.9, top5=91.2, source=IMAGENET_PAGE),),
)
def darknet19(g: Builder, num_classes: int = 1000) -> None:
  darknet19_backbone(g)
  conv_classifier(g, num_classes)


@register(
  "tiny-darknet",
  size=224,
  task="classify",
  reference=f"{ALEXEYAB}tiny.cfg",
  published=(Published(size=224, bflops=0.98, top1=58.7, top5=81.7, source=TINY_DARKNET_PAGE),),
)
def tiny_darknet(g: Builder, num_classes: int = 1000) -> None:
  for stage, convs in enumerate(TINY_DARKNET_STAGES, 1):
    if stage > 1:
      g.maxpool(size=2, stride=2, name=f"stage{stage - 1}_pool")
    for i, (filters, size) in enumerate(convs, 1):
      conv_bn(g, filters, size, "leaky", name=f"stage{stage}_conv{i}")
  conv_classifier(g, num_classes)


@register(
  "darknet53",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}darknet53.cfg",
  published=(
    Published(size=256, bflops=18.57, params_m=41.6, source="YOLOv3 paper; AlexeyAB/darknet"),
    Published(size=256, bflops=18.57, top1=77.2, top5=93.8, source=IMAGENET_PAGE),
  ),
)
def darknet53(g: Builder, num_classes: int = 1000) -> None:
  darknet53_backbone(g)
  pooled_classifier(g, num_classes, dropout=0)


@register("csdarknet53-omega", size=256, task="classify", reference=f"{ALEXEYAB}csdarknet53-omega.cfg")
def csdarknet53_omega(g: Builder, num_classes: int = 1000) -> None:
  csdarknet53_backbone(g)
  pooled_classifier(g, num_classes, dropout=0)
