"""Any annotated images as COCO, VOC, YOLO or Darknet: `prn data convert`.

A split is written whole into OUT/.SPLIT.tmp, opened there by our own reader, compared, and only then put to its place;
what names it (the JSON, the list, the YAML) comes last, and OUT/converted.json after that. A run that was stopped leaves
nothing that looks whole, and is done anew when it is started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shutil
from pathlib import Path

from prn_jax.data_pipelines.convert.index import INDEX_FILE, Index, digest_of, read_index
from prn_jax.data_pipelines.convert.job import Job, Progress
from prn_jax.data_pipelines.convert.layout import Layout, Target
from prn_jax.data_pipelines.convert.layouts import LAYOUTS
from prn_jax.data_pipelines.convert.pictures import Images
from prn_jax.data_pipelines.convert.result import Converted
from prn_jax.data_pipelines.joined import check_fully_annotated
from prn_jax.data_pipelines.parallel import default_threads
from prn_jax.data_pipelines.prepared.prepare import default_split, fingerprint, only_writer
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  RecordList,
  Renumbered,
  Task,
)
from prn_jax.data_pipelines.spec import open_spec, parse_spec
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import check_utf8
from prn_jax.files.places import is_remote, to_path


def convert(
  spec: str,
  out: str | Path,
  to: str,
  *,
  split: str | None = None,
  images: Images | str = Images.COPY,
  on_bad_data: OnBadData | str = "stop",
  num_threads: int | None = None,
  progress: Progress | None = None,
) -> Converted:
  """Writes one split in another format.

  Args:
    spec: the data; every source with boxes.
    out: a folder that is empty, new, or of an earlier conversion; other splits in it keep their classes, and this one
      gets their numbers.
    to: "coco", "yolo", "voc" or "darknet".
    split: its name; by default the one that `spec` names, else train.
    images: "copy", or "link" for symbolic links. Images in memory or in archives are written; those that EXIF turns are
      written upright, since many programs do not turn them.
    on_bad_data: stop at the first bad entry, or leave bad entries out and list them.
    num_threads: threads that read headers of images; None takes one per core.
    progress: wraps the walk over the images; (items, total) -> items.

  Raises:
    DataError: the data is bad (policy stop), has no boxes, or the format cannot hold its classes or its split; or
      `out` holds something else.
    PrnError: `out` cannot be written, or another process is writing there.
  """
  layout = _layout(to)
  folder = _checked_folder(out)
  name = layout.split_of(split or default_split(spec))
  if not re.fullmatch(r"\w[\w.-]*", name):
    raise DataError(f"'{name}' is no name for a split: expected letters, digits, '_', '-' and '.'. Give another one.")
  if fault := layout.split_fault(name):
    raise DataError(f"{fault}. Name the split to write with --split.")
  with only_writer(folder, "converting"):
    index = _checked_index(folder, to)
    others = index.others(name)
    dataset = open_spec(spec, on_bad_data, index.names if others else None, keep_polygons=True)
    check_fully_annotated(dataset, f"data '{spec}'")
    if dataset.task is not Task.DETECT:
      raise DataError(
        f"data '{spec}' has classes of whole images, no boxes, which {to} cannot hold. Give data with boxes."
      )
    plan = {"fingerprint": _fingerprint(dataset, spec), "image_files": str(Images(images))}
    if name in index.splits:
      return _kept(folder, layout, name, index, plan, spec)
    ids = index.category_ids if others else _category_ids(dataset, spec)
    target = Target(dataset.names, ids, name)
    job = Job(folder, spec, layout, target, dataset, Images(images), OnBadData(on_bad_data), index)
    try:
      return job.run(plan, num_threads or default_threads(), progress)
    except OSError as error:
      raise PrnError(
        f"cannot write to '{folder}': {error.strerror or error}. What is unfinished there is removed."
      ) from error
    finally:
      shutil.rmtree(job.stage, ignore_errors=True)
      _forget_nothing(folder)


def _layout(to: str) -> type[Layout]:
  if to not in LAYOUTS:
    raise DataError(f"the format is '{to}'{did_you_mean(to, LAYOUTS)}; expected one of {', '.join(LAYOUTS)}")
  return LAYOUTS[to]


def _checked_folder(out: str | Path) -> Path:
  folder = to_path(out)
  if is_remote(folder):
    raise PrnError(
      f"cannot write to '{out}': data is converted on this machine. Give a folder, then copy it (gcloud storage cp -r FOLDER {out})."
    )
  check_utf8(folder)
  return folder


def _fingerprint(dataset: Dataset, spec: str) -> str:
  """Changes with names, annotations and outlines; of a data set that is not in memory, with its SPEC and length."""
  digest = hashlib.sha256(fingerprint(dataset, spec).encode())
  plain = dataset.dataset if isinstance(dataset, Renumbered) else dataset
  for record in plain.records if isinstance(plain, RecordList) else ():
    for ring in itertools.chain.from_iterable(record.polygons_px or ()):
      digest.update(ring.tobytes())
  return digest.hexdigest()


def _category_ids(dataset: Dataset, spec: str) -> tuple[int, ...]:
  """The source's own numbers where it has some; else from 1, since 0 is the background to many programs."""
  ids = dataset.category_ids
  has_own = parse_spec(spec)[0].kind == "coco" or ids != tuple(range(len(ids)))
  is_rising = all(low < high for low, high in itertools.pairwise(ids))
  return ids if has_own and is_rising else tuple(range(1, len(ids) + 1))


# -- what is there already ---------------------------------------------------------------------------------------------


def _checked_index(folder: Path, to: str) -> Index:
  """What OUT holds; what a stopped run left there is removed.

  Raises:
    DataError: it holds something else.
  """
  index = read_index(folder)
  if index is None:
    if found := sorted(path.name for path in folder.iterdir()):
      raise DataError(
        f"'{folder}' holds '{found[0]}'{' and more' if len(found) > 1 else ''}, which no prn data convert has written. "
        "Give an OUT that is new or empty."
      )
    return Index(to)
  if index.to != to:
    raise DataError(f"'{folder}' holds a set converted to {index.to}, not to {to}. Give another OUT.")
  for leftover in folder.glob(".*.tmp"):
    if leftover.is_dir():
      shutil.rmtree(leftover)
    elif leftover.name.startswith(f".{INDEX_FILE}."):
      leftover.unlink()
  if index.unfinished:
    for path in [folder / name for name in index.unfinished.files]:
      if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
      else:
        path.unlink(missing_ok=True)
    index = index.finished()
    index.write(folder)
  return index


def _kept(folder: Path, layout: type[Layout], name: str, index: Index, plan: dict[str, str], spec: str) -> Converted:
  """The figures of a split that is there and whole."""
  entry = index.splits[name]
  for key, what in (("fingerprint", "other annotations"), ("image_files", "images put there in another way")):
    if entry.get(key) != plan[key]:
      said = f" ({entry.get('source')}, now {spec})" if key == "fingerprint" else ""
      raise DataError(
        f"'{folder}' holds split '{name}' with {what}{said}. Give another OUT or --split, or delete {folder} to start anew."
      )
  try:
    is_same = digest_of(layout.files(folder, name), folder) == entry.get("digest")
  except OSError:  # a file or folder is gone
    is_same = False
  if not is_same:
    raise DataError(
      f"'{folder}' holds split '{name}', which was changed since it was written. Give another OUT, or delete {folder} to "
      "write it anew."
    )
  figures = {
    key: entry[key] for key in ("num_images", "num_objects", "lost", "images", "max_difference_px", "left_out")
  }
  problems, notes = tuple(entry["problems"]), tuple(entry["notes"])
  return Converted(layout.spec(folder, name), index.to, name, **figures, problems=problems, notes=notes, is_kept=True)


def _forget_nothing(folder: Path) -> None:
  """Removes an index that names no split, with what was begun, so that a folder without data is left as it was."""
  with contextlib.suppress(DataError):
    index = read_index(folder)
    if index and not index.splits and not index.unfinished:
      (folder / INDEX_FILE).unlink()
