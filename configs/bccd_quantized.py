"""Blood cells (BCCD): YOLOv3-tiny-PRN in 4 bits, from a trained network and taught by it. Source of the numbers: ours.

Starts from a run of `bccd_tiny_prn`, which is the teacher as well; a pruned network takes the place of the student with
--config.model=PRUNED --config.weights=PRUNED. Batch norm is folded while training, so that the integers that are trained are those
that run. Without a teacher, for comparison: --config.distill.teacher= with --config.distill.losses=(). In 8 bits, for shifts alone:
--config.quant.preset=iao8-pow2.
Expected: not yet run.
Run: prn train --config=bccd_quantized:ROOT --config.weights=runs/bccd --config.distill.teacher=runs/bccd --workdir=runs/bccd_4bit
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import bccd_tiny_prn


def get_config(root: str = "data/bccd/BCCD") -> ml_collections.ConfigDict:
  config = bccd_tiny_prn.get_config(root)
  config.weights = "runs/bccd"
  config.optim.learning_rate = 5e-4  # a quarter of that from scratch
  config.quant.preset, config.quant.fold = "iao4", True
  config.distill.teacher = "runs/bccd"
  config.distill.losses = ("objectness",)
  return config
