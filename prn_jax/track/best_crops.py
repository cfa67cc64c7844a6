"""The best picture of each tracked object: large and sharp."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from prn_jax.errors import PrnError
from prn_jax.files.disk import written_beside
from prn_jax.files.lines import LineFile
from prn_jax.files.places import make_folder
from prn_jax.track.readers import Reader

LIST = "crops.jsonl"
CUT_OFF = 0.25  # a box at the border of the picture shows a part of the object: its quality counts this much
LEAST_SIDE_PX = 4


def sharpness(part_u8: np.ndarray) -> float:
  """Variance of the Laplacian of the grey picture: fine detail raises it, blur lowers it.

  Args:
    part_u8: (h, w, 3) uint8 RGB, at least 3 pixels high and wide.

  Source: Pech-Pacheco et al., ICPR 2000.
  Example: a part of one colour has 0.
  """
  grey = part_u8 @ np.array([0.299, 0.587, 0.114], np.float32)
  inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
  return float(inner.var())


class Look(NamedTuple):
  """What is seen of an object in a frame.

  Attributes:
    part: (h, w, 3) uint8, the pixels of its box.
    place: column and row of the first one in the frame.
    sharpness: see `sharpness`.
    quality: sharpness times area in pixels, less at the border of the picture.
  """

  part: np.ndarray
  place: tuple[int, int]
  sharpness: float
  quality: float


def look(image_u8: np.ndarray, box_xyxy_px: Sequence[float]) -> Look | None:
  """What a box shows; None where it is smaller than `LEAST_SIDE_PX`.

  Args:
    image_u8: (h, w, 3) uint8 RGB.
    box_xyxy_px: corners; may reach beyond the picture.
  """
  height, width = image_u8.shape[:2]
  left, top = (max(0, int(v)) for v in box_xyxy_px[:2])
  right, bottom = min(width, round(box_xyxy_px[2])), min(height, round(box_xyxy_px[3]))
  if min(right - left, bottom - top) < LEAST_SIDE_PX:
    return None
  part = image_u8[top:bottom, left:right]
  sharp = sharpness(part)
  is_whole = left > 1 and top > 1 and right < width - 1 and bottom < height - 1
  return Look(part, (left, top), sharp, sharp * part.shape[0] * part.shape[1] * (1 if is_whole else CUT_OFF))


@dataclasses.dataclass
class _Best:
  quality: float
  part: np.ndarray
  row: dict[str, Any]
  last_sec: float


class BestCrops:
  """Keeps the best crop of every object that is in sight, and writes it when the object is gone.

  Quality is sharpness times area in pixels.

  Args:
    folder: for one picture per object, `000012_car.jpg`, and crops.jsonl, which tells from which frame each is.
    gone_sec: an object that is not seen for so long is gone.
    read: gives the text in a crop, for "text" in crops.jsonl; None for none.

  Raises:
    PrnError: the folder holds something.

  Attributes:
    num_written: pictures so far.
  """

  def __init__(self, folder: Path, gone_sec: float, read: Reader | None = None) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
      raise PrnError(f"'{folder}' is not empty; empty it, or name another OUT.txt: crops of two runs must not mix.")
    make_folder(folder)
    self.folder, self.num_written = folder, 0
    self.gone_sec, self._read = gone_sec, read
    self._best: dict[int, _Best] = {}
    self._list = LineFile(folder / LIST)

  def add(
    self,
    image_u8: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    frame: int,
    time_sec: float,
    in_sight: Sequence[int] = (),
  ) -> None:
    """Takes the tracks of a frame, as `Follower.add` returns them; those of `in_sight` are not gone either."""
    for number in [*in_sight, *(row["id"] for row in rows)]:
      if number in self._best:
        self._best[number].last_sec = time_sec
    for row in rows:
      known, seen = self._best.get(row["id"]), look(image_u8, row["box_xyxy_px"])
      if seen is None or (known and seen.quality <= known.quality):
        continue
      about = {"frame": frame, "time_sec": round(time_sec, 6), "sharpness": round(seen.sharpness, 2)}
      self._best[row["id"]] = _Best(seen.quality, seen.part.copy(), dict(row) | about, time_sec)
    for number in [n for n, one in self._best.items() if time_sec - one.last_sec > self.gone_sec]:
      self._write(self._best.pop(number))

  def close(self) -> None:
    """Writes those that are still in sight."""
    for best in self._best.values():
      self._write(best)
    self._best.clear()
    self._list.close()

  def _write(self, best: _Best) -> None:
    kind = "".join(c if c.isalnum() else "_" for c in best.row.get("name", f"class_{best.row['class']}"))
    path = self.folder / f"{best.row['id']:06d}_{kind}.jpg"
    with written_beside(path) as file:
      Image.fromarray(best.part).save(file, "JPEG", quality=95)
    text = {"text": self._read(best.part)} if self._read else {}
    self._list.add(json.dumps(best.row | {"file": path.name} | text) + "\n")
    self.num_written += 1
