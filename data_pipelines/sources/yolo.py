"""A YOLO data.yaml: `yolo:DATA.yaml:SPLIT`.

The YAML holds `names` (a list, or a dict from 0..k-1), optionally `nc`, `path` (the root; default the YAML's folder)
and for each split (`train`, `val`, `test`; `valid` means `val`) a folder, a text file that lists images, or a list of
these. Where the key is missing, SPLIT is a folder: ROOT/SPLIT, its subfolder images/, or ROOT/images/SPLIT.
Labels lie where the last folder `images` of the path is replaced by `labels`; an image without one has no objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from prn_jax.data_pipelines.label_txt import read_records
from prn_jax.data_pipelines.records import IMAGE_SUFFIXES, DataError, ProblemLog, RecordList, finish
from prn_jax.data_pipelines.spec import register_source


def yolo_label_path(image: Path) -> Path:
  """The label file: the path with its last folder `images` replaced by `labels`, or beside the image without one."""
  parts = list(image.parts)
  for position in range(len(parts) - 2, -1, -1):
    if parts[position] == "images":
      parts[position] = "labels"
      break
  return Path(*parts).with_suffix(".txt")


@register_source("yolo:DATA.yaml:SPLIT")
def open_yolo(parts: tuple[str, ...], log: ProblemLog) -> RecordList:
  """Reads one split and the labels of its images.

  Raises:
    DataError: a file or key is missing, no image is left, or an entry is bad (policy stop).
  """
  path, split = Path(parts[0]).expanduser(), parts[1]
  content = _read_yaml(path)
  names = _names(path, content)
  images: list[tuple[Path, Path, int | None]] = []
  for place in _places(path, content, split):
    images += _listed(place) if place.is_file() else _found(place)
  if not images:
    raise DataError(
      f"{path}, split '{split}', holds no images; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
    )
  records = read_records(images, yolo_label_path, len(names), log)
  return finish(names, range(len(names)), records, log, f"{path}, split '{split}',")


def _read_yaml(path: Path) -> dict[str, Any]:
  try:
    content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"cannot read {path}: {error}") from error
  except yaml.YAMLError as error:
    raise DataError(f"{path} is no valid YAML: {error}") from error
  if not isinstance(content, dict) or "names" not in content:
    found = ", ".join(map(str, content)) if isinstance(content, dict) else repr(content)[:60]
    raise DataError(
      f"{path} has no 'names'; expected a YAML dict with names and the folders of its splits, found {found}"
    )
  return content


def _names(path: Path, content: dict[str, Any]) -> list[str]:
  names = content["names"]
  if isinstance(names, dict):
    if sorted(names, key=str) != sorted(range(len(names)), key=str):
      raise DataError(f"{path}: names has the keys {list(names)[:10]}; expected 0..{len(names) - 1}")
    names = [names[index] for index in range(len(names))]
  if not isinstance(names, list) or not names:
    raise DataError(f"{path}: names is {names!r}; expected a list of class names, or a dict from 0")
  if content.get("nc", len(names)) != len(names):
    raise DataError(f"{path}: nc is {content['nc']}, but there are {len(names)} names; they must agree")
  texts = [str(name) for name in names]
  if len(set(texts)) != len(texts):
    repeated = next(name for name in texts if texts.count(name) > 1)
    raise DataError(f"{path}: the class name '{repeated}' occurs twice; names must differ")
  return texts


def _places(path: Path, content: dict[str, Any], split: str) -> list[Path]:
  """The folders and lists of a split."""
  base = Path(str(content.get("path") or ".")).expanduser()
  root = next((option for option in (path.parent / base, base) if option.is_dir()), path.parent)
  key = next((key for key in (split, {"valid": "val", "val": "valid"}.get(split, "")) if content.get(key)), None)
  if key is None:
    options = [root / split / "images", root / "images" / split, root / split]
    found = next((option for option in options if option.is_dir()), None)
    if found is None:
      splits = [name for name in ("train", "val", "valid", "test") if content.get(name)]
      raise DataError(
        f"{path} has no split '{split}' (it has {', '.join(splits) or 'none'}), and there is no folder {' or '.join(map(str, options))}"
      )
    return [found]
  values = content[key] if isinstance(content[key], list) else [content[key]]
  return [_place(str(value), root, path, key) for value in values]


def _place(text: str, root: Path, path: Path, key: str) -> Path:
  place = Path(text).expanduser()
  # Roboflow's exports write ../train/images for a folder that lies beside the YAML.
  options = [root / place, root / Path(*[part for part in place.parts if part != ".."]), place]
  found = next((option for option in options if option.exists()), None)
  if found is None:
    raise DataError(f"{path}: '{key}' is '{text}', but there is no {' or '.join(dict.fromkeys(map(str, options)))}")
  return found


def _listed(list_path: Path) -> list[tuple[Path, Path, int | None]]:
  images: list[tuple[Path, Path, int | None]] = []
  try:
    lines = list_path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"cannot read the list of images {list_path}: {error}") from error
  for number, line in enumerate(lines, 1):
    if line.strip():
      images.append((list_path.parent / Path(line.strip()).expanduser(), list_path, number))
  return images


def _found(folder: Path) -> list[tuple[Path, Path, int | None]]:
  return [(file, folder, None) for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
