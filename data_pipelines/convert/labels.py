"""What YOLO and Darknet share: label files with one line `class x y w h` per object, relative to the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from prn_jax.data_pipelines.convert.digits import relative_texts
from prn_jax.data_pipelines.convert.layout import has_own_area, num_outlines, without
from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import Record, no_boxes

LEFT_OUT = "left out, as Darknet's own scripts do"


def labelled(record: Record, losses: Losses) -> Record:
  """What label files can hold: without crowd regions and difficult objects, which are counted."""
  record = without(record, {Loss.CROWD: record.is_crowd, Loss.DIFFICULT: record.is_difficult}, losses)
  losses.add(Loss.AREA, int(has_own_area(record).sum()))
  losses.add(Loss.POLYGON, num_outlines(record))
  losses.add(Loss.IGNORED_REGION, len(record.ignored_xyxy_px))
  return replace(record, polygons_px=None, ignored_xyxy_px=no_boxes())


def label_text(record: Record, header: Header, losses: Losses) -> str:
  """One line for every object."""
  texts, num_inexact = relative_texts(record.boxes_xyxy_px, header.size)
  losses.add(Loss.ROUNDED, num_inexact)
  lines = [f"{index} {' '.join(row)}\n" for index, row in zip(record.classes.tolist(), texts, strict=True)]
  return "".join(lines)


def label_name(file_name: str) -> str:
  """The label file of an image file."""
  return PurePosixPath(file_name).with_suffix(".txt").name


def count_id(record: Record, file_name: str, losses: Losses) -> None:
  """Counts an image whose id, which is its file's stem when it is read, was another."""
  losses.add(Loss.IMAGE_ID, record.image_id != PurePosixPath(file_name).stem)


def name_fault_of_line(name: str) -> str:
  """Why a name cannot stand in a line of a list; "" where it can."""
  if not name.strip():
    return "is empty"
  if name != name.strip():
    return "begins or ends with a blank"
  return "holds a line end" if "\n" in name or "\r" in name or "\0" in name or name[0] == "\ufeff" else ""
