"""Means, deviations and what they allow to say, over seeds.

Variants are compared seed by seed: the same seed gives the same order of images and the same augmentation, so that
differences scatter less than the figures themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from prn_jax.experiments.runs import Result

# Student's t, two-sided 95%, by degrees of freedom; beyond the list the normal distribution's 1.96 is close enough.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T95_NORMAL = 1.96


class Estimate(NamedTuple):
  """A mean over seeds.

  Attributes:
    mean: of the values.
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
    freedom = self.num - 1
    quantile = T95[freedom - 1] if freedom <= len(T95) else T95_NORMAL
    return quantile * self.deviation / self.num**0.5

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


def curvature(results: Sequence[Result], near: str, far: str, baseline: str, figure: str) -> Estimate | None:
  """By how much the second step, from `near` to `far`, loses more than the first, from `baseline` to `near`.

  Above 0 where a loss grows faster than linearly, as an exponential one does.
  """
  a, b, c = (figures(results, variant, figure) for variant in (baseline, near, far))
  common = sorted(a.keys() & b.keys() & c.keys())
  return estimate([(b[seed] - c[seed]) - (a[seed] - b[seed]) for seed in common]) if common else None


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table."""
  lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
  return [line.replace("  |", " |") for line in lines]
