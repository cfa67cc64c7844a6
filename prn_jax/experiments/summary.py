"""Means, deviations and what they allow to say, over seeds.

Variants are compared seed by seed, since the same seed gives the same order of images and the same augmentation. Whether
differences therefore scatter less than the figures is for the data to say: the tables print both deviations.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from prn_jax.experiments.runs import Result


def t95(freedom: int) -> float:
  """Quantile of Student's t for two-sided 95% intervals, for at least one degree of freedom."""
  from scipy.stats import t  # takes a second to import; JAX brings it

  return float(t.ppf(0.975, freedom))


class Estimate(NamedTuple):
  """A mean over seeds.

  Attributes:
    mean: the mean of the values.
    deviation: standard deviation of the values (n - 1); None for one value.
    num: how many values.
  """

  mean: float
  deviation: float | None
  num: int

  @property
  def half_width(self) -> float | None:
    """Half of the 95% interval of the mean, by Student's t; None for one value."""
    if self.deviation is None:
      return None
    return t95(self.num - 1) * self.deviation / self.num**0.5

  @property
  def sign(self) -> int:
    """1 or -1 if the 95% interval lies on one side of 0; else 0."""
    half = self.half_width
    if half is None or abs(self.mean) <= half:
      return 0
    return 1 if self.mean > 0 else -1


def estimate(values: Sequence[float]) -> Estimate:
  """Mean and deviation of at least one value."""
  return Estimate(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def figures(results: Sequence[Result], variant: str, figure: str) -> dict[int, float]:
  """Seed -> final figure of a variant, in percent."""
  return {r.seed: 100 * r.values[figure] for r in results if r.variant == variant}


def difference(results: Sequence[Result], first: str, second: str, figure: str) -> Estimate | None:
  """First minus second, in points, over the seeds that both have; None if there are none."""
  a, b = figures(results, first, figure), figures(results, second, figure)
  common = sorted(a.keys() & b.keys())
  return estimate([a[seed] - b[seed] for seed in common]) if common else None


class Losses(NamedTuple):
  """What two steps of a variant cost, in points, over the seeds that have all three figures.

  Attributes:
    first: what the step from the baseline to the near variant loses; below 0 it gains.
    second: what the step from there to the far variant loses.
    bend: the second minus the first: above 0 where a loss grows faster than linearly, as an exponential one does.
  """

  first: Estimate
  second: Estimate
  bend: Estimate


def losses(results: Sequence[Result], baseline: str, near: str, far: str, figure: str) -> Losses | None:
  """Of the variants `baseline`, `near` and `far`, in this order; None if no seed has all three."""
  a, b, c = (figures(results, variant, figure) for variant in (baseline, near, far))
  common = sorted(a.keys() & b.keys() & c.keys())
  if not common:
    return None
  first, second = [a[seed] - b[seed] for seed in common], [b[seed] - c[seed] for seed in common]
  bend = [two - one for one, two in zip(first, second, strict=True)]
  return Losses(estimate(first), estimate(second), estimate(bend))


def with_deviation(one: Estimate, digits: int = 2) -> str:
  """ "61.20 ± 0.35", or "61.20" for one value."""
  text = f"{one.mean:.{digits}f}"
  return text if one.deviation is None else f"{text} ± {one.deviation:.{digits}f}"


def with_interval(one: Estimate | None, digits: int = 2) -> str:
  """ "+0.40 (-0.10 to +0.90)": the mean and its 95% interval."""
  if one is None:
    return ""
  text, half = f"{one.mean:+.{digits}f}", one.half_width
  return text if half is None else f"{text} ({one.mean - half:+.{digits}f} to {one.mean + half:+.{digits}f})"


def deviation_text(one: Estimate | None, digits: int = 2) -> str:
  """The standard deviation alone; empty if there is none."""
  return "" if one is None or one.deviation is None else f"{one.deviation:.{digits}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table."""
  lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
  return [line.replace("  |", " |") for line in lines]
