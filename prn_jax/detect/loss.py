"""The loss of detection heads, in one of two styles.

`darknet_loss` has Darknet's cost as its value and Darknet's delta as its gradient; networks trained with it learn as
in Darknet. `clean_loss.autodiff_loss` has the losses that these deltas stand for; those of [region] are exact gradients
already, and the same in both styles. Both are sums over the images, as in Darknet, whose optimiser divides by the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import jax
import jax.numpy as jnp

from prn_jax.detect.assign import Head, activate
from prn_jax.detect.clean_loss import autodiff_loss
from prn_jax.detect.darknet_deltas import darknet_deltas
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.detect.region_deltas import region_deltas
from prn_jax.formats.darknet_training import HeadTraining, RegionTraining
from prn_jax.kinds.region import Region

AnyHead = Head | Region
AnySettings = HeadTraining | RegionTraining
__all__ = [
  "AnyHead",
  "AnySettings",
  "HeadMetrics",
  "LossStyle",
  "autodiff_loss",
  "darknet_deltas",
  "darknet_loss",
  "default_settings",
  "detection_loss",
]


class LossStyle(StrEnum):
  """Where the gradient comes from."""

  DARKNET = "darknet"
  AUTODIFF = "autodiff"


def detection_loss(
  raw: Mapping[str, jax.Array],
  truth: jax.Array,
  heads: Sequence[AnyHead],
  settings: Mapping[str, AnySettings],
  net_size: tuple[int, int],
  *,
  style: LossStyle | str = LossStyle.DARKNET,
  images_seen: jax.Array | int | None = None,
  mask: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, HeadMetrics]]:
  """The loss of a network with one or more heads.

  Args:
    raw: head name -> (n, h, w, channels), the head's input.
    truth, net_size, mask: as for `darknet_deltas`.
    heads: the layers.
    settings: head name -> loss settings; Darknet's defaults where a name is missing.
    style: "darknet" or "autodiff".
    images_seen: as for `region_deltas`.

  Returns:
    A sum over the images, and the metrics of each head. In Darknet's style the value is the mean cost of the heads,
    which Darknet prints, and the gradient that of their sum, by which Darknet learns.
  """
  style, total, metrics = LossStyle(style), jnp.zeros((), jnp.float32), {}
  for head in heads:
    own = settings.get(head.name, default_settings(head))
    value, metrics[head.name] = darknet_loss(
      raw[head.name], truth, head, own, net_size, images_seen=images_seen, mask=mask, share=1 / len(heads)
    )
    if style is LossStyle.AUTODIFF and not isinstance(head, Region):
      assert isinstance(own, HeadTraining)
      value = autodiff_loss(raw[head.name], truth, head, own, net_size, mask=mask)
    total = total + value
  return total, metrics


def default_settings(head: AnyHead) -> AnySettings:
  """Darknet's defaults for the kind of head."""
  return RegionTraining() if isinstance(head, Region) else HeadTraining()


def darknet_loss(
  raw: jax.Array,
  truth: jax.Array,
  head: AnyHead,
  settings: AnySettings,
  net_size: tuple[int, int],
  *,
  images_seen: jax.Array | int | None = None,
  mask: jax.Array | None = None,
  share: float = 1.0,
) -> tuple[jax.Array, HeadMetrics]:
  """Darknet's cost of one head, with Darknet's delta as its gradient.

  Args:
    raw: (n, h, w, channels), the head's input, in any float dtype; the arithmetic is float32.
    truth, head, settings, net_size, mask: as for `darknet_deltas`.
    images_seen: as for `region_deltas`.
    share: factor of the value, not of the gradient.

  Returns:
    The cost, whose gradient with respect to `raw` is -delta * delta_normalizer, and the metrics.
  """
  output = jax.lax.stop_gradient(activate(raw, head))
  if isinstance(head, Region):
    assert isinstance(settings, RegionTraining)
    deltas, metrics = region_deltas(output, truth, head, settings, images_seen=images_seen, mask=mask)
    gradient = (-deltas).astype(raw.dtype)
  else:
    assert isinstance(settings, HeadTraining)
    deltas, metrics = darknet_deltas(output, truth, head, settings, net_size, mask=mask)
    gradient = (-settings.delta_normalizer * deltas).astype(raw.dtype)
  return _with_gradient(raw, metrics.cost * share, gradient), metrics


@jax.custom_vjp
def _with_gradient(x: jax.Array, value: jax.Array, gradient: jax.Array) -> jax.Array:
  """`value`, with the derivative `gradient` with respect to `x`."""
  return value


def _with_gradient_fwd(x: jax.Array, value: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
  return value, gradient


def _with_gradient_bwd(gradient: jax.Array, g: jax.Array) -> tuple[jax.Array, None, None]:
  return g.astype(gradient.dtype) * gradient, None, None


_with_gradient.defvjp(_with_gradient_fwd, _with_gradient_bwd)
