"""Top-1 and top-5 accuracy, the table of classes and the confusion matrix of a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prn_jax.errors import PrnError


class ClassificationError(PrnError):
  """Scores and labels that cannot be compared."""


@dataclasses.dataclass(frozen=True, eq=False)
class ClassificationMetrics:
  """The accuracy of a classifier.

  Attributes:
    top1, top5: share of the images whose label is the best, or among the five best classes, in [0, 1].
    images: number of images.
    names: class names.
    counts: (k, k) int64, images of class r (row) whose best class is c (column).
    top5_counts: (k,) int64, images of each class whose label is among the five best.
  """

  top1: float
  top5: float
  images: int
  names: tuple[str, ...]
  counts: NDArray[np.int64]
  top5_counts: NDArray[np.int64]

  @property
  def per_class(self) -> tuple[dict[str, Any], ...]:
    """One row per class: name, images, top1, top5, and the class it is most often taken for; None without images."""
    rows = []
    for index, name in enumerate(self.names):
      total = int(self.counts[index].sum())
      others = self.counts[index].copy()
      others[index] = 0
      worst = int(others.argmax())
      rows.append(
        {
          "name": name,
          "images": total,
          "top1": float(self.counts[index, index] / total) if total else None,
          "top5": float(self.top5_counts[index] / total) if total else None,
          "taken for": self.names[worst] if others[worst] else None,
        }
      )
    return tuple(rows)

  def to_json(self) -> dict[str, Any]:
    """The contract of `prn eval --json`: metrics, images, detections (none), protocol."""
    return {
      "metrics": {"top1": self.top1, "top5": self.top5},
      "images": self.images,
      "detections": 0,
      "protocol": "top1",
    }


def top_classes(scores: ArrayLike, number: int = 5) -> NDArray[np.int64]:
  """The best classes of each image.

  Args:
    scores: (n, k), the higher the better.
    number: how many; all k where k is smaller.

  Returns:
    (n, min(number, k)) class indices, best first; of equal scores the lower index first, as in Darknet (`utils.c:top_k`).

  Raises:
    ClassificationError: `scores` is not (n, k), or holds a NaN.
  """
  values = np.asarray(scores)
  if values.ndim != 2 or not values.shape[1]:
    raise ClassificationError(f"the scores have shape {values.shape}; expected (images, classes)")
  broken = np.flatnonzero(np.isnan(values).any(axis=1))
  if len(broken):
    raise ClassificationError(
      f"{len(broken)} of {len(values)} images have a score that is NaN, the first is image number {broken[0]} "
      f"(class {int(np.isnan(values[broken[0]]).argmax())}). The network's output is broken there; are the weights right?"
    )
  return np.argsort(-values, axis=1, kind="stable")[:, :number].astype(np.int64)


def classification_metrics(top: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> ClassificationMetrics:
  """Top-1 and top-5 accuracy.

  Args:
    top: (n, m) class indices, best first, from `top_classes`; with fewer than 5 classes in all, m is their number.
    labels: (n,) true classes.
    names: class names.

  Raises:
    ClassificationError: no images, columns of different lengths, m below min(5, k), or a class outside 0..k-1.
  """
  ranked, truth, num_classes = np.asarray(top), np.asarray(labels), len(names)
  if truth.ndim != 1 or not len(truth):
    raise ClassificationError(f"the labels have shape {truth.shape}; expected (images,) with at least one image")
  if ranked.ndim != 2 or len(ranked) != len(truth) or ranked.shape[1] < min(5, num_classes):
    raise ClassificationError(
      f"the best classes have shape {ranked.shape}; expected ({len(truth)}, {min(5, num_classes)}) for {len(truth)} "
      f"labels and {num_classes} classes"
    )
  for what, values in (("label", truth[:, None]), ("predicted class", ranked)):
    bad = np.flatnonzero(((values < 0) | (values >= num_classes)).any(axis=1))
    if len(bad):
      raise ClassificationError(
        f"image number {bad[0]} has {what} {values[bad[0]].tolist()}, but there are {num_classes} classes, "
        f"0..{num_classes - 1}. Do the names belong to this model and data?"
      )
  is_hit = ranked[:, :5] == truth[:, None]
  counts = np.zeros((num_classes, num_classes), np.int64)
  np.add.at(counts, (truth, ranked[:, 0]), 1)
  top5_counts = np.bincount(truth[is_hit.any(axis=1)], minlength=num_classes)
  return ClassificationMetrics(
    top1=float(is_hit[:, 0].mean()),
    top5=float(is_hit.any(axis=1).mean()),
    images=len(truth),
    names=tuple(names),
    counts=counts,
    top5_counts=top5_counts,
  )
