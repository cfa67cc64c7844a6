"""Darknet-53's plan for images of 32x32 pixels, small enough to train on a laptop.

Reference: none; it is ours, for experiments. Stem, strided convolutions and residual units are those of Darknet-53
(YOLOv3, table 1) with three stages instead of five, so that everything that is said of its stages can be tried on it.

| model         | size | parameters | BFLOPs |
|---------------|------|------------|--------|
| darknet-cifar | 32   | 521,306    | 0.034  |
"""

from __future__ import annotations

from prn_jax.graph.builder import Builder
from prn_jax.models.blocks import conv_bn, pooled_classifier
from prn_jax.models.darknet import residual_stage
from prn_jax.models.registry import register

STAGES = ((32, 2), (64, 4), (128, 4))  # (channels, residual units)


@register(
  "darknet-cifar", size=32, task="classify", reference="prn_jax: Darknet-53's plan at 32x32", status="own", stride=8
)
def darknet_cifar(g: Builder, num_classes: int = 10, width_multiplier: float = 1.0) -> None:
  """`width_multiplier` multiplies all channels, for experiments that have to be shorter still."""
  conv_bn(g, round(16 * width_multiplier), 3, "leaky", name="stem")
  for stage, (channels, units) in enumerate(STAGES, 1):
    residual_stage(g, stage, round(channels * width_multiplier), units, "leaky")
  pooled_classifier(g, num_classes, dropout=0.0)
