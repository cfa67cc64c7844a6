"""The detections of one image: boxes in its pixels, and what users do with them. Needs no JAX."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import importlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.data_pipelines.images import read_image
from prn_jax.detect.coco_ids import image_number
from prn_jax.detect.draw import draw_boxes
from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text, written_beside
from prn_jax.labels import coco_category_ids

if TYPE_CHECKING:
  import pandas
  import supervision
  from PIL import Image

CSV_COLUMNS = ("image", "class", "name", "score", "x1", "y1", "x2", "y2")
PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
_NOTEBOOK_SIDE_PX = 1024
_TABLE_ROWS = 20
_REPR_CLASSES = 5


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detections:
  """What was found in one image, best score first.

  Attributes:
    boxes_xyxy_px: (n, 4) float32: left, top, right, bottom in pixels of the image. As in Darknet they may reach
      beyond it; see `clipped`.
    scores: (n,) float32 in [0, 1].
    classes: (n,) int32.
    names: name of every class; may be empty.
    image_width, image_height: size of the image in pixels.
    uncertainty: (n, 4) float32 in [0, 1], of x, y, w, h, from Gaussian_yolo; else None.
    path: the file of the image, if known.
    image: (h, w, 3) uint8 RGB, to draw on; may be None.

  Raises:
    PrnError: arrays of different lengths, or a class without a name.
  """

  boxes_xyxy_px: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  names: Sequence[str] = ()
  image_width: int = 0
  image_height: int = 0
  uncertainty: np.ndarray | None = None
  path: str | None = None
  image: np.ndarray | None = None

  def __post_init__(self) -> None:
    set_field = object.__setattr__
    set_field(self, "boxes_xyxy_px", np.asarray(self.boxes_xyxy_px, np.float32).reshape(-1, 4))
    set_field(self, "scores", np.asarray(self.scores, np.float32).reshape(-1))
    set_field(self, "classes", np.asarray(self.classes, np.int32).reshape(-1))
    if self.uncertainty is not None:
      set_field(self, "uncertainty", np.asarray(self.uncertainty, np.float32).reshape(-1, 4))
    counts = {len(a) for a in (self.boxes_xyxy_px, self.scores, self.classes, self.uncertainty) if a is not None}
    if len(counts) > 1:
      raise PrnError(
        f"{len(self.boxes_xyxy_px)} boxes, {len(self.scores)} scores and {len(self.classes)} classes; expected equal."
      )
    if self.names and len(self) and not 0 <= self.classes.min() <= self.classes.max() < len(self.names):
      raise PrnError(
        f"class ids from {self.classes.min()} to {self.classes.max()}, but {len(self.names)} names; "
        "the names do not belong to the network."
      )

  def __len__(self) -> int:
    return len(self.scores)

  def __getitem__(self, index: Any) -> Detections:
    """Some of the detections, by anything that indexes an array: `found[found.scores > 0.5]`."""
    index = [index] if isinstance(index, int | np.integer) else index
    picked = {
      name: getattr(self, name)[index]
      for name in ("boxes_xyxy_px", "scores", "classes", "uncertainty")
      if getattr(self, name) is not None
    }
    return dataclasses.replace(self, **picked)

  def __iter__(self) -> Iterator[Detections]:
    return (self[i] for i in range(len(self)))

  def name_of(self, class_id: int) -> str:
    return self.names[class_id] if self.names else f"class {class_id}"

  @property
  def labels(self) -> list[str]:
    """Name of every detection's class."""
    return [self.name_of(int(c)) for c in self.classes]

  def clipped(self) -> Detections:
    """The same detections with boxes cut at the image's border."""
    limit = np.array([self.image_width, self.image_height] * 2, np.float32)
    return dataclasses.replace(self, boxes_xyxy_px=np.clip(self.boxes_xyxy_px, 0, limit))

  # -- formats ---------------------------------------------------------------------------------------------------------

  def to_dict(self) -> dict[str, Any]:
    """Plain values for JSON; boxes are not clipped."""
    rows = [
      {"class": int(c), "name": self.name_of(int(c)), "score": float(s), "box_xyxy_px": [float(v) for v in box]}
      for box, s, c in zip(self.boxes_xyxy_px, self.scores, self.classes, strict=True)
    ]
    if self.uncertainty is not None:
      for row, values in zip(rows, self.uncertainty, strict=True):
        row["uncertainty_xywh"] = [float(v) for v in values]
    return {"path": self.path, "width": self.image_width, "height": self.image_height, "detections": rows}

  def to_coco(
    self, image_id: int | str | None = None, category_ids: Sequence[int] | None = None
  ) -> list[dict[str, Any]]:
    """Rows of COCO's results format, boxes clipped to the image as Darknet's `detector valid` writes them.

    Args:
      image_id: the image's id in the annotations; by default the number that its file name holds (42 of
        COCO_val2014_000000000042.jpg), else the name without its suffix; None (null in JSON) without a path.
      category_ids: id per class; by default COCO's own, 1 to 90, if `names` are its 80 classes, else the class itself.

    Raises:
      PrnError: a class has no category id.
    """
    if image_id is None and self.path is not None:
      number = image_number(self.path)
      image_id = PurePath(self.path).stem if number is None else number
    if category_ids is None:
      category_ids = coco_category_ids(self.names)
    if category_ids is not None and len(self) and self.classes.max() >= len(category_ids):
      raise PrnError(f"class {self.classes.max()} was detected, but there are only {len(category_ids)} category ids.")
    rows = []
    for (x1, y1, x2, y2), score, label in zip(
      self.clipped().boxes_xyxy_px.astype(float).tolist(), self.scores.tolist(), self.classes.tolist(), strict=True
    ):
      category = label if category_ids is None else int(category_ids[label])
      rows.append({"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
    return rows

  def to_yolo_txt(self, *, with_scores: bool = False) -> str:
    """Lines "class x y w h", centre and size relative to the image, clipped: the format of Darknet's labels.

    With `with_scores` the score is a sixth column, which label readers do not expect.
    """
    size = np.array([self.image_width, self.image_height], np.float32)
    boxes = self.clipped().boxes_xyxy_px
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2 / size, (boxes[:, 2:] - boxes[:, :2]) / size
    lines = []
    for label, center, extent, score in zip(self.classes, centers, sizes, self.scores, strict=True):
      values = [*center, *extent, *([score] if with_scores else [])]
      lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in values) + "\n")
    return "".join(lines)

  def csv_rows(self) -> list[list[Any]]:
    """Rows of a .csv file; its header is `CSV_COLUMNS`."""
    return [
      [self.path, int(label), name, f"{score:.6g}", *(f"{v:.2f}" for v in box)]
      for box, score, label, name in zip(self.boxes_xyxy_px, self.scores, self.classes, self.labels, strict=True)
    ]

  def to_pandas(self) -> pandas.DataFrame:
    """One row per detection: class, name, score, x1, y1, x2, y2 (pixels, not clipped), as in predictions.csv.

    Raises:
      PrnError: pandas is not installed.
    """
    frame = _optional("pandas", "to_pandas").DataFrame
    x1, y1, x2, y2 = self.boxes_xyxy_px.T
    columns = {"class": self.classes, "name": self.labels, "score": self.scores, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return frame(columns)

  def to_supervision(self) -> supervision.Detections:
    """For the package supervision (trackers, zones, annotators); names are its data["class_name"].

    Raises:
      PrnError: supervision is not installed.
    """
    return _optional("supervision", "to_supervision").Detections(
      xyxy=self.boxes_xyxy_px.copy(),
      confidence=self.scores.copy(),
      class_id=self.classes.astype(int),
      data={"class_name": np.array(self.labels, dtype=str)},
    )

  def save(self, path: str | os.PathLike[str]) -> Path:
    """Writes the detections by the type of the file: a picture with the boxes, or their numbers.

    Args:
      path: .jpg, .png, .webp or .bmp is `draw`; .json is `to_dict`; .txt is `to_yolo_txt`; .csv has the columns of
        `to_pandas`. The file appears whole or not at all.

    Raises:
      PrnError: another type, no image to draw on, or the place cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PICTURES:
      picture = self.draw()
      with written_beside(path) as file:
        picture.save(file, PICTURES[suffix], **({"quality": 92} if suffix in (".jpg", ".jpeg", ".webp") else {}))
    elif suffix == ".json":
      write_text(path, json.dumps(self.to_dict(), indent=1))
    elif suffix == ".txt":
      write_text(path, self.to_yolo_txt())
    elif suffix == ".csv":
      buffer = io.StringIO()
      csv.writer(buffer).writerows([CSV_COLUMNS, *self.csv_rows()])
      write_text(path, buffer.getvalue())
    else:
      known = ", ".join([*PICTURES, ".json", ".txt", ".csv"])
      raise PrnError(f"cannot save detections as '{path}': the type '{suffix}' is unknown; expected one of {known}.")
    return path

  # -- pictures --------------------------------------------------------------------------------------------------------

  def draw(
    self, image_u8: np.ndarray | None = None, *, line_px: int | None = None, font_px: int | None = None
  ) -> Image.Image:
    """The image with boxes, names and scores.

    Args:
      image_u8: (h, w, 3) uint8 RGB of the same size; by default `image`, else the file at `path`.
      line_px, font_px: see `draw_boxes`.

    Raises:
      PrnError: there is no image, it cannot be read, or it has another size.
    """
    image = self._pixels() if image_u8 is None else image_u8
    if image.shape[:2] != (self.image_height, self.image_width):
      raise PrnError(
        f"cannot draw on an image of {image.shape[1]}x{image.shape[0]} pixels: the boxes belong to one of "
        f"{self.image_width}x{self.image_height}."
      )
    labels = [f"{name} {score:.2f}" for name, score in zip(self.labels, self.scores, strict=True)]
    return draw_boxes(image, self.boxes_xyxy_px, labels, self.classes, line_px=line_px, font_px=font_px)

  def show(self) -> None:
    """Shows the picture: in a notebook below the cell, elsewhere in a window.

    Raises:
      PrnError: there is no image, or nothing that could show it.
    """
    from PIL import ImageShow

    picture = self.draw()
    kernel = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if kernel is not None and hasattr(kernel, "kernel"):
      importlib.import_module("IPython.display").display(picture)
    elif not ImageShow.show(picture, title=self.path or "detections"):
      raise PrnError("no program that shows pictures was found. Write the picture instead: found.save('boxes.jpg').")

  def _pixels(self) -> np.ndarray:
    if self.image is not None:
      return self.image
    if self.path is None or self.path.startswith(("http://", "https://")):
      raise PrnError("these detections hold no image to draw on; pass one: draw(image_u8).")
    return read_image(self.path)

  def _repr_png_(self) -> bytes | None:
    """The picture, for notebooks; None without an image."""
    if self.image is None:
      return None
    buffer = io.BytesIO()
    self.draw().save(buffer, "PNG")
    return buffer.getvalue()

  def _repr_html_(self) -> str:
    """Picture (if there is an image) and table, for notebooks."""
    picture = ""
    if self.image is not None:
      drawn = self.draw()
      drawn.thumbnail((_NOTEBOOK_SIDE_PX, _NOTEBOOK_SIDE_PX))
      buffer = io.BytesIO()
      drawn.save(buffer, "JPEG", quality=90)
      picture = f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'
    return f"{picture}<pre>{html.escape(str(self))}</pre>"

  def __repr__(self) -> str:
    """One line: where, and how many of which class."""
    counts = Counter(self.labels)
    found = ", ".join(f"{number} {name}" for name, number in counts.most_common(_REPR_CLASSES))
    more = ", ..." if len(counts) > _REPR_CLASSES else ""
    where = f"'{self.path}' " if self.path else ""
    return f"Detections({where}{self.image_width}x{self.image_height}: {found or 'nothing'}{more})"

  def __str__(self) -> str:
    """A table, best first."""
    title = f"{len(self)} detections in {self.path or 'an image'} ({self.image_width}x{self.image_height})"
    labels = self.labels[:_TABLE_ROWS]
    width = max(map(len, labels), default=0)
    rows = [
      f"  {name:{width}}  {score:5.3f}  " + "  ".join(f"{v:7.1f}" for v in box)
      for name, score, box in zip(labels, self.scores, self.boxes_xyxy_px, strict=False)
    ]
    header = [f"  {'class':{width}}  score       x1       y1       x2       y2"] if rows else []
    more = [f"  ... and {len(self) - _TABLE_ROWS} more"] if len(self) > _TABLE_ROWS else []
    return "\n".join([title, *header, *rows, *more])


def _optional(package: str, method: str) -> Any:
  """A package that the project does not require; PrnError says how to get it."""
  try:
    return importlib.import_module(package)
  except ModuleNotFoundError as error:
    missing = error.name or package
    raise PrnError(f"{method} needs the package '{missing}', which is not installed: pip install {missing}.") from None
