"""Pascal VOC: `voc:VOCROOT:SPLIT` reads VOCROOT/ImageSets/Main/SPLIT.txt, Annotations/*.xml and JPEGImages/.

The XML counts pixels from 1 and includes both ends; our boxes are continuous, so xmin and ymin lose 1 and xmax and
ymax stay: the first pixel, [1, 1, 1, 1] in the XML, would be [0, 0, 1, 1]. Overlaps are then those of the VOC devkit.
An object without <bndbox> but with a <polygon> (x1, y1, x2, y2, ..., or <pt> with <x> and <y>) has the box around it.
Points of polygons are places, from which nothing is taken away.

Classes are the names of the objects in all of Annotations/, whatever the split, in alphabetical order: a set of two
classes has these two. Of VOC's own sets that is the list of its 20 classes; an excerpt of them that shows only 10 to 19
has all 20 too, where every file says that it is from "The VOC... Database" and no other name occurs.

Where VOCROOT holds classes.txt, one name a line, and all of these names are in it, it is the list of the classes, in its
order: that is how `prn data convert` keeps the order, and classes without objects. Else it is passed over.

A line of a list is a name, behind which a flag may stand (-1, 0 or 1, in the lists of one class; it is not used). Names
may hold blanks, and may be written as the name or path of the image or of the XML.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from prn_jax.data_pipelines.class_names import VOC_NAMES
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import checked_image_size
from prn_jax.data_pipelines.images.formats import IMAGE_SUFFIXES, is_image_name
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.reading.voc_xml import (
  Parsed,
  Shape,
  classes_of,
  ignored_of,
  is_same_size,
  listed,
  objects_of,
  parse,
)
from prn_jax.data_pipelines.records import DataError, ProblemLog, Record, RecordList, finish, make_record
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_XML_BYTES, load_bytes, load_xml, read_lines
from prn_jax.files.values import Misfit

CLASSES_FILE = "classes.txt"


@register_source("voc:VOCROOT:SPLIT", "Pascal VOC: ImageSets/Main/SPLIT.txt, Annotations/ and JPEGImages/")
def open_voc(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of one split.

  Raises:
    DataError: a file or folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root, split = to_path(parts[0]), parts[1]
  list_path = _list_path(root, split)
  folder = root / "Annotations"
  files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".xml"}
  stems = listed(list_path, files.keys(), log)
  parsed = {stem: parse(files.get(stem, folder / f"{stem}.xml"), log) for stem in stems}
  names = _names(parsed, files, root)
  index_of = {name: index for index, name in enumerate(names)}
  images = _Images(root / "JPEGImages", files.keys())
  records: list[Record] = []
  num_polygons = 0
  for stem, found in parsed.items():
    if found is None:
      continue
    path = files[stem]
    file = images.of(stem, found.filename)
    size = images.checked_size(file, log)
    if size is None:
      continue
    if not is_same_size(path, found, file, size, log):
      continue
    num_polygons += sum(element.shape is Shape.POLYGON for element in found.elements)
    objects, ignored = objects_of(path, found, index_of.get, size, log), ignored_of(path, found, size, log)
    records.append(make_record(file, stem, size, objects, ignored_xyxy_px=ignored))
  log.note(Check.PATH_FORGIVEN, root, images.note())
  if num_polygons:
    text = f"{num_polygons:,} objects have a <polygon> and no <bndbox>; the boxes around them are used"
    log.note(Check.LABEL_POLYGONS, root, text)
  return finish(names, range(len(names)), records, log, f"{root}, split '{split}',")


def _list_path(root: Path, split: str) -> Path:
  folder = root / "ImageSets" / "Main"
  for needed in (folder, root / "Annotations", root / "JPEGImages"):
    if not is_folder(needed):
      inside = sorted(path.name for path in root.glob("VOC*") if is_folder(path)) if is_folder(root) else []
      hint = f" Did you mean {root / inside[0]}?" if inside else ""
      raise DataError(f"'{root}' is no VOC root: there is no folder {needed}.{hint}")
  path = folder / f"{split}.txt"
  if not is_file(path):
    known = [file.stem for file in sorted(folder.glob("*.txt"))]
    raise DataError(f"no split '{split}' in {folder}{did_you_mean(split, known)}; found {', '.join(known) or 'none'}")
  return path


class _Images:
  """Finds the image of an annotation: by the stem, else by <filename>.

  Args:
    folder: JPEGImages.
    annotated: stems of all annotation files; an image of that name belongs to that file.
  """

  def __init__(self, folder: Path, annotated: Collection[str]) -> None:
    self._folder, self._annotated = folder, annotated
    self._by_stem: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
      self._by_stem[file.stem].append(file)
    self._named = NamedFiles([folder])

  def of(self, stem: str, filename: str) -> Path:
    """The image, or where it is expected."""
    found = [file for file in self._by_stem.get(stem, ()) if is_image_name(file)]
    name = PurePosixPath(filename.replace("\\", "/")).name
    same = [file for file in found if file.name == name]
    if found:
      return (same or found)[0]
    if filename and PurePosixPath(name).stem not in self._annotated and (file := self._named.find(filename)):
      return file
    return self._folder / f"{stem}.jpg"

  def checked_size(self, file: Path, log: ProblemLog) -> tuple[int, int] | None:
    """`checked_image_size`; where the image is missing, a file that was not taken for it is named."""
    others = [] if is_file(file) else self._by_stem.get(file.stem, [])
    if not others:
      return checked_image_size(file, log)
    reason = f"not taken for an image, by its ending; expected one of {', '.join(IMAGE_SUFFIXES)}"
    log.report(others[0], None, reason, Check.IMAGE_MISSING, "the image is left out")
    return None

  def note(self) -> str | None:
    return self._named.note("<filename>")


def _names(parsed: Mapping[str, Parsed | None], files: Mapping[str, Path], root: Path) -> list[str]:
  """The classes of all splits, by the rule in the head of this file.

  Args:
    parsed: the annotations of one split, by their stem.
    files: all annotations; those that cannot be read are reported by the split that lists them.
    root: VOCROOT.
  """
  every = [found.classes for found in parsed.values() if found is not None]
  for stem, path in files.items():
    if stem not in parsed:
      with contextlib.suppress(Misfit):
        every.append(classes_of(load_xml(load_bytes(path, MAX_XML_BYTES))))
  names = frozenset[str]().union(*(classes.names for classes in every))
  in_order = _listed_names(root / CLASSES_FILE)
  if names <= set(in_order):
    return in_order
  is_excerpt = names <= set(VOC_NAMES) and 2 * len(names) >= len(VOC_NAMES) and all(one.is_voc for one in every)
  return sorted(VOC_NAMES if is_excerpt else names)


def _listed_names(path: Path) -> list[str]:
  """The names of a list of classes; none where there is no such file, or it repeats one."""
  if not is_file(path):
    return []
  names = [line.strip() for line in read_lines(path, DataError) if line.strip()]
  return names if len(set(names)) == len(names) else []
