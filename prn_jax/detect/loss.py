"""The loss of detection heads, in one of two styles.

`darknet_loss` has Darknet's cost as its value and Darknet's delta as its gradient; networks trained with it learn as
in Darknet. `autodiff_loss` has the losses that these deltas stand for; those of [region] are exact gradients already,
and the same in both styles. All are sums over the images, as in Darknet, whose optimiser divides by the batch.

The loss of another family of heads is one entry more: `register_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from prn_jax.detect.assign import activate, check_settings
from prn_jax.detect.autodiff_loss import autodiff_loss
from prn_jax.detect.darknet_deltas import darknet_deltas
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.detect.region_deltas import check_region, region_deltas
from prn_jax.errors import PrnError
from prn_jax.formats.darknet_training import HeadTraining, RegionTraining
from prn_jax.graph.graph import KINDS, Layer
from prn_jax.graph.head import DetectionHead
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import AnchorHead

if TYPE_CHECKING:
  from _typeshed import DataclassInstance as Settings

__all__ = [
  "HeadLoss",
  "HeadMetrics",
  "LossStyle",
  "autodiff_loss",
  "darknet_deltas",
  "darknet_loss",
  "default_settings",
  "detection_loss",
  "loss_of",
  "register_loss",
]


class LossStyle(StrEnum):
  """Where the gradient comes from."""

  DARKNET = "darknet"
  AUTODIFF = "autodiff"


class HeadLoss(NamedTuple):
  """How the heads of one family are trained.

  Attributes:
    settings: dataclass of the loss settings; its defaults are Darknet's.
    check: (head, settings) -> None; raises PrnError for a head or settings that cannot be trained.
    loss: (raw, truth, head, settings, net_size, *, style, images_seen, mask, annotated, share) -> loss, metrics. The
      arguments are those of `darknet_loss`, and the style; a family that has one loss only takes no notice of the style.
  """

  settings: type[Settings]
  check: Callable[[Any, Any], None]
  loss: Callable[..., tuple[jax.Array, HeadMetrics]]


_LOSSES: dict[type[Layer], HeadLoss] = {}


def register_loss(family: type[DetectionHead], loss: HeadLoss) -> None:
  """Makes the heads of a class, and of those that derive from it, trainable."""
  assert family not in _LOSSES, family
  _LOSSES[family] = loss


def loss_of(head: Layer) -> HeadLoss:
  """The loss of a head.

  Raises:
    PrnError: there is none for its kind.
  """
  family = _family(type(head))
  if family is None:
    trainable = ", ".join(sorted(f"[{kind.sections[0]}]" for kind in KINDS.values() if _family(kind)))
    raise PrnError(
      f"layer '{head.name}' ({head.kind}) cannot be trained: there are losses for {trainable} heads only. "
      "`register_loss` of prn_jax.detect.loss adds one."
    )
  return _LOSSES[family]


def _family(kind: type[Layer]) -> type[Layer] | None:
  """The class among the bases of a kind for which there is a loss."""
  return next((base for base in kind.__mro__ if base in _LOSSES), None)


def detection_loss(
  raw: Mapping[str, jax.Array],
  truth: jax.Array,
  heads: Sequence[DetectionHead],
  settings: Mapping[str, Settings],
  net_size: tuple[int, int],
  *,
  style: LossStyle | str = LossStyle.DARKNET,
  images_seen: jax.Array | int | None = None,
  mask: jax.Array | None = None,
  annotated: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, HeadMetrics]]:
  """The loss of a network with one or more heads.

  Args:
    raw: head name -> (n, h, w, channels), the head's input.
    truth, net_size, mask, annotated: the arguments of `darknet_deltas`.
    heads: the layers.
    settings: head name -> loss settings; Darknet's defaults where a name is missing.
    style: "darknet" or "autodiff".
    images_seen: the argument of `region_deltas`.

  Returns:
    A sum over the images, and the metrics of each head. In Darknet's style the value is the mean cost of the heads,
    which Darknet prints, and the gradient that of their sum, by which Darknet learns.

  Raises:
    PrnError: a head or a setting that cannot be trained.
  """
  style, total, metrics = LossStyle(style), jnp.zeros((), jnp.float32), {}
  for head in heads:
    value, metrics[head.name] = loss_of(head).loss(
      raw[head.name],
      truth,
      head,
      settings.get(head.name, default_settings(head)),
      net_size,
      style=style,
      images_seen=images_seen,
      mask=mask,
      annotated=annotated,
      share=1 / len(heads),
    )
    total = total + value
  return total, metrics


def default_settings(head: Layer) -> Settings:
  """Darknet's defaults for the kind of head; PrnError if it cannot be trained."""
  return loss_of(head).settings()


def darknet_loss(
  raw: jax.Array,
  truth: jax.Array,
  head: DetectionHead,
  settings: Settings,
  net_size: tuple[int, int],
  *,
  images_seen: jax.Array | int | None = None,
  mask: jax.Array | None = None,
  annotated: jax.Array | None = None,
  share: float = 1.0,
) -> tuple[jax.Array, HeadMetrics]:
  """Darknet's cost of one head, with Darknet's delta as its gradient.

  Args:
    raw: (n, h, w, channels), the head's input, in any float dtype; the arithmetic is float32.
    truth, head, settings, net_size, mask, annotated: the arguments of `darknet_deltas`.
    images_seen: the argument of `region_deltas`.
    share: factor of the value, not of the gradient.

  Returns:
    The cost, whose gradient with respect to `raw` is -delta * delta_normalizer, and the metrics.
  """
  options: dict[str, Any] = {"images_seen": images_seen, "mask": mask, "annotated": annotated, "share": share}
  return loss_of(head).loss(raw, truth, head, settings, net_size, style=LossStyle.DARKNET, **options)


def _anchor_head_loss(
  raw: jax.Array,
  truth: jax.Array,
  head: AnchorHead,
  settings: HeadTraining,
  net_size: tuple[int, int],
  *,
  style: LossStyle,
  images_seen: jax.Array | int | None,
  mask: jax.Array | None,
  annotated: jax.Array | None,
  share: float,
) -> tuple[jax.Array, HeadMetrics]:
  """The loss of [yolo] and [Gaussian_yolo]; `images_seen` does not matter."""
  output = jax.lax.stop_gradient(activate(raw, head))
  deltas, metrics = darknet_deltas(output, truth, head, settings, net_size, mask=mask, annotated=annotated)
  if style is LossStyle.AUTODIFF:
    return autodiff_loss(raw, truth, head, settings, net_size, mask=mask, annotated=annotated), metrics
  gradient = (-settings.delta_normalizer * deltas).astype(raw.dtype)
  return _with_gradient(raw, metrics.cost * share, gradient), metrics


def _region_loss(
  raw: jax.Array,
  truth: jax.Array,
  head: Region,
  settings: RegionTraining,
  net_size: tuple[int, int],
  *,
  style: LossStyle,
  images_seen: jax.Array | int | None,
  mask: jax.Array | None,
  annotated: jax.Array | None,
  share: float,
) -> tuple[jax.Array, HeadMetrics]:
  """The loss of [region], in both styles; `net_size` does not matter."""
  output = jax.lax.stop_gradient(activate(raw, head))
  deltas, metrics = region_deltas(
    output, truth, head, settings, images_seen=images_seen, mask=mask, annotated=annotated
  )
  return _with_gradient(raw, metrics.cost * share, (-deltas).astype(raw.dtype)), metrics


register_loss(AnchorHead, HeadLoss(HeadTraining, check_settings, _anchor_head_loss))
register_loss(Region, HeadLoss(RegionTraining, check_region, _region_loss))


@jax.custom_vjp
def _with_gradient(x: jax.Array, value: jax.Array, gradient: jax.Array) -> jax.Array:
  """`value`, with the derivative `gradient` with respect to `x`."""
  return value


def _with_gradient_fwd(x: jax.Array, value: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
  return value, gradient


def _with_gradient_bwd(gradient: jax.Array, g: jax.Array) -> tuple[jax.Array, None, None]:
  return g.astype(gradient.dtype) * gradient, None, None


_with_gradient.defvjp(_with_gradient_fwd, _with_gradient_bwd)
