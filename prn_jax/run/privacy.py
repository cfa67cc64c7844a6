"""Classes that are blurred in every picture, and classes that are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from prn_jax.classify.classification import Classification
from prn_jax.detect.blur import blur_boxes
from prn_jax.detect.detections import Detections
from prn_jax.model import Model
from prn_jax.run.detector import DetectOptions, class_mask


@dataclasses.dataclass(frozen=True, eq=False)
class Privacy:
  """What is hidden in pictures. Only what the network finds can be: a box below its threshold stays as it is.

  Attributes:
    hidden, shown: (number of classes,) bool each.
  """

  hidden: np.ndarray
  shown: np.ndarray

  def __call__(self, found: Detections | Classification) -> Detections | Classification:
    """As `hide`; a classification is as it was."""
    return self.hide(found) if isinstance(found, Detections) else found

  def hide(self, found: Detections) -> Detections:
    """The boxes that are shown, on a picture (where there is one) whose hidden boxes are mosaics."""
    image = found.image
    if image is not None:
      image = blur_boxes(image, found.boxes_xyxy_px[self.hidden[found.classes]])
    return dataclasses.replace(found[self.shown[found.classes]], image=image)


def with_privacy(
  model: Model, options: DetectOptions, blur: Sequence[int | str] | None
) -> tuple[DetectOptions, Privacy | None]:
  """Options that find also what is to be hidden, and what hides it; None where nothing is.

  Args:
    model: a detector.
    options: as given; its `classes` are those that are shown.
    blur: numbers or names of classes that are blurred; None for none.

  Raises:
    PrnError: the network has no such class.
  """
  if blur is None:
    return options, None
  privacy = Privacy(class_mask(model.graph, model.names, blur), class_mask(model.graph, model.names, options.classes))
  sought = None if options.classes is None else np.flatnonzero(privacy.hidden | privacy.shown).tolist()
  return dataclasses.replace(options, classes=sought), privacy
