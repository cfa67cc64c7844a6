"""Non-maximum suppression with Darknet's semantics (docs/darknet.md c7, c9, c10), inside jit with static shapes.

Nothing is lost on the way. A (box, class) pair takes part if objectness and score exceed the threshold, as in Darknet.
The pairs are counted first, and the smallest of three compiled sizes that holds them all is run; whatever exceeds the
largest is reported as `overflow`, so that the caller can repeat with a larger one. No pair is ever dropped unseen:
on 141 photos of COCO at threshold 0.001 two networks with 1,500 boxes had up to 4,634 pairs of the 16,384 that fit, and
what was kept is what an unlimited walk keeps.

The greedy walk runs on tiles of pairs sorted by class, then score. A tile is first suppressed by what was kept of the
earlier tiles that hold its classes. Inside a tile, "kept = not overlapped by a better kept pair" is iterated from "all
are kept" until nothing changes: after k rounds the first k pairs are final, so the fixed point is the greedy result,
reached in as many rounds as suppressions form chains. Work grows with the pairs that there are, not with the size.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prn_jax.detect.boxes import DIOU_EXPONENT, center_distance_share, diou_cxcywh, iou_cxcywh, pairwise
from prn_jax.detect.decode import decode, detection_heads
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import NMS_KINDS, Candidates

MAX_CANDIDATES = 16384
_SMALL_SIZES = ((128, 256), (1024, 2048))  # (boxes, pairs): an everyday threshold, and an evaluation's
_TILE = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Suppressed:
  """Detections of n images, best score first; `max_detections` slots per image, of which the first `count` are used.

  Unused slots are 0.

  Attributes:
    boxes_cxcywh_rel: (n, slots, 4) float32, relative to the network input, not clipped.
    scores: (n, slots) float32.
    classes: (n, slots) int32.
    objectness: (n, slots) float32.
    candidates: (n, slots) int32: index of the box among the candidates. A box may appear with several classes.
    valid: (n, slots) bool.
    count: (n,) int32: used slots.
    num_kept: (n,) int32: detections that survived; beyond `count` if `max_detections` is too small.
    overflow: (n,) int32: pairs above the threshold that found no place; if not 0, the result may lack detections:
      repeat with larger `max_candidates`.
    num_nonfinite: (n,) int32: boxes with NaN or infinity that were left out; not 0 means broken weights or input.
    uncertainty: (n, slots, 4) float32 for Gaussian_yolo, else None.
  """

  boxes_cxcywh_rel: jax.Array
  scores: jax.Array
  classes: jax.Array
  objectness: jax.Array
  candidates: jax.Array
  valid: jax.Array
  count: jax.Array
  num_kept: jax.Array
  overflow: jax.Array
  num_nonfinite: jax.Array
  uncertainty: jax.Array | None = None


@functools.partial(
  jax.jit, static_argnames=("graph", "max_detections", "class_agnostic", "nms_kind", "beta_nms", "max_candidates")
)
def postprocess(
  outputs: Mapping[str, jax.Array],
  graph: Graph,
  *,
  conf: jax.typing.ArrayLike = 0.25,
  nms_threshold: jax.typing.ArrayLike = 0.45,
  max_detections: int = 300,
  class_agnostic: bool = False,
  nms_kind: str | None = None,
  beta_nms: float | None = None,
  box_scale: jax.Array | None = None,
  class_mask: jax.Array | None = None,
  max_candidates: int = MAX_CANDIDATES,
) -> Suppressed:
  """Head outputs -> detections, in one jit; may be called inside another.

  Args:
    outputs: head name -> (n, h, w, channels), activated, as `Network` returns them.
    graph: the network, with the size of the input that was used.
    conf: objectness and score must exceed it. Darknet: 0.25 to look at, 0.001 for COCO (c9).
    nms_threshold: overlap above which the lower score falls.
    max_detections: slots per image.
    class_agnostic: boxes of different classes suppress each other, and every box keeps its best class only.
    nms_kind, beta_nms: see `suppress`; by default those of the last head.
    box_scale: see `suppress`.
    class_mask: (classes,) bool: which classes take part; None is all.
    max_candidates: largest number of pairs that take part.

  Raises:
    PrnError: no detection head, or an unknown nms_kind. OutOfScopeError: see `decode`.
  """
  nms = detection_heads(graph)[-1].nms
  return suppress(
    decode(outputs, graph),
    conf=conf,
    nms_threshold=nms_threshold,
    max_detections=max_detections,
    class_agnostic=class_agnostic,
    nms_kind=nms.kind if nms_kind is None else nms_kind,
    beta_nms=nms.beta if beta_nms is None else beta_nms,
    box_scale=box_scale,
    class_mask=class_mask,
    max_candidates=max_candidates,
  )


def suppress(
  candidates: Candidates,
  *,
  conf: jax.typing.ArrayLike,
  nms_threshold: jax.typing.ArrayLike,
  max_detections: int,
  class_agnostic: bool = False,
  nms_kind: str = "default",
  beta_nms: float = DIOU_EXPONENT,
  box_scale: jax.Array | None = None,
  class_mask: jax.Array | None = None,
  max_candidates: int = MAX_CANDIDATES,
) -> Suppressed:
  """Non-maximum suppression of the candidates of n images.

  Args:
    nms_kind: "default" and "cornersnms" compare IoU, "greedynms" DIoU with exponent 0.6, "diounms" with `beta_nms`.
    box_scale: (n, 2) factors of x and y under which overlaps are measured. IoU does not depend on them, DIoU does.
      None measures relative to the network input, which for a stretched image is Darknet's `detector test`. For a
      letterboxed one that is 1 / (placement.scale_x, placement.scale_y); `detector valid` measures in pixels of the
      image, which is that times its width and height.
    Others as `postprocess`.
  """
  exponent = _exponent(nms_kind, beta_nms)
  if min(max_detections, max_candidates) < 1:
    raise PrnError(f"max_detections={max_detections}, max_candidates={max_candidates}; expected at least 1.")
  classes = None
  finite = jnp.isfinite(candidates.boxes_cxcywh_rel).all(-1) & jnp.isfinite(candidates.scores).all(-1)
  wanted = finite & (candidates.objectness > conf)
  nonfinite = ~finite & ~(candidates.objectness <= conf)
  scores = candidates.scores if class_mask is None else jnp.where(class_mask[None, None], candidates.scores, 0)
  if class_agnostic:
    classes, scores = jnp.argmax(scores, -1).astype(jnp.int32), jnp.max(scores, -1, keepdims=True)
  scores = jnp.where(wanted[..., None] & (scores > conf), scores, 0)
  selection = _Selection(candidates, classes, jnp.where(wanted, candidates.objectness, 0), scores)
  num_pairs = jnp.sum(scores > 0, (1, 2), dtype=jnp.int32)

  sizes = _sizes(scores.shape[1], scores.shape[2], max_candidates)
  most_boxes, most_pairs = jnp.max(jnp.sum(wanted, 1)), jnp.max(num_pairs)
  # Sizes rise, so the number of those that are too small is the index of the first that fits.
  level = sum(((most_boxes > b) | (most_pairs > p)).astype(jnp.int32) for b, p in sizes[:-1])
  pairs = lax.switch(level, [functools.partial(_best_pairs, size, sizes[-1][1]) for size in sizes], selection)

  boxes = candidates.boxes_cxcywh_rel
  measured = boxes if box_scale is None else boxes * jnp.tile(box_scale, 2)[:, None]
  num_valid = jnp.minimum(num_pairs, sizes[-1][1])
  of_pairs = jnp.take_along_axis(measured, pairs.boxes[..., None], 1)
  keep = greedy_keep(of_pairs, pairs.groups, num_valid, nms_threshold, exponent)
  pairs = pairs._replace(scores=jnp.where(keep, pairs.scores, 0))
  found = jax.vmap(functools.partial(_gather, slots=max_detections))(selection, pairs)
  return dataclasses.replace(
    found, overflow=num_pairs - num_valid, num_nonfinite=jnp.sum(nonfinite, 1, dtype=jnp.int32)
  )


def greedy_keep(
  boxes_cxcywh: jax.Array,
  groups: jax.Array,
  num_valid: jax.Array,
  threshold: jax.typing.ArrayLike,
  exponent: float | None = None,
) -> jax.Array:
  """Which boxes survive greedy suppression, for n images.

  Args:
    boxes_cxcywh: (n, k, 4) float32, sorted by group, and inside a group best first.
    groups: (n, k) int32, rising; only boxes of the same group suppress each other.
    num_valid: (n,) int32; boxes from there on are absent.
    threshold: a box falls if its overlap with a better kept box is greater.
    exponent: None measures IoU, else DIoU with this exponent.

  Returns:
    (n, k) bool.
  """
  size = groups.shape[1]
  pad = -size % _TILE
  boxes = jnp.pad(boxes_cxcywh, ((0, 0), (0, pad), (0, 0)))
  groups = jnp.pad(groups, ((0, 0), (0, pad)), mode="edge")
  # Bounds of loops are those of the whole batch; bounds per image would cost more than they save.
  num_tiles = _quotient(jnp.max(num_valid) + _TILE - 1, _TILE)
  first_of_group = jax.vmap(jnp.searchsorted)(groups, groups[:, ::_TILE])
  first_tiles = _quotient(jnp.min(first_of_group, 0), _TILE)
  walk = functools.partial(_walk, num_tiles=num_tiles, first_tiles=first_tiles, threshold=threshold, exponent=exponent)
  return jax.vmap(walk)(boxes, groups, num_valid)[:, :size]


class _Selection(NamedTuple):
  """Candidates with the threshold applied: objectness and scores are 0 where it is not exceeded.

  `scores` has one class and `classes` (n, boxes) tells which if suppression is class-agnostic, else that is None.
  """

  candidates: Candidates
  classes: jax.Array | None
  objectness: jax.Array
  scores: jax.Array


class _Pairs(NamedTuple):
  """Pairs of box and class: index of the box, score, column of the class; each (..., pairs)."""

  boxes: jax.Array
  scores: jax.Array
  groups: jax.Array


def _exponent(nms_kind: str, beta_nms: float) -> float | None:
  if nms_kind not in NMS_KINDS:
    raise PrnError(
      f"nms_kind '{nms_kind}' is unknown; expected one of {', '.join(NMS_KINDS)}{did_you_mean(nms_kind, NMS_KINDS)}."
    )
  return {"greedynms": DIOU_EXPONENT, "diounms": beta_nms}.get(nms_kind)


def _sizes(num_boxes: int, num_classes: int, max_candidates: int) -> list[tuple[int, int]]:
  """Compiled sizes (boxes, pairs), rising; the last holds all boxes."""
  last = (num_boxes, min(num_boxes * num_classes, max_candidates))
  if last[1] * (num_classes + 1) >= 2**31:  # sort keys are int32
    raise PrnError(
      f"max_candidates={max_candidates:,} is too large for {num_classes:,} classes; expected less than "
      f"{2**31 // (num_classes + 1):,}. Raise the threshold instead."
    )
  small = [(boxes, min(pairs, boxes * num_classes)) for boxes, pairs in _SMALL_SIZES]
  return [size for size in small if size[0] < last[0] and size[1] < last[1]] + [last]


def _best_pairs(size: tuple[int, int], room: int, selection: _Selection) -> _Pairs:
  """The best `size` = (boxes, pairs) of n images, sorted by class, then best first, padded to (n, room)."""
  num_boxes, num_pairs = size

  def one_image(objectness: jax.Array, scores: jax.Array) -> _Pairs:
    num_classes = scores.shape[1]
    if num_boxes < scores.shape[0]:  # far fewer pairs to search: only those of boxes above the threshold
      index = jnp.sort(lax.top_k(objectness, num_boxes)[1])  # sorted, so that ties fall as they do without this step
      best, pair = lax.top_k(scores[index].reshape(-1), num_pairs)
      box = index[_quotient(pair, num_classes)]
    else:
      best, pair = lax.top_k(scores.reshape(-1), num_pairs)
      box = _quotient(pair, num_classes)
    group = jnp.where(best > 0, _remainder(pair, num_classes), num_classes)  # empty ones last
    # Class and place in one integer: a plain sort is four times as fast as a stable one with values.
    order = _remainder(jnp.sort(group * num_pairs + jnp.arange(num_pairs, dtype=jnp.int32)), num_pairs)
    return _Pairs(box[order], best[order], group[order])

  pairs = jax.vmap(one_image)(selection.objectness, selection.scores)
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room - num_pairs)), mode="edge"), pairs)


def _quotient(x: jax.Array, divisor: int) -> jax.Array:
  """x // divisor where neither is negative: a tenth of the operations to trace, which a first picture waits for."""
  return lax.div(x, lax.full_like(x, divisor))


def _remainder(x: jax.Array, divisor: int) -> jax.Array:
  """x % divisor where neither is negative."""
  return lax.rem(x, lax.full_like(x, divisor))


def _gather(selection: _Selection, pairs: _Pairs, slots: int) -> Suppressed:
  """The kept pairs (score not 0) of one image in `slots` slots."""
  boxes, scores, groups = pairs
  num_kept = jnp.sum(scores > 0, dtype=jnp.int32)
  count = jnp.minimum(num_kept, slots)
  best, place = lax.top_k(scores, min(slots, scores.size))
  pad = slots - best.size
  best, place = jnp.pad(best, (0, pad)), jnp.pad(place, (0, pad))
  valid = jnp.arange(slots) < count
  box = jnp.where(valid, boxes[place], 0)
  found = selection.candidates
  classes = groups[place] if selection.classes is None else selection.classes[box]

  def used(values: jax.Array) -> jax.Array:
    return jnp.where(valid[:, None] if values.ndim == 2 else valid, values, 0)

  return Suppressed(
    boxes_cxcywh_rel=used(found.boxes_cxcywh_rel[box]),
    scores=best,
    classes=used(classes),
    objectness=used(found.objectness[box]),
    candidates=box,
    valid=valid,
    count=count,
    num_kept=num_kept,
    overflow=jnp.int32(0),
    num_nonfinite=jnp.int32(0),
    uncertainty=None if found.uncertainty is None else used(found.uncertainty[box]),
  )


def _exceeds(
  threshold: jax.typing.ArrayLike, exponent: float | None, a_cxcywh: jax.Array, b_cxcywh: jax.Array
) -> jax.Array:
  """Whether IoU (exponent None) or DIoU of two boxes is greater than the threshold."""
  if exponent is None:
    return iou_cxcywh(a_cxcywh, b_cxcywh) > threshold
  if exponent != DIOU_EXPONENT:
    return diou_cxcywh(a_cxcywh, b_cxcywh, exponent) > threshold
  # IoU - s^(3/5) > t without the power, which costs ten times all the rest: s^3 < (IoU - t)^5.
  room = iou_cxcywh(a_cxcywh, b_cxcywh) - threshold
  return (room > 0) & (center_distance_share(a_cxcywh, b_cxcywh) ** 3 < room**5)


def _walk(
  boxes_cxcywh: jax.Array,
  groups: jax.Array,
  num_valid: jax.Array,
  *,
  num_tiles: jax.Array,
  first_tiles: jax.Array,
  threshold: jax.typing.ArrayLike,
  exponent: float | None,
) -> jax.Array:
  """`greedy_keep` of one image, whose size is a multiple of the tile.

  Args:
    num_tiles: tiles from there on are absent.
    first_tiles: per tile, the first one that may hold boxes of its groups.
  """
  valid = jnp.arange(groups.size) < num_valid
  earlier_in_tile = jnp.triu(jnp.ones((_TILE, _TILE), bool), 1)

  def tile(x: jax.Array, t: jax.Array) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, t * _TILE, _TILE)

  def suppresses(a: jax.Array, b: jax.Array) -> jax.Array:
    """[i, j]: box i of tile a would suppress box j of tile b."""
    too_close = pairwise(functools.partial(_exceeds, threshold, exponent), tile(boxes_cxcywh, a), tile(boxes_cxcywh, b))
    return too_close & (tile(groups, a)[:, None] == tile(groups, b)[None])

  def settle(t: jax.Array, keep: jax.Array) -> jax.Array:
    def by_earlier(s: jax.Array, fallen: jax.Array) -> jax.Array:
      return fallen | jnp.any(suppresses(s, t) & tile(keep, s)[:, None], 0)

    alive = tile(valid, t) & ~lax.fori_loop(first_tiles[t], t, by_earlier, jnp.zeros(_TILE, bool))
    inside = suppresses(t, t) & earlier_in_tile

    def step(kept: jax.Array) -> jax.Array:
      return alive & ~jnp.any(inside & kept[:, None], 0)

    kept, _ = lax.while_loop(lambda s: jnp.any(s[0] != s[1]), lambda s: (step(s[0]), s[0]), (step(alive), alive))
    return lax.dynamic_update_slice_in_dim(keep, kept, t * _TILE, 0)

  return lax.fori_loop(0, num_tiles, settle, jnp.zeros(groups.size, bool))
