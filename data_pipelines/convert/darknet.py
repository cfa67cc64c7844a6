"""Darknet: OUT/obj.data, OUT/obj.names, and for each of train and valid a list of images, OUT/SPLIT.txt, and a folder
OUT/SPLIT/ with the images and their label files.

Paths in the lists are relative to OUT: Darknet wants to be started there, our reader looks beside the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from prn_jax.data_pipelines.convert.labels import (
  LEFT_OUT,
  count_id,
  label_name,
  label_text,
  labelled,
  name_fault_of_line,
)
from prn_jax.data_pipelines.convert.layout import Layout, Target, Texts, Written
from prn_jax.data_pipelines.convert.losses import Losses
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import Record

_SPLITS = ("train", "valid")


class Darknet(Layout):
  """Writes one of the two splits of a .data file."""

  kind = "darknet"
  loses: ClassVar = {"difficult": LEFT_OUT}

  def __init__(self, target: Target, losses: Losses) -> None:
    super().__init__(target, losses)
    self._images: list[str] = []

  @classmethod
  def split_of(cls, split: str) -> str:
    return "valid" if split in ("val", "validation") else split

  @classmethod
  def split_fault(cls, split: str) -> str:
    return "" if split in _SPLITS else f"a Darknet .data file has the splits train and valid, and '{split}' is neither"

  def name_fault(self, name: str) -> str:
    return name_fault_of_line(name)

  @property
  def image_folder(self) -> str:
    return self.target.split

  def add(self, record: Record, header: Header, file_name: str) -> Written:
    count_id(record, file_name, self.losses)
    self._images.append(f"{self.target.split}/{file_name}\n")
    record = labelled(record, self.losses)
    text = label_text(record, header, self.losses)
    return Written({f"{self.target.split}/{label_name(file_name)}": text}, record)

  def own_texts(self) -> Texts:
    return {f"{self.target.split}.txt": "".join(self._images)}

  @classmethod
  def shared_texts(cls, names: Sequence[str], splits: Sequence[str]) -> Texts:
    lists = "".join(f"{split} = {split}.txt\n" for split in _SPLITS if split in splits)
    data = f"classes = {len(names)}\n{lists}names = obj.names\nbackup = backup\n"
    return {"obj.names": "".join(f"{name}\n" for name in names), "obj.data": data}

  @classmethod
  def folders(cls, split: str) -> tuple[str, ...]:
    return (split,)

  @classmethod
  def own_files(cls, split: str) -> tuple[str, ...]:
    return (f"{split}.txt",)

  @classmethod
  def files(cls, folder: Path, split: str) -> Iterator[Path]:
    yield folder / f"{split}.txt"
    yield from (folder / split).iterdir()

  @classmethod
  def spec(cls, folder: Path, split: str) -> str:
    return f"darknet:{folder / 'obj.data'}:{split}"
