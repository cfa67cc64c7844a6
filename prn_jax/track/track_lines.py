"""Tracks as JSON lines, as `prn track --save jsonl` writes them: a line for every frame, with its time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from prn_jax.files.structured import MAX_DATA_BYTES, decode, load_json, read_bytes, split_lines
from prn_jax.files.values import Misfit, Node
from prn_jax.track.clock import Clock
from prn_jax.track.motchallenge import BoxTable, TrackFileError

SUFFIX = ".jsonl"
_MOST_FRAMES, _MOST_IDS, _MOST_CLASSES = 10_000_000, 1 << 53, 100_000


class Tracks(NamedTuple):
  """What a file holds.

  Attributes:
    boxes: with ids.
    clock: when its frames are.
    names: names of the classes, class 1 first; "" for a class that never occurs.
  """

  boxes: BoxTable
  clock: Clock
  names: tuple[str, ...]


def read(path: Path) -> Tracks:
  """The tracks of a file.

  Raises:
    TrackFileError: with file and line: no JSON, a key that is missing or of another type, frames or times that do not rise.
  """
  try:
    text = decode(read_bytes(path, TrackFileError, MAX_DATA_BYTES))
  except Misfit as error:
    raise TrackFileError(f"{path} {error}.") from None
  frames: list[int] = []
  times: list[float] = []
  rows: list[tuple[float, ...]] = []
  names: dict[int, str] = {}
  for number, line in enumerate(split_lines(text), start=1):
    if not line.strip():
      continue
    where = f"{path}:{number}"
    try:
      root = Node(load_json(line), where, error=TrackFileError)
    except Misfit as error:
      raise TrackFileError(f"{where} {error}.") from None
    frame, time_sec = root["frame"].whole(1, _MOST_FRAMES), root["time_sec"].number(0)
    if frames and (frame <= frames[-1] or time_sec <= times[-1]):
      raise TrackFileError(
        f"{where}: frame {frame} at {time_sec:g} s stands behind frame {frames[-1]} at {times[-1]:g} s; both must rise."
      )
    frames.append(frame)
    times.append(time_sec)
    for one in root["tracks"].items():
      rows.append((frame, number, *_row(one)))
      if "name" in one:
        names.setdefault(one["class"].whole(), one["name"].text())
  return Tracks(
    _table(rows, str(path)), Clock(frames=np.array(frames, float), times_sec=np.array(times)), _names(names)
  )


def _row(one: Node) -> tuple[float, ...]:
  box = [value.number() for value in one["box_xyxy_px"].items()]
  if len(box) != 4:
    raise one["box_xyxy_px"].fault(f"has {len(box)} numbers; expected left, top, right and bottom")
  left, top, right, bottom = box
  return (
    one["id"].whole(1, _MOST_IDS),
    left,
    top,
    right - left,
    bottom - top,
    one["score"].number(),
    one["class"].whole(-1, _MOST_CLASSES),
  )


def _table(rows: list[tuple[float, ...]], file: str) -> BoxTable:
  columns = np.array(rows, np.float64).reshape(-1, 9)
  whole = columns[:, [0, 1, 2, 8]].astype(np.int64)
  return BoxTable(
    frames=whole[:, 0], ids=whole[:, 2], boxes_xywh_px=columns[:, 3:7], scores=columns[:, 7], classes=whole[:, 3],
    lines=whole[:, 1], file=file,
  )  # fmt: skip


def _names(names: dict[int, str]) -> tuple[str, ...]:
  return tuple(names.get(label, "") for label in range(1, max(names, default=0) + 1))
