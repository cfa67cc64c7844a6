"""What every detection head knows of its boxes: the values that stand for a box are those that it is decoded from."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.graph.graph import KINDS
from prn_jax.graph.head import Cells, DetectionHead
from prn_jax.kinds.gaussian_yolo import POINTS, GaussianYolo
from prn_jax.kinds.region import Region
from prn_jax.kinds.yolo import Yolo

EPS = float(np.finfo(np.float32).eps)
GRID = (7, 5)  # columns, rows
SIZES = st.floats(0.25, 400, width=32)
ANCHORS = st.lists(st.tuples(SIZES, SIZES), min_size=3, max_size=3).map(tuple)
COMMON = {"name": "head", "inputs": ("conv",), "classes": 2}
HEADS: dict[str, st.SearchStrategy[DetectionHead]] = {
  "yolo": st.builds(
    lambda anchors, scale: Yolo(**COMMON, anchors=anchors, mask=(2, 0), scale_x_y=scale),
    ANCHORS,
    st.sampled_from([1.0, 1.1]),
  ),
  "new_coords": st.builds(lambda anchors: Yolo(**COMMON, anchors=anchors, new_coords=True), ANCHORS),
  "gaussian_yolo": st.builds(
    lambda anchors, point: GaussianYolo(**COMMON, anchors=anchors, mask=(1, 2), yolo_point=point),
    ANCHORS,
    st.sampled_from(list(POINTS)),
  ),
  "region": st.builds(lambda anchors: Region(**COMMON, anchors=anchors), ANCHORS),
}


def random_values(head: DetectionHead, seed: int) -> np.ndarray:
  """(rows, columns, a, entries) outputs such as a network gives, with whole numbers and halves among them."""
  rng = np.random.default_rng(seed)
  anchors = len(getattr(head, "anchor_indices", getattr(head, "anchors", ())))
  x = rng.uniform(0, 1, (GRID[1], GRID[0], anchors, head.entries)).astype(np.float32)
  at = np.arange(head.entries)[head.layout.box]
  if isinstance(head, Region):
    x[..., at] = rng.uniform(-3, 3, x[..., at].shape)
  elif not getattr(head, "new_coords", False):
    x[..., at[2:]] = rng.uniform(-3, 3, x[..., at[2:]].shape)
  return np.where(rng.random(x.shape) < 0.2, np.round(2 * x) / 2, x)


def test_every_kind_of_head_is_here() -> None:
  assert {kind.kind for kind in KINDS.values() if issubclass(kind, DetectionHead)} < HEADS.keys()
  assert all(issubclass(kind, DetectionHead) for kind in KINDS.values() if kind.is_head)


@pytest.mark.parametrize("kind", HEADS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), net=st.tuples(st.integers(32, 2048), st.integers(32, 2048)), seed=st.integers(0, 999))
def test_encoding_inverts_decoding(kind: str, data: st.DataObject, net: tuple[int, int], seed: int) -> None:
  """Up to the rounding of float32: of a place on the grid (at most 7), times the slope of the logit where x passes a
  sigmoid; with a shifted point also that of up to exp(3) anchors, which may be far wider than the image."""
  head = data.draw(HEADS[kind])
  x, cells = random_values(head, seed), Cells.all(GRID, net)
  boxes = np.asarray(head.decode(jnp.asarray(x), cells))
  found = np.asarray(head.encode(jnp.asarray(boxes), cells))
  expected = x[..., head.layout.box]
  assert boxes.shape == found.shape == expected.shape
  place = 4 * EPS * np.max(GRID) * np.maximum(1, np.abs(boxes).max(-1, keepdims=True))
  if kind == "region":
    p = 1 / (1 + np.exp(-np.float64(expected[..., :2])))
    place = place / (p * (1 - p))
  np.testing.assert_array_less(np.abs(found[..., :2] - expected[..., :2]), np.broadcast_to(place, found[..., :2].shape))
  np.testing.assert_allclose(found[..., 2:], expected[..., 2:], rtol=4 * EPS, atol=8 * EPS)


@pytest.mark.parametrize("kind", HEADS)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_decoding_inverts_encoding(kind: str, data: st.DataObject, seed: int) -> None:
  """Boxes of all sizes whose point is inside its cell come back from the values of every anchor."""
  head = data.draw(HEADS[kind])
  cells, rng = Cells.all(GRID, (416, 288)), np.random.default_rng(seed)
  wh = np.exp(rng.uniform(-5, 0, (GRID[1], GRID[0], 1, 2)))
  point = (cells.xy + rng.uniform(0.02, 0.98, wh.shape)) / GRID
  boxes = np.concatenate([point - getattr(head, "point_shift", 0) * wh, wh], -1).astype(np.float32)
  values = head.encode(jnp.asarray(boxes), cells)
  found = np.asarray(
    head.decode(jnp.zeros((*values.shape[:-1], head.entries)).at[..., head.layout.box].set(values), cells)
  )
  np.testing.assert_allclose(found, np.broadcast_to(boxes, found.shape), rtol=1e-5, atol=1e-6)


def test_values_beside_the_box_do_not_move_it() -> None:
  head = GaussianYolo(**COMMON, anchors=((4, 6), (9, 9), (20, 12)))
  x, cells = random_values(head, 0), Cells.all(GRID, (64, 64))
  other = x.copy()
  other[..., ~np.isin(np.arange(head.entries), np.arange(head.entries)[head.layout.box])] += 1
  np.testing.assert_array_equal(head.decode(jnp.asarray(x), cells), head.decode(jnp.asarray(other), cells))


def test_cells_are_counted_row_by_row() -> None:
  cells = Cells.all((3, 2), (96, 64))
  assert cells.xy.shape == (2, 3, 1, 2)
  assert cells.at(jnp.asarray([0, 2, 3])).xy.tolist() == [[[0, 0]], [[2, 0]], [[0, 1]]]
  np.testing.assert_array_equal(cells.flat().xy, cells.at(jnp.arange(6)).xy)
  assert cells.pairs((1, 2), (3, 4)).tolist() == [[[[1, 2], [3, 4]]]]
