"""DenseNet-121 and -201.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017), table 1.
Reference: densenet201.cfg. Differs from the reference: nothing.
The reference differs from the paper: batch norm and a leaky activation stand behind each convolution instead of
batch norm and ReLU before it; pools are 2x2 maxima; the third transition keeps 512 channels instead of 896, which
is DenseNet-121's. DenseNet-121 has no public cfg; it is the reference with the paper's numbers of units.

| model       | size | parameters | BFLOPs |
|-------------|------|------------|--------|
| densenet121 | 256  | 7,915,688  | 7.534  |
| densenet201 | 256  | 17,173,160 | 10.850 |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, conv_classifier
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import IMAGENET_PAGE

GROWTH = 32  # k in the paper
# Units of each dense block. Paper, table 1.
UNITS = {"densenet121": (6, 12, 24, 16), "densenet201": (6, 12, 48, 32)}
TRANSITIONS = (128, 256, 512)  # channels behind each block but the last


def dense_block(g: Builder, block: int, units: int) -> None:
  """Each unit puts its `GROWTH` new channels before all earlier ones."""
  for unit in range(1, units + 1):
    x = g.last
    place = f"block{block}_unit{unit}"
    conv_bn(g, 4 * GROWTH, 1, "leaky", name=f"{place}_conv1")
    new = conv_bn(g, GROWTH, 3, "leaky", name=f"{place}_conv2")
    g.route(new, x, name=f"{place}_concat")


def densenet(g: Builder, units: tuple[int, ...], num_classes: int) -> None:
  """Stem, four dense blocks with transitions between them, classifier."""
  conv_bn(g, 2 * GROWTH, 7, "leaky", stride=2, name="stem")
  g.maxpool(size=2, stride=2, name="stem_pool")
  for block, count in enumerate(units, 1):
    dense_block(g, block, count)
    if block <= len(TRANSITIONS):
      conv_bn(g, TRANSITIONS[block - 1], 1, "leaky", name=f"transition{block}_conv")
      g.maxpool(size=2, stride=2, name=f"transition{block}_pool")
  conv_classifier(g, num_classes)


@register(
  "densenet121",
  size=256,
  task="classify",
  status="reconstructed",
  reference="DenseNet paper, table 1, in the form of densenet201.cfg",
)
def densenet121(g: Builder, num_classes: int = 1000) -> None:
  densenet(g, UNITS["densenet121"], num_classes)


@register(
  "densenet201",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}densenet201.cfg",
  published=(Published(size=256, bflops=10.85, top1=77.0, top5=93.7, source=IMAGENET_PAGE),),
)
def densenet201(g: Builder, num_classes: int = 1000) -> None:
  densenet(g, UNITS["densenet201"], num_classes)
