"""Counts against what is so: the score of the AI City Challenge, and plain errors.

Effectiveness (AI City Challenge 2020 and 2021, track 1: Naphade et al., The 4th AI City Challenge, CVPRW 2020; evaluation at
aicitychallenge.org/2021-data-and-evaluation): the video is cut into k segments. For each movement and class, x_i vehicles have truly passed until the end of
segment i, and c_i were counted;

  wRMSE = sqrt(sum_i w_i (c_i - x_i)^2),  w_i = i / (1 + ... + k),  nwRMSE = max(0, 1 - wRMSE / n)

with n the true number; the mean of nwRMSE, weighted by n, is the score. Differs: k is not said there, 10 here; lines and their
directions count as movements do. What never truly passes has no weight in the score, whatever was counted: it is in the plain errors.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.structured import read_json, read_text
from prn_jax.files.values import Node
from prn_jax.track.event_log import Log
from prn_jax.track.tables import aligned, class_name, names_of

SEGMENTS = 10
ALL = "all"
_COLUMNS = ("time_sec", "name", "direction", "class")


class TruthError(PrnError):
  """A file of truth that cannot be read, or is of another scene."""


class Passing(NamedTuple):
  """A vehicle over a line, or through a movement.

  Attributes:
    name: the name of the line or the movement.
    direction: its name; empty for a movement.
    label: the name of its class, or its number as text; `ALL` where classes are not told apart.
    time_sec: when.
  """

  name: str
  direction: str
  label: str
  time_sec: float


@dataclasses.dataclass(frozen=True)
class Group:
  """All of one name, direction and class.

  Attributes:
    name, direction, label: see `Passing`.
    true, counted: how many.
    score: nwRMSE; None where none truly passes.
  """

  name: str
  direction: str
  label: str
  true: int
  counted: int
  score: float | None


def read(path: Path, log: Log, is_all_classes: bool) -> list[Passing]:
  """What is so, from JSON ({"crossings": [{"time_sec", "name", "direction", "class"}, ...]}, as `prn data video` writes it) or from CSV with these
  columns. A name may be left out where the scene has one line and no movement; a class, where no row has one.

  Args:
    path: the file, .json or .csv.
    log: the log of the count, whose names are meant.
    is_all_classes: classes are not read.

  Raises:
    TruthError: with file and place: a name, direction or class that the count does not have.
  """
  nodes = _rows_of_csv(path) if path.suffix.lower() == ".csv" else read_json(path, TruthError)["crossings"].items()
  scene = log.header["scene"]
  known = {line["name"]: tuple(line["directions"]) for line in scene["lines"]}
  known |= {movement["name"]: () for movement in scene["movements"]}
  is_classed = not is_all_classes and any("class" in node for node in nodes)
  return [_passing(node, known, _classes(log) if is_classed else None) for node in nodes]


def _rows_of_csv(path: Path) -> list[Node]:
  reader = csv.DictReader(io.StringIO(read_text(path, TruthError)), strict=True)
  try:
    columns = reader.fieldnames or ()
    unknown = [name for name in columns if name not in _COLUMNS]
    if unknown or "time_sec" not in columns:
      raise TruthError(
        f"{path}:1 has the columns {', '.join(columns)}; expected some of {', '.join(_COLUMNS)}, with time_sec."
      )
    rows = [({k: v or None for k, v in row.items() if k}, reader.line_num) for row in reader]
  except csv.Error as error:
    raise TruthError(f"{path}:{reader.line_num} is no valid CSV: {error}.") from None
  return [Node(row, f"{path}:{line}", error=TruthError) for row, line in rows]


def _passing(node: Node, known: dict[str, tuple[str, ...]], classes: set[str] | None) -> Passing:
  name = next(iter(known)) if "name" not in node and len(known) == 1 else node["name"].text()
  if name not in known:
    raise node["name"].fault(
      f"is '{name}', which the scene does not have{did_you_mean(name, known)}; expected one of {', '.join(known)}"
    )
  direction = ""
  if known[name]:
    direction = node["direction"].text()
    if direction not in known[name]:
      raise node["direction"].fault(
        f"is '{direction}', which '{name}' does not have; expected {' or '.join(known[name])}"
      )
  label = ALL
  if classes is not None:
    label = str(node["class"].raw)
    if label not in classes:
      raise node["class"].fault(
        f"is '{label}', which no class of the tracks is called ({', '.join(sorted(classes)) or 'there are none'}). "
        "--names FILE names them, --all-classes tells no classes apart"
      )
  return Passing(name, direction, label, node["time_sec"].number(0))


def _classes(log: Log) -> set[str]:
  names = {name for name in names_of(log) if name}
  return names | {_label(row, names_of(log)) for row in log.events if "class" in row}


def _label(row: dict[str, Any], names: Sequence[str]) -> str:
  return class_name(names, row["class"]) or str(row["class"])


def compare(log: Log, truth: list[Passing]) -> list[Group]:
  """What is so beside what was counted. Names of which the truth has no row at all are left out: nobody looked at them.

  Raises:
    TruthError: the truth is empty.
  """
  if not truth:
    raise TruthError("the truth holds no vehicle; there is nothing to compare.")
  is_classed = any(one.label != ALL for one in truth)
  looked_at = {one.name for one in truth}
  names = names_of(log)
  times: dict[tuple[str, str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
  for one in truth:
    times[one[:3]][0].append(one.time_sec)
  for row in log.events:
    if row["kind"] in ("line", "movement") and row["name"] in looked_at:
      key = (row["name"], row["direction"], _label(row, names) if is_classed else ALL)
      times[key][1].append(row["time_sec"])
  until = max(log.until_sec, *(one.time_sec for one in truth))
  return [
    Group(*key, len(true), len(counted), nwrmse(true, counted, until) if true else None)
    for key, (true, counted) in sorted(times.items())
  ]


def nwrmse(true_sec: Sequence[float], counted_sec: Sequence[float], until_sec: float) -> float:
  """1 where all is right at every time, 0 where errors are as great as the true number; see the head of this file.

  Args:
    true_sec, counted_sec: when vehicles passed, and were counted.
    until_sec: how long the video is.
  """
  ends = np.arange(1, SEGMENTS + 1) / SEGMENTS * until_sec
  ends[-1] = np.inf  # also what is counted in the last frame
  errors = np.searchsorted(np.sort(counted_sec), ends, "right") - np.searchsorted(np.sort(true_sec), ends, "right")
  weights = np.arange(1, SEGMENTS + 1) / (SEGMENTS * (SEGMENTS + 1) / 2)
  return max(0.0, 1 - float(np.sqrt(weights @ errors.astype(float) ** 2)) / len(true_sec))


def to_dict(groups: Sequence[Group]) -> dict[str, Any]:
  """JSON values: the score, the numbers, the sum of all errors by the true number, and the groups."""
  true = sum(group.true for group in groups)
  score = sum(group.true * group.score for group in groups if group.score is not None) / true
  return {
    "effectiveness": score,
    "true": true,
    "counted": sum(group.counted for group in groups),
    "error_share": sum(abs(group.counted - group.true) for group in groups) / true,
    "groups": [dataclasses.asdict(group) for group in groups],
  }


def text(groups: Sequence[Group]) -> str:
  """The comparison as a table for people."""
  rows = [("name", "direction", "class", "true", "counted", "error", "nwRMSE")]
  for one in groups:
    score = "" if one.score is None else f"{one.score:.4f}"
    rows.append(
      (one.name, one.direction, one.label, str(one.true), str(one.counted), f"{one.counted - one.true:+d}", score)
    )
  found = to_dict(groups)
  return (
    f"{aligned(rows)}\n"
    f"effectiveness {found['effectiveness']:.4f}, sum of errors {100 * found['error_share']:.2f}% of {found['true']}"
  )
