"""What is labelled in one image, judged against its size as it is read; and the images of a folder by their stems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.image_sizes import checked_image_size
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.records import (
  Box,
  ImageId,
  Object,
  Place,
  ProblemLog,
  Record,
  Rings,
  box_fault,
  checked_box,
  make_record,
)
from prn_jax.files.disk import is_folder

Size = tuple[int, int]
Points = list[tuple[float, float]]
"""x, y in pixels."""


@dataclass
class ImageLabels:
  """Objects and ignored regions of one image while its annotations are read.

  Attributes:
    image: its file.
    size: (width, height) in pixels.
    log: gets what cannot be used.
  """

  image: Path
  size: Size
  log: ProblemLog
  objects: list[Object] = field(default_factory=list)
  ignored_xyxy_px: list[Box] = field(default_factory=list)

  def add(
    self,
    box_xyxy_px: Box,
    class_index: int,
    place: Place,
    *,
    is_crowd: bool = False,
    rings: Rings = (),
    turned: bool = False,
  ) -> None:
    """Adds an object, unless its box cannot be used.

    Args:
      box_xyxy_px: corners in pixels, continuous.
      class_index: its class.
      place: for messages.
      is_crowd: a region of objects of this class that are not counted.
      rings: its outline; kept where the log says so.
      turned: the box is the rectangle around a turned one, which may well reach out of the image: it is clipped, and
        that is no fault.
    """
    box = clipped(box_xyxy_px, self.size) if turned else box_xyxy_px
    usable = checked_box(box or box_xyxy_px, self.size, self.log, place)
    if usable is not None:
      kept = rings if self.log.keep_polygons else ()
      known = place if self.log.keep_places else None
      self.objects.append(Object(usable, class_index, is_crowd=is_crowd, polygon_px=kept, place=known))

  def ignore(self, box_xyxy_px: Box, place: Place) -> None:
    """Adds an ignored region, as far as it lies in the image."""
    inside = clipped(box_xyxy_px, self.size)
    if inside is not None:
      self.ignored_xyxy_px.append(inside)
    elif (fault := box_fault(box_xyxy_px, self.size)) is not None:
      self.log.report(place.file, place.line, place.prefix + fault.reason, fault.check, "the region is left out")

  def record(self, image_id: ImageId) -> Record:
    return make_record(self.image, image_id, self.size, self.objects, ignored_xyxy_px=self.ignored_xyxy_px)


def clipped(box_xyxy_px: Box, size: Size) -> Box | None:
  """The part of a box inside an image of `size`; None where there is none, or a corner is not finite."""
  x1, y1, x2, y2 = box_xyxy_px
  inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
  is_finite = math.isfinite(x1 + y1 + x2 + y2)
  return inside if is_finite and inside[2] > inside[0] and inside[3] > inside[1] else None


def around(rings: Iterable[NDArray[np.float64]]) -> Box:
  """The smallest box around rings of (k, 2) points x, y, of which there is one at least; NaN where one is not finite."""
  return box_of([point for ring in rings for point in ring.tolist()])  # NumPy is slower for a few points


def box_of(points: Iterable[Sequence[float]]) -> Box:
  """The smallest box around points x, y, of which there is one at least; NaN where one is not finite."""
  xs, ys = zip(*points, strict=True)
  box = (min(xs), min(ys), max(xs), max(ys))
  return box if math.isfinite(sum(xs) + sum(ys)) else (math.nan, math.nan, math.nan, math.nan)


def turned(offsets: NDArray[np.float64], about_xy: tuple[float, float], angle: float) -> NDArray[np.float64]:
  """(k, 2) points in pixels, given as offsets from one that they are turned about, clockwise as seen, by radians."""
  cos, sin = np.cos(angle), np.sin(angle)
  return np.asarray(offsets @ np.array([[cos, sin], [-sin, cos]]) + about_xy)


def turned_corners(centre_xy: tuple[float, float], size_wh: tuple[float, float], angle: float) -> NDArray[np.float64]:
  """(4, 2) corners of a box turned about its centre, as `turned` does, from the one that was top left."""
  return turned(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * size_wh / 2, centre_xy, angle)


def ellipse_box(centre_xy: tuple[float, float], radii: tuple[float, float], angle: float) -> Box:
  """The smallest box around an ellipse whose axes are turned by radians, clockwise as seen."""
  cos, sin = np.cos(angle), np.sin(angle)
  half_width, half_height = (
    float(np.hypot(radii[0] * cos, radii[1] * sin)),
    float(np.hypot(radii[0] * sin, radii[1] * cos)),
  )
  x, y = centre_xy
  return x - half_width, y - half_height, x + half_width, y + half_height


def images_by_stem(folders: Iterable[Path], *, deep: bool = False) -> dict[str, Path]:
  """The image of every stem in some folders, with `deep` in those below them too; of two with one stem the first."""
  found: dict[str, Path] = {}
  for folder in folders:
    if not is_folder(folder):
      continue
    for file in sorted(folder.rglob("*")) if deep else sorted(folder.iterdir(), key=lambda file: file.name):
      if is_image_name(file):
        found.setdefault(file.stem, file)
  return found


def labels_of(image: Path, log: ProblemLog) -> ImageLabels | None:
  """For an image whose size only its file tells; None where it cannot be read, which goes to the log."""
  size = checked_image_size(image, log)
  return None if size is None else ImageLabels(image, size, log)


def report_unlabelled(images: Iterable[Path], ending: str, log: ProblemLog) -> None:
  """Images without the annotation file that their format wants: what they show is not known."""
  for image in images:
    reason = f"the image has no annotation file {image.stem}{ending}"
    log.report(image, None, reason, Check.LABEL_MISSING, "the image is left out")


class Drawn(NamedTuple):
  """One object as somebody drew it in a labelling tool.

  Attributes:
    name: its class.
    box_xyxy_px: corners in pixels.
    place: for messages.
    rings: its outline; () where it has a box alone.
    turned: the argument of `ImageLabels.add`.
  """

  name: str
  box_xyxy_px: Box
  place: Place
  rings: Rings = ()
  turned: bool = False


def drawn_record(
  image: Path,
  image_id: ImageId,
  stated: Size | None,
  objects: Iterable[Drawn],
  index_of: Mapping[str, int],
  file: Path,
  log: ProblemLog,
) -> Record | None:
  """The record of an image whose annotations say its size; None where it cannot be used, which goes to the log.

  Args:
    image, image_id: its file and id.
    stated: (width, height) in pixels that the annotations say; None where they do not.
    objects: what is drawn in it.
    index_of: the class of every name.
    file: the file of the annotations.
    log: gets what cannot be used.
  """
  labels = labels_of(image, log)
  if labels is None:
    return None
  if stated is not None and stated != labels.size:
    width, height = labels.size
    reason = f"it says {stated[0]}x{stated[1]} of {image}, which is {width}x{height}, so its boxes cannot be trusted"
    log.report(file, None, reason, Check.IMAGE_OTHER_SIZE, "the image is left out")
    return None
  for one in objects:
    labels.add(one.box_xyxy_px, index_of[one.name], one.place, rings=one.rings, turned=one.turned)
  return labels.record(image_id)
