"""DIOR as it is downloaded: `dior:ROOT:SPLIT`, SPLIT train, val, trainval or test.

ROOT holds the lists ImageSets/Main/SPLIT.txt (or Main/SPLIT.txt), the images in JPEGImages-trainval/ and
JPEGImages-test/ (or JPEGImages/), and the XML in "Annotations/Horizontal Bounding Boxes/" or
"Annotations/Oriented Bounding Boxes/" (or in Annotations/ itself). Where both are there the horizontal ones are read;
`SPLIT@oriented` reads the others, whose objects are turned boxes: the object's box is the rectangle around it, clipped to the
image, and the turned box stays as its outline. Without a list trainval.txt, trainval is train and val together.

The XML is VOC's (`voc_xml`): horizontal boxes count pixels from 1, corners of turned boxes are places. Names of classes
are matched without case, hyphens, underscores and blanks. The classes are numbered alphabetically, as by most; one
well-known list puts overpass last, so that its numbers 12 to 19 mean other classes: match by name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from prn_jax.data_pipelines.class_names import plain
from prn_jax.data_pipelines.image_sizes import checked_image_size
from prn_jax.data_pipelines.reading.image_labels import images_by_stem
from prn_jax.data_pipelines.reading.voc_xml import is_same_size, listed, objects_of, parse
from prn_jax.data_pipelines.records import DataError, ProblemLog, RecordList, finish, make_record
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import to_path

NAMES = (
  "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam", "Expressway-Service-area",
  "Expressway-toll-station", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium", "storagetank",
  "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip
_INDEX_OF = {plain(name): index for index, name in enumerate(NAMES)}
_IMAGES = ("JPEGImages-trainval", "JPEGImages-test", "JPEGImages")
_HORIZONTAL, _ORIENTED = "Horizontal Bounding Boxes", "Oriented Bounding Boxes"
_PARTS = {"trainval": ("train", "val")}


@register_source(
  "dior:ROOT:SPLIT", "DIOR as downloaded; SPLIT is train, val, trainval or test, with @oriented for the turned boxes"
)
def open_dior(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads the annotations of one split.

  Raises:
    DataError: a file or folder is missing, no image is left, or an entry is bad (policy stop).
  """
  root = to_path(parts[0])
  split, at, kind = parts[1].partition("@")
  if at and kind not in ("horizontal", "oriented"):
    raise DataError(f"data 'dior:{parts[0]}:{parts[1]}': '@{kind}' is neither @horizontal nor @oriented")
  folder = _annotations(root, kind)
  files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".xml"}
  images = images_by_stem(root / name for name in _IMAGES)
  records = []
  for stem in _stems(root, split, files.keys(), log):
    path = files.get(stem, folder / f"{stem}.xml")
    parsed = parse(path, log)
    image = images.get(stem, root / _IMAGES[split == "test"] / f"{stem}.jpg")
    size = None if parsed is None else checked_image_size(image, log)
    if parsed is not None and size is not None and is_same_size(path, parsed, image, size, log):
      objects = objects_of(path, parsed, lambda name: _INDEX_OF.get(plain(name)), size, log)
      records.append(make_record(image, stem, size, objects))
  return finish(NAMES, range(len(NAMES)), records, log, f"{root}, split '{parts[1]}',")


def _annotations(root: Path, kind: str) -> Path:
  """The folder of the XML files; `kind` is horizontal, oriented or "" for whichever is there."""
  base = root / "Annotations"
  wanted = {"horizontal": [base / _HORIZONTAL], "oriented": [base / _ORIENTED]}
  options = wanted.get(kind, [base / _HORIZONTAL, base / _ORIENTED, base])
  found = next((option for option in options if is_folder(option)), None)
  if found is None:
    raise DataError(f"'{root}' is no DIOR root: there is no folder {' or '.join(map(str, options))}")
  return found


def _stems(root: Path, split: str, annotated: Collection[str], log: ProblemLog) -> list[str]:
  """The images of a split."""
  folders = [root / "ImageSets" / "Main", root / "Main", root / "ImageSets"]
  for names in ((split,), _PARTS.get(split, ())):
    for folder in folders:
      paths = [folder / f"{name}.txt" for name in names]
      if paths and all(map(is_file, paths)):
        return [stem for path in paths for stem in listed(path, annotated, log)]
  known = [file.stem for folder in folders if is_folder(folder) for file in sorted(folder.glob("*.txt"))]
  raise DataError(
    f"no split '{split}' in {folders[0]} or {folders[1]}{did_you_mean(split, known)}; found {', '.join(known) or 'none'}"
  )
