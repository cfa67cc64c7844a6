"""Blood cells (BCCD): fine-tuning of a sparse or pruned YOLOv3-tiny-PRN, taught by the network that it comes from. Source of the
numbers: ours.

Starts from a run of `bccd_sparse` and learns from one of `bccd_tiny_prn`; a pruned network takes the place of the student with
--config.model=PRUNED --config.weights=PRUNED. Without a teacher, for comparison: --config.distill.teacher= with
--config.distill.losses=().
Expected: not yet run.
Run: prn train --config=bccd_distilled:ROOT --config.weights=runs/bccd_sparse --config.distill.teacher=runs/bccd --workdir=runs/tuned
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import bccd_tiny_prn


def get_config(root: str = "data/bccd/BCCD") -> ml_collections.ConfigDict:
  config = bccd_tiny_prn.get_config(root)
  config.weights = "runs/bccd_sparse"
  config.optim.learning_rate = 1e-3  # half of that from scratch
  config.distill.teacher = "runs/bccd"
  config.distill.losses = ("objectness", "cwd")
  return config
