"""What a calibration sees of a tensor, and the range that it chooses from that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from prn_jax.ops.quantizers import LEAST_RANGE, QSpec, scale_and_zero

BINS = 2048
EMA = 0.9  # share of the old range
OUTSIDE = 1e-4  # share of the values that "percentile" leaves out, of both sides together
STEPS = 60  # ranges that a search tries
POW2_STEPS = 7  # powers of two that it tries, from the one around the largest value down
Ends = tuple[float, float]


class Seen:
  """Extremes and a histogram of all values of a tensor, over all batches.

  Attributes:
    low, high: the extremes; 0 before anything was seen.
    running: running averages of the extremes of each batch, as a training keeps them.
    counts: values by bin; `centers` are their middles.
  """

  def __init__(self) -> None:
    self.low = self.high = 0.0
    self.running: Ends | None = None
    self.counts = np.zeros(BINS)
    self._reach = 0.0  # the histogram is over -reach to reach

  def add(self, values: np.ndarray) -> None:
    """Takes the values of a batch, of any shape."""
    low, high = float(values.min()), float(values.max())
    old = self.running or (low, high)
    self.running = EMA * old[0] + (1 - EMA) * low, EMA * old[1] + (1 - EMA) * high
    is_first = not self.counts.any()
    self.low, self.high = (low, high) if is_first else (min(self.low, low), max(self.high, high))
    self._widen(max(abs(low), abs(high)))
    if self._reach:
      at = ((values.ravel() / self._reach + 1) * (BINS // 2)).astype(np.int32)  # of floats up to BINS: exact enough
      self.counts += np.bincount(np.clip(at, 0, BINS - 1), minlength=BINS)
    else:
      self.counts[BINS // 2] += values.size

  def _widen(self, top: float) -> None:
    """Doubles the reach, whose bins then hold two of the old ones, until it holds `top`."""
    if not self._reach:
      self._reach = top
    while self._reach < top:
      half = self.counts.reshape(-1, 2).sum(1)
      self.counts = np.concatenate([np.zeros(BINS // 4), half, np.zeros(BINS // 4)])
      self._reach *= 2

  @property
  def centers(self) -> np.ndarray:
    return (np.arange(BINS) + 0.5) * (2 * self._reach / BINS) - self._reach


@dataclasses.dataclass(frozen=True)
class Grid:
  """A range tried out on a histogram: where the bins would go."""

  values: np.ndarray
  places: np.ndarray

  @classmethod
  def of(cls, centers: np.ndarray, ends: Ends, spec: QSpec) -> Grid:
    scale, zero = (np.float64(x) for x in scale_and_zero(*ends, spec, np))
    places = np.clip(np.floor(centers / scale + 0.5) + zero, spec.qmin, spec.qmax)
    return cls((places - zero) * scale, places)


def _squared_error(centers: np.ndarray, counts: np.ndarray, grid: Grid) -> float:
  return float((counts * (centers - grid.values) ** 2).sum())


def _angle(centers: np.ndarray, counts: np.ndarray, grid: Grid) -> float:
  """1 - cosine between the values and the rounded ones."""
  product = (counts * centers * grid.values).sum()
  lengths = np.sqrt((counts * centers**2).sum() * (counts * grid.values**2).sum())
  return float(1 - product / lengths) if lengths else 1.0


def _information(centers: np.ndarray, counts: np.ndarray, grid: Grid) -> float:
  """Kullback-Leibler divergence of the histogram (its bins that hold any) from the one that the grid lets through: the
  values of a place of the grid, evenly over its bins."""
  inside = np.flatnonzero((centers >= grid.values.min()) & (centers <= grid.values.max()))
  if not inside.size:
    return np.inf
  first, last = inside[0], inside[-1]
  place = (grid.places[first : last + 1] - grid.places.min()).astype(int)
  p = counts[first : last + 1].copy()
  q = (np.bincount(place, p) / np.maximum(np.bincount(place), 1))[place]
  p[0] += counts[:first].sum()  # what is cut off stands in the outermost bins
  p[-1] += counts[last + 1 :].sum()
  p, q = p / p.sum(), q / q.sum()
  return float((p * np.log(p / q)).sum())


def _searched(error: Callable[[np.ndarray, np.ndarray, Grid], float]) -> Callable[[Seen, QSpec], Ends]:
  return lambda seen, spec: _search(seen, spec, error)


def _search(seen: Seen, spec: QSpec, error: Callable[[np.ndarray, np.ndarray, Grid], float]) -> Ends:
  """The range with the least error: first both ends by one factor, then each by its own."""
  centers, counts = seen.centers[seen.counts > 0], seen.counts[seen.counts > 0]

  def best(candidates: list[Ends]) -> Ends:
    return min(candidates, key=lambda ends: error(centers, counts, Grid.of(centers, ends, spec)))

  ends = best(_candidates(seen, spec))
  if spec.symmetric or spec.pow2 != "none":
    return ends
  parts = np.linspace(0.02, 1, 50)
  for _ in range(2):
    ends = best([ends, *((seen.low * part, ends[1]) for part in parts)])
    ends = best([ends, *((ends[0], seen.high * part) for part in parts)])
  return ends


def range_before(seen: Seen, spec: QSpec, activation: Callable[[np.ndarray], np.ndarray]) -> Ends:
  """The ends of the grid of a map in front of an activation: those with the least squared error behind it. What a leaky
  slope makes small may be cut off, though it is most of the range."""
  if seen.low == seen.high == 0:
    return 0.0, 0.0

  def error(centers: np.ndarray, counts: np.ndarray, grid: Grid) -> float:
    return float((counts * (activation(centers) - activation(grid.values)) ** 2).sum())

  return _search(seen, spec, error)


def _candidates(seen: Seen, spec: QSpec) -> list[Ends]:
  """Ranges to try: parts of the whole one, or powers of two."""
  if spec.pow2 == "none":
    return [(seen.low * part, seen.high * part) for part in np.linspace(1, 0.1, STEPS)]
  top = max(-seen.low, seen.high)
  first = int(np.ceil(np.log2(max(top, LEAST_RANGE))))
  powers = [2.0**k for k in range(first, first - POW2_STEPS, -1)]
  return [(-power if seen.low < 0 else 0.0, power) for power in powers]


def _percentile(seen: Seen, spec: QSpec) -> Ends:
  share = np.cumsum(seen.counts) / seen.counts.sum()
  low, high = (seen.centers[np.searchsorted(share, at)] for at in (OUTSIDE / 2, 1 - OUTSIDE / 2))
  return max(float(low), seen.low), min(float(high), seen.high)


OBSERVERS: dict[str, Callable[[Seen, QSpec], Ends]] = {
  "minmax": lambda seen, spec: (seen.low, seen.high),
  "ema": lambda seen, spec: seen.running or (0.0, 0.0),
  "percentile": _percentile,
  "mse": _searched(_squared_error),
  "cosine": _searched(_angle),
  "kl": _searched(_information),
}


def chosen_range(seen: Seen, spec: QSpec, observer: str) -> Ends:
  """The ends of the grid for what was seen; (0, 0) for nothing but zeros."""
  if seen.low == seen.high == 0:
    return 0.0, 0.0
  return OBSERVERS[observer](seen, spec)
