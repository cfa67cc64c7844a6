"""Writes the results of many images: JSON, COCO JSON, YOLO txt, CSV, pictures. Every file appears whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prn_jax.classify.classification import Classification
from prn_jax.detect.coco_ids import image_ids
from prn_jax.detect.detections import CSV_COLUMNS, Detections
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import write_text, written_beside

PHOTO_KINDS, VIDEO_KINDS = ("json", "coco", "txt", "csv", "images"), ("json", "video")
KINDS = (*PHOTO_KINDS, "video")


def parse_kinds(text: str) -> tuple[str, ...]:
  """ "json,txt" -> ("json", "txt"); PrnError names an unknown kind."""
  if text.strip() == "none":
    return ()
  kinds = tuple(filter(None, (part.strip() for part in text.split(","))))
  for kind in kinds:
    if kind not in KINDS:
      raise PrnError(
        f"--save {kind}: unknown{did_you_mean(kind, KINDS)}. Expected a comma list of {', '.join(KINDS)}, or none."
      )
  return kinds


class ResultWriter:
  """Collects results and writes what was asked for.

  Pictures and txt files are written at once, the rest by `finish`. Files are named after the image; images of the
  same name in different folders get the folder in front.

  Args:
    folder: the folder for the files.
    kinds: some of `PHOTO_KINDS`.
    sources: paths of all images, whose `add` follows in any order; needed for COCO JSON alone.

  Attributes:
    image_ids: COCO's ids of the sources.
  """

  def __init__(self, folder: Path, kinds: Iterable[str], sources: Sequence[str] = ()) -> None:
    self.folder = folder
    self.kinds = tuple(kinds)
    self.image_ids = image_ids(sources)
    self._id_of = dict(zip(sources, self.image_ids.ids, strict=True))
    self._images: list[dict[str, Any]] = []
    self._rows: list[dict[str, Any]] = []
    self._coco: list[dict[str, Any]] = []
    self._table: list[list[Any]] = []
    self._stems: set[str] = set()
    self._written: list[str] = []

  def add(self, result: Detections | Classification) -> None:
    """Takes one result."""
    self._rows.append(result.to_dict())
    stem = self._stem(result.path)
    if isinstance(result, Classification):
      self._table += [[result.path, i, name, f"{p:.6g}", "", "", "", ""] for i, name, p in result.top()]
      return
    if "coco" in self.kinds:
      image_id = self._id_of[result.path or ""]
      self._coco += result.to_coco(image_id)
      size = {"width": result.image_width, "height": result.image_height}
      self._images.append({"id": image_id, "file_name": result.path} | size)
    self._table += result.csv_rows()
    if "txt" in self.kinds:
      write_text(self._file("labels", f"{stem}.txt"), result.to_yolo_txt())
    if "images" in self.kinds:
      with written_beside(self._file("images", f"{stem}.jpg")) as file:
        result.draw().save(file, "JPEG", quality=92)

  def finish(self, failures: list[dict[str, str]]) -> list[str]:
    """Writes what needs all results; returns the paths of everything written, relative to the folder."""
    if "json" in self.kinds:
      text = json.dumps({"results": self._rows, "failures": failures}, indent=1)
      write_text(self._file("predictions.json"), text)
    if "coco" in self.kinds:
      write_text(self._file("coco.json"), json.dumps(self._coco))
      if self.image_ids.counted:
        write_text(self._file("coco_images.json"), json.dumps(self._images, indent=1))
    if "csv" in self.kinds:
      buffer = io.StringIO()
      csv.writer(buffer).writerows([CSV_COLUMNS, *self._table])
      write_text(self._file("predictions.csv"), buffer.getvalue())
    return sorted(self._written)

  def _file(self, *parts: str) -> Path:
    """A file of this run."""
    path = Path(*parts)
    self._written.append(str(path))
    return self.folder / path

  def _stem(self, path: str | None) -> str:
    source = Path(path or "image")
    candidates = [source.stem, f"{source.parent.name}_{source.stem}"]
    candidates += [f"{source.stem}_{n}" for n in range(2, len(self._stems) + 3)]
    stem = next(s for s in (c.replace(os.sep, "_") for c in candidates) if s not in self._stems)
    self._stems.add(stem)
    return stem
