"""Decoded samples for training: reduced decoding of large JPEGs, and a bounded memory of what was decoded.

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the time, because the small picture is made from
the low frequencies alone. Training uses that for photos much larger than the network's input; evaluation never does.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS, Sample
from prn_jax.data_pipelines.image_sizes import check_stated_size
from prn_jax.data_pipelines.images.orientation import is_turned, upright
from prn_jax.data_pipelines.images.read import MAX_PIXELS, jpeg_has_end, read_file, read_image
from prn_jax.data_pipelines.records import Problem, Record, image_name

AtLeast = tuple[int, int] | Callable[[int, int], tuple[int, int]] | None
"""(width, height) in pixels that decoding must leave of an image, given so or by its own; None is all of it."""

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


class Decoded(NamedTuple):
  """Pixels, and the size that boxes of the file refer to.

  Attributes:
    image: (h, w, 3) uint8 RGB, upright; perhaps smaller than the file.
    width, height: size of the file's image in pixels, upright.
  """

  image: NDArray[np.uint8]
  width: int
  height: int


def read_reduced(record: Record, at_least: AtLeast) -> Decoded:
  """Decodes the image of a record, a JPEG at the smallest of 1, 1/2, 1/4, 1/8 that is still large enough.

  Args:
    record: its image is a path or the bytes of a file.
    at_least: (width, height) in pixels that the result must keep where the file has it, or a function that gives it for
      the (width, height) of the file, upright; None decodes in full.

  Raises:
    images.ImageError: the image cannot be decoded; the text names it. Damage is found as `images.read_image` finds it.
  """
  name = image_name(record)
  data = record.image if isinstance(record.image, bytes) else read_file(record.image, f"image '{name}'")
  decoded = _read_jpeg(data, at_least) if data.startswith(_JPEG_START) else None
  if decoded is None:
    pixels = read_image(data, name=name)
    decoded = Decoded(pixels, pixels.shape[1], pixels.shape[0])
  return decoded


def _read_jpeg(data: bytes, at_least: AtLeast) -> Decoded | None:
  """The picture, reduced where it may be; None where `read_image` shall do it, or say what is wrong.

  In full size this gives what `read_image` gives, with fewer copies.
  """
  try:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    width, height = image.size
    if image.mode not in ("RGB", "L") or width * height > MAX_PIXELS:
      return None
    has_swapped_sides = is_turned(image)
    if callable(at_least):
      at_least = at_least(height, width) if has_swapped_sides else at_least(width, height)
    if at_least is not None:
      image.draft(None, at_least[::-1] if has_swapped_sides else at_least)  # None keeps the mode
    image.load()
    if not (data.endswith(_JPEG_END) or jpeg_has_end(data)):
      return None
    # Pillow hands its pixels over as bytes, which stay read-only without a copy.
    turned = upright(image)
    pixels = np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))
    return Decoded(pixels, height, width) if has_swapped_sides else Decoded(pixels, width, height)
  except Exception:  # what Pillow raises on damaged files is not a closed list
    return None


def make_sample(record: Record, at_least: AtLeast) -> Sample:
  """Decodes a record for training; crowd regions become ignored ones, difficult objects stay.

  Args:
    record: the record, with its boxes in pixels of the image.
    at_least: the argument of `read_reduced`.

  Returns:
    The sample with its boxes in pixels of the decoded image; its pixels are read-only, because they may be kept.

  Raises:
    images.ImageError: the image cannot be decoded.
    DataError: it has another size than its annotations say.
  """
  decoded = read_reduced(record, at_least)
  check_stated_size(record, image_name(record), (decoded.width, decoded.height))
  decoded.image.setflags(write=False)
  height, width = decoded.image.shape[:2]
  scale = np.array([width / decoded.width, height / decoded.height] * 2, np.float32)
  boxes = np.concatenate([record.boxes_xyxy_px, record.ignored_xyxy_px])
  classes = np.where(record.is_crowd, IGNORED_CLASS, record.classes)
  return Sample(
    image=decoded.image,
    boxes_xyxy_px=boxes * scale,
    classes=np.pad(classes, (0, len(boxes) - len(classes)), constant_values=IGNORED_CLASS).astype(np.int32),
    label=record.label,
    annotated=record.annotated,
  )


class SampleMemory:
  """Keeps decoded samples by record until a size is reached.

  What is kept stays: in an order that visits every record once, throwing out the oldest would throw out all before
  they are needed again. What cannot be decoded is remembered too.

  Args:
    capacity_bytes: how many bytes of pixels are kept; 0 keeps none.
  """

  def __init__(self, capacity_bytes: int) -> None:
    self._capacity_bytes = self._free_bytes = capacity_bytes
    self._kept: dict[int, Sample | Problem] = {}
    self._lock = threading.Lock()

  def get(self, index: int, make: Callable[[int], Sample | Problem]) -> Sample | Problem:
    """What `make` gives for a record, which must not depend on anything else."""
    kept = self._kept.get(index)
    if kept is not None:
      return kept
    made = make(index)
    num_bytes = made.image.nbytes if isinstance(made, Sample) else 0
    with self._lock:
      if index not in self._kept and (num_bytes == 0 or num_bytes <= self._free_bytes):
        self._free_bytes -= num_bytes
        self._kept[index] = made
    return made

  def __len__(self) -> int:
    return len(self._kept)

  def __reduce__(self) -> tuple[type[SampleMemory], tuple[int]]:
    return SampleMemory, (self._capacity_bytes,)  # a worker process fills its own
