"""SparseNet for images of 32x32 pixels.

Paper: Zhu, Deng, Maire, Deng, Mori, Tan, "Sparsely Aggregated Convolutional Networks" (ECCV 2018). Reference: the
README of Lyken17/SparseNet, whose code we did not open: "only aggregates previous layers with exponential offset, for
example, i - 1, i - 2, i - 4, i - 8, i - 16". All else is DenseNet's (Huang et al., CVPR 2017, section 4): three blocks;
batch norm and ReLU before each convolution; the first convolution has twice the growth rate; transitions of a 1x1
convolution and a 2x2 mean; BC: 1x1 convolutions of four times the growth rate inside the units, and transitions that
halve the channels. A transition and the classifier read their block by the same offsets.
Differs from the paper: convolutions without batch norm have a bias, as in Darknet (1,104 and 1,320 parameters).
The README prints 0.76M for SparseNet-40-24 and 1.46M for SparseNet-BC-100-24 on CIFAR-100. At a depth of 100 without BC
the same rules give the 5.65M and 7.22M that it prints for growth rates of 36 and of 16, 32, 64; with BC, 4.37M for 16,
32, 64 (printed: 4.38M) and 17.34M for 32, 64, 128 (printed: 16.72M, which we cannot explain).

| model               | size | parameters | BFLOPs |
|---------------------|------|------------|--------|
| sparsenet-40-24     | 32   | 758,356    | 0.624  |
| sparsenet-bc-100-24 | 32   | 1,462,444  | 1.282  |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, pooled_classifier
from prn_jax.models.registry import Published, register

BLOCKS = 3
README = "README of Lyken17/SparseNet (CIFAR-100)"


def sources(layers: list[str]) -> list[str]:
  """Those 1, 2, 4, 8, ... before the next one, the nearest first."""
  return [layers[-(1 << i)] for i in range(len(layers).bit_length())]


def aggregate(g: Builder, place: str, layers: list[str]) -> None:
  """Joins what the next layer reads of `layers`, the block's input and its units."""
  chosen = sources(layers)
  if chosen != [g.last]:
    g.route(*chosen, name=f"{place}_concat")


def norm(g: Builder, place: str) -> None:
  """Batch norm and ReLU, which stand before a convolution here."""
  g.batchnorm(name=f"{place}_norm")
  g.activation("relu", name=f"{place}_relu")


def sparse_block(g: Builder, block: int, units: int, growth: int, *, bc: bool) -> list[str]:
  """The block's input and its units, each with `growth` channels."""
  layers = [g.last]
  for unit in range(1, units + 1):
    place = f"block{block}_unit{unit}"
    aggregate(g, place, layers)
    norm(g, place)
    if bc:
      conv_bn(g, 4 * growth, 1, "relu", name=f"{place}_reduce")  # with what stands before the next convolution
    layers.append(g.conv(growth, 3, padding=1, name=f"{place}_conv"))
  return layers


def sparsenet(g: Builder, num_classes: int, depth: int, growth: int, *, bc: bool) -> None:
  """`depth` counts the stem, the convolutions of all units, those of the transitions and the classifier."""
  g.conv(2 * growth, 3, padding=1, name="stem")
  units = (depth - BLOCKS - 1) // BLOCKS // (2 if bc else 1)
  for block in range(1, BLOCKS + 1):
    layers = sparse_block(g, block, units, growth, bc=bc)
    place = f"transition{block}" if block < BLOCKS else "head"
    aggregate(g, place, layers)
    norm(g, place)
    if block < BLOCKS:
      g.conv(g.shape().channels // (2 if bc else 1), 1, name=f"{place}_conv")
      g.local_avgpool(2, 2, name=f"{place}_pool")
  pooled_classifier(g, num_classes, dropout=0)


@register(
  "sparsenet-40-24",
  size=32,
  task="classify",
  status="reconstructed",
  reference="SparseNet paper, README of Lyken17/SparseNet",
  stride=4,
  published=(Published(size=32, params_m=0.76, source=README),),
)
def sparsenet_40_24(g: Builder, num_classes: int = 100) -> None:
  sparsenet(g, num_classes, depth=40, growth=24, bc=False)


@register(
  "sparsenet-bc-100-24",
  size=32,
  task="classify",
  status="reconstructed",
  reference="SparseNet paper, README of Lyken17/SparseNet",
  stride=4,
  published=(Published(size=32, params_m=1.46, source=README),),
)
def sparsenet_bc_100_24(g: Builder, num_classes: int = 100) -> None:
  sparsenet(g, num_classes, depth=100, growth=24, bc=True)
