"""PeleeNet, and detectors on it.

Papers: Wang, Li, Ling, "Pelee: A Real-Time Object Detection System on Mobile Devices" (NeurIPS 2018), table 1 and
section 3; for the partial residual head: see prn.py. Reference: the authors' Robert-JunWang/PeleeNet and Pelee
(Apache-2.0) for PeleeNet and its SSD; README and Results.md of WongKinYiu/PartialResidualNetworks for the figures
of the others, whose cfg files were never published ("just follow the prototxt provided by Wang", its issue 15).
"# Parameter" there counts what a weights file holds, so rolling statistics too.

- pelee-prn: PeleeNet and tiny-PRN's head without its first unit. Meets every published figure: 4.039 BFLOPs at 416
  (4.04), 2.390 at 320 (2.39), 3.159M values (3.16).
- pelee-fpn: the same with a concatenation at p4 where pelee-prn adds. Of 39 x 1,334 tried pairs of branches (up to
  six convolutions, usual widths, joined by concatenation, addition or a lateral 1x1) this has the fewest layers of
  those that meet all three figures: 4.836 (4.84), 2.861 (2.86), 3.749M (3.75).
- pelee-yolov3 ("Pelee-YOLOv3-tiny" in Results.md): one more 1x1 and 3x3 convolution behind that join, as YOLOv3
  alternates them; the plainest of those that meet 5.06, 2.99 and 3.91M (5.057, 2.992, 3.913M). YOLOv3-tiny's own
  widths do not: its 3x3 with 256 filters at p4 alone would give 4.52M. The author points to
  eric612/Yolo-Model-Zoo (issue 2 of his repository), whose README gives its Pelee-YOLOv3 for VOC at 416 3.85M values and
  4.25 billion multiply-adds; ours with 20 classes has 3.844M values, but 2.5 billion, the half of 5.06 BFLOPs.
- pelee-prn-3l: a third level that does what p4 does: 3.357M (3.36), 5.036 (5.03) and 2.980 at 320. The sources print
  3.98 there, an erratum for 2.98: 5.03 / 1.69.
- mpelee-prn ("Pelee2-PRN (private)" in Results.md): nothing about it is published but its cost, 4.76, 2.82 and
  3.81M. Of PeleeNets in which two numbers of layers differ, 3/5/10/6 comes nearest: 4.805 (+0.9%), 2.843 (+0.8%),
  3.775M (-0.9%). No tried change of one or two numbers (layers, growth, bottleneck widths, stem, last 1x1) meets
  all three.
- pelee-ssd: the authors' SSD with YOLO's heads: extra layers, residual prediction blocks, six sets of six boxes, the
  19x19 map used twice. SSD predicts 4 + 81 values a box and YOLO 4 + 1 + 80; so [yolo] heads with SSD's default boxes
  as anchors cost the same, and stand in for SSD's box code and softmax. 5.981M learnable values (5.98); 2.570 BFLOPs,
  of which the Pelee paper's 1.29 billion multiply-adds, rounded and doubled, made 2.58.

| model        | size | parameters | BFLOPs |
|--------------|------|------------|--------|
| peleenet     | 224  | 2,802,248  | 1.017  |
| pelee-prn    | 416  | 3,147,486  | 4.039  |
| pelee-prn-3l | 416  | 3,344,733  | 5.036  |
| pelee-fpn    | 416  | 3,737,310  | 4.836  |
| pelee-yolov3 | 416  | 3,901,662  | 5.057  |
| mpelee-prn   | 416  | 3,761,982  | 4.805  |
| pelee-ssd    | 304  | 5,981,012  | 2.570  |
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Anchors, Levels, conv_bn, fpn_merge, pooled_classifier, yolo_head
from prn_jax.models.prn import MASKS, prn_level, prn_pyramid
from prn_jax.models.registry import Published, register
from prn_jax.models.sources import CSP_README, PRN_README, PRN_RESULTS, PRN_TABLE_3
from prn_jax.models.yolov3 import ANCHORS, TINY_ANCHORS, Head
from prn_jax.models.yolov3 import MASKS as THREE_MASKS

GROWTH = 32  # channels that a unit adds, half of them by each way
PAPER = "Pelee paper, table 1; Robert-JunWang/PeleeNet"
FIGURES = "README and Results.md of WongKinYiu/PartialResidualNetworks"


class Stage(NamedTuple):
  """Sizes of a dense stage."""

  units: int
  width: int  # of the 1x1 convolutions, in halves of `GROWTH`: the paper's dynamic bottleneck


PELEENET = (Stage(3, 1), Stage(4, 2), Stage(8, 4), Stage(6, 4))  # paper, table 1
MPELEENET = (Stage(3, 1), Stage(5, 2), Stage(10, 4), Stage(6, 4))  # derived, see above


def stem(g: Builder) -> None:
  """A quarter of the size by two ways: a strided convolution and a pool (paper, figure 2)."""
  first = conv_bn(g, 32, 3, "relu", stride=2, name="stem_conv")
  pool = g.maxpool(2, 2, name="stem_pool")
  g.route(first, name="stem_from")
  conv_bn(g, 16, 1, "relu", name="stem_reduce")
  down = conv_bn(g, 32, 3, "relu", stride=2, name="stem_down")
  g.route(pool, down, name="stem_concat")
  conv_bn(g, 32, 1, "relu", name="stem_out")


def dense_unit(g: Builder, place: str, width: int) -> str:
  """Two-way dense layer: a 3x3 convolution near, two in turn far (paper, figure 1)."""
  x, half = g.last, GROWTH // 2
  hidden = min(half * width, g.shape().channels // 2)
  conv_bn(g, hidden, 1, "relu", name=f"{place}_near1")
  near = conv_bn(g, half, 3, "relu", name=f"{place}_near2")
  g.route(x, name=f"{place}_from")
  conv_bn(g, hidden, 1, "relu", name=f"{place}_far1")
  conv_bn(g, half, 3, "relu", name=f"{place}_far2")
  far = conv_bn(g, half, 3, "relu", name=f"{place}_far3")
  return g.route(x, near, far, name=f"{place}_concat")


def backbone(g: Builder, stages: tuple[Stage, ...] = PELEENET) -> Levels:
  """Stem and four dense stages; the 1x1 convolution behind a stage keeps its channels."""
  stem(g)
  ends = []
  for stage, (units, width) in enumerate(stages, 1):
    if stage > 1:
      g.local_avgpool(2, 2, name=f"stage{stage - 1}_pool")
    for unit in range(1, units + 1):
      dense_unit(g, f"stage{stage}_unit{unit}", width)
    ends.append(conv_bn(g, g.shape().channels, 1, "relu", name=f"stage{stage}_transition"))
  return Levels(*ends[1:])


@register(
  "peleenet",
  size=224,
  task="classify",
  reference=PAPER,
  published=(Published(size=224, bflops=1.017, params_m=2.79, top1=70.7, top5=90.0, source=CSP_README),),
)
def peleenet(g: Builder, num_classes: int = 1000) -> None:
  backbone(g)
  pooled_classifier(g, num_classes, dropout=0.05)


@register(
  "pelee-prn",
  size=416,
  task="detect",
  reference=f"{PAPER}; PRN paper, figure 4",
  published=(
    Published(size=320, bflops=2.39, params_m=3.16, ap=20.9, ap50=40.9, source=f"{PRN_TABLE_3}; {PRN_RESULTS}"),
    Published(size=416, bflops=4.04, params_m=3.16, ap=23.3, ap50=45.0, source=f"{PRN_README}; {PRN_RESULTS}"),
  ),
)
def pelee_prn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  prn_pyramid(g, backbone(g).p4, head)


@register(
  "mpelee-prn",
  size=416,
  task="detect",
  status="reconstructed",
  reference=FIGURES,
  published=(
    Published(size=320, bflops=2.82, params_m=3.81, ap=22.2, ap50=42.7, source=f"{PRN_README}; {PRN_RESULTS}"),
    Published(size=416, bflops=4.76, params_m=3.81, ap=24.8, ap50=46.8, source=f"{PRN_README}; {PRN_RESULTS}"),
  ),
)
def mpelee_prn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  prn_pyramid(g, backbone(g, MPELEENET).p4, head)


@register(
  "pelee-prn-3l",
  size=416,
  task="detect",
  status="reconstructed",
  reference=FIGURES,
  published=(
    Published(size=320, params_m=3.36, ap=21.2, ap50=42.5, source=f"{PRN_README}; {PRN_RESULTS}"),
    Published(size=416, bflops=5.03, params_m=3.36, ap=24.1, ap50=46.3, source=f"{PRN_README}; {PRN_RESULTS}"),
  ),
)
def pelee_prn_3l(g: Builder, num_classes: int = 80, anchors: Anchors = ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=THREE_MASKS, num_classes=num_classes)
  levels = backbone(g)
  p4 = prn_pyramid(g, levels.p4, head)
  prn_level(g, "p3", p4, levels.p3, head)


def concat_pyramid(g: Builder, p4: str, head: Head) -> None:
  """YOLOv3-tiny's two levels with the widths of tiny-PRN's; stands behind the last 3x3 convolution of p4."""
  reduced = conv_bn(g, 256, 1, "leaky", name="p5_reduce")
  conv_bn(g, 256, 3, "leaky", name="p5_conv2")
  head("p5")
  fpn_merge(g, "p4", reduced, p4, 128)
  conv_bn(g, 128, 3, "leaky", name="p4_conv1")


@register(
  "pelee-fpn",
  size=416,
  task="detect",
  status="reconstructed",
  reference=FIGURES,
  published=(
    Published(size=320, bflops=2.86, params_m=3.75, ap=21.3, ap50=41.4, source=f"{PRN_README}; {PRN_RESULTS}"),
    Published(size=416, bflops=4.84, params_m=3.75, ap=23.9, ap50=45.7, source=f"{PRN_README}; {PRN_RESULTS}"),
  ),
)
def pelee_fpn(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  concat_pyramid(g, backbone(g).p4, head)
  head("p4")


@register(
  "pelee-yolov3",
  size=416,
  task="detect",
  status="reconstructed",
  reference=FIGURES,
  published=(
    Published(size=320, bflops=2.99, params_m=3.91, ap=21.2, ap50=41.4, source=f"{PRN_README}; {PRN_RESULTS}"),
    Published(size=416, bflops=5.06, params_m=3.91, ap=23.6, ap50=45.3, source=f"{PRN_README}; {PRN_RESULTS}"),
  ),
)
def pelee_yolov3(g: Builder, num_classes: int = 80, anchors: Anchors = TINY_ANCHORS) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=MASKS, num_classes=num_classes)
  concat_pyramid(g, backbone(g).p4, head)
  conv_bn(g, 128, 1, "leaky", name="p4_conv2")
  conv_bn(g, 128, 3, "leaky", name="p4_conv3")
  head("p4")


# Sizes of SSD's default boxes in percent of the input: the smallest, then 15 to 87 in steps of 18.
SSD_PERCENTS = (7, 15, 33, 51, 69, 87, 105)
SSD_LEVELS = ("p4_small", "p4", "p5", "p6", "p7", "p8")
SSD_MASKS = {level: tuple(range(6 * i, 6 * i + 6)) for i, level in enumerate(SSD_LEVELS)}


def default_boxes(size: int) -> tuple[tuple[float, float], ...]:
  """(width, height) in pixels of six boxes a level: a square, one half-way to the next level's, and the first
  square's area at 2:1, 1:2, 3:1, 1:3."""
  boxes: list[tuple[float, float]] = []
  for low, high in itertools.pairwise(SSD_PERCENTS):
    small, large = size * low / 100, size * high / 100
    middle = math.sqrt(small * large)
    boxes += [(small, small), (middle, middle)]
    boxes += [(small * math.sqrt(ratio), small / math.sqrt(ratio)) for ratio in (2, 1 / 2, 3, 1 / 3)]
  return tuple((float(round(width)), float(round(height))) for width, height in boxes)


SSD_BOXES = default_boxes(304)


def extra_maps(g: Builder) -> list[str]:
  """SSD's three coarser maps: a strided and two unpadded convolutions; without batch norm."""
  ends = []
  for level, reduce, stride, padding in (("p6", 256, 2, 1), ("p7", 128, 1, 0), ("p8", 128, 1, 0)):
    g.conv(reduce, 1, activation="relu", name=f"{level}_reduce")
    ends.append(g.conv(256, 3, stride=stride, padding=padding, activation="relu", name=f"{level}_conv"))
  return ends


def prediction_block(g: Builder, place: str, source: str) -> str:
  """Residual block in front of a head (paper, figure 4)."""
  g.route(source, name=f"{place}_predict_from")
  skip = conv_bn(g, 256, 1, "linear", name=f"{place}_predict_skip")
  g.route(source, name=f"{place}_predict_back")
  conv_bn(g, 128, 1, "relu", name=f"{place}_predict_conv1")
  conv_bn(g, 128, 3, "relu", name=f"{place}_predict_conv2")
  conv_bn(g, 256, 1, "linear", name=f"{place}_predict_conv3")
  return g.shortcut(skip, activation="relu", name=f"{place}_predict_add")


@register(
  "pelee-ssd",
  size=304,
  task="detect",
  status="reconstructed",
  reference="Pelee paper, section 3; Robert-JunWang/Pelee",
  stride=304,
  note="its heads are YOLO's, in the place of SSD's box code and softmax",
  published=(Published(size=304, bflops=2.58, params_m=5.98, ap50=38.3, source=f"{PRN_TABLE_3}; {PRN_README}"),),
)
def pelee_ssd(g: Builder, num_classes: int = 80, anchors: Anchors = SSD_BOXES) -> None:
  head = functools.partial(yolo_head, g, anchors=anchors, masks=SSD_MASKS, num_classes=num_classes)
  levels = backbone(g)
  sources = [levels.p4, levels.p5, *extra_maps(g)]
  for level, source in zip(SSD_LEVELS[1:], sources, strict=True):
    block = prediction_block(g, level, source)
    if level == "p4":
      head("p4_small")
      g.route(block, name="p4_again")
    head(level)
