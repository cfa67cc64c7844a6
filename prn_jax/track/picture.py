"""Pictures of tracks: a video with boxes, ids and trails, and the best crop of every object."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.detect.draw import class_color, draw_boxes
from prn_jax.run.detector import Detector
from prn_jax.track.behind import Behind
from prn_jax.track.best_crops import BestCrops
from prn_jax.track.inside import Inside
from prn_jax.track.readers import Reader
from prn_jax.track.write_video import VideoWriter

TRAIL_SEC = 2.0

Row = Mapping[str, Any]
"""A track in a frame: "id", "class", "score", "box_xyxy_px", and perhaps "name"."""


class TrackArtist:
  """Draws tracks on the frames of one video: boxes in the colour of the id, and where their lower edges have been."""

  def __init__(self) -> None:
    self._trails: dict[int, deque[tuple[float, float, float]]] = {}

  def draw(self, image_u8: np.ndarray, rows: Sequence[Row], time_sec: float) -> np.ndarray:
    """The next frame, (h, w, 3) uint8 RGB, with its tracks; trails are `TRAIL_SEC` long."""
    for row in rows:
      left, _, right, bottom = row["box_xyxy_px"]
      self._trails.setdefault(row["id"], deque()).append((time_sec, (left + right) / 2, bottom))
    picture = Image.fromarray(np.ascontiguousarray(image_u8))
    canvas = ImageDraw.Draw(picture)
    line = max(1, round((picture.width * picture.height) ** 0.5 / 320))
    for number, trail in list(self._trails.items()):
      while trail and time_sec - trail[0][0] > TRAIL_SEC:
        trail.popleft()
      if not trail:
        del self._trails[number]
      elif len(trail) > 1:
        canvas.line([(x, y) for _, x, y in trail], fill=class_color(number), width=line, joint="curve")
    boxes = np.array([row["box_xyxy_px"] for row in rows], np.float64).reshape(-1, 4)
    labels = [f"{row.get('name', row['class'])} {row['id']}" for row in rows]
    return np.asarray(draw_boxes(np.asarray(picture), boxes, labels, [row["id"] for row in rows]))


class TrackPictures:
  """Writes the pictures of one followed video, in a thread of their own.

  Args:
    out: the file of tracks; a video lies beside it as OUT.mp4, crops as the folder OUT_crops.
    kinds: what to write; "video" and "crops" are looked at.
    fps: frames a second of the video.
    gone_sec: see `BestCrops`.
    inside: a detector that looks inside the objects; what it finds lies in the folder OUT_inside.
    read: reads what it finds.

  Raises:
    PrnError: see `BestCrops` and `VideoWriter`.
  """

  def __init__(
    self,
    out: Path,
    kinds: Sequence[str],
    fps: float,
    gone_sec: float,
    inside: Detector | None = None,
    read: Reader | None = None,
  ) -> None:
    stem = out.name.removesuffix(".gz").removesuffix(".txt")
    self._video = VideoWriter(out.with_name(f"{stem}.mp4"), fps) if "video" in kinds else None
    self._crops = BestCrops(out.with_name(f"{stem}_crops"), gone_sec) if "crops" in kinds else None
    self._inside = Inside(inside, BestCrops(out.with_name(f"{stem}_inside"), gone_sec, read)) if inside else None
    self._artist = TrackArtist()
    self._behind = Behind("pictures")

  def add(self, image_u8: np.ndarray, rows: Sequence[Row], frame: int, time_sec: float) -> None:
    """Takes the next frame, (h, w, 3) uint8 RGB, and its tracks, as `Follower.add` returns them."""

    def work() -> None:
      if self._crops:
        self._crops.add(image_u8, rows, frame, time_sec)
      if self._inside:
        self._inside.add(image_u8, rows, frame, time_sec)
      if self._video:
        self._video.add(self._artist.draw(image_u8, rows, time_sec), time_sec)

    self._behind.do(work)

  def finish(self) -> list[str]:
    """Writes what is left; returns what to say of it. Also after an error, for what came before it."""
    try:
      self._behind.finish()
    finally:
      crops = [one for one in (self._crops, self._inside and self._inside.crops) if one]
      for one in crops:
        one.close()
      if self._video:
        self._video.close()
    told = [self._video.account] if self._video and self._video.num_written else []
    return [*told, *(f"{one.folder}/: {one.num_written} best crops" for one in crops)]
