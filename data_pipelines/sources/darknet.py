"""Darknet's .data file: `darknet:FILE.data:train|valid`.

The .data file holds `key = value` lines: `classes`, `train` and `valid` (text files that list images), `names`, and
optionally `difficult` (a list beside `valid` whose labels nobody must find). Relative paths are sought beside the file
that names them, then in the working directory (Darknet's rule), then one folder above the .data file; names that another
machine wrote, such as those of CVAT and Datumaro, are understood as `named_files` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.reading.label_txt import Listed, read_records
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import DataError, ProblemLog, RecordList, finish
from prn_jax.data_pipelines.spec import register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.places import to_path
from prn_jax.files.structured import read_lines
from prn_jax.files.values import Node, shown

_FOLDERS = (
  ("/images/train2017/", "/labels/train2017/"),
  ("/images/val2017/", "/labels/val2017/"),
  ("/JPEGImages/", "/labels/"),
  ("/images/train2014/", "/labels/train2014/"),
  ("/images/val2014/", "/labels/val2014/"),
)


def darknet_label_path(image: Path) -> Path:
  """The label file of an image: beside it, except in the folder layouts of COCO and VOC.

  Source: AlexeyAB/darknet `src/utils.c:replace_image_to_label`.
  """
  text = image.as_posix()
  for images, labels in _FOLDERS:
    text = text.replace(images, labels, 1)
  return to_path(text).with_suffix(".txt") if image.name else image  # "/" is no image, which is said elsewhere


@register_source("darknet:FILE.data:train|valid", "Darknet's .data file with its lists and label files")
def open_darknet(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads one of the two lists of a .data file and the labels of its images.

  Raises:
    DataError: a file or key is missing, no image is left, or an entry is bad (policy stop).
  """
  path, split = to_path(parts[0]), parts[1]
  if split not in ("train", "valid"):
    raise DataError(f"data 'darknet:{parts[0]}:{split}': the split is '{split}'; expected train or valid")
  options = read_data_file(path)
  names = _names(path, options)
  list_path = _find(_option(path, options, split), path, f"{split} of {path}")
  lines = _lines(list_path)
  paths = _image_paths([text for _, text in lines], list_path, path, log)
  images = [Listed(image, list_path, line) for image, (line, _) in zip(paths, lines, strict=True)]
  difficult: list[Path] = []
  if split == "valid" and "difficult" in options:
    difficult_path = _find(options["difficult"], path, f"difficult of {path}")
    named = _image_paths([text for _, text in _lines(difficult_path)], difficult_path, path, log)
    difficult = [darknet_label_path(image) for image in named]
    if len(difficult) != len(images):
      raise DataError(
        f"{difficult_path} lists {len(difficult)} images and {list_path} {len(images)}; they run in parallel"
      )
  records = read_records(images, darknet_label_path, len(names), log, difficult)
  return finish(names, range(len(names)), records, log, f"{list_path} ({split} of {path})")


def read_data_file(path: Path) -> dict[str, str]:
  """The options of a .data file; of a repeated key the first counts, as in Darknet (`src/option_list.c`).

  Raises:
    DataError: the file cannot be read, or a line is no `key = value`.
  """
  options: dict[str, str] = {}
  for number, text in _lines(path):
    if text[0] in "#;":
      continue
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
      raise DataError(f"{path}:{number}: {shown(text)} is no 'key = value'")
    options.setdefault(key.strip(), value.strip())
  return options


def _lines(path: Path) -> list[tuple[int, str]]:
  return [(number, line.strip()) for number, line in enumerate(read_lines(path, DataError), 1) if line.strip()]


def _option(path: Path, options: dict[str, str], key: str) -> str:
  if not options.get(key):
    raise DataError(f"{path} has no '{key} = ...'{did_you_mean(key, options)}; found {', '.join(options) or 'nothing'}")
  return options[key]


def _named_files(beside: Path, data_file: Path) -> NamedFiles:
  return NamedFiles([beside.parent, Path(), data_file.parent.parent])


def _find(text: str, data_file: Path, what: str) -> Path:
  files = _named_files(data_file, data_file)
  found = files.find(text)
  if found is None:
    raise DataError(f"{what}: there is no file {shown(text)}; looked for {files.options(text)}")
  return found


def _image_paths(names: Sequence[str], list_path: Path, data_file: Path, log: ProblemLog) -> list[Path]:
  files = _named_files(list_path, data_file)
  found = files.find_all(names)
  log.note(Check.PATH_FORGIVEN, list_path, files.note(str(list_path)))
  return [path or files.missing(name) for path, name in zip(found, names, strict=True)]


def _names(path: Path, options: dict[str, str]) -> list[str]:
  names_path = _find(_option(path, options, "names"), path, f"names of {path}")
  names = [name for _, name in _lines(names_path)]
  if "classes" in options:
    count = Node(options["classes"], str(path), "classes", DataError).whole()
    if count != len(names):
      raise DataError(f"{path}: classes = {count}, but {names_path} holds {len(names)} names; they must agree")
  if len(set(names)) != len(names):
    repeated = next(name for name in names if names.count(name) > 1)
    raise DataError(f"{names_path}: the class name '{repeated}' occurs twice; names must differ")
  return names
