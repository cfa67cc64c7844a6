"""A count while a video runs: what a track did is in the log as soon as the track is over.

A track is over once its tracker has given it up: then its class, which all of its boxes vote for, and its last box, which may
count, are known. The log is the same as often as the same video is read, so a count that was killed is done again from the
beginning, compared with what the log holds, and goes on: nothing is lost or counted twice.
"""

from __future__ import annotations

import bisect
from array import array
from typing import Any

import numpy as np

from prn_jax.track.clock import Clock
from prn_jax.track.count import rows_of_track
from prn_jax.track.event_log import Writer
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.scene import Scene
from prn_jax.track.zones import Cover

_MARGIN_FRAMES = 2.0  # a tracker counts frames, whose times are not even


class LiveCount:
  """Counts frame by frame.

  Args:
    scene: what is counted.
    log: where to.
    max_lost_sec: after this the tracker gives up what it does not see.
    fps: frames a second.
  """

  def __init__(self, scene: Scene, log: Writer, max_lost_sec: float, fps: float) -> None:
    self._scene, self._log = scene, log
    self._over_after_sec = max_lost_sec + _MARGIN_FRAMES / fps
    self._frames, self._times = array("d"), array("d")
    self._tracks: dict[int, list[tuple[float, ...]]] = {}
    self._cover = Cover(scene)

  def add(self, rows: list[dict[str, Any]], frame: int, time_sec: float) -> None:
    """Takes the next frame that could be read.

    Args:
      rows: its tracks, as `Follower.add` returns them.
      frame: its number, from 1.
      time_sec: when it is.
    """
    time_sec = round(time_sec, 6)  # as the lines of `prn track` have it, so that both count the same
    self._frames.append(frame)
    self._times.append(time_sec)
    self._finish([number for number, boxes in self._tracks.items() if time_sec - boxes[-1][1] > self._over_after_sec])
    for row in rows:
      left, top, right, bottom = row["box_xyxy_px"]
      boxes = self._tracks.setdefault(row["id"], [])
      boxes.append((frame, time_sec, left, top, right - left, bottom - top, row["score"], row["class"]))
    xyxy = np.array([row["box_xyxy_px"] for row in rows], float).reshape(-1, 4)
    for one in self._cover.add(frame, time_sec, xyxy):
      self._log.add(self._scene.timed(one))

  def end(self) -> None:
    """All frames have been taken."""
    self._finish(list(self._tracks))
    self._log.end(self._times[-1] if self._times else 0.0)

  def _finish(self, numbers: list[int]) -> None:
    for number in sorted(numbers):
      columns = np.array(self._tracks.pop(number))
      size, since = len(columns), bisect.bisect_left(self._frames, columns[0, 0])
      track = BoxTable(
        frames=columns[:, 0].astype(np.int64), ids=np.full(size, number), boxes_xywh_px=columns[:, 2:6],
        scores=columns[:, 6], classes=columns[:, 7].astype(np.int64), lines=np.zeros(size, np.int64),
      )  # fmt: skip
      clock = Clock(frames=np.array(self._frames[since:]), times_sec=np.array(self._times[since:]))
      for row in rows_of_track(track, self._scene, clock):
        self._log.add(self._scene.timed(row))
