"""Truths and detections as columns, checked once; every protocol reads them from here."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prn_jax.errors import PrnError

ImageId = int | str


class EvalError(PrnError):
  """Detections and truths that cannot be scored."""


class Truth(Protocol):
  """What is known of one image; `prn_jax.data_pipelines.records.Record` is one.

  Where it has `boxes_xywh_px` (n, 4) that is not None, that is used instead of the corners: COCO's own numbers. Where it
  has `ignored_xyxy_px` (m, 4), these are regions in which no class is annotated.
  """

  @property
  def image_id(self) -> ImageId: ...
  @property
  def width(self) -> int | None: ...
  @property
  def height(self) -> int | None: ...
  @property
  def boxes_xyxy_px(self) -> NDArray[Any]: ...
  @property
  def classes(self) -> NDArray[Any]: ...
  @property
  def is_crowd(self) -> NDArray[Any]: ...
  @property
  def is_difficult(self) -> NDArray[Any]: ...
  @property
  def area_px(self) -> NDArray[Any] | None: ...


class Detected(Protocol):
  """What was found in one image; `boxes_xywh_px` as for `Truth`."""

  @property
  def boxes_xyxy_px(self) -> Any: ...
  @property
  def scores(self) -> Any: ...
  @property
  def classes(self) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDetections:
  """What was found in one image, row by row.

  Attributes:
    boxes_xyxy_px: (n, 4) corners in pixels.
    scores: (n,) the higher the better.
    classes: (n,) class indices.
    boxes_xywh_px: (n, 4) the same boxes as corner and size, where a file gave them so; None elsewhere.
  """

  boxes_xyxy_px: ArrayLike
  scores: ArrayLike
  classes: ArrayLike
  boxes_xywh_px: ArrayLike | None = None


NO_DETECTIONS = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class EvalData:
  """Truths and detections of a data set, as columns; rows are sorted by image, otherwise as given.

  Attributes:
    names: class names.
    image_ids: (i,) sorted; COCO's order, which decides between equal scores.
    image_sizes: (i, 2) float64 width and height in pixels; NaN where unknown.
    truth_image, truth_classes: (t,) int64.
    truth_boxes_xywh_px: (t, 4) float64 corner and size, as COCO's evaluators hold them.
    truth_is_crowd, truth_is_difficult: (t,) bool.
    truth_area_px: (t,) float64; NaN where only the box is known.
    det_image, det_classes: (d,) int64.
    det_boxes_xywh_px: (d, 4) float64 corner and size.
    det_scores: (d,) float64, finite.
    region_image: (r,) int64, of ignored regions, in which no class is annotated.
    region_boxes_xywh_px: (r, 4) float64 corner and size.
  """

  names: tuple[str, ...]
  image_ids: tuple[ImageId, ...]
  image_sizes: NDArray[np.float64]
  truth_image: NDArray[np.int64]
  truth_boxes_xywh_px: NDArray[np.float64]
  truth_classes: NDArray[np.int64]
  truth_is_crowd: NDArray[np.bool_]
  truth_is_difficult: NDArray[np.bool_]
  truth_area_px: NDArray[np.float64]
  det_image: NDArray[np.int64]
  det_boxes_xywh_px: NDArray[np.float64]
  det_scores: NDArray[np.float64]
  det_classes: NDArray[np.int64]
  region_image: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
  region_boxes_xywh_px: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))

  @property
  def truth_boxes_xyxy_px(self) -> NDArray[np.float64]:
    """(t, 4) float64 corners."""
    return _to_xyxy(self.truth_boxes_xywh_px)

  @property
  def det_boxes_xyxy_px(self) -> NDArray[np.float64]:
    """(d, 4) float64 corners."""
    return _to_xyxy(self.det_boxes_xywh_px)

  @property
  def num_classes(self) -> int:
    return len(self.names)

  @property
  def num_images(self) -> int:
    return len(self.image_ids)

  @property
  def num_detections(self) -> int:
    return len(self.det_scores)

  def with_detections(self, keep: NDArray[np.bool_]) -> EvalData:
    """The same truths with the detections where `keep` (d,) holds."""
    columns = ("det_image", "det_boxes_xywh_px", "det_scores", "det_classes")
    return dataclasses.replace(self, **{name: getattr(self, name)[keep] for name in columns})

  def with_truths(self, keep: NDArray[np.bool_]) -> EvalData:
    """The same detections with the truths where `keep` (t,) holds."""
    columns = [field.name for field in dataclasses.fields(self) if field.name.startswith("truth_")]
    return dataclasses.replace(self, **{name: getattr(self, name)[keep] for name in columns})


def collect(
  names: Sequence[str],
  truths: Iterable[Truth],
  detections: Mapping[ImageId, Detected],
  *,
  missing: Literal["error", "empty", "leave_out"] = "error",
) -> EvalData:
  """Brings truths and detections together, and checks them.

  Args:
    names: class names; class indices run from 0.
    truths: one per image, such as a data set of `data_pipelines`.
    detections: image id -> detections; rows may come in any order (only Darknet's printed precision depends on it).
    missing: an image of the data set without an entry in `detections` is an error, counts as an image where nothing
      was found, or is left out together with its truths.

  Raises:
    EvalError: no images; an image id twice, or unknown to the data set; an image without an entry (`missing`);
      columns of different lengths, boxes that are not (n, 4), scores or boxes that are not finite, a box with
      x2 < x1 or y2 < y1, a class outside 0..k-1.
  """
  by_id: dict[ImageId, Truth] = {}
  for truth in truths:
    if truth.image_id in by_id:
      raise EvalError(f"image '{truth.image_id}' occurs twice in the data set; image ids must differ")
    by_id[truth.image_id] = truth
  if not by_id:
    raise EvalError("the data set holds no images; there is nothing to evaluate")
  _check_known(detections, by_id)
  absent = [image_id for image_id in by_id if image_id not in detections]
  if absent and missing == "error":
    raise EvalError(
      f"{len(absent)} of {len(by_id)} images have no entry among the detections, the first is '{absent[0]}'. Give an "
      "entry without rows where nothing was found; missing='empty' assumes it, missing='leave_out' drops the images."
    )
  if missing == "leave_out":
    by_id = {image_id: truth for image_id, truth in by_id.items() if image_id in detections}
    if not by_id:
      raise EvalError(f"none of {len(absent)} images has detections; there is nothing to evaluate")
  ids = sorted(by_id, key=lambda image_id: (isinstance(image_id, str), image_id))
  columns = _truth_columns([by_id[image_id] for image_id in ids], len(names))
  columns |= _detection_columns(ids, [detections.get(image_id, NO_DETECTIONS) for image_id in ids], len(names))
  sizes = [(by_id[image_id].width or np.nan, by_id[image_id].height or np.nan) for image_id in ids]
  return EvalData(names=tuple(names), image_ids=tuple(ids), image_sizes=np.array(sizes, np.float64), **columns)


def _check_known(detections: Mapping[ImageId, Detected], known: Mapping[ImageId, Truth]) -> None:
  unknown = [image_id for image_id in detections if image_id not in known]
  if not unknown:
    return
  near = difflib.get_close_matches(str(unknown[0]), [str(image_id) for image_id in known], n=1)
  hint = f" (nearest: '{near[0]}')" if near else f" (which holds e.g. '{next(iter(known))}')"
  raise EvalError(
    f"{len(unknown)} of {len(detections)} images with detections are unknown to the data set{hint}: "
    f"{', '.join(repr(image_id) for image_id in unknown[:5])}{', ...' if len(unknown) > 5 else ''}. "
    "Do the detections belong to this data?"
  )


def _truth_columns(truths: Sequence[Truth], num_classes: int) -> dict[str, NDArray[Any]]:
  counts = [len(truth.classes) for truth in truths]
  for truth, count in zip(truths, counts, strict=True):
    _check_lengths(f"truths of image '{truth.image_id}'", count, boxes=truth.boxes_xyxy_px, is_crowd=truth.is_crowd)
  image = np.repeat(np.arange(len(truths)), counts)
  classes = _joined([truth.classes for truth in truths], np.int64)
  _check_classes("truth", [truth.image_id for truth in truths], image, classes, num_classes)
  areas = [np.full(count, np.nan) if t.area_px is None else t.area_px for t, count in zip(truths, counts, strict=True)]
  return {
    "truth_image": image,
    "truth_boxes_xywh_px": _joined([_xywh(truth) for truth in truths], np.float64, 4),
    "truth_classes": classes,
    "truth_is_crowd": _joined([truth.is_crowd for truth in truths], np.bool_),
    "truth_is_difficult": _joined([truth.is_difficult for truth in truths], np.bool_),
    "truth_area_px": _joined(areas, np.float64),
  } | _region_columns(truths)


def _region_columns(truths: Sequence[Truth]) -> dict[str, NDArray[Any]]:
  regions = [_corners_to_xywh(getattr(truth, "ignored_xyxy_px", ())) for truth in truths]
  image = np.repeat(np.arange(len(truths)), [len(region) for region in regions])
  return {"region_image": image, "region_boxes_xywh_px": _joined(regions, np.float64, 4)}


def _detection_columns(ids: Sequence[ImageId], found: Sequence[Detected], num_classes: int) -> dict[str, NDArray[Any]]:
  scores = [np.asarray(one.scores) for one in found]
  classes = [np.asarray(one.classes) for one in found]
  for image_id, one, score, index in zip(ids, found, scores, classes, strict=True):
    _check_lengths(f"detections of image '{image_id}'", len(score), boxes=np.asarray(one.boxes_xyxy_px), classes=index)
  image = np.repeat(np.arange(len(ids)), [len(score) for score in scores])
  all_scores, all_boxes = _joined(scores, np.float64), _joined([_xywh(one) for one in found], np.float64, 4)
  for what, values in (("score", all_scores[:, None]), ("box", all_boxes)):
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
      row = bad[0]
      raise EvalError(
        f"{len(bad)} detections have a {what} that is not finite; the first is detection "
        f"{row - np.searchsorted(image, image[row])} of image '{ids[image[row]]}': {values[row].tolist()}. "
        "The network's output is broken there; are the weights right?"
      )
  turned = np.flatnonzero((all_boxes[:, 2:] < 0).any(axis=1))
  if len(turned):
    row = turned[0]
    raise EvalError(
      f"{len(turned)} detections have x2 < x1 or y2 < y1; the first, in image '{ids[image[row]]}', is "
      f"{_to_xyxy(all_boxes[row : row + 1])[0].tolist()}. Expected corners x1, y1, x2, y2."
    )
  all_classes = _joined(classes, np.int64)
  _check_classes("detection", ids, image, all_classes, num_classes)
  return {"det_image": image, "det_boxes_xywh_px": all_boxes, "det_scores": all_scores, "det_classes": all_classes}


def _xywh(one: Truth | Detected) -> NDArray[np.float64]:
  """(n, 4) corner and size; the size of float32 corners is exact in float64."""
  exact = getattr(one, "boxes_xywh_px", None)
  if exact is not None:
    return np.asarray(exact, np.float64).reshape(-1, 4)
  return _corners_to_xywh(one.boxes_xyxy_px)


def _corners_to_xywh(boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
  corners = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
  return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _to_xyxy(boxes_xywh: NDArray[np.float64]) -> NDArray[np.float64]:
  return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def _joined(parts: Sequence[NDArray[Any]], dtype: type, width: int | None = None) -> NDArray[Any]:
  shape = (-1,) if width is None else (-1, width)
  joined = [np.asarray(part).reshape(shape) for part in parts if len(part)]
  return np.concatenate(joined).astype(dtype) if joined else np.zeros((0, *shape[1:]), dtype)


def _check_lengths(where: str, count: int, **columns: NDArray[Any]) -> None:
  for name, column in columns.items():
    expected = (count, 4) if name == "boxes" else (count,)
    # An empty list has shape (0,) whatever it would hold.
    if np.shape(column) != expected and (count or np.size(column)):
      raise EvalError(f"{where}: {name} has shape {np.shape(column)}; expected {expected}, as for the other columns")


def _check_classes(
  what: str, ids: Sequence[ImageId], image: NDArray[Any], classes: NDArray[Any], num_classes: int
) -> None:
  bad = np.flatnonzero((classes < 0) | (classes >= num_classes))
  if len(bad):
    raise EvalError(
      f"a {what} of image '{ids[image[bad[0]]]}' has class {classes[bad[0]]}, but there are {num_classes} classes, "
      f"0..{num_classes - 1}. Do the names belong to this model?"
    )
