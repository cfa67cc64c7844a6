"""When frames are: by a rate, or by the times that a video gives them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

FPS = 30.0  # of frames of which nobody says how fast they come


@dataclasses.dataclass(frozen=True, eq=False)
class Clock:
  """Frames, from 1 and also between two, to seconds since the first.

  Attributes:
    fps: frames a second, where no times are known.
    frames, times_sec: (n,) float64 each, rising; times between are interpolated. None: `fps` decides.
  """

  fps: float = 0.0
  frames: np.ndarray | None = None
  times_sec: np.ndarray | None = None

  def __call__(self, frame: Any) -> Any:
    """Seconds of a frame or an array of them."""
    if self.frames is None or self.times_sec is None:
      return (frame - 1) / self.fps
    return np.interp(frame, self.frames, self.times_sec)
