"""Photos -> class probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from prn_jax.classify.classification import Classification
from prn_jax.data_pipelines import images
from prn_jax.data_pipelines.images.channels import check_channels, to_channels
from prn_jax.errors import PrnError

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.inference import Inference


class Classifier:
  """Runs a classification network on images, as Darknet's `classifier predict` sees them: shorter side resized to
  the network, centre cut out.

  Args:
    model: a network without detection heads.
    batch_sizes, network: the fields of a `Detector`.

  Attributes:
    seconds: the whole time; a classifier's stages are not timed apart.
  """

  seconds: Mapping[str, float] = MappingProxyType({})

  def __init__(self, model: Model, batch_sizes: int | Sequence[int] = 1, network: Inference | None = None) -> None:
    from prn_jax.run.inference import Inference

    check_channels(model.graph.channels, model.graph.name)
    self.model = model
    self.batch_sizes = (batch_sizes,) if isinstance(batch_sizes, int) else tuple(batch_sizes)
    self.batch_size = self.batch_sizes[-1]
    self._run = network or Inference(model)
    self._head = model.graph.heads[-1].name

  def prepare(self, image_u8: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> the network's input (h, w, 3 or 1) float32."""
    graph = self.model.graph
    return images.resize_min_center_crop(to_channels(image_u8, graph.channels), graph.width, graph.height)[0]

  def probabilities(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
    """Prepared images -> (n, num_classes)."""
    from prn_jax.run.inference import padded_size

    results = []
    for start in range(0, len(prepared), self.batch_size):
      part = prepared[start : start + self.batch_size]
      batch = np.zeros((padded_size(len(part), self.batch_sizes), *prepared[0].shape), np.float32)
      batch[: len(part)] = part
      results.append(np.asarray(self._run(batch)[self._head]).reshape(len(batch), -1)[: len(part)])
    return np.concatenate(results)

  def __call__(
    self, images_u8: Sequence[np.ndarray], paths: Sequence[str | None] | None = None
  ) -> list[Classification]:
    """Classifies decoded images (h, w, 3) uint8 of any size."""
    if not images_u8:
      return []
    prepared = [self.prepare(image) for image in images_u8]
    return self.results(prepared, images_u8, paths or [None] * len(images_u8))

  def results(
    self, prepared: Sequence[np.ndarray], images_u8: Sequence[np.ndarray | None], paths: Sequence[str | None]
  ) -> list[Classification]:
    """As a call, for images that `prepare` has resized already; the results hold no image."""
    rows = self.probabilities(prepared)
    if not np.isfinite(rows).all():
      from prn_jax.variables import why_not_finite

      raise PrnError(
        f"network '{self.model.graph.name}' gave NaN or infinity as probabilities: {why_not_finite(self.model.weights or {})}"
      )
    names = self.model.names
    return [Classification(row, names, path) for row, path in zip(rows, paths, strict=True)]
