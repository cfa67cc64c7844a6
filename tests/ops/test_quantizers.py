"""Quantisers on cases that can be worked by hand; x = [0.3, -0.7, 1.2, -1.45] unless said otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prn_jax.ops import quantizers as q
from prn_jax.ops.quantizers import QSpec

X = np.float32([0.3, -0.7, 1.2, -1.45])


def in_range(x: np.ndarray, spec: QSpec) -> np.ndarray:
  """x on the grid of its own range."""
  return np.asarray(q.fake_quant(jnp.asarray(x), *q.scale_and_zero(x.min(), x.max(), spec), spec))


@pytest.mark.parametrize(
  ("bits", "x", "expected"),
  [
    (8, X, [0.296875, -0.703125, 0.9921875, -1.0]),  # range 1.45 -> 1, S = 1/128; 1.2 and -1.45 saturate
    (4, X, [0.25, -0.75, 0.875, -1.0]),  # S = 1/8
    (8, np.float32([0.3, -0.7, 1.2, -1.6]), [0.296875, -0.703125, 1.203125, -1.59375]),  # 1.6 -> 2, S = 1/64
  ],
)
def test_nearest_power_of_two(bits: int, x: np.ndarray, expected: list[float]) -> None:
  assert in_range(x, QSpec(bits=bits, pow2="nearest")).tolist() == expected


def test_halves_go_away_from_zero() -> None:
  assert q.round_half_away([0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997]).tolist() == [1, -1, 2, -2, 3, 0]


@pytest.mark.parametrize(
  ("how", "expected"),
  [("nearest", [1, 1, 1, 2, 2, 4]), ("ceil", [1, 2, 2, 2, 4, 4]), ("floor", [1, 1, 1, 1, 2, 2])],
)
def test_snap(how: str, expected: list[float]) -> None:
  assert q.snap_pow2([1.0, 1.49, 1.5, 1.51, 2.9, 3.1], how).tolist() == expected


def test_the_gradient_of_a_snap_is_that_of_its_logarithm() -> None:
  assert jax.grad(lambda a: q.snapped(a, "nearest"))(3.3) == pytest.approx(4 / 3.3)  # 1.2121


def test_a_grid_with_a_zero_point() -> None:
  # range -1.45 to 1.2: S = 2.65/255, zero = round(1.45/S) = round(139.53) = 140
  scale, zero = q.scale_and_zero(X.min(), X.max(), QSpec(signed=False, symmetric=False))
  assert scale == pytest.approx(2.65 / 255)
  assert zero == 140
  assert in_range(X, QSpec(signed=False, symmetric=False)) == pytest.approx(X, abs=float(scale) * 0.501 + 0.005)


@pytest.mark.parametrize("spec", [QSpec(), QSpec(bits=2, pow2="ceil"), QSpec(signed=False, symmetric=False)])
def test_zeros_stay_zeros(spec: QSpec) -> None:
  assert in_range(np.zeros(3, np.float32), spec).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"bits": 16}, "bits=16; expected one of 1, 2, 4, 8"),
    ({"bits": 0}, "bits=0; expected one of"),
    ({"bits": 3}, "bits=3; expected one of"),
    ({"bits": 1}, "bits=1 has no signed grid"),
    ({"pow2": "up"}, "pow2=up; expected one of none, ceil, floor, nearest"),
    ({"narrow": True, "signed": False}, "narrow=1 is for signed grids"),
  ],
)
def test_no_such_grid(fields: dict[str, object], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    QSpec(**fields)  # type: ignore[arg-type]


SPECS = st.builds(
  lambda bits, signed, symmetric, pow2, narrow: QSpec(
    bits=bits, signed=signed, symmetric=symmetric, pow2=pow2, narrow=narrow and signed
  ),
  st.sampled_from([2, 4, 8]),
  st.booleans(),
  st.booleans(),
  st.sampled_from(q.POW2),
  st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, 7, elements=st.floats(-100, 100, width=32)), SPECS)
def test_on_the_grid_and_there_to_stay(x: np.ndarray, spec: QSpec) -> None:
  """Quantised values have the grid's integers, quantising again changes nothing, and inside nothing moves by more than half a
  step (and the zero point's rounding)."""
  scale, zero = q.scale_and_zero(x.min(), x.max(), spec)
  y = q.fake_quant(jnp.asarray(x), scale, zero, spec)
  assert np.asarray(q.fake_quant(y, scale, zero, spec)).tobytes() == np.asarray(y).tobytes()
  integers = np.asarray(q.to_integers(jnp.asarray(x), scale, zero, spec))
  assert ((integers >= spec.qmin) & (integers <= spec.qmax) & (integers == np.rint(integers))).all()
  inside = (integers > spec.qmin) & (integers < spec.qmax)
  assert (np.abs(y - x)[inside] <= float(scale) * 0.50001).all()


def test_gradients_pass_inside_and_stop_outside() -> None:
  spec = QSpec(bits=4, pow2="nearest")  # S = 1/8: -1 to 0.875
  grad = jax.grad(lambda x: q.fake_quant(x, 0.125, 0.0, spec).sum())(jnp.asarray(X))
  assert grad.tolist() == [1, 1, 0, 0]
  assert jax.grad(lambda s: q.fake_quant(jnp.asarray(X), s, 0.0, spec).sum())(0.125) == 0


def test_lsq_gradient_of_the_step() -> None:
  # x/s = 2.4, -5.6, 9.6, -11.6 on -8..7: 2-2.4, -6+5.6, 7, -8; times 1/sqrt(4*7)
  value, grad = jax.value_and_grad(lambda s: q.lsq(jnp.asarray(X), s, QSpec(bits=4), 4).sum())(0.125)
  assert value == pytest.approx(0.25 - 0.75 + 0.875 - 1.0)
  assert grad == pytest.approx((-0.4 - 0.4 + 7 - 8) / 28**0.5, rel=1e-5)


def test_tqt_is_a_power_of_two_and_learns() -> None:
  spec = QSpec(bits=4)
  y = q.tqt(jnp.asarray(X), jnp.log2(1.3), spec)  # range 2, S = 1/4
  assert y.tolist() == [0.25, -0.75, 1.25, -1.5]
  # d y / d log2 t = S ln 2 (round(x/S) - x/S), as nothing saturates
  grad = jax.grad(lambda t: q.tqt(jnp.asarray(X), t, spec).sum())(jnp.log2(1.3))
  assert grad == pytest.approx(0.25 * np.log(2) * (1 - 1.2 - 3 + 2.8 + 5 - 4.8 - 6 + 5.8), rel=1e-4)


def test_trained_scale_without_the_shrink() -> None:
  """127 in the multiplication and 128 in the division, as elsewhere, make every value 0.8% smaller; one number does not."""
  shrunk = [0.296875, -0.6953125, 0.9921875, -0.9921875]  # alpha 1.3 -> 1, round(x * 127) / 128
  ours = q.fake_quant(jnp.asarray(X), q.snapped(jnp.float32(1.3), "nearest") / 128, 0.0, QSpec(narrow=True))
  assert ours.tolist() == [0.296875, -0.703125, 0.9921875, -0.9921875]
  assert sum(a != b for a, b in zip(ours.tolist(), shrunk, strict=True)) == 1


@pytest.mark.parametrize(
  ("bits", "expected"),
  [(8, [-0.788235, 0.003922, 0.482353, 1]), (4, [-0.733333, 0.066667, 0.466667, 1]), (2, [-1, 1 / 3, 1 / 3, 1])],
)
def test_dorefa_weights(bits: int, expected: list[float]) -> None:
  assert q.dorefa_weights(jnp.float32([-1, 0, 0.5, 2]), bits).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
  ("bits", "expected"),
  [(8, [0, 0.250980, 0.701961, 1]), (4, [0, 0.266667, 0.733333, 1]), (2, [0, 1 / 3, 2 / 3, 1])],
)
def test_dorefa_activations(bits: int, expected: list[float]) -> None:
  assert q.dorefa_activations(jnp.float32([-1, 2.5, 7, 15]), bits, 0.1).tolist() == pytest.approx(expected, abs=1e-6)


def test_binary_and_ternary_weights_per_filter() -> None:
  w = jnp.float32([[0.5, -2], [-1.5, 4], [0.0, 0]])  # filters are columns
  assert q.signs(w).tolist() == [[1, -1], [-1, 1], [1, 1]]
  factors = [2 / 3, 2]
  assert np.allclose(
    q.bwn_weights(w), [[f * s for f, s in zip(factors, row, strict=True)] for row in q.signs(w).tolist()]
  )
  # thresholds 0.7 * 2/3 = 0.467 and 1.4: all but the zeros are large; factors (0.5 + 1.5)/2 and 3
  assert np.allclose(q.ternary_weights(w), [[1, -3], [-1, 3], [0, 0]])
  assert np.asarray(q.ternary_weights(jnp.zeros((2, 2)))).tolist() == [[0, 0], [0, 0]]
  assert jax.grad(lambda w: q.signs(w).sum())(w).tolist() == [[1, 0], [0, 0], [1, 1]]
