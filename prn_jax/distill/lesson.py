"""What teacher and student say of the same images, and the register of losses that compare them.

A loss gets a `Lesson`, in which the teacher's side has no gradient, and gives the mean over the images. Another one, also from
outside, is one function with `@register_distillation`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.detect.assign import activate
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.head import Cells, DetectionHead

TINY = 1e-7  # probabilities are kept so far from 0 and 1


class Predictions(NamedTuple):
  """What one head says, for every box of every cell.

  Attributes:
    raw: (n, h, w, a, entries) float32, the head's input.
    boxes_cxcywh_rel: (n, h, w, a, 4), relative to the network input.
    objectness: (n, h, w, a) probability.
    classes: (n, h, w, a, classes) probability of each class if there is an object.
    scores: (n, h, w, a, classes) probability of an object of the class.
  """

  raw: jax.Array
  boxes_cxcywh_rel: jax.Array
  objectness: jax.Array
  classes: jax.Array
  scores: jax.Array


class HeadLesson(NamedTuple):
  """A head of the student and the head of the teacher on the same grid.

  Attributes:
    student, teacher: their predictions, with the boxes of a cell and the classes in the order of the student's.
    anchors_rel: (a, 2) float32 the student's anchors relative to the network input; (0, 2) of heads without.
    objectness, first_class: where these entries stand in `raw`.
  """

  student: Predictions
  teacher: Predictions
  anchors_rel: np.ndarray
  objectness: int = 4
  first_class: int = 5

  @property
  def grid(self) -> tuple[int, int]:
    """Columns and rows."""
    return self.student.raw.shape[2], self.student.raw.shape[1]


Pair = tuple[jax.Array, jax.Array]  # the student's and the teacher's


class Lesson(NamedTuple):
  """Everything that a loss may compare; empty where it did not ask for it (`Needs`).

  Attributes:
    num_images: the losses are means over so many.
    temperature: what logits and maps are divided by before a softmax.
    confidence: the objectness from which on the teacher counts as sure.
    heads: pairs of heads.
    features: pairs of maps (n, h, w, c) of equal shape; an adapter that is trained along has brought the student's there.
    maps: pairs of maps (n, h, w, any c), of all layers with kernels, in their order.
    logits: the (n, classes) of two classifiers.
    truth: (n, t, 5) float32 cx, cy, w, h relative to the input, and class; rows without a size or a class are none.
  """

  num_images: int
  temperature: float = 1.0
  confidence: float = 0.0
  heads: tuple[HeadLesson, ...] = ()
  features: tuple[Pair, ...] = ()
  maps: tuple[Pair, ...] = ()
  logits: Pair | None = None
  truth: jax.Array | None = None


class Needs(enum.Flag):
  """What a loss compares. SAME_HEADS: only heads with the same anchors and classes in the same order."""

  HEADS = enum.auto()
  SAME_HEADS = enum.auto()
  FEATURES = enum.auto()
  MAPS = enum.auto()
  LOGITS = enum.auto()


class Distillation(NamedTuple):
  """A loss with its defaults.

  Attributes:
    name: its name in the configuration.
    loss: (lesson) -> () float32, the mean over the images, before its weight.
    needs: what it reads; LOGITS makes it one of classifiers, HEADS and MAPS one of detectors.
    weight: its usual factor.
    temperature: its usual temperature.
  """

  name: str
  loss: Callable[[Lesson], jax.Array]
  needs: Needs
  weight: float
  temperature: float


DISTILLATIONS: dict[str, Distillation] = {}


def register_distillation(
  name: str, needs: Needs, *, weight: float = 1.0, temperature: float = 1.0
) -> Callable[[Callable[[Lesson], jax.Array]], Callable[[Lesson], jax.Array]]:
  """Makes a loss known under a name, for `config.distill.losses`; the arguments are those of `Distillation`."""

  def register(loss: Callable[[Lesson], jax.Array]) -> Callable[[Lesson], jax.Array]:
    assert name not in DISTILLATIONS, name
    DISTILLATIONS[name] = Distillation(name, loss, needs, weight, temperature)
    return loss

  return register


def distillation(name: str) -> Distillation:
  """The loss of a name.

  Raises:
    PrnError: there is none.
  """
  if name not in DISTILLATIONS:
    raise PrnError(
      f"there is no distillation '{name}'{did_you_mean(name, DISTILLATIONS)}; expected some of {', '.join(DISTILLATIONS)}."
    )
  return DISTILLATIONS[name]


def read_head(
  raw: jax.Array,
  head: DetectionHead,
  net_size: tuple[int, int],
  *,
  boxes: Sequence[int] | None = None,
  classes: Sequence[int] | None = None,
) -> Predictions:
  """What a head says.

  Args:
    raw: (n, h, w, channels), the head's input, in any float type.
    head: a head of any family that has a layout.
    net_size: width and height of the network input in pixels.
    boxes, classes: which boxes of a cell and which classes to take, in which order; all as they are by default. `raw` keeps
      all classes.
  """
  n, height, width, _ = raw.shape
  shape = (n, height, width, -1, head.entries)
  raw = raw.astype(jnp.float32)
  x, raw = activate(raw, head).reshape(shape), raw.reshape(shape)
  cells = Cells.all((width, height), net_size)

  def one_image(x: jax.Array) -> tuple[Any, Any]:
    return head.decode(x, cells), head.scores(x)

  decoded, found = jax.vmap(one_image)(x)
  read = Predictions(raw, decoded, found.objectness, x[..., head.layout.first_class :], found.scores)
  if boxes is not None:
    read = Predictions(*(jnp.take(value, np.asarray(boxes), axis=3) for value in read))
  if classes is not None:
    index = np.asarray(classes)
    read = read._replace(classes=jnp.take(read.classes, index, axis=-1), scores=jnp.take(read.scores, index, axis=-1))
  return read


def binary_divergence(wanted: jax.Array, found: jax.Array) -> jax.Array:
  """KL divergence of two Bernoulli distributions: the binary cross entropy less what no student can undercut.

  Its gradient is that of the cross entropy, and it is 0 where the probabilities are equal.

  Args:
    wanted, found: probabilities of the same shape, the teacher's and the student's.
  """
  p, q = jnp.clip(wanted, TINY, 1 - TINY), jnp.clip(found, TINY, 1 - TINY)
  return p * (jnp.log(p) - jnp.log(q)) + (1 - p) * (jnp.log1p(-p) - jnp.log1p(-q))


def softmax_divergence(wanted: jax.Array, found: jax.Array) -> jax.Array:
  """KL divergence of the softmax of logits over the last axis: sum of p_t (log p_t - log p_s).

  Args:
    wanted, found: (..., k) logits, the teacher's and the student's, divided by the temperature already.

  Returns:
    (...) float32.
  """
  log_p, log_q = jax.nn.log_softmax(wanted), jax.nn.log_softmax(found)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)


def has_object(truth: jax.Array) -> jax.Array:
  """(n, t) bool: rows of truth (n, t, 5) that are an object, no padding and no ignored region."""
  return (truth[..., 2] > 0) & (truth[..., 3] > 0) & (truth[..., 4] >= 0)
