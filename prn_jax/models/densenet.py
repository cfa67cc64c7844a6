"""DenseNet-201.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks" (CVPR 2017), table 1.
Reference: densenet201.cfg. Differs from the reference: nothing.
The reference differs from the paper: batch norm and a leaky activation stand behind each convolution instead of
batch norm and ReLU before it; pools are 2x2 maxima; the third transition keeps 512 channels instead of 896.

| model       | size | parameters | BFLOPs |
|-------------|------|------------|--------|
| densenet201 | 256  | 17,173,160 | 10.850 |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, conv_classifier
from prn_jax.models.registry import ALEXEYAB, Published, register
from prn_jax.models.sources import IMAGENET_PAGE

GROWTH = 32  # k in the paper
UNITS = (6, 12, 48, 32)  # of each dense block
TRANSITIONS = (128, 256, 512)  # channels behind each block but the last


def dense_block(g: Builder, block: int, units: int) -> None:
  """Each unit puts its `GROWTH` new channels before all earlier ones."""
  for unit in range(1, units + 1):
    x = g.last
    place = f"block{block}_unit{unit}"
    conv_bn(g, 4 * GROWTH, 1, "leaky", name=f"{place}_conv1")
    new = conv_bn(g, GROWTH, 3, "leaky", name=f"{place}_conv2")
    g.route(new, x, name=f"{place}_concat")


@register(
  "densenet201",
  size=256,
  task="classify",
  reference=f"{ALEXEYAB}densenet201.cfg",
  published=(Published(size=256, bflops=10.85, top1=77.0, top5=93.7, source=IMAGENET_PAGE),),
)
def densenet201(g: Builder, num_classes: int = 1000) -> None:
  conv_bn(g, 2 * GROWTH, 7, "leaky", stride=2, name="stem")
  g.maxpool(size=2, stride=2, name="stem_pool")
  for block, units in enumerate(UNITS, 1):
    dense_block(g, block, units)
    if block <= len(TRANSITIONS):
      conv_bn(g, TRANSITIONS[block - 1], 1, "leaky", name=f"transition{block}_conv")
      g.maxpool(size=2, stride=2, name=f"transition{block}_pool")
  conv_classifier(g, num_classes)
