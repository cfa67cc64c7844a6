"""Frames a second of the whole path from a file to a count, and of each of its stages alone.

As the system rows of table 3 of the PRN paper: detection, then with drawing, with tracking, and (ours) with counting. The
stages run side by side: a thread decodes, others resize, one runs the network and follows, one draws and writes. So the
whole should be about as fast as its slowest stage, as long as there are cores for all; how many were busy is said.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.detect.detections import Detections
from prn_jax.errors import PrnError
from prn_jax.run.detector import Detector
from prn_jax.run.images import Failure, read, stream
from prn_jax.track import motchallenge
from prn_jax.track.behind import Behind
from prn_jax.track.clock import Clock
from prn_jax.track.counting import events
from prn_jax.track.follow import Follower, found_of
from prn_jax.track.picture import TrackArtist
from prn_jax.track.scene import Line, Scene
from prn_jax.track.source import Source, Together
from prn_jax.track.trackers.named import TrackerSettings
from prn_jax.track.write_video import VideoWriter

STAGES = ("decode", "resize", "network", "boxes", "tracking", "counting", "visualise")
SYSTEMS = ("detection", "+visualise", "+tracking", "+counting")  # each with all before it
SIDE_BY_SIDE = (("decode",), ("resize",), ("network", "boxes", "tracking"), ("visualise",))  # what one thread does


@dataclasses.dataclass
class Speeds:
  """Seconds per frame, the least of all rounds: whatever else the computer does only adds to it.

  Attributes:
    stages: each of `STAGES` alone.
    systems: each of `SYSTEMS` from file to result.
    cpu: seconds of all cores that each of `SYSTEMS` took per frame, in its fastest round.
    num_boxes: boxes per frame: drawing and tracking depend on them.
  """

  stages: dict[str, float]
  systems: dict[str, float]
  cpu: dict[str, float]
  num_boxes: float

  def slowest(self) -> tuple[str, float]:
    """What limits the whole: the stages of one thread, and their seconds per frame together."""
    name, sec = max(
      (("+".join(names), sum(self.stages[n] for n in names)) for names in SIDE_BY_SIDE), key=lambda one: one[1]
    )
    return name, sec

  def to_dict(self) -> dict[str, Any]:
    """JSON values: frames a second."""
    name, sec = self.slowest()
    whole = self.systems[SYSTEMS[-1]]
    return {
      "stages_fps": {key: 1 / value for key, value in self.stages.items()},
      "systems_fps": {key: 1 / value for key, value in self.systems.items()},
      "slowest": {"stages": name, "fps": 1 / sec},
      "in_turn_fps": 1 / sum(self.stages.values()),
      "of_slowest": sec / whole,
      "busy_cores": self.cpu[SYSTEMS[-1]] / whole,
      "boxes_per_frame": self.num_boxes,
    }


class SystemBench:
  """Measures one network on the first frames of a source.

  Args:
    network: a detector.
    open_source: opens the source anew.
    limit: frames to look at.

  Raises:
    PrnError: the source holds no frame that can be read.
  """

  def __init__(self, network: Detector, open_source: Callable[[], Source], limit: int) -> None:
    self._network, self._open, self._limit = network, open_source, limit
    self._fps = open_source().fps
    self._images = [read(image)[0] for image in self._frames()]
    if not self._images:
      raise PrnError("there is no frame to measure with.")
    self.num_frames = len(self._images)
    height, width = self._images[0].shape[:2]
    self._scene = Scene((Line("middle", (0.0, height / 2), (float(width), height / 2)),))

  def measure(self, rounds: int) -> Speeds:
    """Every stage alone and every system, in turn, so often; the first time around compiles, and does not count."""
    self._network(self._images[: self._network.batch_size])
    boxes = 0.0
    stages: dict[str, float] = {}
    systems: dict[str, float] = {}
    cpu: dict[str, float] = {}
    for _ in range(rounds):
      alone, found = self._stages()
      boxes = sum(map(len, found)) / len(found)
      stages = {name: min(alone[name], stages.get(name, np.inf)) for name in STAGES}
      for i, name in enumerate(SYSTEMS):
        sec, cpu_sec = self._system(SYSTEMS[: i + 1])
        if sec < systems.get(name, np.inf):
          systems[name], cpu[name] = sec, cpu_sec
    return Speeds(stages, systems, cpu, boxes)

  def _frames(self) -> Iterator[Any]:
    return itertools.islice(Together([self._open()]).images(), self._limit)

  def _stages(self) -> tuple[dict[str, float], list[Detections]]:
    """Seconds per frame of every stage, each fed from memory."""
    network, size = self._network, self._network.batch_size
    clock = _Stopwatch()
    for image in self._frames():
      read(image)
    clock.lap("decode")
    prepared = [network.prepare(image) for image in self._images]
    clock.lap("resize")
    before = network.timing.network
    found: list[Detections] = []
    for start in range(0, len(prepared), size):
      part = prepared[start : start + size]
      found += network.results(part, [None] * len(part), [None] * len(part))
    clock.lap("boxes")
    clock.seconds["network"] = network.timing.network - before
    clock.seconds["boxes"] -= clock.seconds["network"]
    clock.start()
    follower = Follower(TrackerSettings(), self._fps, network.model.names)
    rows = [follower.add(found_of(one)) for one in found]
    clock.lap("tracking")
    self._count(rows)
    clock.lap("counting")
    with tempfile.TemporaryDirectory() as folder:
      drawing = _Drawing(Path(folder), self._fps)
      for i, image in enumerate(self._images):
        drawing.draw_tracks(image, rows[i], i / self._fps)
      drawing.close()
    clock.lap("visualise")
    return {name: max(sec, 1e-9) / self.num_frames for name, sec in clock.seconds.items()}, found

  def _system(self, parts: Sequence[str]) -> tuple[float, float]:
    """Seconds, and seconds of all cores, per frame from the file to the result."""
    tracks, draws = "+tracking" in parts, "+visualise" in parts
    follower = Follower(TrackerSettings(), self._fps, self._network.model.names)
    rows: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
      began, cpu = time.perf_counter(), time.process_time()
      drawing = _Drawing(Path(folder), self._fps)
      behind = Behind("visualise")
      for i, result in enumerate(stream(self._network, self._frames(), keep_images=draws)):
        if isinstance(result, Failure) or not isinstance(result, Detections):
          continue
        if tracks:
          rows.append(follower.add(found_of(result)))
        if draws and tracks:
          assert result.image is not None
          behind.do(_later(drawing.draw_tracks, result.image, rows[-1], i / self._fps))
        elif draws:
          behind.do(_later(drawing.draw_boxes, result, i / self._fps))
      behind.finish()
      drawing.close()
      if "+counting" in parts:
        self._count(rows)
      return (time.perf_counter() - began) / self.num_frames, (time.process_time() - cpu) / self.num_frames

  def _count(self, rows: Sequence[Sequence[dict[str, Any]]]) -> None:
    flat = [(frame, row) for frame, several in enumerate(rows, start=1) for row in several]
    corners = np.array([row["box_xyxy_px"] for _, row in flat], np.float64).reshape(-1, 4)
    table = motchallenge.BoxTable(
      frames=np.array([frame for frame, _ in flat], np.int64),
      ids=np.array([row["id"] for _, row in flat], np.int64),
      boxes_xywh_px=np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1),
      scores=np.array([row["score"] for _, row in flat], np.float64),
      classes=np.array([row["class"] for _, row in flat], np.int64),
      lines=np.arange(len(flat)),
    )
    events(table, self._scene, Clock(self._fps))


class _Drawing:
  """Draws and writes a video."""

  def __init__(self, folder: Path, fps: float) -> None:
    self._artist, self._video = TrackArtist(), VideoWriter(folder / "drawn.mp4", fps)

  def draw_tracks(self, image_u8: np.ndarray, rows: Sequence[dict[str, Any]], time_sec: float) -> None:
    self._video.add(self._artist.draw(image_u8, rows, time_sec), time_sec)

  def draw_boxes(self, found: Detections, time_sec: float) -> None:
    self._video.add(np.asarray(found.draw()), time_sec)

  def close(self) -> None:
    self._video.close()


class _Stopwatch:
  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}
    self.start()

  def start(self) -> None:
    self._began = time.perf_counter()

  def lap(self, name: str) -> None:
    now = time.perf_counter()
    self.seconds[name], self._began = now - self._began, now


def _later(function: Callable[..., None], *args: Any) -> Callable[[], None]:
  return lambda: function(*args)


def table(speeds: dict[str, Speeds]) -> str:
  """Frames a second, a row for each network, and what limits each."""
  names = max(map(len, [*speeds, "network"]))
  head = f"{'':{names}}  " + "  ".join(f"{name:>10}" for name in (*STAGES, *SYSTEMS))
  lines = ["frames a second: each stage alone, then the whole path", head]
  for name, one in speeds.items():
    seconds = [*(one.stages[key] for key in STAGES), *(one.systems[key] for key in SYSTEMS)]
    lines.append(f"{name:{names}}  " + "  ".join(f"{_rate(1 / sec):>10}" for sec in seconds))
  for name, one in speeds.items():
    told = one.to_dict()
    lines.append(
      f"{name}: the slowest thread alone ({told['slowest']['stages']}) {_rate(told['slowest']['fps'])}, the whole path "
      f"{_rate(told['systems_fps'][SYSTEMS[-1]])} ({told['of_slowest']:.0%} of it), all stages in turn "
      f"{_rate(told['in_turn_fps'])}; {told['busy_cores']:.1f} cores busy, {one.num_boxes:.1f} boxes a frame"
    )
  return "\n".join(lines)


def _rate(fps: float) -> str:
  return f"{fps:,.1f}" if fps < 100 else f"{fps:,.0f}"
