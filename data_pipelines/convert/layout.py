"""What one format asks of a converter: where images lie, what is written for each, and what names the whole."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import DataError, Record

Texts = dict[str, str]
"""Path below OUT -> text of the file."""


class Written(NamedTuple):
  """What is written for one image, and the record that can be read from it."""

  texts: Texts
  record: Record


@dataclass(frozen=True)
class Target:
  """The set that is written: its classes, and the split at hand."""

  names: tuple[str, ...]
  category_ids: tuple[int, ...]
  split: str


class Layout(ABC):
  """One format; an object of it writes one split.

  Attributes:
    kind: the format's name, which is that of the source that reads it.
    loses: what is said of difficult objects and of boxes that are too small, see `losses.TEXTS`.
    has_shared_folders: whether splits share folders, so that their images need names of their own.
  """

  kind: ClassVar[str]
  loses: ClassVar[Mapping[str, str]]
  has_shared_folders: ClassVar[bool] = False

  def __init__(self, target: Target, losses: Losses) -> None:
    self.target, self.losses = target, losses
    for name in target.names:
      if fault := self.name_fault(name):
        raise DataError(
          f"the class name {name!r} {fault}, so that {self.kind} cannot hold it. Rename the class, or convert to coco."
        )

  @classmethod
  def split_of(cls, split: str) -> str:
    """What the format calls a split of this name."""
    return split

  @classmethod
  def split_fault(cls, split: str) -> str:
    """Why the format cannot hold a split of this name; "" where it can."""
    return ""

  def name_fault(self, name: str) -> str:
    """Why the format cannot hold a class name; "" where it can."""
    return "is empty" if not name else ""

  @property
  @abstractmethod
  def image_folder(self) -> str:
    """Where the images of the split lie, below OUT."""

  @abstractmethod
  def add(self, record: Record, header: Header, file_name: str) -> Written:
    """What is written for one image; its size is known, and its file has this name in `image_folder`."""

  @abstractmethod
  def own_texts(self) -> Texts:
    """Files of the split as a whole, written after those of the images."""

  @classmethod
  @abstractmethod
  def shared_texts(cls, names: Sequence[str], splits: Sequence[str]) -> Texts:
    """Files of all splits together, written last."""

  @classmethod
  @abstractmethod
  def folders(cls, split: str) -> tuple[str, ...]:
    """Folders that belong to the split alone, below OUT, in the order in which they are put there."""

  @classmethod
  @abstractmethod
  def own_files(cls, split: str) -> tuple[str, ...]:
    """The paths of `own_texts`."""

  @classmethod
  @abstractmethod
  def files(cls, folder: Path, split: str) -> Iterator[Path]:
    """The files of a split that is there."""

  @classmethod
  @abstractmethod
  def spec(cls, folder: Path, split: str) -> str:
    """The SPEC that opens the split."""


def keep_objects(record: Record, keep: NDArray[np.bool_]) -> Record:
  """The record with the objects where `keep` (n,) holds."""
  if keep.all():
    return record
  return replace(
    record,
    boxes_xyxy_px=record.boxes_xyxy_px[keep],
    classes=record.classes[keep],
    is_crowd=record.is_crowd[keep],
    is_difficult=record.is_difficult[keep],
    area_px=None if record.area_px is None else record.area_px[keep],
    boxes_xywh_px=None if record.boxes_xywh_px is None else record.boxes_xywh_px[keep],
    polygons_px=None if record.polygons_px is None else tuple(itertools.compress(record.polygons_px, keep)),
  )


def boxes_xywh_px(record: Record) -> NDArray[np.float64]:
  """(n, 4) corner and size, to the last digit that is known."""
  if record.boxes_xywh_px is not None:
    return record.boxes_xywh_px
  return to_xywh(record.boxes_xyxy_px)


def to_xywh(boxes_xyxy_px: NDArray[np.float32]) -> NDArray[np.float64]:
  """(n, 4) corner and size of (n, 4) corners, in float64, where their difference is exact."""
  corners = boxes_xyxy_px.astype(np.float64)
  return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def num_outlines(record: Record) -> int:
  """Objects with an outline."""
  return sum(map(bool, record.polygons_px or ()))


def has_own_area(record: Record) -> NDArray[np.bool_]:
  """(n,) whether the area is not that of the box."""
  if record.area_px is None:
    return np.zeros(len(record.classes), np.bool_)
  boxes = boxes_xywh_px(record)
  return record.area_px != boxes[:, 2] * boxes[:, 3]


def without(record: Record, left_out: Mapping[Loss, Any], losses: Losses) -> Record:
  """The record without the objects that a format cannot hold, by masks (n,); each counts for the first reason that it has."""
  keep = np.ones(len(record.classes), np.bool_)
  for loss, mask in left_out.items():
    losses.add(loss, int((keep & mask).sum()))
    keep &= ~mask
  return keep_objects(record, keep)
