"""Compares two models by what they compute."""

from __future__ import annotations

import dataclasses

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.formats.darknet_weights import lookup, stored_arrays
from prn_jax.model import Model, Variables

# Two correct float32 programs differ by rounding; relative to the largest value of a layer.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Difference:
  """The first layer that differs: name in both models, and why."""

  layer_a: str
  layer_b: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Result of `compare`.

  Attributes:
    agree: every compared output agrees within the tolerance.
    max_abs_diff: largest difference of a value; infinite if shapes differ.
    outputs: "name_a / name_b" (one name if equal) of each compared head -> its largest difference.
    first_difference: the first layer in cfg order that differs.
    bit_identical: no value differs at all.
  """

  agree: bool
  max_abs_diff: float
  outputs: dict[str, float]
  first_difference: Difference | None
  bit_identical: bool


def probe_input(model: Model, size: int | tuple[int, int] | None = None) -> np.ndarray:
  """A fixed input (1, h, w, c) in [0, 1]: smooth gradients with noise, so that all channels matter.

  `size` is one side for both or (width, height), in pixels; by default the network's own.
  """
  g = model.graph
  width, height = (size, size) if isinstance(size, int) else size or (g.width, g.height)
  rng = np.random.default_rng(0)
  y, x = np.mgrid[0:height, 0:width].astype(np.float32)
  waves = 0.5 + 0.3 * np.sin(x / 17 + y / 29)
  return np.clip(waves[None, :, :, None] + rng.normal(0, 0.2, (1, height, width, g.channels)), 0, 1).astype(np.float32)


def compare(a: Model, b: Model, tolerance: float = TOLERANCE, size: int | None = None) -> Agreement:
  """Runs both models on the same input and compares their heads; if these differ, layer by layer.

  Args:
    a, b: models of the same input and the same number of results.
    tolerance: allowed difference, relative to the largest absolute value of the layer (at least 1).
    size: height and width of the input; by default the networks' own.

  Raises:
    PrnError: the inputs or the numbers of heads differ, so that there is nothing to compare.
  """
  ga, gb = a.graph, b.graph
  sizes = [(g.width, g.height, g.channels) for g in (ga, gb)]
  if sizes[0] != sizes[1]:
    raise PrnError(f"the inputs differ: {sizes[0]} and {sizes[1]} (width, height, channels).")
  heads = [[head.name for head in g.heads] for g in (ga, gb)]
  if len(heads[0]) != len(heads[1]):
    raise PrnError(f"the models have {len(heads[0])} and {len(heads[1])} heads: {heads[0]} and {heads[1]}.")
  x = probe_input(a, size)
  outputs = _differences(a, b, list(zip(*heads, strict=True)), x)
  first = None
  if not all(d.within(tolerance) for d in outputs):
    names = [[layer.name for layer in g] for g in (ga, gb)]
    pairs = list(zip(*names, strict=True)) if len(ga) == len(gb) else list(zip(*heads, strict=True))
    first = next(d for d in _differences(a, b, pairs, x) if not d.within(tolerance)).described()
  worst = max(d.largest for d in outputs)
  return Agreement(first is None, worst, {d.label: d.largest for d in outputs}, first, worst == 0)


@dataclasses.dataclass(frozen=True)
class _LayerDifference:
  names: tuple[str, str]
  shapes: tuple[tuple[int, ...], tuple[int, ...]]
  largest: float
  scale: float

  @property
  def label(self) -> str:
    return self.names[0] if self.names[0] == self.names[1] else " / ".join(self.names)

  def within(self, tolerance: float) -> bool:
    return self.largest <= tolerance * max(1.0, self.scale)

  def described(self) -> Difference:
    if self.shapes[0] != self.shapes[1]:
      return Difference(*self.names, f"shapes {self.shapes[0]} and {self.shapes[1]}")
    return Difference(*self.names, f"values differ by up to {self.largest:.3g} (largest value {self.scale:.3g})")


def _differences(a: Model, b: Model, pairs: list[tuple[str, str]], x: np.ndarray) -> list[_LayerDifference]:
  out_a = a.forward(x, [pair[0] for pair in pairs])
  out_b = b.forward(x, [pair[1] for pair in pairs])
  return [_difference(pair, np.asarray(out_a[pair[0]]), np.asarray(out_b[pair[1]])) for pair in pairs]


def _difference(names: tuple[str, str], a: np.ndarray, b: np.ndarray) -> _LayerDifference:
  if a.shape != b.shape:
    return _LayerDifference(names, (a.shape, b.shape), float("inf"), 0.0)
  largest = float(np.abs(a - b).max())
  return _LayerDifference(
    names, (a.shape, b.shape), largest if np.isfinite(largest) else float("inf"), float(np.abs(a).max())
  )


def same_weights(a: Model, b: Model) -> Variables:
  """A's variables for B's graph, taken in the order of a weights file.

  Raises:
    PrnError: the networks have other arrays.
  """
  from prn_jax.network import unflatten_variables

  pairs_a, pairs_b = list(stored_arrays(a.graph)), list(stored_arrays(b.graph))
  shapes_a, shapes_b = ([array.file_shape for _, array in pairs] for pairs in (pairs_a, pairs_b))
  if shapes_a != shapes_b:
    at = next((i for i, (x, y) in enumerate(zip(shapes_a, shapes_b, strict=False)) if x != y), None)
    where = (
      f"{len(shapes_a)} and {len(shapes_b)} arrays"
      if at is None
      else f"'{pairs_a[at][0].name}' of A has {shapes_a[at]}, '{pairs_b[at][0].name}' of B has {shapes_b[at]}"
    )
    raise PrnError(f"the models cannot share weights: {where}. They are different networks.")
  return unflatten_variables(
    {
      array.key(layer.name): lookup(a.variables, *source)
      for source, (layer, array) in zip(pairs_a, pairs_b, strict=True)
    }
  )
