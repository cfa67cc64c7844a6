"""What is kept of the videos that a network looks at: lines of JSON, and videos with boxes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.detect.detections import Detections
from prn_jax.files.lines import LineFile
from prn_jax.run.images import Result
from prn_jax.track.behind import Behind
from prn_jax.track.source import Source, Stream
from prn_jax.track.write_video import VideoWriter

FOLDER = "videos"


class Recorder:
  """Keeps what was found in one video. Files are written in a thread of their own, beside the network's work.

  Args:
    source: where the frames come from.
    folder: for the files, which are named `stem`.
    stem: see `stems`.
    kinds: what to write: "json" (a line for every frame), "video" (drawn).

  Attributes:
    num_frames: so far.
    seen: name of a class -> frames in which it was found.
    last_sec: time of the last frame.
    is_drawn: results must hold their image.
  """

  def __init__(self, source: Source, folder: Path, stem: str, kinds: Collection[str]) -> None:
    self.source, self.num_frames, self.last_sec = source, 0, 0.0
    self.seen: Counter[str] = Counter()
    self._lines = LineFile(folder / FOLDER / f"{stem}.jsonl") if "json" in kinds else None
    self._video = VideoWriter(folder / FOLDER / f"{stem}.mp4", source.fps) if "video" in kinds else None
    self.is_drawn = self._video is not None
    self._behind = Behind("record")

  def add(self, result: Result, time_sec: float) -> None:
    """Takes the next frame; its result holds the image where a video is written."""
    self.num_frames, self.last_sec = self.num_frames + 1, time_sec
    self.seen.update(set(result.labels) if isinstance(result, Detections) else [result.top()[0][1]])
    row = {"frame": self.num_frames, "time_sec": round(time_sec, 6)}
    if isinstance(self.source, Stream):
      row["dropped"] = self.source.live.num_dropped
    self._behind.do(lambda: self._write(result, row, time_sec))

  def finish(self) -> list[Path]:
    """Writes what is left, and closes the files; returns them. Also after an error, for what came before it."""
    try:
      self._behind.finish()
    finally:
      if self._lines:
        self._lines.close()
      if self._video:
        self._video.close()
    there = [self._lines.path] if self._lines else []
    return [*there, self._video.path] if self._video and self._video.num_written else there

  @property
  def account(self) -> list[str]:
    """What to say at the end: what became of the frames, and of the video."""
    told = [self.source.shortfall] if self.source.shortfall else []
    return [*told, self._video.account] if self._video and self._video.num_written else told

  def to_dict(self) -> dict[str, Any]:
    """JSON values: what was found in how many frames."""
    found = {"source": self.source.place, "frames": self.num_frames, "seconds": round(self.last_sec, 6)}
    found |= {"frames_with": dict(self.seen.most_common()), "live": self.source.is_live}
    if isinstance(self.source, Stream):
      live = self.source.live
      found |= {"read": live.num_read, "dropped": live.num_dropped, "connections_lost": live.num_lost}
    return found | {"account": self.account}

  def __str__(self) -> str:
    found = ", ".join(f"{name} in {number}" for name, number in self.seen.most_common())
    return f"{self.source.place}: {self.num_frames} frames, {self.last_sec:.1f} s: {found or 'nothing found'}"

  def _write(self, result: Result, row: dict[str, Any], time_sec: float) -> None:
    if self._lines:
      found = result.to_dict()
      found.pop("path", None)
      self._lines.add(json.dumps(row | found) + "\n")
    if self._video and isinstance(result, Detections):
      self._video.add(np.asarray(result.draw()), time_sec)


def stems(places: Sequence[str]) -> list[str]:
  """A name for the files of each video, all different: street.mp4 is street, camera 0 camera_0, rtsp://a/b?c a_b."""
  found: list[str] = []
  for place in places:
    if place.isdecimal():
      name = f"camera_{place}"
    elif "://" in place:  # what stands before an @ is a password, often
      address = place.partition("://")[2].partition("?")[0]
      host, slash, rest = address.partition("/")
      name = re.sub(r"[^\w.-]+", "_", host.rpartition("@")[2] + slash + rest).strip("_")
    else:
      name = Path(place).stem
    free = (f"{name}{f'_{n}' if n > 1 else ''}" for n in range(1, len(places) + 2))
    found.append(next(one for one in free if one not in found))
  return found
