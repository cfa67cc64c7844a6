"""Partial residual forms of Darknet-53, and YOLOv3 on two of them.

Paper: Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination"
(ICCVW 2019), sections 3 and 4.2, figures 7 and 11, table 2. Reference: the paper. Its repository has no cfg of these;
an author attached one of yolov3-prn to issue 5 of WongKinYiu/PartialResidualNetworks, which we have not seen.

- fprn: Darknet-53 whose shortcuts add the first half of the channels. The published operations are those of
  YOLOv3, as they must be; Darknet today counts additions too, 0.02% more.
- shrink, expand, bottleneck: in a stage of c channels and n units, the 3x3 convolution of unit i has
  c(1 - (1 - gamma)i/n) channels, i = 1..n (shrink; expand runs the other way, bottleneck down and up). The 1x1
  convolutions keep c/2 in every unit: figure 7 prints "64 1x1, 96 3x3; 64 1x1, 64 3x3" for the stage of 128, which is
  gamma = 1/2. The 240 that it prints for the stage of 256 is its first unit: 8 units go from 256 to 128 in steps of 16.
- yolov3-prn is, in the author's words (ibid.), "Darknet53-PRN with YOLOv3 head", with YOLOv3's masks. Shrink with
  gamma = 1/2 under YOLOv3's own head has 50.447 BFLOPs in convolutions, where 42.429 are published (25.106 at 320):
  so the head is narrower as well. Two readings of it meet both figures to the last digit. `head="halved_towers"`, the
  default, halves the towers of p5 (1x1 and 3x3: 256 and 512) and p4 (128 and 256) and leaves p3 (128 and 256): 42.429
  and 25.106, 33.77M parameters, 54.5% of YOLOv3's. The abstract's "55%" is then the share that is left, where it says
  "a 55% reduction of parameters"; its "35% reduction of computation" is 1 - 42.429 / 65.864 = 35.6%.
  `head="halved_3x3"` halves every 3x3 convolution (512, 256, 128) and keeps the 1x1: 42.429 and 25.106 too, but 38.29M
  parameters, 61.8%. Nothing else that is published decides between them. `head="yolov3"` is YOLOv3's own.
- An earlier search for yolov3-prn went through 580,608 combinations of schedules, gammas, 1x1 widths, stages left alone
  and roundings, all under YOLOv3's own head. So none of them can be the paper's network, and that 17 met its
  operations was chance.
- Before these were found, the 1x1 convolutions here had half of their unit's width and the head was YOLOv3's:
  41,874,973 parameters and 42.548 BFLOPs for yolov3-prn. Models saved then carry their graph and load as they are; no
  registered name builds those widths any more.

| model                    | size | parameters | BFLOPs |
|--------------------------|------|------------|--------|
| darknet53-fprn           | 256  | 41,609,928 | 18.576 |
| darknet53-prn-shrink     | 256  | 27,995,720 | 12.835 |
| darknet53-prn-expand     | 256  | 31,291,976 | 13.877 |
| darknet53-prn-bottleneck | 256  | 33,044,040 | 14.884 |
| yolov3-fprn              | 416  | 61,949,149 | 65.879 |
| yolov3-prn               | 416  | 33,767,517 | 42.438 |
"""

from __future__ import annotations

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.builder import Builder
from prn_jax.graph.partial import Schedule, stage_widths
from prn_jax.models.blocks import Anchors, Levels, conv_bn, leading_part, pooled_classifier
from prn_jax.models.darknet import DARKNET53_STAGES
from prn_jax.models.registry import Published, register
from prn_jax.models.sources import PRN_TABLE_2
from prn_jax.models.yolov3 import ANCHORS, TOWERS, Towers, detector

PAPER = "PRN paper, section 4.2 and figure 7"
# Widths of the head of yolov3-prn; the first two both have the published operations.
HEADS: dict[str, Towers] = {
  "halved_towers": {"p5": (256, 512), "p4": (128, 256), "p3": (128, 256)},
  "halved_3x3": {"p5": (512, 512), "p4": (256, 256), "p3": (128, 128)},
  "yolov3": TOWERS,
}


def partial_stage(g: Builder, stage: int, channels: int, widths: tuple[int, ...], sparsity: float = 0) -> str:
  """Strided convolution of widths[0] channels, then a residual unit of each further width.

  The 1x1 convolution of every unit has half of the stage's `channels`. A shortcut adds what source and sum have in
  common (eq. 1), and of that the share that `sparsity` leaves.
  """
  front, *units = widths
  conv_bn(g, front, 3, "leaky", stride=2, name=f"stage{stage}_down")
  for unit, width in enumerate(units, 1):
    place = f"stage{stage}_unit{unit}"
    source = leading_part(g, sparsity, f"{place}_add_part")
    conv_bn(g, channels // 2, 1, "leaky", name=f"{place}_conv1")
    conv_bn(g, width, 3, "leaky", name=f"{place}_conv2")
    g.shortcut(source, name=f"{place}_add")
  return g.last


def fprn_backbone(g: Builder, sparsity: float) -> Levels:
  """Darknet-53 with partial shortcuts: characteristic 1."""
  conv_bn(g, 32, 3, "leaky", name="stem")
  ends = [
    partial_stage(g, i, channels, (channels,) * (units + 1), sparsity)
    for i, (channels, units) in enumerate(DARKNET53_STAGES, 1)
  ]
  return Levels(*ends[2:])


def prn_backbone(g: Builder, schedule: Schedule, gamma: float) -> Levels:
  """Darknet-53 with widths that change linearly within a stage: characteristic 2."""
  conv_bn(g, 32, 3, "leaky", name="stem")
  ends = [
    partial_stage(g, i, channels, stage_widths(schedule, channels, units, gamma))
    for i, (channels, units) in enumerate(DARKNET53_STAGES, 1)
  ]
  return Levels(*ends[2:])


@register(
  "darknet53-fprn", size=256, task="classify", status="reconstructed", reference="PRN paper, section 2 and figure 7"
)
def darknet53_fprn(g: Builder, num_classes: int = 1000, sparsity: float = 0.5) -> None:
  fprn_backbone(g, sparsity)
  pooled_classifier(g, num_classes, dropout=0)


@register("darknet53-prn-shrink", size=256, task="classify", status="reconstructed", reference=PAPER)
def darknet53_prn_shrink(g: Builder, num_classes: int = 1000, gamma: float = 0.5) -> None:
  prn_backbone(g, "shrink", gamma)
  pooled_classifier(g, num_classes, dropout=0)


@register("darknet53-prn-expand", size=256, task="classify", status="reconstructed", reference=PAPER)
def darknet53_prn_expand(g: Builder, num_classes: int = 1000, gamma: float = 0.5) -> None:
  prn_backbone(g, "expand", gamma)
  pooled_classifier(g, num_classes, dropout=0)


@register("darknet53-prn-bottleneck", size=256, task="classify", status="reconstructed", reference=PAPER)
def darknet53_prn_bottleneck(g: Builder, num_classes: int = 1000, gamma: float = 0.5) -> None:
  prn_backbone(g, "bottleneck", gamma)
  pooled_classifier(g, num_classes, dropout=0)


@register(
  "yolov3-fprn",
  size=416,
  task="detect",
  reference="PRN paper, section 3 and table 2, on yolov3.cfg",
  published=(
    Published(size=320, bflops=38.973, ap=29.2, source=PRN_TABLE_2),
    Published(size=416, bflops=65.864, ap=31.5, source=PRN_TABLE_2),
  ),
)
def yolov3_fprn(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS, sparsity: float = 0.5) -> None:
  detector(g, fprn_backbone(g, sparsity), num_classes, anchors)


@register(
  "yolov3-prn",
  size=416,
  task="detect",
  status="reconstructed",
  reference="PRN paper, section 4.2, figure 7 and table 2",
  published=(
    Published(size=320, bflops=25.106, ap=28.4, source=PRN_TABLE_2),
    Published(size=416, bflops=42.429, ap=30.8, source=PRN_TABLE_2),
  ),
)
def yolov3_prn(
  g: Builder,
  num_classes: int = 80,
  anchors: Anchors = ANCHORS,
  gamma: float = 0.5,
  head: str = "halved_towers",
) -> None:
  if head not in HEADS:
    raise PrnError(f"model 'yolov3-prn': head={head!r}{did_you_mean(str(head), HEADS)}; expected {' or '.join(HEADS)}.")
  detector(g, prn_backbone(g, "shrink", gamma), num_classes, anchors, HEADS[head])
