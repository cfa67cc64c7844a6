"""Pieces that several families share. A convolution of size k pads k // 2, as pad=1 does in a cfg.

Places in names: p3, p4, p5 are maps 8, 16, 32 times smaller than the image, going up the pyramid; n4, n5 are
those of the way down again (PANet's letters). Roles: "from" goes back to an earlier layer, "reduce" narrows
before an upsampling, "up" upsamples, "lateral" narrows the backbone's map, "concat" joins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prn_jax.errors import GraphError
from prn_jax.graph.builder import Builder
from prn_jax.graph.partial import kept_channels, leading_cuts

Anchors = Sequence[Sequence[float]]  # (width, height) of each
Masks = Mapping[str, tuple[int, ...]]  # level -> indices of its anchors


class Levels(NamedTuple):
  """The layers of a backbone from which a detector starts."""

  p3: str
  p4: str
  p5: str


def conv_bn(
  g: Builder, filters: int, size: int, activation: str, *, name: str, stride: int = 1, groups: int = 1
) -> str:
  """Convolution, batch norm, activation."""
  return g.conv(
    filters=filters,
    size=size,
    stride=stride,
    padding=size // 2,
    groups=groups,
    batch_normalize=True,
    activation=activation,
    name=name,
  )


def leading_part(g: Builder, sparsity: float, name: str) -> str:
  """The first (1 - sparsity) of the last layer's channels, as a source for a partial shortcut; the layer itself stays
  the last one."""
  x, channels = g.last, g.shape().channels
  keep = kept_channels(channels, sparsity)
  if keep == channels:
    return x
  cuts = leading_cuts(channels, keep)
  names = [name] if len(cuts) == 1 else [f"{name}_cut{i}" for i in range(1, len(cuts) + 1)]
  for cut, (groups, group_id) in zip(names, cuts, strict=True):
    g.route(x, groups=groups, group_id=group_id, name=cut)
  if len(cuts) > 1:
    g.route(*names, name=name)
  g.route(x, name=f"{name}_rest")
  return name


def spp(g: Builder, place: str) -> str:
  """Spatial pyramid pooling (He et al. 2015, in the form of YOLOv3-SPP): joins the last map with its maxima
  over 5x5, 9x9 and 13x13 windows."""
  x = g.last
  pools: list[str] = []
  for size in (5, 9, 13):
    if pools:
      g.route(x, name=f"{place}_spp_from{size}")
    pools.append(g.maxpool(size=size, stride=1, name=f"{place}_spp_pool{size}"))
  return g.route(*reversed(pools), x, name=f"{place}_spp_concat")


def fpn_merge(g: Builder, level: str, source: str, skip: str, filters: int) -> str:
  """Joins `source`, narrowed and upsampled, with the backbone's map `skip` (Lin et al. 2017, by YOLOv3)."""
  g.route(source, name=f"{level}_from")
  conv_bn(g, filters, 1, "leaky", name=f"{level}_reduce")
  up = g.upsample(stride=2, name=f"{level}_up")
  return g.route(up, skip, name=f"{level}_concat")


def pan_merge_up(g: Builder, level: str, skip: str, filters: int, activation: str) -> str:
  """As `fpn_merge` of the last layer, but the backbone's map is narrowed too (Liu et al. 2018, by YOLOv4)."""
  conv_bn(g, filters, 1, activation, name=f"{level}_reduce")
  up = g.upsample(stride=2, name=f"{level}_up")
  g.route(skip, name=f"{level}_from")
  lateral = conv_bn(g, filters, 1, activation, name=f"{level}_lateral")
  return g.route(lateral, up, name=f"{level}_concat")


def pan_merge_down(g: Builder, level: str, skip: str, filters: int, activation: str) -> str:
  """Joins the last map, halved by a strided convolution, with `skip`."""
  down = conv_bn(g, filters, 3, activation, stride=2, name=f"{level}_down")
  return g.route(down, skip, name=f"{level}_concat")


def yolo_head(
  g: Builder,
  level: str,
  *,
  anchors: Anchors,
  masks: Masks,
  num_classes: int,
  scale_x_y: float = 1.0,
  nms_kind: str = "default",
  new_coords: bool = False,
) -> str:
  """The head of one level: a 1x1 convolution and [yolo]. New coordinates want a logistic convolution.

  Raises:
    GraphError: the number of anchors is not the one that the masks of all levels need.
  """
  pairs = float_pairs(anchors)
  needed = 1 + max(max(mask) for mask in masks.values())
  if len(pairs) != needed:
    raise GraphError(
      f"layer 'head_{level}_yolo': {len(pairs)} anchors given, but the levels {', '.join(sorted(masks))} "
      f"need exactly {needed} (width, height) pairs."
    )
  filters = len(masks[level]) * (5 + num_classes)
  g.conv(filters, 1, activation="logistic" if new_coords else "linear", name=f"head_{level}_conv")
  return g.yolo(
    classes=num_classes,
    anchors=pairs,
    mask=masks[level],
    scale_x_y=scale_x_y,
    nms_kind=nms_kind,
    new_coords=new_coords,
    name=f"head_{level}_yolo",
  )


def float_pairs(anchors: Anchors) -> tuple[tuple[float, float], ...]:
  """Anchors as the graph stores them; GraphError if they are not pairs of numbers."""
  try:
    return tuple((float(width), float(height)) for width, height in anchors)
  except (TypeError, ValueError):
    raise GraphError(f"anchors={anchors!r}; expected (width, height) pairs such as ((10, 14), (23, 27)).") from None


def conv_classifier(g: Builder, num_classes: int) -> None:
  """Darknet's older classifier: scores at every place, averaged, then softmax and [cost]."""
  g.conv(num_classes, 1, name="head_conv")
  g.avgpool(name="head_pool")
  g.softmax(name="head_softmax")
  g.cost(name="head_cost")


def pooled_classifier(g: Builder, num_classes: int, dropout: float) -> None:
  """The newer classifier: average first, then scores and softmax; no dropout layer for 0."""
  g.avgpool(name="head_pool")
  if dropout:
    g.dropout(dropout, name="head_drop")
  g.conv(num_classes, 1, name="head_conv")
  g.softmax(name="head_softmax")
