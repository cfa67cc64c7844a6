"""Classified images: `imagefolder:DIR` with one folder per class, DIR/CLASS/*.jpg.

Classes are the folder names in alphabetical order; give `names` to `open_spec` where a network numbers them otherwise.
Hidden files and files without an image's ending are no images.

DIR may be a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive of such a folder; it is read without unpacking, and
folders that hold nothing but the class folders (train/CLASS/*.jpg) are looked through.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import checked_image_size, image_size
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.reading.archives import ARCHIVE_SUFFIXES, Archive, is_archive
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  Problem,
  ProblemLog,
  Record,
  RecordList,
  Task,
  finish,
  make_record,
)
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import is_remote, to_path
from prn_jax.files.values import shown


@register_source(
  "imagefolder:DIR",
  "one folder per class; DIR may be a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz of it, read without unpacking",
)
def open_imagefolder(parts: tuple[str, ...], log: ProblemLog) -> Dataset:
  """Lists the images of every class folder; the image id is CLASS/FILE.

  Raises:
    DataError: the folder or its class folders are missing, no image is left, or an entry is bad (policy stop).
  """
  root = to_path(parts[0])
  if is_folder(root) and not is_remote(root) and root.resolve().parent == root.resolve():
    raise DataError(f"data 'imagefolder:{parts[0]}' is the whole disk; expected a folder of class folders")
  if is_folder(root):
    return _open_folder(root, log)
  if is_archive(root):
    if is_remote(root):
      raise DataError(f"data 'imagefolder:{parts[0]}': an archive is read on this machine only; copy it here first.")
    return _open_archive(root, log)
  what = "is a file" if is_file(root) else "does not exist"
  raise DataError(
    f"data 'imagefolder:{parts[0]}': there is no folder {root} (it {what}); expected a folder, or an archive "
    f"({', '.join(ARCHIVE_SUFFIXES)})"
  )


def _open_folder(root: Path, log: ProblemLog) -> RecordList:
  folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
  if not folders:
    raise DataError(f"{root} has no class folders; expected {root}/CLASS/*.jpg")
  records = []
  others: Counter[str] = Counter()
  for label, folder in enumerate(folders):
    if not folder.name.isprintable():
      raise DataError(f"{root}: the class folder {shown(folder.name)} has a name that cannot be printed; rename it")
    every = [path for path in folder.rglob("*") if not path.name.startswith(".")]
    files = sorted(path for path in every if is_image_name(path))
    others.update(path.suffix.lower() or "without" for path in every if not is_image_name(path) and path.is_file())
    if not files:
      reason = f"the class folder '{folder.name}' holds no images"
      log.report(folder, None, reason, Check.CLASS_NO_IMAGES, "the class has no images")
    for file in files:
      size = checked_image_size(file, log)
      if size is not None:
        records.append(make_record(file, file.relative_to(root).as_posix(), size, label=label))
  if others:
    said = ", ".join(f"{number:,} {ending}" for ending, number in others.most_common(8))
    text = f"files in the class folders that are not taken for images, by their ending: {said}"
    log.note(Check.IMAGE_OTHER_ENDING, root, text)
  return finish([folder.name for folder in folders], range(len(folders)), records, log, str(root), Task.CLASSIFY)


def _is_image(name: str) -> bool:
  path = PurePosixPath(name)
  return is_image_name(name) and not path.name.startswith(".")


@dataclass(frozen=True)
class ArchivedImages:
  """Images of an archive by index; `members` holds the name of each, its label and its (width, height)."""

  archive: Archive
  names: tuple[str, ...]
  root: str
  members: tuple[tuple[str, int, tuple[int, int]], ...]
  problems: tuple[Problem, ...]

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.names)))

  @property
  def task(self) -> Task:
    return Task.CLASSIFY

  def __len__(self) -> int:
    return len(self.members)

  def __getitem__(self, index: int) -> Record:
    name, label, size = self.members[index]
    return make_record(self.archive.read(name), name.removeprefix(self.root), size, label=label)


def _open_archive(path: Path, log: ProblemLog) -> ArchivedImages:
  archive = Archive(path, _is_image, log)
  root = _root_of(archive.names)
  found = [(name, name.removeprefix(root).split("/")) for name in archive.names]
  names = sorted({parts[0] for _, parts in found if len(parts) > 1 and not parts[0].startswith(".")})
  if not names:
    raise DataError(f"{path} has no class folders with images; expected CLASS/*.jpg inside")
  label_of = {name: label for label, name in enumerate(names)}
  members = []
  for name, parts in found:
    if len(parts) < 2 or parts[0] not in label_of:
      continue  # beside the class folders, as in a folder on disk
    try:
      size = image_size(archive.read(name))
    except DataError as error:
      reason = f"member '{name}': {error}"
      log.report(path, None, reason, Check.IMAGE_UNREADABLE, "the image is left out")
      continue
    members.append((name, label_of[parts[0]], size))
  if not members:
    raise DataError(f"{path} holds no images that can be read; the first was left out because of {log.problems[0]}")
  return ArchivedImages(archive, tuple(names), root, tuple(members), tuple(log.problems))


def _root_of(names: tuple[str, ...]) -> str:
  """The folders above the class folders, as "cifar/train/": common to all images, with two levels left below."""
  if not names:
    return ""
  folders = [PurePosixPath(name).parts[:-1] for name in names]
  common = []
  for level in zip(*folders, strict=False):
    if len(set(level)) > 1:
      break
    common.append(level[0])
  depth = min(len(common), min(map(len, folders)) - 1)
  return "".join(f"{part}/" for part in common[: max(depth, 0)])
