"""Any source to sharded ArrayRecord files with images at their final size: `prn data prepare`.

Every shard is a contiguous range of the source and is written beside its place, then renamed; OUT/.SPLIT/ notes what is
finished, and dataset.json appears last. So a run that was killed goes on with the shards that are missing, and
finished ones are not touched. Run once more when all is there, it compares checksums and writes damaged shards anew.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.images import ImageError
from prn_jax.data_pipelines.joined import check_fully_annotated
from prn_jax.data_pipelines.parallel import default_threads, in_order
from prn_jax.data_pipelines.prepared.record_bytes import encode_record
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions, image_problem, shrink
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  Problem,
  ProblemLog,
  RecordList,
  Renumbered,
  notes_of,
)
from prn_jax.data_pipelines.sources.arrayrecord import (
  INDEX_FILE,
  VERSION,
  Index,
  Shard,
  Split,
  checked_plan,
  read_index,
)
from prn_jax.data_pipelines.spec import open_spec, parse_spec
from prn_jax.errors import PrnError
from prn_jax.files.disk import check_utf8, sha256, write_text
from prn_jax.files.places import is_remote, to_path
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Node

RECORDS_PER_SHARD = 2000
PLAN_FILE = "plan.json"
# Stored as they are: JPEG and PNG do not get smaller. Group size 1 is what random access needs.
WRITER_OPTIONS = "group_size:1,uncompressed"

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Prepared:
  """What `prepare` did.

  Attributes:
    folder, split: the place of the data; its SPEC is `arrayrecord:FOLDER:SPLIT`.
    num_records: images in the split.
    num_shards: files.
    num_kept: shards that an earlier run had finished.
    num_bytes: size of all shards.
    problems: what was left out (policy skip).
    left_out: their number of each kind.
    notes: what was understood, but is worth a look.
  """

  folder: Path
  split: str
  num_records: int
  num_shards: int
  num_kept: int
  num_bytes: int
  problems: tuple[str, ...]
  left_out: dict[str, int]
  notes: tuple[str, ...] = ()

  @property
  def spec(self) -> str:
    return f"arrayrecord:{self.folder}:{self.split}"


def default_split(spec: str) -> str:
  """The split that a SPEC names (voc:ROOT:val is val, synthetic:traffic:9@valid is valid), else train."""
  source, parts = parse_spec(spec)
  last = source.form.rsplit(":", 1)[-1]
  if source.kind == "synthetic":
    return parts[-1].partition("@")[2] or "train"
  if last in ("SPLIT", "train|valid"):
    return re.match(r"[\w.-]*", parts[-1])[0] or "train"  # type: ignore[index]  # the empty match always succeeds
  return "train"


def each_split(spec: str) -> list[str]:
  """The SPECs of `voc:ROOT:train,val`: one for each split that is listed; any other SPEC alone."""
  source, parts = parse_spec(spec)
  if not source.form.endswith(":SPLIT") or "," not in parts[-1]:
    return [spec]
  head = spec.removesuffix(parts[-1])
  return [f"{head}{split}" for split in dict.fromkeys(re.split(r",(?![^\[\]]*\])", parts[-1]))]


def prepare(
  spec: str,
  out: str | os.PathLike[str],
  *,
  split: str | None = None,
  options: ShrinkOptions = ShrinkOptions(),  # noqa: B008  (frozen)
  num_shards: int | None = None,
  num_threads: int | None = None,
  on_bad_data: OnBadData | str = "stop",
  progress: Progress | None = None,
) -> Prepared:
  """Writes a data set as one split of prepared data.

  Args:
    spec: any source.
    out: folder; may hold other splits of the same classes. Where it does, a split with fewer classes gets their
      numbers.
    split: name of the split; by default the one that the SPEC names, else train.
    options: size and format of the images.
    num_shards: files; by default one for every 2000 images.
    num_threads: images are decoded and encoded in so many threads; by default one per core.
    on_bad_data: "stop" raises at the first bad entry (what is finished stays); "skip" leaves it out and lists it.
    progress: passes the finished images of the missing shards on, to show how far they are; also gets their number.

  Returns:
    What was done. The same call again does nothing but compare checksums.

  Raises:
    DataError: the data is bad (policy stop), no image is left, or `out` holds this split of other data or options.
    PrnError: `out` cannot be written, or another process is writing this split.
  """
  folder = to_path(out)
  if is_remote(folder):
    raise PrnError(
      f"cannot write to '{out}': data is prepared on this machine. Give a folder, then copy it (gcloud storage cp -r FOLDER "
      f"{out}); arrayrecord:{out}:SPLIT reads it there."
    )
  check_utf8(folder)
  name = split or default_split(spec)
  if not re.fullmatch(r"\w[\w.-]*", name):
    raise DataError(f"'{name}' is no name for a split: expected letters, digits, '_', '-' and '.'. Give another one.")
  if num_shards is not None and num_shards < 1:
    raise DataError(f"the number of shards is {num_shards}; expected at least 1")
  with only_writer(folder):
    others = _other_splits(folder, name)
    dataset = open_spec(spec, on_bad_data, others.names if others else None)
    check_fully_annotated(dataset, f"data '{spec}'")
    count = min(num_shards or -(-len(dataset) // RECORDS_PER_SHARD), len(dataset))
    job = _Job(folder, name, spec, dataset, options, count, OnBadData(on_bad_data))
    done = _finished(job)
    num_kept = len(done)
    steps = _write_missing(job, done, num_threads or default_threads())
    total = sum(len(job.range_of(number)) for number in range(count) if number not in done)
    with contextlib.closing(steps):  # an interrupt ends it here, not when it is collected
      for _ in progress(steps, total) if progress else steps:
        pass
    return _publish(job, done, num_kept)


@dataclass(frozen=True)
class _Job:
  """What is written where."""

  folder: Path
  split: str
  spec: str
  dataset: Dataset
  options: ShrinkOptions
  num_shards: int
  policy: OnBadData

  @property
  def work(self) -> Path:
    return self.folder / f".{self.split}"

  @functools.cached_property
  def plan(self) -> dict[str, Any]:
    """What must be equal for two runs to write the same shards."""
    return {
      "version": VERSION,
      "num_shards": self.num_shards,
      "num_records": len(self.dataset),
      "fingerprint": fingerprint(self.dataset, self.spec),
      "options": json.loads(json.dumps(asdict(self.options))),
    }

  def file_of(self, number: int) -> str:
    return f"{self.split}-{number:05d}-of-{self.num_shards:05d}.array_record"

  def range_of(self, number: int) -> range:
    """Records of a shard: as equal as can be."""
    start, stop = (len(self.dataset) * i // self.num_shards for i in (number, number + 1))
    return range(start, stop)


def fingerprint(dataset: Dataset, spec: str) -> str:
  """Changes with names and annotations; of a data set that is not in memory, with its SPEC and length."""
  digest = hashlib.sha256(json.dumps([dataset.names, dataset.category_ids, len(dataset)]).encode())
  plain = dataset.dataset if isinstance(dataset, Renumbered) else dataset
  if isinstance(plain, RecordList):
    for record in plain.records:
      digest.update(encode_record(record, b""))
  else:
    digest.update(spec.encode())
  return digest.hexdigest()


def _other_splits(folder: Path, split: str) -> Index | None:
  """The data that `folder` holds beside this split, or None."""
  if not (folder / INDEX_FILE).exists():
    return None
  index = read_index(folder)
  return index if index.splits.keys() - {split} else None


# -- what an earlier run left ------------------------------------------------------------------------------------------


def _finished(job: _Job) -> dict[int, Shard]:
  """Whole shards of an earlier run with the same plan; makes the working folder.

  Raises:
    DataError: the earlier run had another plan.
  """
  for pattern in (f".{job.split}-*.tmp", f".{INDEX_FILE}.*.tmp"):
    for leftover in job.folder.glob(pattern):
      leftover.unlink()
  index = read_index(job.folder) if (job.folder / INDEX_FILE).exists() else None
  if index is not None and job.split in index.splits:
    split = index.splits[job.split]
    _check_plan(job, split.plan, split.spec)
    return {n: shard for n, shard in enumerate(split.shards) if shard.fault(job.folder, full=True) is None}
  path = job.work / PLAN_FILE
  notes = {number: job.work / f"{number:05d}.json" for number in range(job.num_shards)}
  if path.exists() and any(job.work.glob("[0-9]*.json")):
    earlier = _read_json(path)
    _check_plan(job, checked_plan(earlier["plan"]), earlier["spec"].text())
  else:
    job.work.mkdir(parents=True, exist_ok=True)
    _write_json(path, {"spec": job.spec, "plan": job.plan})
  found = {number: Shard.from_json(_read_json(note)) for number, note in notes.items() if note.exists()}
  return {number: shard for number, shard in found.items() if shard.fault(job.folder) is None}


def _check_plan(job: _Job, earlier: dict[str, Any], earlier_spec: str) -> None:
  """Raises DataError where an earlier run wrote other data, or with other options."""
  if earlier == job.plan:
    return
  old, new = ({**plan, **plan["options"]} for plan in (earlier, job.plan))
  what = [f"{key} {_text(old.get(key))}, now {_text(new[key])}" for key in new if old.get(key) != new[key]
          and key not in ("options", "fingerprint")]  # fmt: skip
  if earlier["fingerprint"] != job.plan["fingerprint"]:
    what.insert(0, f"other annotations ({earlier_spec}, now {job.spec})")
  raise DataError(
    f"'{job.folder}' holds split '{job.split}' prepared otherwise: {'; '.join(what)}. Give the same options to go on "
    f"with it, another OUT or --split, or delete {job.folder} to start anew."
  )


def _text(value: Any) -> str:
  if isinstance(value, list):
    return "x".join(map(str, value))
  return "none" if value is None else str(value)


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_missing(job: _Job, done: dict[int, Shard], num_threads: int) -> Generator[None, None, None]:
  """Writes the shards that are not in `done` and puts them there; yields after every image."""
  for number in range(job.num_shards):
    if number not in done:
      job.work.mkdir(parents=True, exist_ok=True)
      done[number] = yield from _write_shard(job, number, num_threads)


def _write_shard(job: _Job, number: int, num_threads: int) -> Generator[None, None, Shard]:
  from array_record.python.array_record_module import ArrayRecordWriter

  path = job.folder / job.file_of(number)
  beside = path.with_name(f".{path.name}.tmp")
  log = ProblemLog(job.policy)
  num_records = 0
  try:
    writer = ArrayRecordWriter(str(beside), WRITER_OPTIONS)
    try:
      with in_order(functools.partial(_entry, job), job.range_of(number), num_threads) as items:
        for item in items:
          if isinstance(item, Problem):
            log.report(item.path, item.line, item.reason, item.check, "the image is left out")
          else:
            writer.write(item)
            num_records += 1
          yield
    finally:
      writer.close()
    shard = Shard(path.name, num_records, beside.stat().st_size, sha256(beside), _pairs(log.problems))
    with beside.open("rb+") as file:
      os.fsync(file.fileno())
    _write_json(job.work / f"{number:05d}.json", shard.to_json())  # first: what is renamed must count as finished
    os.replace(beside, path)
  except (OSError, RuntimeError) as error:  # the writer raises RuntimeError
    raise PrnError(f"cannot write '{path}': {error}. Shards that are finished stay; run it again to go on.") from error
  finally:
    beside.unlink(missing_ok=True)
  return shard


def _entry(job: _Job, index: int) -> bytes | Problem:
  """One encoded record, or what is wrong with its image."""
  record = None
  try:
    record = job.dataset[index]
    smaller, image = shrink(record, job.options)
  except (ImageError, DataError) as error:
    return image_problem(error, record, job.spec)
  return encode_record(smaller, image)


def _publish(job: _Job, done: dict[int, Shard], num_kept: int) -> Prepared:
  """Writes dataset.json, if it changes, and removes the working folder."""
  shards = tuple(done[number] for number in range(job.num_shards))
  num_records = sum(shard.records for shard in shards)
  problems = _pairs(job.dataset.problems)
  left_out = [*problems, *(pair for shard in shards for pair in shard.problems)]
  if not num_records:
    raise DataError(f"data '{job.spec}': no image is left; the first was left out because of {left_out[0][1]}")
  index = read_index(job.folder) if (job.folder / INDEX_FILE).exists() else None
  split = Split(job.spec, job.plan, shards, problems)
  splits = {**(index.splits if index else {}), job.split: split}
  if index is None or index.splits.get(job.split) != split:
    ids, names = (index.category_ids, index.names) if index else (job.dataset.category_ids, job.dataset.names)
    _write_json(job.folder / INDEX_FILE, Index(names, ids, splits).to_json())
  shutil.rmtree(job.work, ignore_errors=True)
  num_bytes = sum(shard.bytes for shard in shards)
  return Prepared(
    job.folder, job.split, num_records, len(shards), num_kept, num_bytes, tuple(text for _, text in left_out),
    split.left_out, notes_of(job.dataset),
  )  # fmt: skip


def _pairs(problems: Iterable[Problem]) -> tuple[tuple[str, str], ...]:
  return tuple((str(problem.kind), str(problem)) for problem in problems)


# -- files -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_writer(folder: Path, doing: str = "preparing") -> Iterator[None]:
  """Makes the folder and keeps other processes from writing data into it; a killed process frees it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
  except OSError as error:
    reason = "it is a file" if folder.is_file() else error.strerror
    raise PrnError(f"cannot write to '{folder}': {reason}. Give another OUT.") from None
  try:
    try:
      import fcntl

      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
      pass
    except OSError as error:
      if error.errno == errno.EWOULDBLOCK:  # others: a file system without locks
        raise PrnError(
          f"another process is {doing} data in '{folder}'. Wait for it to end, or give another OUT."
        ) from None
    yield
  finally:
    with contextlib.suppress(OSError):  # succeeds where nothing was written, as after a mistake in SPEC
      folder.rmdir()
    os.close(handle)


def _read_json(path: Path) -> Node:
  return read_json(path, DataError, MAX_DATA_BYTES, f"Delete the folder {path.parent} and run it again.")


def _write_json(path: Path, content: dict[str, Any]) -> None:
  write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
