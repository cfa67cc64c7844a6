"""A YOLO data.yaml: `yolo:DATA.yaml:SPLIT`.

The YAML holds `names` (a list, or a dict from 0..k-1), optionally `nc`, `path` (the root; default the YAML's folder)
and for each split (`train`, `val`, `test`; `valid` means `val`) a folder, a text file that lists images, or a list of
these. Where the key is missing, SPLIT is a folder: ROOT/SPLIT, its subfolder images/, or ROOT/images/SPLIT.
Labels lie where the last folder `images` of the path is replaced by `labels`, or where `label_files` looks else; an
image without one has no objects. Paths that another machine wrote are understood as `named_files` says.
"""

from __future__ import annotations

import os
from pathlib import Path

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.images.formats import IMAGE_SUFFIXES, is_image_name
from prn_jax.data_pipelines.reading.label_txt import Listed, read_records
from prn_jax.data_pipelines.reading.named_files import NamedFiles
from prn_jax.data_pipelines.records import DataError, ProblemLog, RecordList, finish
from prn_jax.data_pipelines.spec import register_source
from prn_jax.files.disk import is_file, is_folder
from prn_jax.files.places import to_path
from prn_jax.files.structured import read_lines, read_yaml
from prn_jax.files.values import Misfit, Node, shown, whole_of


def yolo_label_path(image: Path) -> Path:
  """The label file: the path with its last folder `images` replaced by `labels`, or beside the image without one."""
  parts = list(image.parts)
  for position in range(len(parts) - 2, -1, -1):
    if parts[position] == "images":
      parts[position] = "labels"
      break
  return type(image)(*parts).with_suffix(".txt") if image.name else image  # "/" is no image, which is said elsewhere


@register_source(
  "yolo:DATA.yaml:SPLIT", "a YOLO data.yaml with folders images and labels: boxes, polygons, turned boxes"
)
def open_yolo(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads one split and the labels of its images.

  Raises:
    DataError: a file or key is missing, no image is left, or an entry is bad (policy stop).
  """
  path, split = to_path(parts[0]), parts[1]
  content = _read_yaml(path)
  names = _names(content)
  images: list[Listed] = []
  for place in _places(path, content, split):
    images += _listed(place, log) if is_file(place) else _found(place)
  if not images:
    raise DataError(f"{path}, split '{split}', holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
  records = read_records(images, yolo_label_path, len(names), log, num_keypoint_values=_num_keypoint_values(content))
  return finish(names, range(len(names)), records, log, f"{path}, split '{split}',")


def _read_yaml(path: Path) -> Node:
  root = read_yaml(path, DataError)
  if not isinstance(root.raw, dict) or "names" not in root:
    found = ", ".join(shown(key)[1:-1] for key in root.raw) if isinstance(root.raw, dict) else shown(root.raw)
    raise DataError(
      f"{path} has no 'names'; expected a YAML dict with names and the folders of its splits, found {found}"
    )
  return root


def _names(content: Node) -> list[str]:
  """Class names as they are written: bare no, yes, on and 007 are names like any other."""
  names = content["names"]
  if isinstance(names.raw, dict):
    by_number = {_number(names, key): value for key, value in names.mapping().items()}
    if sorted(by_number) != list(range(len(names.raw))):
      raise names.fault(f"has the keys {shown(list(names.raw))}; expected 0..{len(names.raw) - 1}, each once")
    values = [by_number[index] for index in range(len(by_number))]
  elif isinstance(names.raw, list):
    values = names.items()
  else:
    values = []
  if not values:
    raise names.fault(f"is {shown(names.raw)}; expected a list of class names, or a dict from 0")
  texts = [value.text() for value in values]
  if "nc" in content and content["nc"].whole() != len(texts):
    raise content["nc"].fault(f"is {content['nc'].whole()}, but there are {len(texts)} names; they must agree")
  if len(set(texts)) != len(texts):
    repeated = next(name for name in texts if texts.count(name) > 1)
    raise names.error(f"{names.file}: the class name {shown(repeated)} occurs twice; names must differ")
  return texts


def _number(names: Node, key: str) -> int:
  try:
    return whole_of(key)
  except Misfit as error:
    raise names.fault(f"has a key that {error}") from None


def _places(path: Path, content: Node, split: str) -> list[Path]:
  """The folders and lists of a split."""
  base = content.get("path", ".").text() or "."
  root = NamedFiles([path.parent, Path()]).find(base, os.path.isdir) or path.parent
  key = next((key for key in (split, {"valid": "val", "val": "valid"}.get(split, "")) if content.get(key).raw), None)
  if key is None:
    options = [root / split / "images", root / "images" / split, root / split]
    found = next((option for option in options if is_folder(option)), None)
    if found is None:
      splits = [name for name in ("train", "val", "valid", "test") if content.get(name).raw]
      held = (
        f"it has {', '.join(splits)}" if splits else f"it names no split: write '{split}: FOLDER OF IMAGES' into it"
      )
      raise DataError(
        f"{path} has no split '{split}' ({held}), and there is no folder {' or '.join(map(str, options))}"
      )
    return [found]
  value = content[key]
  places = value.items() if isinstance(value.raw, list) else [value]
  return [_place(place.text(), root, path, key) for place in places]


def _place(text: str, root: Path, path: Path, key: str) -> Path:
  files = NamedFiles([root, path.parent, Path()])
  found = files.find(text, os.path.exists) if text else None
  if found is None:
    raise DataError(f"{path}: '{key}' is {shown(text)}, but there is no {files.options(text)}")
  if found.resolve() == Path(found.resolve().anchor):
    raise DataError(f"{path}: '{key}' is '{text}', which is the whole disk; expected a folder of images")
  return found


def _num_keypoint_values(content: Node) -> int:
  """Values of a line behind its box: of `kpt_shape: [number of keypoints, values of each]`, 0 without it."""
  if "kpt_shape" not in content:
    return 0
  shape = [value.whole(0, 10_000) for value in content["kpt_shape"].items()]
  if len(shape) != 2:
    raise content["kpt_shape"].fault(f"is {shape}; expected the number of keypoints and the values of each")
  return shape[0] * shape[1]


def _listed(list_path: Path, log: ProblemLog) -> list[Listed]:
  lines = [(n, line.strip()) for n, line in enumerate(read_lines(list_path, DataError), 1) if line.strip()]
  files = NamedFiles([list_path.parent, Path()])
  found = files.find_all([text for _, text in lines])
  log.note(Check.PATH_FORGIVEN, list_path, files.note(str(list_path)))
  return [Listed(image or files.missing(text), list_path, n) for image, (n, text) in zip(found, lines, strict=True)]


def _found(folder: Path) -> list[Listed]:
  return [Listed(file, folder) for file in sorted(folder.rglob("*")) if is_image_name(file) and file.is_file()]
