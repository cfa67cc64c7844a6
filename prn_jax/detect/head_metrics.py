"""What detection heads tell of a batch while they are trained."""

from __future__ import annotations

from typing import NamedTuple

import jax


class HeadMetrics(NamedTuple):
  """What Darknet prints of a head, as sums, so that batches and devices add up; float32 scalars.

  Attributes:
    cost: Darknet's cost.
    num_assigned: pairs of truth and anchor that were trained ("count"); the divisor of the next six.
    iou, giou: overlap of their predictions before the update.
    objectness, true_class: their objectness, and the probability of their true class.
    recall50, recall75: how many have an IoU above 0.5 and 0.75.
    any_objectness: objectness of all locations; divide by num_locations.
    num_locations: locations of all images.
  """

  cost: jax.Array
  num_assigned: jax.Array
  iou: jax.Array
  giou: jax.Array
  objectness: jax.Array
  true_class: jax.Array
  recall50: jax.Array
  recall75: jax.Array
  any_objectness: jax.Array
  num_locations: jax.Array
