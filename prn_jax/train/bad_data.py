"""What was wrong with the data of a run: counted and said at its end, and listed in RUN/bad_data.json.

Sources know the annotations that they left out, the pipelines the images that they could not decode, and those only in
the process that had to decode them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.feed.pipeline import PipelineReport
from prn_jax.data_pipelines.records import Problem
from prn_jax.errors import BucketError, PrnError
from prn_jax.files.disk import set_aside, write_text
from prn_jax.files.structured import MAX_DATA_BYTES, parse_json, read_json
from prn_jax.files.values import Node
from prn_jax.hosts.group import gather_text
from prn_jax.train.experiment import Experiment

FILE = "bad_data.json"
ANNOTATION, IMAGE = "annotation", "image"
Entry = dict[str, Any]
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BadData:
  """Everything that was left out of training or evaluation.

  Attributes:
    specs: "train" and "valid" -> the data.
    entries: "train" and "valid" -> {"what", "id", "path", "line", "kind", "reason"}; "what" is annotation or image.
    num_overflowing: images, each time that they were drawn, with more objects than `data.max_boxes`.
    num_boxes_lost: objects that those lost.
  """

  specs: Mapping[str, str]
  entries: Mapping[str, Sequence[Entry]]
  num_overflowing: int = 0
  num_boxes_lost: int = 0

  def __bool__(self) -> bool:
    return bool(self.num_boxes_lost or any(self.entries.values()))

  def merged(self, other: BadData) -> BadData:
    """Both, every entry once; `other` counts where it is of the same data."""
    entries = {
      part: [dict(one) for one in {_key(one): one for one in (*self._of(other, part), *mine)}.values()]
      for part, mine in self.entries.items()
    }
    of_same = other if self.specs["train"] == other.specs["train"] else BadData(self.specs, {})
    return BadData(
      self.specs,
      entries,
      self.num_overflowing + of_same.num_overflowing,
      self.num_boxes_lost + of_same.num_boxes_lost,
    )

  def _of(self, other: BadData, part: str) -> Sequence[Entry]:
    return other.entries.get(part, ()) if self.specs[part] == other.specs[part] else ()

  def text(self, file: Path, max_boxes: int) -> str:
    """For people: all counts, in one line."""
    bad = [
      f"{number:,} {what}{'s' if number > 1 else ''} of the {name} data"
      for part, name in (("train", "training"), ("valid", "validation"))
      for what in (ANNOTATION, IMAGE)
      if (number := sum(one["what"] == what for one in self.entries[part]))
    ]
    said = [f"left out or clipped were {', '.join(bad)}"] if bad else []
    if self.num_boxes_lost:
      said.append(
        f"{self.num_boxes_lost:,} boxes were beyond data.max_boxes={max_boxes} (images drawn with more: "
        f"{self.num_overflowing:,})"
      )
    return f"bad data: {'; '.join(said)}. All is listed in {file}."

  def to_json(self) -> dict[str, Any]:
    boxes = {"images": self.num_overflowing, "boxes": self.num_boxes_lost}
    return {"data": dict(self.specs), "over_max_boxes": boxes, **self.entries}

  @classmethod
  def from_json(cls, root: Node) -> BadData:
    """What `to_json` gave.

    Raises:
      PrnError: it is not that.
    """
    boxes, specs = root["over_max_boxes"], root["data"]
    entries = {part: [_entry(one) for one in root[part].items()] for part in ("train", "valid")}
    counts = [boxes[key].whole(0) for key in ("images", "boxes")]
    return cls({part: specs[part].raw for part in entries}, entries, *counts)


def _entry(one: Node) -> Entry:
  # A run that began before entries had ids goes on.
  keys = ("what", *(["id"] if "id" in one else []), "path", "kind", "reason")
  texts = {key: one[key].text() for key in keys}
  line = one["line"]
  return {**texts, "line": None if line.raw is None else line.whole(1)}


def collect(experiment: Experiment, report: PipelineReport) -> BadData:
  """What all processes met; each of them must call it.

  Args:
    experiment: the experiment, with its data sets and an evaluator that remembers its last evaluation.
    report: the report of this process's part of the training batches.
  """
  evaluator, data = experiment.evaluator, experiment.config.data
  train = _entries(experiment.dataset.problems, ANNOTATION) + _entries(report.problems, IMAGE)
  valid: list[Entry] = []
  if evaluator is not None:
    valid = _entries(evaluator.dataset.problems, ANNOTATION) + _entries(evaluator.problems, IMAGE)
  specs = {"train": data.train, "valid": data.valid}
  own = BadData(specs, {"train": train, "valid": valid}, report.num_overflowing, report.num_boxes_lost)
  total = BadData(specs, {"train": [], "valid": []})
  for text in gather_text(json.dumps(own.to_json())):
    total = total.merged(BadData.from_json(parse_json(text, "what another process has met")))
  return total


def write(found: BadData, workdir: Path, *, is_resumed: bool) -> BadData:
  """Writes RUN/bad_data.json, if there is anything to say, with what earlier parts of the run have met.

  Args:
    found: the problems that this part of the run has found.
    workdir: the run directory.
    is_resumed: whether there were earlier parts. Else a file that is there is of a start that failed.

  Returns:
    What the file now holds.
  """
  file = workdir / FILE
  if is_resumed and file.is_file():
    try:
      found = found.merged(BadData.from_json(read_json(file, max_bytes=MAX_DATA_BYTES)))
    except BucketError:
      raise
    except PrnError as error:
      _LOG.warning(
        "%s That is kept as '%s'; what this part of the run has met is written anew.", error, set_aside(file)
      )
  if found:
    write_text(file, json.dumps(found.to_json(), indent=1))
  else:
    file.unlink(missing_ok=True)
  return found


def _entries(problems: Sequence[Problem], what: str) -> list[Entry]:
  return [{"what": what, **problem.to_json()} for problem in problems]


def _key(entry: Entry) -> tuple[Any, ...]:
  return entry["what"], entry["path"], entry["line"], entry["reason"]
