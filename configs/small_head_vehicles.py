"""Vehicles of Open Images, 256x256: YOLOv3-tiny with three heads, trained alike (the paper's table 2 in small).

The argument is VARIANT or VARIANT,ROOT. VARIANT is yolov3-tiny (levels are concatenated), yolov3-tiny-prn (the paper's
network), or multi-source: YOLOv3-tiny whose backbone stays and whose levels are joined by partial residuals of several
sources (prn_jax.transforms.partial_residual.multi_source). ROOT and training are those of vehicles_tiny_prn. Source of
the numbers: ours.
Expected: AP50 0.18, 0.24 and 0.18 for yolov3-tiny, yolov3-tiny-prn and multi-source after 300 steps at 192x192
(docs/experiments.md). Not yet run at full length.
All variants, several seeds, table and latency: python -m prn_jax.experiments.table2 (docs/experiments.md).
Run: prn train --config=small_head_vehicles:multi-source,ROOT --workdir=runs/vehicles_multi_source
     prn train --config=small_head_vehicles --workdir=runs/small_head_vehicles
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import vehicles_tiny_prn

# variant -> (model, transforms)
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
  "yolov3-tiny": ("yolov3-tiny", ()),
  "yolov3-tiny-prn": ("yolov3-tiny-prn", ()),
  "multi-source": ("yolov3-tiny", ("multi-source",)),
}


def get_config(argument: str = "yolov3-tiny-prn") -> ml_collections.ConfigDict:
  variant, _, root = argument.partition(",")
  return with_head(vehicles_tiny_prn.get_config(root) if root else vehicles_tiny_prn.get_config(), variant)


def with_head(config: ml_collections.ConfigDict, variant: str) -> ml_collections.ConfigDict:
  """A configuration of YOLOv3-tiny-PRN with another head."""
  if variant not in VARIANTS:
    raise ValueError(f"there is no variant '{variant}'; expected one of {', '.join(VARIANTS)}")
  config.model, config.transforms = VARIANTS[variant]
  return config
