"""The formats that can be written."""

from __future__ import annotations

from prn_jax.data_pipelines.convert.coco import Coco
from prn_jax.data_pipelines.convert.darknet import Darknet
from prn_jax.data_pipelines.convert.layout import Layout
from prn_jax.data_pipelines.convert.voc import Voc
from prn_jax.data_pipelines.convert.yolo import Yolo

LAYOUTS: dict[str, type[Layout]] = {layout.kind: layout for layout in (Coco, Yolo, Voc, Darknet)}
