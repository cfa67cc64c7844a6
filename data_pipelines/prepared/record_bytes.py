"""One record as bytes: what the ArrayRecord files of `prn data prepare` hold. Plain data, nothing is executed to read it.

Layout, little-endian:

    4 bytes   "PRN1"; "PRN2" where there are ignored regions, which a program that knows none must not pass over
    uint32    length of the header
    header    JSON: {"image_id", "width", "height", "label", "objects": n, "area": bool, "xywh": bool},
              and of "PRN2" also {"ignored": m}
    float32   (n, 4) boxes, corners x1, y1, x2, y2 in pixels
    int32     (n,) classes
    uint8     (n,) 1 for a crowd region + 2 for a difficult object
    float64   (n,) area in pixels, where "area" is true
    float64   (n, 4) boxes as x, y, width, height in pixels, where "xywh" is true
    float32   (m, 4) ignored regions, corners x1, y1, x2, y2 in pixels, of "PRN2" alone
    the rest  the encoded image (JPEG or PNG)

Outlines of objects are not stored: neither training nor evaluation looks at them.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.records import DataError, Record
from prn_jax.files.structured import MAX_BYTES, parse_json
from prn_jax.files.values import Node

MAGIC, MAGIC_IGNORED = b"PRN1", b"PRN2"
_CROWD, _DIFFICULT = 1, 2


def encode_record(record: Record, image: bytes) -> bytes:
  """The bytes of a record with its encoded image."""
  content = {
    "image_id": record.image_id,
    "width": record.width,
    "height": record.height,
    "label": record.label,
    "objects": len(record.classes),
    "area": record.area_px is not None,
    "xywh": record.boxes_xywh_px is not None,
  }
  ignored = record.ignored_xyxy_px
  if len(ignored):
    content["ignored"] = len(ignored)
  try:
    header = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
  except UnicodeEncodeError:
    raise DataError(f"the name of image '{record.image_id}' is no UTF-8 text; rename the file") from None
  flags = record.is_crowd * np.uint8(_CROWD) + record.is_difficult * np.uint8(_DIFFICULT)
  parts = [MAGIC_IGNORED if len(ignored) else MAGIC, struct.pack("<I", len(header)), header]
  parts += [record.boxes_xyxy_px.astype("<f4").tobytes(), record.classes.astype("<i4").tobytes()]
  parts += [flags.astype(np.uint8).tobytes()]
  parts += [array.astype("<f8").tobytes() for array in (record.area_px, record.boxes_xywh_px) if array is not None]
  parts += [ignored.astype("<f4").tobytes()]
  return b"".join([*parts, image])


def decode_record(data: bytes) -> Record:
  """The record of `encode_record`, with the image as bytes.

  Raises:
    DataError: the bytes are no such record, or end too early.
  """
  if not data.startswith((MAGIC, MAGIC_IGNORED)) or len(data) < 8:
    raise DataError(f"no record of prn_jax: it starts with {data[:8]!r}, expected {MAGIC!r} or {MAGIC_IGNORED!r}")
  start = 8 + struct.unpack_from("<I", data, 4)[0]
  header = parse_json(data[8 : min(start, 8 + MAX_BYTES)], "the header of the record", DataError)
  image_id = header["image_id"]
  width, height, label = (_optional(header[key]) for key in ("width", "height", "label"))
  take = _Taker(data, start)
  n = header["objects"].whole(0, len(data))
  boxes, classes, flags = take("<f4", n, 4), take("<i4", n), take("u1", n)
  area = take("<f8", n) if header["area"].truth() else None
  xywh = take("<f8", n, 4) if header["xywh"].truth() else None
  num_ignored = header["ignored"].whole(1, len(data)) if data.startswith(MAGIC_IGNORED) else 0
  ignored = take("<f4", num_ignored, 4)
  return Record(
    image=data[take.position :],
    image_id=image_id.text() if isinstance(image_id.raw, str) else image_id.whole(),
    width=width,
    height=height,
    boxes_xyxy_px=boxes.astype(np.float32),
    classes=classes.astype(np.int32),
    is_crowd=flags & _CROWD > 0,
    is_difficult=flags & _DIFFICULT > 0,
    area_px=None if area is None else area.astype(np.float64),
    boxes_xywh_px=None if xywh is None else xywh.astype(np.float64),
    label=label,
    ignored_xyxy_px=ignored.astype(np.float32),
  )


def _optional(value: Node) -> int | None:
  return None if value.raw is None else value.whole(0, 2**31 - 1)


class _Taker:
  """Takes arrays off the front of the bytes."""

  def __init__(self, data: bytes, position: int) -> None:
    self._data, self.position = data, position

  def __call__(self, dtype: str, *shape: int) -> NDArray[Any]:
    count = math.prod(shape)
    end = self.position + count * np.dtype(dtype).itemsize
    if end > len(self._data):
      raise DataError(f"the record ends after {len(self._data):,} bytes; its arrays need {end:,}")
    array = np.frombuffer(self._data, dtype, count, self.position).reshape(shape)
    self.position = end
    return array
