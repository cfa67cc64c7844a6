"""YOLO: OUT/data.yaml, OUT/images/SPLIT/ and OUT/labels/SPLIT/; every image has a label file, empty without objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import yaml

from prn_jax.data_pipelines.convert.labels import LEFT_OUT, count_id, label_name, label_text, labelled
from prn_jax.data_pipelines.convert.layout import Layout, Texts, Written
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import Record

_KEYS = ("path", "names", "nc", "kpt_shape", "download")


class Yolo(Layout):
  """Writes one split with a label file for every image."""

  kind = "yolo"
  loses: ClassVar = {"difficult": LEFT_OUT}

  @classmethod
  def split_of(cls, split: str) -> str:
    return "val" if split == "valid" else split

  @classmethod
  def split_fault(cls, split: str) -> str:
    return f"'{split}' is a key of a data.yaml with a meaning of its own" if split in _KEYS else ""

  def name_fault(self, name: str) -> str:
    return super().name_fault(name) or ("" if _read_back(name) == name else "does not come back from a YAML")

  @property
  def image_folder(self) -> str:
    return f"images/{self.target.split}"

  def add(self, record: Record, header: Header, file_name: str) -> Written:
    count_id(record, file_name, self.losses)
    record = labelled(record, self.losses)
    text = label_text(record, header, self.losses)
    return Written({f"labels/{self.target.split}/{label_name(file_name)}": text}, record)

  def own_texts(self) -> Texts:
    return {}

  @classmethod
  def shared_texts(cls, names: Sequence[str], splits: Sequence[str]) -> Texts:
    # No `path`: without it programs take the folder of the file, with a relative one some look elsewhere.
    content = {split: f"images/{split}" for split in splits} | {"nc": len(names), "names": dict(enumerate(names))}
    return {"data.yaml": _dumped(content)}

  @classmethod
  def folders(cls, split: str) -> tuple[str, ...]:
    return f"labels/{split}", f"images/{split}"  # images last: without labels they would look whole

  @classmethod
  def own_files(cls, split: str) -> tuple[str, ...]:
    return ()

  @classmethod
  def files(cls, folder: Path, split: str) -> Iterator[Path]:
    for name in cls.folders(split):
      yield from (folder / name).iterdir()

  @classmethod
  def spec(cls, folder: Path, split: str) -> str:
    return f"yolo:{folder / 'data.yaml'}:{split}"


def _dumped(content: object) -> str:
  return yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=1 << 30)


def _read_back(name: str) -> object:
  try:
    return yaml.safe_load(_dumped([name]))[0]
  except (yaml.YAMLError, UnicodeError):
    return None
