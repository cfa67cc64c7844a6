"""OUT/converted.json: what a converted set holds, and which of its files are ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.records import DataError
from prn_jax.files.disk import sha256, write_text
from prn_jax.files.structured import MAX_DATA_BYTES, read_json
from prn_jax.files.values import Node

INDEX_FILE = "converted.json"
_VERSION = 1
_TEXTS = (".txt", ".xml", ".json", ".yaml", ".data", ".names")


@dataclass(frozen=True)
class Unfinished:
  """A split that was being put to its place: its folders and files count for nothing."""

  split: str
  files: tuple[str, ...]


@dataclass(frozen=True)
class Index:
  """The content of the file.

  Attributes:
    to: the format.
    names, category_ids: the classes of all splits.
    splits: what was written, by the name of the split: the figures of `Converted`, and a digest of its files.
    shared: sha256 of the files that all splits share, by their path below OUT.
    unfinished: what a run that was stopped may have left.
  """

  to: str
  names: tuple[str, ...] = ()
  category_ids: tuple[int, ...] = ()
  splits: dict[str, dict[str, Any]] = field(default_factory=dict)
  shared: dict[str, str] = field(default_factory=dict)
  unfinished: Unfinished | None = None

  def write(self, folder: Path) -> None:
    """Writes the file in one step."""
    content: dict[str, Any] = {"version": _VERSION, "to": self.to, "names": self.names}
    content |= {"category_ids": self.category_ids, "splits": self.splits, "shared": self.shared}
    if self.unfinished:
      content["unfinished"] = {"split": self.unfinished.split, "files": self.unfinished.files}
    write_text(folder / INDEX_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

  def others(self, split: str) -> dict[str, dict[str, Any]]:
    """The other splits."""
    return {name: entry for name, entry in self.splits.items() if name != split}

  def finished(self) -> Index:
    """The same with nothing unfinished."""
    return replace(self, unfinished=None)


def read_index(folder: Path) -> Index | None:
  """The index of a folder, or None where there is no such file.

  Raises:
    DataError: the file is damaged, or of a later version.
  """
  path = folder / INDEX_FILE
  if not path.exists():
    return None
  root = read_json(path, DataError, MAX_DATA_BYTES, f"Delete {folder} and run it again.")
  if (version := root["version"].whole()) != _VERSION:
    raise DataError(f"{path} has version {version}; this version of prn_jax reads {_VERSION}. Give another OUT.")
  unfinished = None
  if "unfinished" in root:
    node = root["unfinished"]
    unfinished = Unfinished(node["split"].text(), tuple(file.text() for file in node["files"].items()))
  return Index(
    root["to"].text(),
    tuple(name.text() for name in root["names"].items()),
    tuple(number.whole() for number in root["category_ids"].items()),
    {name: _entry(entry) for name, entry in root["splits"].mapping().items()},
    {name: entry.text() for name, entry in root["shared"].mapping().items()},
    unfinished,
  )


def digest_of(files: Iterable[Path], folder: Path) -> str:
  """Changes with the content of texts, with the size or target of images, and with what files there are."""
  digest = hashlib.sha256()
  for path in sorted(files):
    is_text = path.suffix in _TEXTS
    state = sha256(path) if is_text else str(path.readlink() if path.is_symlink() else path.stat().st_size)
    digest.update(f"{path.relative_to(folder).as_posix()}\0{state}\0".encode(errors="surrogateescape"))
  return digest.hexdigest()


def _entry(node: Node) -> dict[str, Any]:
  """What is said of one split; written by us, and checked where it is used."""
  return dict(node.raw) if isinstance(node.raw, dict) else {}
