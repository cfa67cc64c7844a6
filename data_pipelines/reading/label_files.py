"""Where the label file of an image lies, in the layouts that Darknet and its successors use.

Candidates are, for a folder of images: the format's own rule; the folder with `images` in one part of its path replaced
by `labels`, the last such part first (images/train -> labels/train, train/images -> train/labels, JPEGImages -> labels,
my_images -> my_labels); the folder itself. All images of a folder use the first candidate that holds a label of any of
them, so that two sets of labels are never mixed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import is_image_name

MOST_NAMED = 5
_ENDING = ".txt"
_LABEL = re.compile(rb"\s*[0-9]+(\.0*)?(\s+[-+.0-9eE]+){4,}\s*(\n|$)")

LabelPath = Callable[[Path], Path]


class LabelFiles:
  """The label files of some images.

  Args:
    images: paths of the images.
    rule: the format's own place of the label file of an image.
  """

  def __init__(self, images: Sequence[Path], rule: LabelPath) -> None:
    self._rule = rule
    self._names: dict[Path, list[str]] = defaultdict(list)
    for image in images:
      self._names[image.parent].append(image.name)
    self._listings: dict[Path, dict[str, str]] = {}
    self._folders = {folder: self._folder_of(folder, names) for folder, names in self._names.items()}

  def path(self, image: Path) -> Path:
    """The label file; where there is none, the place where it is expected first."""
    folder = self._folders.get(image.parent)
    listing = self._listing(folder) if folder is not None else {}
    found = listing.get(_label_name(image.name).casefold())
    return self._rule(image) if folder is None or found is None else folder / found

  def left_over(self) -> Iterator[tuple[Check, Path, str]]:
    """What people should look at: files with labels that are not taken for images, and labels without any file."""
    orphans = [label for folder, names in self._names.items() for label in self._orphans(folder, names)]
    files = {path.stem: path for folder in self._names for path in _files(folder) if not is_image_name(path)}
    other = [files[label.stem] for label in orphans if label.stem in files and files[label.stem] != label]
    if other:
      yield (
        Check.IMAGE_OTHER_ENDING,
        other[0].parent,
        (f"{_count(other, 'file')} with labels not taken for images, by their ending: {_named(other)}"),
      )
    alone = [label for label in orphans if label.stem not in files or files[label.stem] == label]
    if alone:
      text = f"{_count(alone, 'label file')} without an image: {_named(alone)}"
      yield Check.LABEL_LEFT_OVER, alone[0].parent, text

  def _orphans(self, folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Label files beside those of the folder's images that belong to none of them."""
    place = self._folders[folder]
    if place is None:
      return
    used = {_label_name(name).casefold() for name in names}
    for key, name in self._listing(place).items():
      if key not in used and _is_label(place / name):
        yield place / name

  def _folder_of(self, folder: Path, names: Sequence[str]) -> Path | None:
    wanted = {_label_name(name).casefold() for name in names}
    return next((place for place in self._candidates(folder) if wanted & self._listing(place).keys()), None)

  def _candidates(self, folder: Path) -> Iterable[Path]:
    places = [self._rule(folder / "x.jpg").parent]
    parts = folder.parts
    for position in range(len(parts) - 1, -1, -1):
      part = (
        "labels" if parts[position].lower() == "jpegimages" else re.sub("images", _labels, parts[position], flags=re.I)
      )
      if part != parts[position]:
        places.append(Path(*parts[:position], part, *parts[position + 1 :]))
    return dict.fromkeys([*places, folder])

  def _listing(self, folder: Path) -> dict[str, str]:
    if folder not in self._listings:
      names = sorted(path.name for path in _files(folder) if path.suffix.lower() == _ENDING)
      self._listings[folder] = {name.casefold(): name for name in names}
    return self._listings[folder]


def _labels(found: re.Match[str]) -> str:
  word = found[0]
  return "LABELS" if word.isupper() else "Labels" if word[0].isupper() else "labels"


def _label_name(image_name: str) -> str:
  return Path(image_name).with_suffix(_ENDING).name


def _files(folder: Path) -> list[Path]:
  try:
    return [Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")]
  except OSError:
    return []


def _is_label(path: Path) -> bool:
  """Whether a text file begins with a label, which classes.txt, lists and notes do not."""
  try:
    with path.open("rb") as file:
      return _LABEL.match(file.readline(4096)) is not None
  except OSError:
    return False


def _count(items: Sequence[object], what: str) -> str:
  return f"{len(items):,} {what}{'' if len(items) == 1 else 's'}"


def _named(paths: Sequence[Path]) -> str:
  more = ", ..." if len(paths) > MOST_NAMED else ""
  return ", ".join(map(str, sorted(paths)[:MOST_NAMED])) + more
