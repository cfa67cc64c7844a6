"""CIFAR-10, 32x32: Darknet-53's plan in small, its residual form or a partial one (the paper's figure 11 in small).

The argument is VARIANT or VARIANT,ROOT. VARIANT is "residual" or a transform of prn_jax.transforms.partial_residual:
shrink:GAMMA, expand:GAMMA, bottleneck:GAMMA, the three of the paper's figure 11, where GAMMA is the share of channels at
the thin end of a stage, or fprn:RHO, where RHO is the share of channels that a shortcut does not add: fprn:0.75 adds a
quarter. ROOT is as in cifar10_darknet. Training is the same for all, so that only the network differs; at the
whole width and at half of it, widths of units change exactly linearly. Source of the numbers: ours.
Expected: top-1 of residual 0.63 after 5 epochs at half the width, 0.56 after 3; not yet run at full length.
All variants, several seeds, table and curves: python -m prn_jax.experiments.figure11 (docs/experiments.md).
Run: prn train --config=cifar10_prn:shrink:0.75,ROOT --workdir=runs/cifar10_shrink
     prn train --config=cifar10_prn --workdir=runs/cifar10_prn
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import cifar10_darknet

RESIDUAL = "residual"


def get_config(argument: str = "shrink:0.5") -> ml_collections.ConfigDict:
  variant, _, root = argument.partition(",")
  config = cifar10_darknet.get_config(root) if root else cifar10_darknet.get_config()
  config.transforms = () if variant == RESIDUAL else (variant,)
  config.batch_size = 64  # more updates than with 128, since runs may be short
  config.optim.learning_rate = 0.1
  return config
