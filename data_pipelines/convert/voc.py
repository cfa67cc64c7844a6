"""Pascal VOC: OUT/Annotations/, OUT/JPEGImages/, OUT/ImageSets/Main/SPLIT.txt, and OUT/classes.txt.

The XML counts pixels from 1 and includes both ends, so that xmin and ymin are one more than ours; corners between pixels
are written with their decimals. VOC has no list of classes: classes.txt holds theirs, with those that no object has, in
their order; programs that do not know it number the names that occur, mostly by the alphabet. Outlines are kept as <polygon>,
ignored regions as <ignored>, which stands beside the objects: programs look for <object> alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.convert.digits import pixel_texts
from prn_jax.data_pipelines.convert.labels import count_id, name_fault_of_line
from prn_jax.data_pipelines.convert.layout import Layout, Target, Texts, Written, has_own_area, without
from prn_jax.data_pipelines.convert.losses import Loss, Losses
from prn_jax.data_pipelines.convert.pictures import Header
from prn_jax.data_pipelines.records import Record
from prn_jax.data_pipelines.sources.voc import CLASSES_FILE

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Voc(Layout):
  """Writes one split with an XML for every image."""

  kind = "voc"
  loses: ClassVar = {"small": "at most one pixel wide or high: xmax would not exceed xmin"}
  has_shared_folders = True

  def __init__(self, target: Target, losses: Losses) -> None:
    super().__init__(target, losses)
    self._stems: list[str] = []

  def name_fault(self, name: str) -> str:
    return name_fault_of_line(name) or ("holds what no XML can" if _NOT_IN_XML.search(name) else "")

  @property
  def image_folder(self) -> str:
    return "JPEGImages"

  def add(self, record: Record, header: Header, file_name: str) -> Written:
    count_id(record, file_name, self.losses)
    stem = PurePosixPath(file_name).stem
    self._stems.append(stem)
    self.losses.add(Loss.AREA, int((has_own_area(record) & ~record.is_crowd).sum()))
    corners = record.boxes_xyxy_px.astype(np.float64)
    is_small = (corners[:, 2:] <= corners[:, :2] + 1).any(axis=1)
    record = without(record, {Loss.CROWD: record.is_crowd, Loss.TOO_SMALL: is_small}, self.losses)
    return Written({f"Annotations/{stem}.xml": self._xml(record, header, file_name)}, record)

  def _xml(self, record: Record, header: Header, file_name: str) -> str:
    width, height = header.size
    lines = [
      "<annotation>",
      "  <folder>JPEGImages</folder>",
      f"  <filename>{escape(file_name)}</filename>",
      "  <source><database>Unknown</database></source>",
      f"  <size><width>{width}</width><height>{height}</height><depth>{header.num_channels}</depth></size>",
      "  <segmented>0</segmented>",
    ]
    rows = zip(
      record.classes.tolist(),
      self._corners(record.boxes_xyxy_px),
      record.is_difficult.tolist(),
      record.polygons_px or [()] * len(record.classes),
      strict=True,
    )
    for index, corners, is_difficult, rings in rows:
      lines += [
        "  <object>",
        f"    <name>{escape(self.target.names[index])}</name>",
        "    <pose>Unspecified</pose><truncated>0</truncated>",
        f"    <difficult>{int(is_difficult)}</difficult>",
        f"    <bndbox>{corners}</bndbox>",
        *map(_polygon, rings),
        "  </object>",
      ]
    for corners in self._corners(record.ignored_xyxy_px):
      lines.append(f"  <ignored><bndbox>{corners}</bndbox></ignored>")
    return "\n".join([*lines, "</annotation>\n"])

  def _corners(self, boxes_xyxy_px: NDArray[np.float32]) -> list[str]:
    """What stands in <bndbox>, of every box."""
    texts, num_inexact = pixel_texts(boxes_xyxy_px, (1, 1, 0, 0))
    self.losses.add(Loss.ROUNDED, num_inexact)
    return [f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>" for x1, y1, x2, y2 in texts]

  def own_texts(self) -> Texts:
    return {f"ImageSets/Main/{self.target.split}.txt": "".join(f"{stem}\n" for stem in self._stems)}

  @classmethod
  def shared_texts(cls, names: Sequence[str], splits: Sequence[str]) -> Texts:
    return {CLASSES_FILE: "".join(f"{name}\n" for name in names)}

  @classmethod
  def folders(cls, split: str) -> tuple[str, ...]:
    return ()

  @classmethod
  def own_files(cls, split: str) -> tuple[str, ...]:
    return (f"ImageSets/Main/{split}.txt",)

  @classmethod
  def files(cls, folder: Path, split: str) -> Iterator[Path]:
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    yield listed
    stems = set(listed.read_text(encoding="utf-8").split("\n"))
    for name in ("Annotations", "JPEGImages"):
      yield from (path for path in (folder / name).iterdir() if path.stem in stems)

  @classmethod
  def spec(cls, folder: Path, split: str) -> str:
    return f"voc:{folder}:{split}"


def _polygon(ring: NDArray[np.float64]) -> str:
  """Points are places: nothing is added."""
  points = "".join(f"<x{n}>{x!r}</x{n}><y{n}>{y!r}</y{n}>" for n, (x, y) in enumerate(ring.tolist(), 1))
  return f"    <polygon>{points}</polygon>"
