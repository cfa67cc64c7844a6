"""Blood cells (BCCD): sparse training of YOLOv3-tiny-PRN, before it is pruned. Source of the numbers: ours.

Starts from a run of `bccd_tiny_prn`; data, network and augmentation are its own. Plain SGD: adamw would lend the penalty and
the loss the same strength in every channel.
Expected: AP50 0.750 (0.812 before), which fine-tuning wins back, one run (docs/experiments.md).
Run: prn train --config=bccd_sparse:ROOT --config.weights=runs/bccd --workdir=runs/bccd_sparse
     then pruning and fine-tuning with a teacher: `bccd_distilled`
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import bccd_tiny_prn


def get_config(root: str = "data/bccd/BCCD") -> ml_collections.ConfigDict:
  config = bccd_tiny_prn.get_config(root)
  config.weights = "runs/bccd"
  config.optim.name, config.optim.learning_rate, config.optim.momentum = "sgd", 1e-3, 0.9
  config.optim.weight_decay = 5e-4
  config.sparse.strength, config.sparse.scope = 5.0, "coupled"
  config.sparse.schedule, config.sparse.method = "cosine", "proximal"
  return config
