"""The best picture of each tracked object: large and sharp."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prn_jax.errors import PrnError
from prn_jax.files.disk import written_beside
from prn_jax.files.lines import LineFile
from prn_jax.files.places import make_folder

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

  Raises:
    PrnError: the folder holds something.

  Attributes:
    num_written: pictures so far.
  """

  def __init__(self, folder: Path, gone_sec: float) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
      raise PrnError(f"'{folder}' is not empty; empty it, or name another OUT.txt: crops of two runs must not mix.")
    make_folder(folder)
    self.folder, self.num_written = folder, 0
    self._gone_sec = gone_sec
    self._best: dict[int, _Best] = {}
    self._list = LineFile(folder / LIST)

  def add(self, image_u8: np.ndarray, rows: Sequence[Mapping[str, Any]], frame: int, time_sec: float) -> None:
    """Takes the tracks of a frame, as `Follower.add` returns them."""
    for row in rows:
      known = self._best.get(row["id"])
      if known:
        known.last_sec = time_sec
      part, whole = _part(image_u8, row["box_xyxy_px"])
      area = part.shape[0] * part.shape[1]
      if min(part.shape[:2]) < LEAST_SIDE_PX:
        continue
      sharp = sharpness(part)
      quality = sharp * area * (1 if whole else CUT_OFF)
      if known and quality <= known.quality:
        continue
      about = {"frame": frame, "time_sec": round(time_sec, 6), "sharpness": round(sharp, 2)}
      self._best[row["id"]] = _Best(quality, part.copy(), dict(row) | about, time_sec)
    for number in [n for n, one in self._best.items() if time_sec - one.last_sec > self._gone_sec]:
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
    self._list.add(json.dumps(best.row | {"file": path.name}) + "\n")
    self.num_written += 1


def _part(image_u8: np.ndarray, box_xyxy_px: Sequence[float]) -> tuple[np.ndarray, bool]:
  """The pixels of a box, and whether all of it lies inside the picture."""
  height, width = image_u8.shape[:2]
  left, top = (max(0, int(v)) for v in box_xyxy_px[:2])
  right, bottom = min(width, round(box_xyxy_px[2])), min(height, round(box_xyxy_px[3]))
  is_whole = left > 1 and top > 1 and right < width - 1 and bottom < height - 1
  return image_u8[top : max(top, bottom), left : max(left, right)], is_whole
