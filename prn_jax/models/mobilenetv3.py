"""MobileNetV3, large and small.

Paper: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, "Searching for MobileNetV3" (ICCV
2019), tables 1 and 2. It comes in three forms, which differ in weights:

- "timm", that of the classifiers here: the paper's widths and activations, hidden widths of [se] that are multiples of 8,
  with biases, ImageNet's mean and deviation in front. timm's mobilenetv3_large_100 and _small_100.
- "tf": the same with TensorFlow's padding, an epsilon of 0.001 in batch norm, and pixels in [-1, 1]. timm's
  tf_mobilenetv3_large_100 and _small_100.
- "cfg", that of the detectors (`backbones.py`): relu6 where the paper has ReLU, [se] without biases and a quarter as wide
  as the map, a 1x1 convolution in the first unit too, and 1024 channels at the end.

| model             | size | parameters | BFLOPs |
|-------------------|------|------------|--------|
| mobilenetv3-large | 224  | 5,483,032  | 0.434  |
| mobilenetv3-small | 224  | 2,542,856  | 0.113  |
"""

from __future__ import annotations

from typing import NamedTuple

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import Levels
from prn_jax.models.mobile import HALVES, IMAGENET, Form, Stages, Unit, chosen_form, mobile_backbone, multiple_of
from prn_jax.models.registry import Published, register

PAPER = "MobileNetV3 paper"
SLIM_README = "README of tensorflow/models research/slim/nets/mobilenet (ImageNet), the authors' checkpoints"
FORMS = {
  "timm": Form(normalize=IMAGENET, se=lambda expanded, _: {"squeezed": multiple_of(expanded / 4), "biased": True}),
  "cfg": Form(always_expands=True, activations={"relu": "relu6"}),
}
FORMS["tf"] = FORMS["timm"]._replace(normalize=HALVES, same=True, bn_epsilon=1e-3)


class Size(NamedTuple):
  """Units, and channels of the last convolution of the backbone and of that behind the mean."""

  stages: Stages
  last: int
  hidden: int


# Paper, table 1. Its first unit widens nothing.
LARGE = Size(
  (
    (Unit(3, 0, 16, False, "relu", 1),),
    (Unit(3, 64, 24, False, "relu", 2), Unit(3, 72, 24, False, "relu", 1)),
    (Unit(5, 72, 40, True, "relu", 2), *[Unit(5, 120, 40, True, "relu", 1)] * 2),
    (
      Unit(3, 240, 80, False, "h_swish", 2),
      Unit(3, 200, 80, False, "h_swish", 1),
      *[Unit(3, 184, 80, False, "h_swish", 1)] * 2,
    ),
    (Unit(3, 480, 112, True, "h_swish", 1), Unit(3, 672, 112, True, "h_swish", 1)),
    (Unit(5, 672, 160, True, "h_swish", 2), *[Unit(5, 960, 160, True, "h_swish", 1)] * 2),
  ),
  last=960,
  hidden=1280,
)
# Paper, table 2.
SMALL = Size(
  (
    (Unit(3, 0, 16, True, "relu", 2),),
    (Unit(3, 72, 24, False, "relu", 2), Unit(3, 88, 24, False, "relu", 1)),
    (Unit(5, 96, 40, True, "h_swish", 2), *[Unit(5, 240, 40, True, "h_swish", 1)] * 2),
    (Unit(5, 120, 48, True, "h_swish", 1), Unit(5, 144, 48, True, "h_swish", 1)),
    (Unit(5, 288, 96, True, "h_swish", 2), *[Unit(5, 576, 96, True, "h_swish", 1)] * 2),
  ),
  last=576,
  hidden=1024,
)
CFG_LAST = 1024  # channels of the last convolution in the form "cfg", of both sizes


def backbone(g: Builder, model: str, size: Size, form: str) -> Levels:
  last = CFG_LAST if form == "cfg" else size.last
  chosen = chosen_form(model, FORMS, form)
  return mobile_backbone(g, chosen, size.stages, stem=16, stem_activation="h_swish", last=last)


def hidden_classifier(g: Builder, num_classes: int, hidden: int, activation: str, dropout: float) -> None:
  """Mean, a hidden layer, scores and softmax."""
  g.avgpool(name="head_pool")
  g.conv(hidden, 1, activation=activation, name="head_hidden")
  g.dropout(dropout, name="head_drop")
  g.conv(num_classes, 1, name="head_conv")
  g.softmax(name="head_softmax")


@register(
  "mobilenetv3-large",
  size=224,
  task="classify",
  reference=f"{PAPER}, table 1",
  published=(Published(size=224, bflops=0.434, top1=75.2, source=SLIM_README),),
)
def mobilenetv3_large(g: Builder, num_classes: int = 1000, form: str = "timm") -> None:
  backbone(g, "mobilenetv3-large", LARGE, form)
  hidden_classifier(g, num_classes, LARGE.hidden, "h_swish", 0.2)


@register(
  "mobilenetv3-small",
  size=224,
  task="classify",
  reference=f"{PAPER}, table 2",
  # The README counts 2.9 million parameters and 66 million products, more than table 2 of the paper makes; 67.4 is
  # what others quote from the paper.
  published=(Published(size=224, top1=67.5, source=SLIM_README),),
)
def mobilenetv3_small(g: Builder, num_classes: int = 1000, form: str = "timm") -> None:
  backbone(g, "mobilenetv3-small", SMALL, form)
  hidden_classifier(g, num_classes, SMALL.hidden, "h_swish", 0.2)
