"""One split, written into OUT/.SPLIT.tmp, proven, and put to its place."""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.data_pipelines.convert.index import Index, Unfinished, digest_of
from prn_jax.data_pipelines.convert.layout import Layout, Target, Texts, keep_objects
from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header, Images, key_of, place, read_header, stems, suffix_of
from prn_jax.data_pipelines.convert.proof import Proof, prove
from prn_jax.data_pipelines.convert.result import Converted
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import check_stated_size
from prn_jax.data_pipelines.images import ImageError
from prn_jax.data_pipelines.parallel import in_order
from prn_jax.data_pipelines.prepared.shrink import image_problem
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  Place,
  Problem,
  ProblemLog,
  Record,
  RecordList,
  Renumbered,
  box_fault,
  checked_box,
  count_problems,
  image_name,
  notes_of,
)
from prn_jax.errors import PrnError
from prn_jax.files.disk import check_space, sha256, write_text
from prn_jax.files.places import is_remote

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class _Looked:
  """A record, and what the header of its image says."""

  record: Record
  header: Header


class Job:
  """Writes one split."""

  def __init__(
    self,
    folder: Path,
    spec: str,
    layout: type[Layout],
    target: Target,
    dataset: Dataset,
    images: Images,
    policy: OnBadData,
    index: Index,
  ) -> None:
    self.folder, self.spec, self.target, self.dataset, self.images = folder, spec, target, dataset, images
    self.index = replace(index, names=target.names, category_ids=target.category_ids)
    self.stage = folder / f".{target.split}.tmp"
    self._losses = Losses()
    self._layout = layout(target, self._losses)
    self._log = ProblemLog(policy)
    self._placed: Counter[str] = Counter()
    self._written: dict[str, Record] = {}
    self._taken: set[str] = set()
    self._elsewhere = self._names_elsewhere()

  def run(self, plan: dict[str, str], num_threads: int, progress: Progress | None) -> Converted:
    """Stages, proves, and puts everything to its place."""
    self._check_free()
    self.index.write(self.folder)
    self._check_space()
    (self.stage / self._layout.image_folder).mkdir(parents=True)
    steps = self._stage_images(num_threads)
    with contextlib.closing(steps):
      for _ in progress(steps, len(self.dataset)) if progress else steps:
        pass
    if not self._written:
      first = self._log.problems[0] if self._log.problems else "it is empty"
      raise DataError(f"data '{self.spec}': no image is left; the first was left out because of {first}")
    own = self._layout.own_texts()
    self._write(own)
    self._write(self._layout.shared_texts(self.target.names, [self.target.split]))
    proof = prove(self._layout.spec(self.stage, self.target.split), self.target.names, self._written)
    return self._publish(plan, own, proof)

  def _names_elsewhere(self) -> dict[str, Path]:
    """Images of other splits in the same folder, by the key of their stem."""
    found: dict[str, Path] = {}
    if self._layout.has_shared_folders:
      for split in self.index.others(self.target.split):
        for path in self._layout.files(self.folder, split):
          if path.parent.name == self._layout.image_folder:
            found[key_of(path.stem)] = path
    return found

  def _check_free(self) -> None:
    """Raises DataError where files of somebody else stand in the way, or shared ones were changed."""
    split = self.target.split
    own = (*self._layout.folders(split), *self._layout.own_files(split))
    if found := [name for name in own if (self.folder / name).exists()]:
      raise DataError(f"'{self.folder}' holds {found[0]}, which no prn data convert has written. Give another OUT.")
    for name, digest in self.index.shared.items():
      path = self.folder / name
      if path.exists() and sha256(path) != digest:
        raise DataError(f"{path} was changed since it was written, and would be overwritten. Give another OUT.")

  def _check_space(self) -> None:
    plain = self.dataset.dataset if isinstance(self.dataset, Renumbered) else self.dataset
    if self.images is Images.COPY and isinstance(plain, RecordList):
      paths = [record.image for record in plain.records if not isinstance(record.image, bytes)]
      sizes = [path.stat().st_size for path in paths if not is_remote(path) and path.exists()]
      check_space(self.folder, sum(sizes))

  def _stage_images(self, num_threads: int) -> Generator[None, None, None]:
    with in_order(self._look, range(len(self.dataset)), num_threads) as items:
      for item in items:
        if isinstance(item, Problem):
          self._log.report(item.path, item.line, item.reason, item.check, "the image is left out")
        else:
          self._stage_image(self._with_size(item), item.header)
        yield

  def _look(self, index: int) -> _Looked | Problem:
    record = None
    try:
      record = self.dataset[index]
      header = read_header(record)
      check_stated_size(record, image_name(record), header.size)
    except (ImageError, DataError) as error:
      return self._problem(error, record)
    except OSError as error:
      return self._problem(ImageError(f"cannot be read: {error.strerror or error}"), record)
    return _Looked(record, header)

  def _problem(self, error: PrnError, record: Record | None) -> Problem:
    problem = image_problem(error, record, self.spec)
    is_unreadable = record is not None and problem.check is Check.RECORD_UNREADABLE
    return replace(problem, check=Check.IMAGE_UNREADABLE) if is_unreadable else problem

  def _with_size(self, item: _Looked) -> Record:
    """The record with its size; boxes of a source that did not know it are looked at again."""
    record, size = item.record, item.header.size
    if record.width and record.height:
      return record
    where = Path(image_name(record))
    keep = np.ones(len(record.classes), np.bool_)
    corners = record.boxes_xyxy_px.astype(np.float64)
    xywh = None if record.boxes_xywh_px is None else record.boxes_xywh_px.copy()
    for row, box in enumerate(corners.tolist()):
      if box_fault(tuple(box), size) is None:
        continue
      usable = checked_box(tuple(box), size, self._log, Place(where))
      keep[row] = usable is not None
      if usable is not None:
        corners[row] = usable
        if xywh is not None:
          xywh[row] = (*usable[:2], usable[2] - usable[0], usable[3] - usable[1])
    sized = replace(record, width=size[0], height=size[1], boxes_xyxy_px=corners.astype(np.float32), boxes_xywh_px=xywh)
    return keep_objects(sized, keep)

  def _stage_image(self, record: Record, header: Header) -> None:
    suffix = suffix_of(record, header)
    file_name = self._file_name(record, header, suffix)
    try:
      placed = place(record, header, self.stage / self._layout.image_folder / file_name, self.images)
    except ImageError as error:
      problem = self._problem(error, record)
      self._log.report(problem.path, None, problem.reason, problem.check, "the image is left out")
      return
    except OSError as error:
      raise PrnError(
        f"cannot write '{self.folder / file_name}': {error.strerror or error}. Nothing is kept."
      ) from error
    self._placed[str(placed)] += 1
    self._losses.add(Loss.TURNED, header.is_turned)
    written = self._layout.add(record, header, file_name)
    self._written[file_name] = replace(written.record, image=b"")  # images of a large set would fill the memory
    self._write(written.texts)

  def _file_name(self, record: Record, header: Header, suffix: str) -> str:
    """A name that no other image of the folder has; an image that another split has too keeps its own."""
    for number, stem in enumerate(stems(record, self.target.split)):
      key = key_of(stem)
      if key in self._taken:
        continue
      if key in self._elsewhere and not self._is_same(record, header, f"{stem}{suffix}", self._elsewhere[key]):
        continue
      self._taken.add(key)
      given = record.image.name if not isinstance(record.image, bytes) else f"{record.image_id}{suffix}"
      self._losses.add(Loss.RENAMED, bool(number) or (f"{stem}{suffix}" != given and not header.is_turned))
      return f"{stem}{suffix}"
    raise AssertionError("names never end")

  def _is_same(self, record: Record, header: Header, file_name: str, there: Path) -> bool:
    """Whether another split holds the same image with the same objects."""
    if there.name != file_name or header.is_turned:
      return False
    if isinstance(record.image, bytes):
      is_same = there.read_bytes() == record.image
    else:
      is_same = filecmp.cmp(there, record.image, shallow=False)
    texts = type(self._layout)(self.target, Losses()).add(record, header, file_name).texts
    return is_same and all((self.folder / name).read_text(encoding="utf-8") == text for name, text in texts.items())

  def _write(self, texts: Texts) -> None:
    """Into the working folder; everything there is flushed at the end."""
    for name, text in texts.items():
      path = self.stage / name
      if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
      path.write_bytes(text.encode())

  def _publish(self, plan: dict[str, str], own: Texts, proof: Proof) -> Converted:
    """Puts the split to its place, then what names it, then the index."""
    split, layout = self.target.split, self._layout
    alone = layout.folders(split)
    loose = () if alone else tuple(sorted(self._loose_files(own)))
    mine = (*alone, *(name for name in loose if not (self.folder / name).exists()), *own)
    replace(self.index, unfinished=Unfinished(split, tuple(mine))).write(self.folder)
    if hasattr(os, "sync"):
      os.sync()  # once for all small files
    for name in (*alone, *loose):
      (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
      os.replace(self.stage / name, self.folder / name)
    for name, text in own.items():
      write_text(self.folder / name, text)
    shared = layout.shared_texts(self.target.names, [*self.index.others(split), split])
    for name, text in shared.items():
      write_text(self.folder / name, text)
    problems = [*self.dataset.problems, *self._log.problems]
    done = Converted(
      layout.spec(self.folder, split),
      layout.kind,
      split,
      proof.num_images,
      proof.num_objects,
      self._losses.to_json(),
      dict(sorted(self._placed.items())),
      proof.max_difference_px,
      tuple(map(str, problems)),
      count_problems(problems),
      notes_of(self.dataset),
    )
    self._finish(done, plan, shared)
    return done

  def _loose_files(self, own: Texts) -> Iterator[str]:
    """Files of the split in folders that it shares."""
    shared = self._layout.shared_texts(self.target.names, [self.target.split])
    for path in self.stage.rglob("*"):
      name = path.relative_to(self.stage).as_posix()
      if (path.is_symlink() or path.is_file()) and name not in own and name not in shared:
        yield name

  def _finish(self, done: Converted, plan: dict[str, str], shared: Texts) -> None:
    kept = ("num_images", "num_objects", "lost", "images", "max_difference_px", "problems", "left_out", "notes")
    entry = {"source": self.spec} | plan | {key: getattr(done, key) for key in kept}
    entry["digest"] = digest_of(self._layout.files(self.folder, done.split), self.folder)
    digests = {name: sha256(self.folder / name) for name in shared}
    splits = {**self.index.others(done.split), done.split: entry}
    replace(self.index, splits=splits, shared=digests).write(self.folder)
