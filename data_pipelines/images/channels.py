"""Photos for networks of one channel: Darknet loads an image with as many channels as [net] says, one being grey.

Grey is (77 R + 150 G + 29 B) / 256, rounded down, before anything else happens to the image: what Darknet's decoder
(stb_image) makes of coloured pixels; a grey file keeps its values. Differs: of a JPEG Darknet takes the brightness that
the file stores, without the way through RGB, which is the same up to rounding (docs/numerics.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prn_jax.errors import PrnError

GREY, RGB = 1, 3


def check_channels(channels: int, network: str) -> None:
  """Raises PrnError unless photos can be given to a network with so many channels."""
  if channels not in (GREY, RGB):
    raise PrnError(
      f"network '{network}' takes images of {channels} channels ([net] channels={channels}); photos have 3 (RGB), or 1 "
      "as grey. Model.forward takes arrays with any number of channels."
    )


def to_grey(image_u8: NDArray[np.uint8]) -> NDArray[np.uint8]:
  """(h, w, 3) uint8 RGB -> (h, w, 1) uint8 (stb_image: `stbi__compute_y`)."""
  red, green, blue = (image_u8[..., i].astype(np.uint16) for i in range(3))
  return ((77 * red + 150 * green + 29 * blue) >> 8).astype(np.uint8)[..., None]


def to_channels(image_u8: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
  """An RGB image (h, w, 3) uint8 as a network of 3 channels or of 1 takes it."""
  return image_u8 if channels == RGB else to_grey(image_u8)


def seen_in(image_u8: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
  """The RGB image itself; for a network of one channel its grey in all three, which augmentation changes alike.

  So colours turn nothing, and only the exposure and what moves pixels work, as in Darknet with one channel.
  """
  return image_u8 if channels == RGB else np.repeat(to_grey(image_u8), 3, -1)
