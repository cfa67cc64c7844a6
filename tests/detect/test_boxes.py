"""Box arithmetic against Darknet's values and the definitions."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.detect import boxes
from prn_jax.detect.boxes import (
  ciou_cxcywh,
  diou_cxcywh,
  giou_cxcywh,
  iou_cxcywh,
  pairwise,
)

MEASURES = (iou_cxcywh, giou_cxcywh, diou_cxcywh, ciou_cxcywh)


@st.composite
def some_boxes(draw: Any, count: int = 4) -> np.ndarray:
  """(count, 4) cxcywh, on a grid of 1/8 so that equal edges, nesting and zero sizes come up."""
  eighth = st.integers(0, 24).map(lambda k: k / 8)
  return np.array([[draw(eighth) for _ in range(4)] for _ in range(count)], np.float32)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_values_are_darknets(shared: Path, name: str) -> None:
  golden = np.load(shared / "golden/iou_pairs/iou_pairs.npz")
  measure = getattr(boxes, f"{name}_cxcywh")
  for run in (measure, jax.jit(measure)):
    np.testing.assert_allclose(run(golden["pred"], golden["truth"]), golden[name], atol=1e-6, rtol=0)


def test_by_hand() -> None:
  """2x2 boxes with centres (1, 1) and (2, 2): intersection 1, union 7, enclosing 9, d^2 = 2, c^2 = 18."""
  a, b = jnp.array([1.0, 1, 2, 2]), jnp.array([2.0, 2, 2, 2])
  assert float(iou_cxcywh(a, b)) == pytest.approx(1 / 7)
  assert float(giou_cxcywh(a, b)) == pytest.approx(1 / 7 - 2 / 9)
  assert float(diou_cxcywh(a, b)) == pytest.approx(1 / 7 - (2 / 18) ** 0.6)
  assert float(diou_cxcywh(a, b, 0.9)) == pytest.approx(1 / 7 - (2 / 18) ** 0.9, abs=1e-6)
  assert float(ciou_cxcywh(a, b)) == pytest.approx(1 / 7 - 2 / 18)
  # 4x1 in 2x2 about one centre: intersection 2, union 6; v = 4/pi^2 (atan 1 - atan 4)^2, alpha = v / (1 - 1/3 + v)
  a, b = jnp.array([0.0, 0, 4, 1]), jnp.array([0.0, 0, 2, 2])
  v = 4 / np.pi**2 * (np.arctan(1) - np.arctan(4)) ** 2
  assert float(ciou_cxcywh(a, b)) == pytest.approx(1 / 3 - v * v / (2 / 3 + v), abs=1e-6)


def test_zero_areas() -> None:
  point, line = jnp.array([1.0, 1, 0, 0]), jnp.array([1.0, 1, 2, 0])
  for measure in MEASURES:
    assert float(measure(point, point)) == 0
    assert np.isfinite(float(measure(point, line)))
    assert np.isfinite(float(measure(line, line)))
  assert float(iou_cxcywh(line, line)) == 0
  assert float(giou_cxcywh(line, line)) == 0  # the enclosing box has no area
  assert float(diou_cxcywh(line, jnp.array([2.0, 1, 2, 0]))) == pytest.approx(-((1 / 9) ** 0.6))


@settings(deadline=None)
@given(some_boxes(), some_boxes())
def test_bounds_and_symmetry(a: np.ndarray, b: np.ndarray) -> None:
  iou = np.asarray(pairwise(iou_cxcywh, a, b))
  assert ((iou >= 0) & (iou <= 1)).all()
  np.testing.assert_allclose(iou, np.asarray(pairwise(iou_cxcywh, b, a)).T, atol=1e-6)
  for measure in MEASURES[1:]:
    table = np.asarray(pairwise(measure, a, b))
    np.testing.assert_allclose(table, np.asarray(pairwise(measure, b, a)).T, atol=2e-6)
    assert (table <= iou + 1e-6).all()
    assert np.isfinite(table).all()
    np.testing.assert_allclose(np.diag(table), measure(a, b), atol=1e-6)


@settings(deadline=None)
@given(some_boxes())
def test_one_on_itself(a: np.ndarray) -> None:
  solid = a[:, 2:].min(1) > 0
  for measure in MEASURES:
    np.testing.assert_allclose(measure(a, a), solid, atol=1e-6)


@settings(deadline=None)
@given(some_boxes(), st.sampled_from([(2.0, 2.0), (0.5, 4.0)]))
def test_iou_does_not_depend_on_the_frame(a: np.ndarray, scale: tuple[float, float]) -> None:
  factor = np.array([*scale, *scale], np.float32)
  np.testing.assert_allclose(pairwise(iou_cxcywh, a, a), pairwise(iou_cxcywh, a * factor, a * factor), atol=1e-6)


@pytest.mark.parametrize("measure", [*MEASURES, functools.partial(diou_cxcywh, exponent=0.9)])
def test_gradients_are_finite_everywhere(measure: Any) -> None:
  values = jnp.array([0.0, 1.0, 2.0])
  some = jnp.stack(jnp.meshgrid(values, values, values, values), -1).reshape(-1, 4)
  gradient = jax.jit(jax.grad(lambda a: jnp.sum(pairwise(measure, a, some))))(some)
  assert np.isfinite(gradient).all()
