"""A second network that looks inside tracked objects, as for number plates on vehicles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prn_jax.run.detector import Detector
from prn_jax.track.best_crops import BestCrops, look

LOOK_AGAIN = 1.2  # a crop must be so much better than the one that was looked at before: few looks find as much as many


class Inside:
  """Looks at every tracked object when it is seen better than before, and keeps the best of what is there.

  Args:
    network: a detector, which gets the pixels of one object at a time.
    crops: keeps what is found, one picture per object.
  """

  def __init__(self, network: Detector, crops: BestCrops) -> None:
    self.crops = crops
    self._network = network
    self._looked: dict[int, tuple[float, float]] = {}  # id -> quality of the best look, when it was in sight

  def add(self, image_u8: np.ndarray, rows: Sequence[Mapping[str, Any]], frame: int, time_sec: float) -> None:
    """Takes a frame, (h, w, 3) uint8 RGB, and its tracks, as `Follower.add` returns them."""
    found = []
    for row in rows:
      seen = look(image_u8, row["box_xyxy_px"])
      before = self._looked.get(row["id"], (0.0, 0.0))[0]
      is_better = seen is not None and seen.quality > LOOK_AGAIN * before
      self._looked[row["id"]] = (seen.quality if seen and is_better else before, time_sec)
      if seen and is_better:
        found += self._inside(row, seen.part, seen.place)
    self.crops.add(image_u8, found, frame, time_sec, [row["id"] for row in rows])
    gone = [n for n, (_, last) in self._looked.items() if time_sec - last > self.crops.gone_sec]
    for number in gone:
      del self._looked[number]

  def _inside(self, row: Mapping[str, Any], part: np.ndarray, place: tuple[int, int]) -> list[dict[str, Any]]:
    """The surest box in an object, in the pixels of the frame."""
    (one,) = self._network([np.ascontiguousarray(part)])
    if not len(one):
      return []
    box = one.boxes_xyxy_px[0].astype(float) + np.tile(place, 2)
    within = {"in": row.get("name", row["class"])}
    about = {"id": row["id"], "class": int(one.classes[0]) + 1, "name": one.labels[0]}
    return [about | within | {"score": round(float(one.scores[0]), 6), "box_xyxy_px": [round(v, 2) for v in box]}]
