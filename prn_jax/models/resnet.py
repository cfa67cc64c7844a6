"""ResNet-50, -101 and -152, and ResNeXt-50.

Papers: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (CVPR 2016), table 1; Xie, Girshick,
Dollár, Tu, He, "Aggregated Residual Transformations for Deep Neural Networks" (CVPR 2017), table 1, template 32x4d.
Reference: resnet50.cfg, resnet101.cfg, resnet152.cfg, resnext50.cfg. Differs from the references: nothing.
The references differ from the papers: leaky instead of ReLU; a 2x2 pool behind the stem instead of 3x3; the stride
stands in the 3x3 convolution; no projection where a stage widens the map or halves its size. There Darknet's
shortcut adds every second row and column of the narrower map to the first channels: a partial residual.
ResNeXt-50 has 10.110 BFLOPs in convolutions, as published (10.11).

| model     | size | parameters | BFLOPs |
|-----------|------|------------|--------|
| resnet50  | 256  | 22,780,456 | 10.007 |
| resnet101 | 256  | 41,772,584 | 19.709 |
| resnet152 | 256  | 57,416,232 | 29.412 |
| resnext50 | 256  | 22,252,328 | 10.119 |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, conv_classifier, pooled_classifier
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import IMAGENET_PAGE, YOLOV3_TABLE_2

# Units of each stage. Paper, table 1.
UNITS = {
  "resnet50": (3, 4, 6, 3),
  "resnet101": (3, 4, 23, 3),
  "resnet152": (3, 8, 36, 3),
}
OUTER_WIDTHS = (256, 512, 1024, 2048)  # of the results of units
INNER_WIDTHS = (64, 128, 256, 512)  # of the 3x3 convolutions
# ResNeXt's template 32x4d: 32 groups of 4 channels in the first stage, and twice as many in each further one.
RESNEXT_INNER_WIDTHS = (128, 256, 512, 1024)
CARDINALITY = 32


def stages(g: Builder, units: tuple[int, ...], inner_widths: tuple[int, ...], groups: int = 1) -> None:
  """Stem and four stages of bottleneck units, whose 3x3 convolutions have `inner_widths` channels and `groups`."""
  conv_bn(g, 64, 7, "leaky", stride=2, name="stem")
  g.maxpool(size=2, stride=2, name="stem_pool")
  for stage, (inner, outer, count) in enumerate(zip(inner_widths, OUTER_WIDTHS, units, strict=True), 1):
    for unit in range(1, count + 1):
      bottleneck(g, f"stage{stage}_unit{unit}", inner, outer, 2 if stage > 1 and unit == 1 else 1, groups)


def bottleneck(g: Builder, place: str, inner: int, outer: int, stride: int, groups: int) -> None:
  """1x1, 3x3 and 1x1 convolution; the input is added, as far as its channels reach, before the activation."""
  x = g.last
  conv_bn(g, inner, 1, "leaky", name=f"{place}_conv1")
  conv_bn(g, inner, 3, "leaky", stride=stride, groups=groups, name=f"{place}_conv2")
  conv_bn(g, outer, 1, "linear", name=f"{place}_conv3")
  g.shortcut(x, activation="leaky", name=f"{place}_add")


def resnet(g: Builder, units: tuple[int, ...], num_classes: int) -> None:
  """Stem, four stages, classifier."""
  stages(g, units, INNER_WIDTHS)
  conv_classifier(g, num_classes)


@register(
  "resnet50",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}resnet50.cfg",
  published=(Published(size=256, bflops=9.74, top1=75.8, top5=92.9, source=IMAGENET_PAGE),),
)
def resnet50(g: Builder, num_classes: int = 1000) -> None:
  resnet(g, UNITS["resnet50"], num_classes)


@register(
  "resnet101",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}resnet101.cfg",
  published=(
    Published(size=256, bflops=19.7, source=YOLOV3_TABLE_2),
    Published(size=256, bflops=19.70, top1=77.1, top5=93.7, source=IMAGENET_PAGE),
  ),
)
def resnet101(g: Builder, num_classes: int = 1000) -> None:
  resnet(g, UNITS["resnet101"], num_classes)


@register(
  "resnet152",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}resnet152.cfg",
  published=(
    Published(size=256, bflops=29.4, source=YOLOV3_TABLE_2),
    Published(size=256, bflops=29.39, top1=77.6, top5=93.8, source=IMAGENET_PAGE),
  ),
)
def resnet152(g: Builder, num_classes: int = 1000) -> None:
  resnet(g, UNITS["resnet152"], num_classes)


@register(
  "resnext50",
  size=256,
  task="classify",
  reference="pjreddie/darknet 31c2b548 cfg/resnext50.cfg",
  published=(Published(size=256, bflops=10.11, source=IMAGENET_PAGE),),
)
def resnext50(g: Builder, num_classes: int = 1000) -> None:
  stages(g, UNITS["resnet50"], RESNEXT_INNER_WIDTHS, CARDINALITY)
  pooled_classifier(g, num_classes, dropout=0)
