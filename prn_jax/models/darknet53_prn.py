"""Partial residual forms of Darknet-53, and YOLOv3 on two of them.

Paper: Wang, Liao, Chen, Hsieh, "Enriching Variety of Layer-wise Learning Information by Gradient Combination"
(ICCVW 2019), sections 3 and 4.2, table 2, figure 11. Reference: the paper. Its repository has no cfg of these;
an author attached one of yolov3-prn to issue 5 of WongKinYiu/PartialResidualNetworks, which we have not seen.

- fprn: Darknet-53 whose shortcuts add the first half of the channels. The published operations are those of
  YOLOv3, as they must be; Darknet today counts additions too, 0.02% more.
- shrink, expand, bottleneck: a stage of c channels and n units has units of c(1 - (1 - gamma)i/n) channels, i = 1..n
  (shrink; expand runs the other way, bottleneck down and up). The paper's figure shows 240 for the first unit of the
  stage of 256, which is gamma = 1/2.
- yolov3-prn is, in the author's words (ibid.), "Darknet53-PRN with YOLOv3 head", with YOLOv3's masks. Taken as
  shrink with gamma = 1/2 and 1x1 convolutions half as wide as their unit it has 42.539 BFLOPs in convolutions and
  42.548 with additions; published: 42.429, 0.28% less (at 320: 25.106, the same ratio, so both are one figure).
  Tried without meeting it: 1x1 widths by the unit's input (45.51), by the mean of input and output (44.02) or kept
  (50.45); counting units from 0 (50.53); a stage of 64 or of 64 and 128 left as it is (44.62, 47.47); the levels
  taken from full-width maps; other steps in the stages that the figure does not show. Of 580,608 combinations of
  14 schedules, gamma in sixteenths, 48 rules for the 1x1 widths, stages left alone and roundings, 17 meet it, as
  many as chance gives, and none of them has gamma = 1/2.

| model                    | size | parameters | BFLOPs |
|--------------------------|------|------------|--------|
| darknet53-fprn           | 256  | 41,609,928 | 18.576 |
| darknet53-prn-shrink     | 256  | 21,367,816 | 9.840  |
| darknet53-prn-expand     | 256  | 26,585,576 | 11.805 |
| darknet53-prn-bottleneck | 256  | 27,515,912 | 12.501 |
| yolov3-fprn              | 416  | 61,949,149 | 65.879 |
| yolov3-prn               | 416  | 41,874,973 | 42.548 |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.graph.partial import Schedule, stage_widths
from prn_jax.models.blocks import Anchors, Levels, conv_bn, leading_part, pooled_classifier
from prn_jax.models.darknet import DARKNET53_STAGES
from prn_jax.models.registry import Published, register
from prn_jax.models.sources import PRN_TABLE_2
from prn_jax.models.yolov3 import ANCHORS, detector

PAPER = "PRN paper, section 4.2"


def partial_stage(g: Builder, stage: int, widths: tuple[int, ...], sparsity: float = 0) -> str:
  """Strided convolution of widths[0] channels, then a residual unit of each further width.

  A shortcut adds what source and sum have in common (eq. 1), and of that the share that `sparsity` leaves.
  """
  front, *units = widths
  conv_bn(g, front, 3, "leaky", stride=2, name=f"stage{stage}_down")
  for unit, width in enumerate(units, 1):
    place = f"stage{stage}_unit{unit}"
    source = leading_part(g, sparsity, f"{place}_add_part")
    conv_bn(g, width // 2, 1, "leaky", name=f"{place}_conv1")
    conv_bn(g, width, 3, "leaky", name=f"{place}_conv2")
    g.shortcut(source, name=f"{place}_add")
  return g.last


def fprn_backbone(g: Builder, sparsity: float) -> Levels:
  """Darknet-53 with partial shortcuts: characteristic 1."""
  conv_bn(g, 32, 3, "leaky", name="stem")
  ends = [
    partial_stage(g, i, (channels,) * (units + 1), sparsity) for i, (channels, units) in enumerate(DARKNET53_STAGES, 1)
  ]
  return Levels(*ends[2:])


def prn_backbone(g: Builder, schedule: Schedule, gamma: float) -> Levels:
  """Darknet-53 with widths that change linearly within a stage: characteristic 2."""
  conv_bn(g, 32, 3, "leaky", name="stem")
  ends = [
    partial_stage(g, i, stage_widths(schedule, channels, units, gamma))
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
  reference="PRN paper, section 4.2 and table 2",
  published=(
    Published(size=320, bflops=25.106, ap=28.4, source=PRN_TABLE_2),
    Published(size=416, bflops=42.429, ap=30.8, source=PRN_TABLE_2),
  ),
)
def yolov3_prn(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS, gamma: float = 0.5) -> None:
  detector(g, prn_backbone(g, "shrink", gamma), num_classes, anchors)
