"""Traffic cameras, 416x256: YOLOv3-tiny with three heads, trained alike (the paper's table 2 in small).

The argument is VARIANT or VARIANT,ROOT: VARIANT as in small_head_vehicles, ROOT and training as in traffic_tiny_prn.
Source of the numbers: ours.
Expected: AP50 0.015, 0.026 and 0.013 for yolov3-tiny, yolov3-tiny-prn and multi-source after 300 steps at 320x192
(docs/experiments.md). Not yet run at full length.
All variants, several seeds, table and latency: python -m prn_jax.experiments.table2 (docs/experiments.md).
Run: prn train --config=small_head_traffic:multi-source,ROOT --workdir=runs/traffic_multi_source
     prn train --config=small_head_traffic --workdir=runs/small_head_traffic
"""

from __future__ import annotations

import ml_collections

from prn_jax.configs import traffic_tiny_prn
from prn_jax.configs.small_head_vehicles import with_head


def get_config(argument: str = "yolov3-tiny-prn") -> ml_collections.ConfigDict:
  variant, _, root = argument.partition(",")
  return with_head(traffic_tiny_prn.get_config(root) if root else traffic_tiny_prn.get_config(), variant)
