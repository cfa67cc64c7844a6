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

  @property
  def grows(self) -> bool:
    """Nothing is gained by the first step, the second loses, and the interval of the bend lies above 0."""
    return self.first.mean >= 0 and self.second.mean > 0 and self.bend.sign > 0


def losses(results: Sequence[Result], baseline: str, near: str, far: str, figure: str) -> Losses | None:
  """Of the variants `baseline`, `near` and `far`, in this order; None if no seed has all three."""
  a, b, c = (figures(results, variant, figure) for variant in (baseline, near, far))
  common = sorted(a.keys() & b.keys() & c.keys())
  if not common:
    return None
  first, second = [a[seed] - b[seed] for seed in common], [b[seed] - c[seed] for seed in common]
  bend = [two - one for one, two in zip(first, second, strict=True)]
  return Losses(estimate(first), estimate(second), estimate(bend))


def sampling_error(percent: float, num: int) -> float:
  """Standard deviation, in points, that the choice of `num` test images gives to a share of right answers.

  Source: the binomial distribution, sqrt(p (1 - p) / n).
  """
  share = percent / 100
  return 100 * (share * (1 - share) / num) ** 0.5


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


def words(listed: Sequence[str], joint: str = "and") -> str:
  """ "a, b and c" """
  return f" {joint} ".join([", ".join(listed[:-1]), listed[-1]]) if len(listed) > 1 else "".join(listed)


def few_seeds(nums: Sequence[int]) -> list[str]:
  """What intervals from so few seeds mean.

  Args:
    nums: seeds of the variants. Of one seed there is no interval, and nothing is said.
  """
  several = [num for num in nums if num > 1]
  if not several:
    return []
  low, high = min(several), max(several)
  return [
    f"- Intervals are from {low if low == high else f'{low} to {high}'} seeds: Student's t is {t95(low - 1):.1f} where many "
    "seeds would have 2.0, and the deviation itself is known only roughly. Each holds for its comparison alone: of twenty, "
    "one is expected to miss."
  ]


def pairing(results: Sequence[Result], variants: Sequence[str], baseline: str, figure: str) -> list[str]:
  """Whether taking differences seed by seed makes them scatter less: what the data say, over the common seeds."""
  less, parts = 0, []
  for variant in variants:
    own, base = figures(results, variant, figure), figures(results, baseline, figure)
    common = sorted(own.keys() & base.keys())
    apart = difference(results, variant, baseline, figure)
    one = estimate([own[seed] for seed in common]) if common else None
    if apart is None or one is None or apart.deviation is None or one.deviation is None:
      continue
    less += apart.deviation < one.deviation
    parts.append(f"{variant} {apart.deviation:.2f} ({one.deviation:.2f})")
  if not parts:
    return []
  return [
    f"- Deviation over seeds of the difference from {baseline}, and in brackets of the figure itself: {', '.join(parts)}. The "
    f"difference scatters less in {less} of {len(parts)}. Were both networks' figures independent, it would scatter about 1.4 times as much as one."
  ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table."""
  lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
  return [line.replace("  |", " |") for line in lines]
