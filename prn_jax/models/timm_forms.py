"""Darknet-53, CSPDarknet-53, ResNets and DenseNet-121 in the forms in which timm and torchvision have them.

Reference: timm 1.0 (Apache-2.0), whose ImageNet weights `prn convert --as` reads (docs/backbones.md). A [normalize] layer
with ImageNet's mean and deviation stands in front of each. They differ from the networks of the same names in Darknet:

- darknet53-timm, csdarknet53-timm: the slope of the leaky activation is 0.01 instead of 0.1; CSPDarknet-53 has it
  everywhere, where csdarknet53-omega has mish.
- resnet50-timm, resnet101-timm: ReLU; a 3x3 pool behind the stem; a 1x1 convolution around the first unit of each stage.
- densenet121-timm: batch norm and ReLU before each convolution, as in the paper; means between the blocks.

| model            | size | parameters | BFLOPs |
|------------------|------|------------|--------|
| darknet53-timm   | 256  | 41,609,928 | 18.576 |
| csdarknet53-timm | 256  | 27,642,184 | 13.071 |
| resnet50-timm    | 224  | 25,557,032 | 8.186  |
| resnet101-timm   | 224  | 44,549,160 | 15.614 |
| densenet121-timm | 224  | 7,981,608  | 5.671  |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models import darknet
from prn_jax.models.blocks import Levels, conv_bn, pooled_classifier
from prn_jax.models.densenet import GROWTH
from prn_jax.models.densenet import UNITS as DENSE_UNITS
from prn_jax.models.mobile import IMAGENET
from prn_jax.models.registry import register
from prn_jax.models.resnet import INNER_WIDTHS, OUTER_WIDTHS, UNITS

TIMM = "timm 1.0"
SLOPE = 0.01  # PyTorch's default; Darknet's is 0.1


def darknet53_backbone(g: Builder) -> Levels:
  g.normalize(**IMAGENET, name="stem_normalize")
  with g.defaults_of("conv", leaky_slope=SLOPE):
    return darknet.darknet53_backbone(g)


def csdarknet53_backbone(g: Builder) -> Levels:
  g.normalize(**IMAGENET, name="stem_normalize")
  with g.defaults_of("conv", leaky_slope=SLOPE):
    return darknet.csdarknet53_backbone(g, "leaky")


def resnet_backbone(g: Builder, name: str) -> Levels:
  """Stem and four stages; `name` is a key of `resnet.UNITS`."""
  g.normalize(**IMAGENET, name="stem_normalize")
  conv_bn(g, 64, 7, "relu", stride=2, name="stem")
  g.maxpool(size=3, stride=2, name="stem_pool")
  ends = []
  for stage, (inner, outer, count) in enumerate(zip(INNER_WIDTHS, OUTER_WIDTHS, UNITS[name], strict=True), 1):
    for unit in range(1, count + 1):
      last = bottleneck(g, f"stage{stage}_unit{unit}", inner, outer, stride=2 if stage > 1 and unit == 1 else 1)
    ends.append(last)
  return Levels(*ends[1:])


def bottleneck(g: Builder, place: str, inner: int, outer: int, stride: int) -> str:
  """1x1, 3x3 and 1x1 convolution; the input is added, through a convolution where it has another shape."""
  x, inputs = g.last, g.shape().channels
  conv_bn(g, inner, 1, "relu", name=f"{place}_conv1")
  conv_bn(g, inner, 3, "relu", stride=stride, name=f"{place}_conv2")
  branch = conv_bn(g, outer, 1, "linear", name=f"{place}_conv3")
  if (inputs, 1) == (outer, stride):
    return g.shortcut(x, activation="relu", name=f"{place}_add")
  g.route(x, name=f"{place}_around_from")
  conv_bn(g, outer, 1, "linear", stride=stride, name=f"{place}_around_project")
  return g.shortcut(branch, activation="relu", name=f"{place}_add")


def densenet121_backbone(g: Builder) -> Levels:
  """Stem and four dense blocks; a level is the last map of its size before the means."""
  g.normalize(**IMAGENET, name="stem_normalize")
  conv_bn(g, 2 * GROWTH, 7, "relu", stride=2, name="stem")
  g.maxpool(size=3, stride=2, name="stem_pool")
  counts = DENSE_UNITS["densenet121"]
  ends = []
  for block, count in enumerate(counts, 1):
    for unit in range(1, count + 1):
      dense_unit(g, f"block{block}_unit{unit}")
    ends.append(g.last)
    if block < len(counts):
      channels = g.shape().channels
      normalized_relu(g, f"transition{block}")
      g.conv(channels // 2, 1, name=f"transition{block}_conv")
      g.local_avgpool(2, 2, padding=0, name=f"transition{block}_pool")
  return Levels(ends[1], ends[2], normalized_relu(g, "last"))


def dense_unit(g: Builder, place: str) -> str:
  """Batch norm, ReLU and 1x1 convolution, the same with 3x3; the new channels come behind the old ones."""
  x = g.last
  normalized_relu(g, place)
  conv_bn(g, 4 * GROWTH, 1, "relu", name=f"{place}_conv1")
  new = g.conv(GROWTH, 3, padding=1, name=f"{place}_conv2")
  return g.route(x, new, name=f"{place}_concat")


def normalized_relu(g: Builder, place: str) -> str:
  g.batchnorm(name=f"{place}_norm")
  return g.activation("relu", name=f"{place}_relu")


@register("darknet53-timm", size=256, task="classify", reference=f"{TIMM} darknet53")
def darknet53_timm(g: Builder, num_classes: int = 1000) -> None:
  darknet53_backbone(g)
  pooled_classifier(g, num_classes, dropout=0)


@register("csdarknet53-timm", size=256, task="classify", reference=f"{TIMM} cspdarknet53")
def csdarknet53_timm(g: Builder, num_classes: int = 1000) -> None:
  csdarknet53_backbone(g)
  pooled_classifier(g, num_classes, dropout=0)


@register("resnet50-timm", size=224, task="classify", reference=f"{TIMM} resnet50")
def resnet50_timm(g: Builder, num_classes: int = 1000) -> None:
  resnet_backbone(g, "resnet50")
  pooled_classifier(g, num_classes, dropout=0)


@register("resnet101-timm", size=224, task="classify", reference=f"{TIMM} resnet101")
def resnet101_timm(g: Builder, num_classes: int = 1000) -> None:
  resnet_backbone(g, "resnet101")
  pooled_classifier(g, num_classes, dropout=0)


@register("densenet121-timm", size=224, task="classify", reference=f"{TIMM} densenet121")
def densenet121_timm(g: Builder, num_classes: int = 1000) -> None:
  densenet121_backbone(g)
  pooled_classifier(g, num_classes, dropout=0)
