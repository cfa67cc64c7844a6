"""Prepared data: `arrayrecord:DIR:SPLIT`, what `prn data prepare` writes.

DIR holds dataset.json and the shards SPLIT-00000-of-00008.array_record, ... dataset.json:

    {"format": "prn_jax.arrayrecord", "version": 1,
     "names": [...], "category_ids": [...],
     "splits": {SPLIT: {"spec": ..., "num_records": n, "left_out": {kind: n}, "problems": [[kind, text], ...],
                        "plan": {"num_shards": n, "num_records": n, "fingerprint": ..., "options": {...}},
                        "shards": [{"file": ..., "records": n, "bytes": n, "sha256": ..., "problems": [...]}, ...]}}}

The records are described in `prn_jax.data_pipelines.prepared.record_bytes`. Access is random, in the order of the source; shards are
opened when first read. The files carry checksums of their own, so that a flipped bit is found when it is read;
`prn data inspect` and `prn data prepare` (run again) compare the sha256 of whole shards.
"""

from __future__ import annotations

import functools
import re
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.prepared.record_bytes import decode_record
from prn_jax.data_pipelines.prepared.shard_cache import check_room, copied
from prn_jax.data_pipelines.records import DataError, Problem, ProblemLog, Record, Task
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import check_utf8, is_file, is_folder, sha256
from prn_jax.files.places import is_remote, to_path
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Node, shown

INDEX_FILE = "dataset.json"
FORMAT, VERSION = "prn_jax.arrayrecord", 1
_MAX_COUNT = 2**63 - 1
AGAIN = "run the `prn data prepare` command that made it again; it keeps whole shards and writes damaged ones anew"


Pairs = tuple[tuple[str, str], ...]
"""Problems as kind and text."""


@dataclass(frozen=True)
class Shard:
  """One file: its name in the folder, number of records, size, checksum, and the images left out of it."""

  file: str
  records: int
  bytes: int
  sha256: str
  problems: Pairs = ()

  def to_json(self) -> dict[str, Any]:
    return asdict(self)

  @classmethod
  def from_json(cls, value: Node) -> Shard:
    name = value["file"].text()
    if not re.fullmatch(r"[^/\\\0]{1,250}", name) or name in (".", ".."):
      raise value["file"].fault(f"is {shown(name)}; expected the name of a file in the folder")
    records, size = (value[key].whole(0, _MAX_COUNT) for key in ("records", "bytes"))
    return cls(name, records, size, value["sha256"].text(), _pairs(value["problems"]))

  def fault(self, folder: Path, *, full: bool = False) -> str | None:
    """What is wrong with the file, or None; with `full` its checksum is compared too."""
    path = folder / self.file
    if not path.is_file():
      return "the shard is missing"
    size = path.stat().st_size
    if size != self.bytes:
      what = "truncated" if size < self.bytes else "not the one that was prepared"
      return f"the shard is {what}: it has {size:,} bytes, expected {self.bytes:,}"
    if full and sha256(path) != self.sha256:
      return f"the shard is damaged: its sha256 differs from the one in {INDEX_FILE}"
    return None


@dataclass(frozen=True)
class Split:
  """One split as dataset.json describes it.

  Attributes:
    spec: the SPEC that it was opened by.
    plan: options, numbers and a fingerprint of the annotations; another plan would give other shards.
    shards: the files in order.
    problems: annotations that were left out; images that were left out are listed with their shard.
  """

  spec: str
  plan: dict[str, Any]
  shards: tuple[Shard, ...]
  problems: Pairs = ()

  @property
  def num_records(self) -> int:
    return sum(shard.records for shard in self.shards)

  @property
  def left_out(self) -> dict[str, int]:
    """Number of entries left out, by kind."""
    pairs = [*self.problems, *(pair for shard in self.shards for pair in shard.problems)]
    return dict(Counter(kind for kind, _ in pairs).most_common())

  def to_json(self) -> dict[str, Any]:
    return {
      "spec": self.spec,
      "num_records": self.num_records,
      "left_out": self.left_out,
      "plan": self.plan,
      "problems": self.problems,
      "shards": [shard.to_json() for shard in self.shards],
    }

  @classmethod
  def from_json(cls, value: Node) -> Split:
    shards = tuple(Shard.from_json(shard) for shard in value["shards"].items())
    return cls(value["spec"].text(), checked_plan(value["plan"]), shards, _pairs(value["problems"]))


def checked_plan(value: Node) -> dict[str, Any]:
  """A plan as it was written; other keys than these are only compared."""
  value["options"].mapping()
  value["fingerprint"].text()
  return dict(value.raw)


def _pairs(value: Node) -> Pairs:
  pairs = []
  for pair in value.items():
    texts = pair.texts()
    if len(texts) != 2:
      raise pair.fault(f"is {shown(texts)}; expected kind and text")
    pairs.append((texts[0], texts[1]))
  return tuple(pairs)


@dataclass(frozen=True)
class Index:
  """The content of dataset.json."""

  names: tuple[str, ...]
  category_ids: tuple[int, ...]
  splits: dict[str, Split]

  def to_json(self) -> dict[str, Any]:
    splits = {name: split.to_json() for name, split in self.splits.items()}
    return {"format": FORMAT, "version": VERSION, "names": self.names, "category_ids": self.category_ids} | {
      "splits": splits
    }


def read_index(folder: Path) -> Index:
  """Reads dataset.json.

  Raises:
    DataError: it is missing, damaged, or of another format or version.
  """
  path = folder / INDEX_FILE
  if not is_file(path):
    what = "has no dataset.json" if is_folder(folder) else "does not exist"
    unfinished = sorted(path.parent.name[1:] for path in folder.glob(".*/plan.json"))
    hint = f" Its split {unfinished[0]} is unfinished: {AGAIN}." if unfinished else ""
    raise DataError(f"'{folder}' {what}; expected a folder that `prn data prepare SPEC {folder}` wrote.{hint}")
  root = read_json(path, DataError, MAX_DATA_BYTES, f"To repair it, delete it and {AGAIN}.")
  if not isinstance(root.raw, dict) or root.raw.get("format") != FORMAT:
    raise DataError(f'{path} does not describe prepared data: expected "format": "{FORMAT}".')
  if root.get("version").raw != VERSION:
    raise DataError(
      f"{path} has version {shown(root.get('version').raw)}, this program reads version {VERSION}. "
      "Prepare the data again, or use the version of prn_jax that wrote it."
    )
  splits = {name: Split.from_json(value) for name, value in root["splits"].mapping().items()}
  names, ids = root["names"].texts(), [item.whole(-_MAX_COUNT, _MAX_COUNT) for item in root["category_ids"].items()]
  if len(ids) != len(names) or len(set(names)) != len(names):
    raise root["names"].fault(f"holds {len(names)} names for {len(ids)} category_ids; expected as many, each once")
  return Index(tuple(names), tuple(ids), splits)


class ArrayRecordDataset:
  """Records of one split by index; picklable, and safe to read from several threads.

  Args:
    folder: holds dataset.json and the shards.
    split: name of the split.
    index: what dataset.json says.
    shards: those that can be read.
    problems: those that cannot (policy skip).
  """

  def __init__(
    self, folder: Path, split: str, index: Index, shards: Sequence[Shard], problems: Sequence[Problem] = ()
  ) -> None:
    self.folder, self.split, self.index = folder, split, index
    self.problems = tuple(problems)
    self._shards = tuple(shards)
    self._ends = list(accumulate(shard.records for shard in self._shards))
    self._readers: list[Any] = [None] * len(self._shards)
    self._lock = threading.Lock()

  @property
  def names(self) -> tuple[str, ...]:
    return self.index.names

  @property
  def category_ids(self) -> tuple[int, ...]:
    return self.index.category_ids

  @functools.cached_property
  def task(self) -> Task:
    """That of the first record that can be read."""
    for index in range(len(self)):
      try:
        return Task.DETECT if self[index].label is None else Task.CLASSIFY
      except DataError:
        continue  # whoever reads it follows the policy
    return Task.DETECT

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: int) -> Record:
    """The record, its image as bytes.

    Raises:
      DataError: the shard is damaged; the text names it.
      IndexError: there is no such record.
    """
    if not -len(self) <= index < len(self):
      raise IndexError(f"record {index} of {len(self)} in {self.folder}, split {self.split}")
    index %= len(self)
    number = bisect_right(self._ends, index)
    position = index - (self._ends[number] - self._shards[number].records)
    try:
      return decode_record(self._reader(number).read([position])[0])
    except (RuntimeError, DataError) as error:  # the reader raises RuntimeError for all that is wrong with a file
      path = self.folder / self._shards[number].file
      raise DataError(f"{path}: record {position} cannot be read ({error}). To repair it, {AGAIN}.") from None

  def check_shards(self, log: ProblemLog) -> None:
    """Compares the checksums of all shards, which reads them whole; what is wrong goes to the log."""
    for shard in self._shards:
      fault = shard.fault(self.folder, full=True)
      if fault:
        path, consequence = self.folder / shard.file, f"its {shard.records} records may be damaged"
        log.report(path, None, f"{fault}. To repair it, {AGAIN}", Check.SHARD_DAMAGED, consequence)

  def _reader(self, number: int) -> Any:
    reader = self._readers[number]
    if reader is None:
      from array_record.python.array_record_module import ArrayRecordReader

      with self._lock:
        reader = self._readers[number]
        if reader is None:
          shard = self._shards[number]
          path = self.folder / shard.file
          # Without read-ahead: random access would throw it away.
          reader = ArrayRecordReader(
            str(copied(path, shard.sha256) if is_remote(path) else path),
            options="readahead_buffer_size:0",
            file_reader_buffer_size=32768,
          )
          if reader.num_records() != self._shards[number].records:  # it says 0 for a damaged file, and raises nothing
            raise DataError(
              f"it holds {reader.num_records()} records, expected {self._shards[number].records}; it is damaged"
            )
          self._readers[number] = reader
    return reader

  def __getstate__(self) -> dict[str, Any]:
    state = self.__dict__.copy()
    state["_readers"] = [None] * len(self._shards)
    del state["_lock"]
    return state

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._lock = threading.Lock()


@register_source("arrayrecord:DIR:SPLIT", "what prn data prepare wrote")
def open_arrayrecord(parts: tuple[str, ...], log: ProblemLog) -> ArrayRecordDataset:
  """Opens one split; sizes of the shards are compared, nothing is read yet.

  Raises:
    DataError: the folder, the split or a shard is missing or damaged (a shard: policy stop), or nothing is left.
  """
  folder, name = to_path(parts[0]), parts[1]
  check_utf8(folder, DataError)
  index = read_index(folder)
  if name not in index.splits:
    known = ", ".join(index.splits) or "none"
    raise DataError(f"{folder} has no split '{name}'{did_you_mean(name, index.splits)}; it has {known}")
  shards = []
  for shard in index.splits[name].shards:
    fault = shard.fault(folder)
    if fault is None:
      shards.append(shard)
      continue
    reason = f"{fault}. To repair it, {AGAIN}"
    log.report(folder / shard.file, None, reason, Check.SHARD_DAMAGED, f"its {shard.records} records are left out")
  if is_remote(folder):
    check_room({shard.sha256: shard.bytes for shard in shards}, f"{folder}, split '{name}'")
  dataset = ArrayRecordDataset(folder, name, index, shards, log.problems)
  if not len(dataset):
    raise DataError(f"{folder}, split '{name}', holds no images. To repair it, {AGAIN}.")
  return dataset
