"""Videos followed from the first frame to the last: boxes of a file or of a network in, files of tracks out."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.files.disk import written_beside
from prn_jax.track import motchallenge
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.trackers.named import TrackerSettings
from prn_jax.track.trackers.tracker import Found
from prn_jax.track.video import SUFFIXES

if TYPE_CHECKING:
  from prn_jax.detect.detections import Detections

KINDS, PICTURES = ("txt", "jsonl"), ("video", "crops")  # the second need frames
_IN_MEMORY_BYTES = 1 << 20  # of lines; the rest waits in a temporary file, so that memory does not grow with the video


class Follower:
  """Follows the objects of one video, and keeps what its files will hold.

  Args:
    settings: see `TrackerSettings`.
    fps: frames a second.
    names: names of the classes, for the lines of JSON; class 1 of the files is the first.

  Attributes:
    num_frames: frames so far, also those that could not be read.
    num_boxes: boxes of tracks so far.
    ids: the tracks so far.
    last_sec: time of the last frame that could be read.
  """

  def __init__(self, settings: TrackerSettings, fps: float, names: Sequence[str] = ()) -> None:
    self.num_frames = 0
    self.num_boxes = 0
    self.ids: set[int] = set()
    self._names = names
    self._fps = fps
    self._tracker = settings.make(fps)
    self._last = 0  # the last frame that was read
    self.last_sec = 0.0
    self._lines = {kind: self._spool() for kind in KINDS}

  def add(self, found: Found | None, source: str | None = None, time_sec: float | None = None) -> list[dict[str, Any]]:
    """Takes the next frame; returns its tracks, as the lines of JSON have them.

    Args:
      found: its boxes, classes from 1 (-1: not known); None for a frame that could not be read.
      source: its file.
      time_sec: when it is; by default `fps` tells.
    """
    self.num_frames += 1
    if found is None:
      return []
    now = (self.num_frames - 1) / self._fps if time_sec is None else time_sec
    is_timed = time_sec is not None and self._last > 0
    steps = (now - self.last_sec) * self._fps if is_timed else self.num_frames - self._last
    tracked = self._tracker.update(found, float(steps))
    self._last, self.last_sec = self.num_frames, now
    rows = []
    columns = (tracked.ids, tracked.boxes_xyxy_px, tracked.scores, tracked.classes)
    for number, box, score, label in zip(*(column.tolist() for column in columns), strict=True):
      self._lines["txt"].write(motchallenge.line_of(self.num_frames, number, box, score, label))
      row = {"id": number, "class": label, "score": round(score, 6), "box_xyxy_px": [round(v, 2) for v in box]}
      rows.append(row | ({"name": self._names[label - 1]} if 1 <= label <= len(self._names) else {}))
      self.ids.add(number)
    self.num_boxes += len(rows)
    frame = {"frame": self.num_frames, "time_sec": round(now, 6), "source": source}
    self._lines["jsonl"].write(json.dumps(frame | {"tracks": rows}) + "\n")
    return rows

  def save(self, out: Path, kinds: Sequence[str]) -> list[Path]:
    """Writes the tracks: MOTChallenge text at `out`, JSON lines (a line for every frame) beside it; returns the files."""
    files = []
    if "txt" in kinds:
      motchallenge.write(out, self._written("txt"))
      files.append(out)
    if "jsonl" in kinds:
      beside = out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.txt')}.jsonl")
      with written_beside(beside) as file:
        file.writelines(line.encode() for line in self._written("jsonl"))
      files.append(beside)
    return files

  def _spool(self) -> IO[str]:
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, "w+", encoding="utf-8", newline="\n")  # noqa: SIM115
    weakref.finalize(self, file.close)
    return file

  def _written(self, kind: str) -> Iterator[str]:
    file = self._lines[kind]
    file.seek(0)
    yield from file
    file.seek(0, 2)


def parse_kinds(text: str) -> tuple[str, ...]:
  """ "txt,jsonl" -> ("txt", "jsonl"); PrnError for anything else."""
  kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
  known = (*KINDS, *PICTURES)
  if not kinds or any(kind not in known for kind in kinds):
    raise PrnError(f"--save {text!r}: expected some of {', '.join(known)} with commas between.")
  return kinds


def found_of_frames(table: BoxTable) -> tuple[list[Found], bool]:
  """The boxes of a file of detections, frame by frame, and whether their scores were made into probabilities: those
  that are none, as the margins of a support vector machine, become their logistic."""
  scores, are_margins = table.scores, bool(len(table) and (table.scores.min() < 0 or table.scores.max() > 1))
  if are_margins:
    scores = np.where(scores >= 0, 1, np.exp(np.minimum(scores, 0))) / (1 + np.exp(-np.abs(scores)))
  table = dataclasses.replace(table, scores=scores)
  return [Found(frame.boxes_xyxy_px, frame.scores, frame.classes) for frame in table.by_frame()], are_margins


def found_of(detections: Detections) -> Found:
  """The boxes of a network."""
  boxes, scores = detections.boxes_xyxy_px.astype(np.float64), detections.scores.astype(np.float64)
  return Found(boxes, scores, detections.classes.astype(np.int64) + 1)


def frames_of(source: str) -> list[str]:
  """The pictures of a folder in the order in which people count (2.jpg before 10.jpg); those of a list as they stand.

  Raises:
    PrnError: there is no such folder, it holds no picture, or it is of another type.
  """
  from prn_jax.data_pipelines.images import inputs
  from prn_jax.data_pipelines.images.formats import is_image_name

  path = Path(source)
  if path.is_file() and not is_image_name(source) and path.suffix.lower() not in inputs.LIST_SUFFIXES:
    raise PrnError(
      f"'{source}' is no folder of pictures, no list of them (.txt), and no video by its name ({', '.join(SUFFIXES)})."
    )
  found = inputs.expand([source])
  return sorted(found, key=in_order) if path.is_dir() else found


def in_order(name: str) -> list[tuple[int, int, str]]:
  """A key that sorts numbers in names by their value."""
  return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]


def detections_in(run: Any, sources: Iterable[Any], *, keep_images: bool = False) -> Iterator[Any]:
  """A network's `Detections`, or the `Failure`, of each picture (or array) in turn; pictures are read while it works."""
  from prn_jax.run.images import stream

  return stream(run, sources, keep_images=keep_images)
