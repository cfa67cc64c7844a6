"""What was written is read again, by the source of its format, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prn_jax.data_pipelines.records import DataError, Record, Rings
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import PrnError

MOST_DIFFERENCE_PX = 1e-3
"""More is no rounding."""


@dataclass(frozen=True)
class Proof:
  """What was read back.

  Attributes:
    num_images, num_objects: as many as were written.
    max_difference_px: largest difference of a corner, in float32.
  """

  num_images: int
  num_objects: int
  max_difference_px: float


def prove(spec: str, names: Sequence[str], written: Mapping[str, Record]) -> Proof:
  """Reads a set again and compares.

  Args:
    spec: opens what was written.
    names: the classes, in order.
    written: file name of an image -> what was written of it.

  Raises:
    PrnError: it cannot be read, or images, classes or boxes are others.
  """
  try:
    dataset = open_spec(spec, keep_polygons=True)
  except DataError as error:
    raise _fault(f"it cannot be read: {error}") from error
  if tuple(names) != dataset.names:
    raise _fault(f"its classes are {dataset.names}, expected {tuple(names)}")
  if len(dataset) != len(written):
    raise _fault(f"it holds {len(dataset)} images, expected {len(written)}")
  most, num_objects = 0.0, 0
  for index in range(len(dataset)):
    record = dataset[index]
    assert not isinstance(record.image, bytes)
    most = max(most, _difference(record.image.name, record, written[record.image.name]))
    num_objects += len(record.classes)
  return Proof(len(dataset), num_objects, most)


def _difference(name: str, found: Record, expected: Record) -> float:
  same = (
    (found.width, found.height) == (expected.width, expected.height)
    and np.array_equal(found.classes, expected.classes)
    and np.array_equal(found.is_crowd, expected.is_crowd)
    and np.array_equal(found.is_difficult, expected.is_difficult)
    and np.array_equal(found.ignored_xyxy_px, expected.ignored_xyxy_px)
    and _same_outlines(found.polygons_px, expected.polygons_px)
  )
  difference = np.abs(found.boxes_xyxy_px - expected.boxes_xyxy_px).max(initial=0) if same else np.inf
  if difference > MOST_DIFFERENCE_PX:
    raise _fault(f"image '{name}' has {_text(found)}, expected {_text(expected)}")
  return float(difference)


def _same_outlines(found: tuple[Rings, ...] | None, expected: tuple[Rings, ...] | None) -> bool:
  pairs = zip(found or (), expected or (), strict=False)
  is_equal = all(len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in pairs)
  return is_equal and len(found or ()) == len(expected or ())


def _text(record: Record) -> str:
  rows = zip(record.classes.tolist(), record.boxes_xyxy_px.tolist(), strict=True)
  return f"{record.width}x{record.height} pixels and {[(index, *box) for index, box in rows][:5]}"


def _fault(text: str) -> PrnError:
  return PrnError(
    f"what was written does not come back as it was: {text}. Nothing was kept; this is a fault of the conversion, please report it."
  )
