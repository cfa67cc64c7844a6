"""ImageNet (ILSVRC2012) from its official archives, without unpacking: `imagenet:ROOT:train` and `imagenet:ROOT:val`.

ROOT holds the files as they are downloaded:
- ILSVRC2012_img_train.tar: a tar of one tar per class, nWNID.tar with nWNID_N.JPEG;
- ILSVRC2012_img_val.tar: ILSVRC2012_val_00000001.JPEG, ... without classes;
- ILSVRC2012_devkit_t12.tar.gz: data/ILSVRC2012_validation_ground_truth.txt, whose line k is the number of the class of
  validation image k, and data/meta.mat, which says the WordNet id of every number. Needed for val.

Classes are WordNet ids in alphabetical order, as elsewhere (the devkit's and Darknet's numbers are in another order).
Images stay where they lie in the archives and are read one by one; their sizes are read with them.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import image_size
from prn_jax.data_pipelines.reading.archives import Archive
from prn_jax.data_pipelines.reading.matlab import load_mat
from prn_jax.data_pipelines.records import DataError, Problem, ProblemLog, Record, Task, make_record
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.places import is_remote, to_path
from prn_jax.files.values import Misfit, text_of, whole_of

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
SPLITS = ("train", "val")
_CLASS_TAR = re.compile(r"(?:.*/)?(n\d{8})\.tar")
_VAL_IMAGE = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class _Devkit:
  """What the devkit says: the class number of every validation image, and the WordNet id of every number."""

  truths: tuple[int, ...]
  wnids: dict[int, str]


class ImageNet:
  """Records of one split; picklable.

  Args:
    archive: the .tar file.
    names: WordNet ids.
    files: name of every image.
    places: (images, 2) int64, start and size in the archive.
    labels: (images,) int16.
    problems: what was left out.
  """

  def __init__(
    self,
    archive: Path,
    names: Sequence[str],
    files: Sequence[str],
    places: np.ndarray,
    labels: np.ndarray,
    problems: Sequence[Problem],
  ) -> None:
    self._archive, self._files, self._places, self._labels = archive, tuple(files), places, labels
    self.names, self.problems = tuple(names), tuple(problems)

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.names)))

  @property
  def task(self) -> Task:
    return Task.CLASSIFY

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> Record:
    """The record, its image as bytes.

    Raises:
      DataError: the archive has changed since it was opened. IndexError: there is no such record.
    """
    start, size = map(int, self._places[index])
    with self._archive.open("rb") as file:
      file.seek(start)
      image = file.read(size)
    if len(image) != size:
      raise DataError(
        f"{self._archive}: '{self._files[index]}' has {len(image):,} of its {size:,} bytes. Copy it again."
      )
    try:
      extent = image_size(image)
    except DataError:  # whoever decodes it words the message and follows the policy
      extent = None
    return make_record(image, self._files[index], extent, label=int(self._labels[index]))


@register_source(
  "imagenet:ROOT:SPLIT", "ImageNet (ILSVRC2012) in its official archives, read without unpacking; SPLIT is train or val"
)
def open_imagenet(parts: tuple[str, ...], log: ProblemLog) -> ImageNet:
  """Lists one split; no image is read yet.

  Raises:
    DataError: an archive is missing, damaged or another one, or an entry is bad (policy stop).
  """
  root, split = to_path(parts[0]), parts[1]
  if is_remote(root):
    raise DataError(
      f"data 'imagenet:{parts[0]}:{split}': archives are read on this machine only; copy them here first."
    )
  if split not in SPLITS:
    raise DataError(
      f"data 'imagenet:{parts[0]}:{split}': there is no split '{split}'{did_you_mean(split, SPLITS)}; expected train or val"
    )
  archive = _existing(root, TRAIN if split == "train" else VAL)
  devkit = _read_devkit(_existing(root, DEVKIT)) if split == "val" or (root / DEVKIT).is_file() else None
  return _open_train(archive, devkit, log) if split == "train" else _open_val(archive, devkit, log)


def _existing(root: Path, name: str) -> Path:
  if not (root / name).is_file():
    why = " (it says which class each validation image is)" if name == DEVKIT else ""
    raise DataError(f"there is no {root / name}{why}. Put the archives of ILSVRC2012 there as they were downloaded.")
  return root / name


def _members(archive: Path, start: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
  """Name, start and size of the files of a tar, which may be a part of another file."""
  try:
    with archive.open("rb") as file:
      file.seek(start)
      with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
          if end is not None and info.offset_data + info.size > end:
            raise tarfile.ReadError(f"member '{info.name}' reaches beyond its end")
          if info.isreg():
            yield info.name, info.offset_data, info.size
  except (tarfile.TarError, OSError, EOFError) as error:
    where = f" (in the tar at byte {start:,})" if start else ""
    raise DataError(f"{archive}{where} is truncated, damaged or no tar ({error}). Copy or download it again.") from None


def _open_train(archive: Path, devkit: _Devkit | None, log: ProblemLog) -> ImageNet:
  tars = {m[1]: (start, size) for name, start, size in _members(archive) if (m := _CLASS_TAR.fullmatch(name))}
  if not tars:
    raise DataError(f"{archive} holds no tars of classes (n01440764.tar, ...); expected ILSVRC2012's {TRAIN}")
  names = sorted(set(devkit.wnids.values()) if devkit else tars)
  for unknown in sorted(set(tars) - set(names)):
    reason = f"class '{unknown}' is not among the {len(names)} classes of {DEVKIT}"
    log.report(archive, None, reason, Check.CLASS_UNKNOWN, "its images are left out")
  files, places, labels = [], [], []
  for label, name in enumerate(names):
    if name not in tars:
      log.report(archive, None, f"there is no {name}.tar", Check.CLASS_NO_IMAGES, "the class has no images")
      continue
    start, size = tars[name]
    for file, offset, length in sorted(_members(archive, start, start + size)):
      files.append(f"{name}/{file.rsplit('/', 1)[-1]}")
      places.append((offset, length))
      labels.append(label)
  return _finished(archive, names, files, places, labels, log)


def _open_val(archive: Path, devkit: _Devkit | None, log: ProblemLog) -> ImageNet:
  assert devkit is not None
  names = sorted(set(devkit.wnids.values()))
  label_of = {number: names.index(wnid) for number, wnid in devkit.wnids.items()}
  files, places, labels = [], [], []
  for name, start, size in sorted(_members(archive)):
    match = _VAL_IMAGE.fullmatch(name)
    number = int(match[1]) if match else 0
    if not 1 <= number <= len(devkit.truths):
      reason = f"member '{name}' is none of the {len(devkit.truths):,} images of {GROUND_TRUTH}"
      log.report(archive, None, reason, Check.LABEL_UNKNOWN_IMAGE, "the image is left out")
      continue
    files.append(name.rsplit("/", 1)[-1])
    places.append((start, size))
    labels.append(label_of[devkit.truths[number - 1]])
  return _finished(archive, names, files, places, labels, log)


def _finished(
  archive: Path, names: list[str], files: list[str], places: list[tuple[int, int]], labels: list[int], log: ProblemLog
) -> ImageNet:
  if not files:
    raise DataError(f"{archive} holds no images of ILSVRC2012")
  return ImageNet(
    archive, names, files, np.asarray(places, np.int64), np.asarray(labels, np.int16), tuple(log.problems)
  )


def _read_devkit(path: Path) -> _Devkit:
  wanted = {GROUND_TRUTH: b"", META: b""}
  archive = Archive(path, lambda name: name.rsplit("/", 1)[-1] in wanted, ProblemLog("stop"))
  for name in archive.names:
    wanted[name.rsplit("/", 1)[-1]] = archive.read(name)
  for name, data in wanted.items():
    if not data:
      raise DataError(f"{path} holds no data/{name}; expected ILSVRC2012's {DEVKIT}")
  name = META
  try:
    wnids = _wnids(wanted[META])
    name = GROUND_TRUTH
    truths = tuple(whole_of(word) for word in wanted[GROUND_TRUTH].decode("utf-8", "replace").split())
  except Misfit as error:
    raise DataError(f"{path}: {name} {error}. Download it again.") from None
  if unknown := sorted(set(truths) - set(wnids)):
    raise DataError(f"{path}: {GROUND_TRUTH} has class {unknown[0]}, which {META} does not know. Download it again.")
  return _Devkit(truths, wnids)


def _wnids(meta: bytes) -> dict[int, str]:
  """The WordNet id of every number of a class. Groups of classes, which have children, are none."""
  synsets = load_mat(meta).get("synsets")
  if not isinstance(synsets, list) or not all(isinstance(one, dict) for one in synsets):
    raise Misfit("has no struct 'synsets'")
  leaves = [one for one in synsets if _whole(one, "num_children") == 0]
  return {_whole(one, "ILSVRC2012_ID"): text_of(one.get("WNID")) for one in leaves}


def _whole(synset: dict[str, Any], field: str) -> int:
  value = synset.get(field)
  if not isinstance(value, np.ndarray) or value.size != 1:
    raise Misfit(f"has a synset whose {field} is no number")
  return whole_of(value.item())
