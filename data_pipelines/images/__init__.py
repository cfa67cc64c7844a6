"""Photos: formats, decoding, and bringing them to the size of a network."""

from prn_jax.data_pipelines.images.read import MAX_PIXELS, ImageError, read_image
from prn_jax.data_pipelines.images.resize import (
  CANVAS,
  DETECTOR_RESIZES,
  Placement,
  Resize,
  letterbox,
  resize_bilinear,
  resize_min_center_crop,
  stretch,
  to_float,
)

__all__ = [
  "CANVAS",
  "DETECTOR_RESIZES",
  "MAX_PIXELS",
  "ImageError",
  "Placement",
  "Resize",
  "letterbox",
  "read_image",
  "resize_bilinear",
  "resize_min_center_crop",
  "stretch",
  "to_float",
]
