"""EfficientNet-Lite 0 to 4, and EfficientNet-B0 as its paper has it.

Papers: Tan and Le, "EfficientNet" (ICML 2019), table 1; the Lite forms have none, but tensorflow/tpu's
models/official/efficientnet/lite (Apache-2.0): no squeeze and excitation, relu6, and a stem and a last convolution that
do not grow. Two forms differ in weights:

- "tf", that of Lite here: TensorFlow's padding, an epsilon of 0.001 in batch norm, pixels in [-1, 1]. timm's
  tf_efficientnet_lite0 to 4.
- "timm", that of efficientnet-b0-timm: padding on all sides, ImageNet's mean and deviation in front. timm's
  efficientnet_b0, efficientnet_lite0.

efficientnet_b0.cfg, Darknet's, is another network (`efficientnet.py`). Convolutions of single channels are
[convolutional] with groups, as there.

| model                | size | parameters | BFLOPs |
|----------------------|------|------------|--------|
| efficientnet-lite0   | 224  | 4,652,008  | 0.771  |
| efficientnet-lite1   | 240  | 5,416,680  | 1.201  |
| efficientnet-lite2   | 260  | 6,092,072  | 1.720  |
| efficientnet-lite3   | 280  | 8,197,096  | 2.767  |
| efficientnet-lite4   | 300  | 13,006,568 | 5.108  |
| efficientnet-b0-timm | 224  | 5,288,548  | 0.772  |
"""

from __future__ import annotations

import math
from typing import NamedTuple

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Levels, pooled_classifier
from prn_jax.models.mobile import HALVES, IMAGENET, Form, Stages, Unit, chosen_form, mobile_backbone, multiple_of
from prn_jax.models.registry import Published, register

PAPER = "EfficientNet paper (arXiv:1905.11946, version 5), table 2; the first version has 76.3 and 93.2"
LITE_PAGE = "README of tensorflow/tpu models/official/efficientnet/lite (ImageNet)"
FORMS = {
  "tf": Form(normalize=HALVES, same=True, bn_epsilon=1e-3, depthwise="conv"),
  "timm": Form(normalize=IMAGENET, depthwise="conv"),
}
B0_FORM = Form(
  normalize=IMAGENET,
  depthwise="conv",
  se=lambda _, inputs: {"squeezed": inputs // 4, "biased": True, "activation": "swish", "gate": "logistic"},
)


class Row(NamedTuple):
  """A row of the paper's table 1."""

  kernel: int
  factor: int  # by which units widen the map
  channels: int
  stride: int
  units: int


ROWS = (
  Row(3, 1, 16, 1, 1),
  Row(3, 6, 24, 2, 2),
  Row(5, 6, 40, 2, 2),
  Row(3, 6, 80, 2, 3),
  Row(5, 6, 112, 1, 3),
  Row(5, 6, 192, 2, 4),
  Row(3, 6, 320, 1, 1),
)
LITE = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}  # factors on channels and units


def scaled_stages(width: float, depth: float, activation: str, *, has_se: bool) -> Stages:
  """The rows with `width` times the channels and `depth` times the units; the first and the last keep one unit."""
  stages: list[list[Unit]] = []
  inputs = 32
  for i, row in enumerate(ROWS):
    channels = multiple_of(row.channels * width)
    count = row.units if i in (0, len(ROWS) - 1) else math.ceil(row.units * depth)
    stage = []
    for unit in range(count):
      expanded = 0 if row.factor == 1 else multiple_of(inputs * row.factor)
      stage.append(Unit(row.kernel, expanded, channels, has_se, activation, 1 if unit else row.stride))
      inputs = channels
    stages.append(stage)
  return stages


def lite_backbone(g: Builder, model: str, number: int, form: str) -> Levels:
  stages = scaled_stages(*LITE[number], "relu6", has_se=False)
  return mobile_backbone(g, chosen_form(model, FORMS, form), stages, stem=32, stem_activation="relu6", last=1280)


def _lite(g: Builder, number: int, num_classes: int, form: str) -> None:
  lite_backbone(g, f"efficientnet-lite{number}", number, form)
  pooled_classifier(g, num_classes, dropout=0.2 if number < 3 else 0.3)


@register(
  "efficientnet-lite0",
  size=224,
  task="classify",
  reference=LITE_PAGE,
  published=(Published(size=224, params_m=4.7, top1=75.1, source=LITE_PAGE),),
)
def efficientnet_lite0(g: Builder, num_classes: int = 1000, form: str = "tf") -> None:
  _lite(g, 0, num_classes, form)


@register(
  "efficientnet-lite1",
  size=240,
  task="classify",
  reference=LITE_PAGE,
  published=(Published(size=240, params_m=5.4, top1=76.7, source=LITE_PAGE),),
)
def efficientnet_lite1(g: Builder, num_classes: int = 1000, form: str = "tf") -> None:
  _lite(g, 1, num_classes, form)


@register(
  "efficientnet-lite2",
  size=260,
  task="classify",
  reference=LITE_PAGE,
  published=(Published(size=260, params_m=6.1, top1=77.6, source=LITE_PAGE),),
)
def efficientnet_lite2(g: Builder, num_classes: int = 1000, form: str = "tf") -> None:
  _lite(g, 2, num_classes, form)


@register(
  "efficientnet-lite3",
  size=280,
  task="classify",
  reference=LITE_PAGE,
  published=(Published(size=280, params_m=8.2, top1=79.8, source=LITE_PAGE),),
)
def efficientnet_lite3(g: Builder, num_classes: int = 1000, form: str = "tf") -> None:
  _lite(g, 3, num_classes, form)


@register(
  "efficientnet-lite4",
  size=300,
  task="classify",
  reference=LITE_PAGE,
  published=(Published(size=300, params_m=13.0, top1=81.5, source=LITE_PAGE),),
)
def efficientnet_lite4(g: Builder, num_classes: int = 1000, form: str = "tf") -> None:
  _lite(g, 4, num_classes, form)


def b0_backbone(g: Builder) -> Levels:
  """EfficientNet-B0 as the paper and timm have it."""
  return mobile_backbone(
    g, B0_FORM, scaled_stages(1, 1, "swish", has_se=True), stem=32, stem_activation="swish", last=1280
  )


@register(
  "efficientnet-b0-timm",
  size=224,
  task="classify",
  reference="EfficientNet paper, table 1",
  published=(Published(size=224, params_m=5.3, top1=77.1, top5=93.3, source=PAPER),),
)
def efficientnet_b0_timm(g: Builder, num_classes: int = 1000) -> None:
  b0_backbone(g)
  pooled_classifier(g, num_classes, dropout=0.2)
