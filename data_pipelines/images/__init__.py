"""Photos: formats, decoding, and bringing them to the size of a network."""

from prn_jax.data_pipelines.images.read import MAX_PIXELS, ImageError, read_image
from prn_jax.data_pipelines.images.resize import (
  CANVAS,
  Placement,
  letterbox,
  resize_bilinear,
  resize_min_center_crop,
  stretch,
  to_float,
)

__all__ = [
  "CANVAS",
  "MAX_PIXELS",
  "ImageError",
  "Placement",
  "letterbox",
  "read_image",
  "resize_bilinear",
  "resize_min_center_crop",
  "stretch",
  "to_float",
]
