"""Boxes of many frames as MOTChallenge text: detections, tracks and truth.

One line is one box: frame, id, left, top, width, height, score, class, visibility (or three times -1 at the end).
Frames and classes count from 1; of detections the id is -1, and a class that nobody knows is -1. In truth the score is a
flag: 0 marks boxes that do not count. Fields are separated by commas, or by blanks; a file may be compressed (.gz).

Source: MOTChallenge, https://motchallenge.net/instructions/ (MOT16 and later); class numbers: Milan et al., MOT16, 2016.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.files.disk import written_beside
from prn_jax.files.structured import MAX_DATA_BYTES, decode, read_bytes, split_lines
from prn_jax.files.values import Misfit, shown

_GZIP = b"\x1f\x8b"
_MOST_FRAMES = 10_000_000  # four days at 30 a second: frames without boxes take room, too
_LARGEST = 1 << 31
_FIELDS = ("frame", "id", "left", "top", "width", "height", "score", "class")
_WHOLE = (0, 1, 7)
UNKNOWN = -1


class TrackFileError(PrnError):
  """A file of boxes that cannot be read, or does not hold what it should."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoxTable:
  """Boxes of all frames, one row each, in the order of their file.

  Attributes:
    frames: (n,) int64, from 1.
    ids: (n,) int64; -1 where a box has none.
    boxes_xywh_px: (n, 4) float64: left, top, width, height.
    scores: (n,) float64; the flag of truth.
    classes: (n,) int64, from 1; -1 where it is not known.
    lines: (n,) int64, the line of the file that each stands on.
    file: what messages call the file.
  """

  frames: np.ndarray
  ids: np.ndarray
  boxes_xywh_px: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  lines: np.ndarray
  file: str = "boxes"

  def __len__(self) -> int:
    return len(self.frames)

  def __getitem__(self, index: Any) -> BoxTable:
    """Some of the rows, by anything that indexes an array."""
    arrays = {name: getattr(self, name)[index] for name in ARRAYS}
    return dataclasses.replace(self, **arrays)

  @property
  def boxes_xyxy_px(self) -> np.ndarray:
    """(n, 4) float64: left, top, right, bottom."""
    return np.concatenate((self.boxes_xywh_px[:, :2], self.boxes_xywh_px[:, :2] + self.boxes_xywh_px[:, 2:]), axis=1)

  def by_frame(self, num_frames: int | None = None) -> Iterator[BoxTable]:
    """The rows of frame 1, 2, ..., in the order of the file; frames without boxes are empty.

    Args:
      num_frames: how many frames there are; by default the last that has a box.
    """
    order = np.argsort(self.frames, kind="stable")
    last = int(self.frames.max(initial=0)) if num_frames is None else num_frames
    ends = np.searchsorted(self.frames[order], np.arange(last + 1), side="right")
    for start, end in itertools.pairwise(ends):
      yield self[order[start:end]]

  def where(self, row: int) -> str:
    """ "file:line" of a row."""
    return f"{self.file}:{self.lines[row]}"

  def check_ids(self) -> None:
    """Raises TrackFileError where an id is twice in a frame."""
    order = np.lexsort((self.lines, self.ids, self.frames))
    frames, ids = self.frames[order], self.ids[order]
    twice = np.flatnonzero((frames[1:] == frames[:-1]) & (ids[1:] == ids[:-1]))
    if not len(twice):
      return
    first, second = order[twice[0]], order[twice[0] + 1]
    raise TrackFileError(
      f"{self.where(second)}: id {self.ids[second]} is twice in frame {self.frames[second]}, also on line "
      f"{self.lines[first]}; expected every id once in a frame. "
      + (
        "These are detections, which have no ids: track them first."
        if self.ids[second] == -1
        else "What it was written by gives one id to two objects."
      )
    )


ARRAYS = ("frames", "ids", "boxes_xywh_px", "scores", "classes", "lines")


def read(path: Path) -> BoxTable:
  """Boxes of a file; lines without text are passed over.

  Raises:
    TrackFileError: with file and line: a field that is no finite number, a frame, id or class that is not whole, a
      frame below 1, fewer than six fields.
  """
  data = read_bytes(path, TrackFileError, MAX_DATA_BYTES)
  try:
    text = decode(_unpacked(data))
  except Misfit as error:
    raise TrackFileError(f"{path} {error}.") from None
  return parse(text, str(path))


def _unpacked(data: bytes) -> bytes:
  if not data.startswith(_GZIP):
    return data
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
      found = file.read(MAX_DATA_BYTES + 1)
  except (EOFError, OSError, zlib.error) as error:
    raise Misfit(f"is no whole gzip file: {error}") from None
  if len(found) > MAX_DATA_BYTES:
    raise Misfit(f"unpacks to more than {MAX_DATA_BYTES:,} bytes, the most that are read of such a file")
  return found


def parse(text: str, file: str = "boxes") -> BoxTable:
  """Boxes of text; see `read`."""
  rows: list[list[float]] = []
  lines: list[int] = []
  for number, line in enumerate(split_lines(text), start=1):
    if not line or line.isspace():
      continue
    fields = line.split(",") if "," in line else line.split()
    try:
      values = [float(field) for field in fields[:8]]
    except ValueError:
      raise _bad_field(fields, f"{file}:{number}") from None
    if len(values) < 6:
      raise TrackFileError(
        f"{file}:{number} has {len(values)} fields: {shown(line)}. Expected at least frame, id, left, top, width, height."
      )
    rows.append(values if len(values) == 8 else values + [1.0, float(UNKNOWN)][len(values) - 6 :])
    lines.append(number)
  table = np.array(rows, np.float64).reshape(-1, 8)
  _check(table, lines, file)
  whole = table[:, _WHOLE].astype(np.int64)
  return BoxTable(
    whole[:, 0], whole[:, 1], table[:, 2:6], table[:, 6], whole[:, 2], np.array(lines, np.int64), file
  )  # fmt: skip


def _bad_field(fields: Sequence[str], where: str) -> TrackFileError:
  for name, field in zip(_FIELDS, fields, strict=False):
    try:
      float(field)
    except ValueError:
      return TrackFileError(f"{where}: {name} is {shown(field.strip())}; expected a number.")
  raise AssertionError


def _check(table: np.ndarray, lines: Sequence[int], file: str) -> None:
  """Raises TrackFileError for the first value that cannot be meant."""
  limit = np.full(8, np.inf)
  limit[list(_WHOLE)] = _MOST_FRAMES + 1, _LARGEST, _LARGEST
  with np.errstate(invalid="ignore"):  # comparisons with what is not a number
    bad = ~(np.isfinite(table) & (np.abs(table) < limit))
    bad[:, _WHOLE] |= table[:, _WHOLE] != np.floor(table[:, _WHOLE])
  bad[:, 0] |= table[:, 0] < 1
  if not bad.any():
    return
  row, column = np.argwhere(bad)[0]
  expected = "a finite number"
  if column in _WHOLE:
    expected = f"a whole number from 1 to {_MOST_FRAMES:,}" if column == 0 else "a whole number"
  raise TrackFileError(f"{file}:{lines[row]}: {_FIELDS[column]} is {table[row, column]:g}; expected {expected}.")


def line_of(frame: int, number: int, box_xyxy_px: Sequence[float], score: float, class_number: int) -> str:
  """One line of a file of tracks; the box is written to hundredths of a pixel.

  Args:
    frame: the number of the frame, from 1.
    number: the id of the track, or -1.
    box_xyxy_px: left, top, right, bottom.
    score: in [0, 1], or what the detector gives.
    class_number: the class, from 1; -1 where it is not known.
  """
  x1, y1, x2, y2 = box_xyxy_px
  return f"{frame},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.6g},{class_number},-1,-1\n"


def write(path: Path, lines: Iterable[str]) -> None:
  """Writes a file of tracks in one step, compressed if its name ends in .gz.

  Raises:
    PrnError: the place cannot be written.
  """
  with written_beside(path) as file:
    if path.suffix != ".gz":
      file.writelines(line.encode() for line in lines)
      return
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
      packed.writelines(line.encode() for line in lines)
