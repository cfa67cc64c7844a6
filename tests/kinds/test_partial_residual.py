"""The partial residual: its definition, the forms that are equal to it, and that XLA fuses ours."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.partial_residual import FORMS, Form, at_add, block, fusions, programs, shapes
from prn_jax.graph.builder import Builder
from prn_jax.kinds.shortcut import add_partial
from prn_jax.network import Network

CHANNELS = 12
SOURCES = {"narrower": 5, "equal": 12, "wider": 30}
DTYPES = ("float32", "bfloat16")


def arrays(sizes: list[tuple[int, ...]], dtype: str) -> list[jax.Array]:
  """Normal values, among them zeros of both signs, infinities and the smallest number."""
  random = np.random.default_rng(len(sizes))
  out = [random.normal(size=size).astype(np.float32) for size in sizes]
  for a in out:
    a.flat[:4] = (0.0, -0.0, -0.0, 1e-38)
    a[..., -1].flat[:3] = (-0.0, np.inf, -np.inf)  # beyond a narrower source
  return [jnp.asarray(a, dtype) for a in out]


def bits(x: jax.Array) -> np.ndarray:
  return np.asarray(x).view(np.uint32 if x.dtype == jnp.float32 else np.uint16)


def test_equation_1_by_hand() -> None:
  """x_l = [H(x)[0:c] + x_{l-k}[0:c], H(x)[c:]]; the output keeps the channels of H(x)."""
  y = jnp.asarray([[[[1.0, 2.0, 3.0]]]])
  np.testing.assert_array_equal(add_partial(y, jnp.asarray([[[[10.0, 20.0]]]])), [[[[11.0, 22.0, 3.0]]]])
  np.testing.assert_array_equal(add_partial(y, jnp.asarray([[[[10.0, 20.0, 30.0, 40.0]]]])), [[[[11.0, 22.0, 33.0]]]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_bits_of_the_definition(form: Form, source: int, dtype: str) -> None:
  y, x = arrays([(2, 3, 4, CHANNELS), (2, 3, 4, source)], dtype)
  expected = jax.jit(at_add)(y, x)
  for found in (form(y, x), jax.jit(form)(y, x)):
    assert found.dtype == y.dtype
    np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_bits_of_the_gradient(form: Form, source: int, dtype: str) -> None:
  """The cotangent is free of zeros and subnormals: forms that split `y` add 0 to it, which spoils just those."""
  y, x = arrays([(2, 3, 4, CHANNELS), (2, 3, 4, source)], dtype)
  weight = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, y.shape), dtype)

  def gradient(f: Form) -> tuple[jax.Array, jax.Array]:
    _, pull = jax.vjp(f, y, x)
    return pull(weight)

  for found, expected in zip(gradient(form), gradient(at_add), strict=True):
    np.testing.assert_array_equal(bits(found), bits(expected))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_gradient_reaches_the_common_channels_only(source: int) -> None:
  y, x = (jnp.ones((1, 2, 2, c)) for c in (CHANNELS, source))
  to_y, to_x = jax.grad(lambda y, x: add_partial(y, x).sum(), (0, 1))(y, x)
  np.testing.assert_array_equal(to_y, np.ones(y.shape))
  expected = np.zeros(x.shape)
  expected[..., : min(source, CHANNELS)] = 1
  np.testing.assert_array_equal(to_x, expected)


def compiled_block(form: Form, source: int, dtype: str) -> str:
  arguments = [jax.ShapeDtypeStruct(s, dtype) for s in shapes("block", 1, 64, source)]
  return jax.jit(lambda *args: block(form, *args)).lower(*arguments).compile().as_text()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", [32, 64, 128], ids=list(SOURCES))
def test_the_sum_fuses(source: int, dtype: str) -> None:
  """Behind the convolution comes one loop that reads its output and the source, and nothing else."""
  hlo = compiled_block(add_partial, source, dtype)
  for slow in ("concatenate(", "dynamic-update-slice(", "scatter("):
    assert slow not in hlo
  entry = hlo[hlo.index("\nENTRY") :].splitlines()
  loops = [line for line in entry if "kind=kLoop" in line and "wrapped_convert" not in line]
  assert len(loops) == 1, fusions(hlo)
  assert "ROOT" in loops[0]
  assert not [line for line in entry if re.search(r"= \S+ (pad|slice|select|multiply|add|compare)\(", line)]


def test_the_test_of_fusion_can_fail() -> None:
  hlo = compiled_block(FORMS["concatenate"], 32, "float32")
  assert "concatenate(" in hlo
  assert hlo.count("kind=kLoop") > 1


def test_network_uses_it() -> None:
  """A [shortcut] with 3 of 5 channels, against the definition."""
  g = Builder(4, 4, 3)
  g.empty(name="image")
  g.route("image", "image", name="six")
  g.shortcut("image", name="partial")
  x = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
  out = Network(g.graph()).apply({}, x)["partial"]
  np.testing.assert_array_equal(out, at_add(jnp.concatenate([x, x], -1), jnp.asarray(x)))


def test_benchmark_programs_agree() -> None:
  """What the benchmark times is the same computation in every form."""
  inputs = arrays(shapes("block", 1, 8, 4), "float32")
  inputs = [jnp.nan_to_num(a, posinf=1.0, neginf=-1.0) for a in inputs]
  expected = programs(at_add, "block")["gradient"](*inputs)
  for form in FORMS.values():
    for found, wanted in zip(programs(form, "block")["gradient"](*inputs), expected, strict=True):
      np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
