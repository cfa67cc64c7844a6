"""Means, intervals and verdicts over seeds, by hand arithmetic."""

from __future__ import annotations

import math

import pytest

from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import (
  difference,
  estimate,
  figures,
  losses,
  markdown_table,
  t95,
  with_deviation,
  with_interval,
)


def result(variant: str, seed: int, top1: float, **more: object) -> Result:
  values = {"group": "", "params": 10, "bflops": 0.5, "train_images": 20, "epochs": 2.0, "seconds": 3.0}
  curve = [{"epoch": 1.0, "top1": top1 / 2}, {"epoch": 2.0, "top1": top1}]
  loss = [(1.0, 2.0), (2.0, 1.0)]
  return Result(
    **values | {"variant": variant, "seed": seed, "values": {"top1": top1}, "curve": curve, "loss": loss} | more
  )  # type: ignore[arg-type]


def test_mean_deviation_and_interval() -> None:
  one = estimate([1.0, 2.0, 3.0])
  assert (one.mean, one.deviation, one.num) == (2.0, 1.0, 3)
  assert one.half_width == pytest.approx(4.302653 / math.sqrt(3))  # t of 2 degrees of freedom
  assert one.sign == 0
  assert estimate([1.0, 1.1, 1.2]).sign == 1
  assert estimate([-1.0, -1.1, -1.2]).sign == -1
  assert estimate([0.0] * 40).half_width == 0


def test_one_value_has_no_deviation_and_decides_nothing() -> None:
  one = estimate([5.0])
  assert (one.mean, one.deviation, one.half_width, one.sign) == (5.0, None, None, 0)
  assert with_deviation(one) == "5.00"
  assert with_interval(one) == "+5.00"


@pytest.mark.parametrize(
  ("freedom", "quantile"),
  [(1, 12.706), (2, 4.303), (15, 2.131), (16, 2.120), (17, 2.110), (20, 2.086), (24, 2.064), (30, 2.042), (40, 2.021),
   (60, 2.000), (120, 1.980), (10**9, 1.960)],
)  # fmt: skip
def test_quantiles_of_student(freedom: int, quantile: float) -> None:
  """As printed tables give them, to their last digit."""
  assert round(t95(freedom), 3) == quantile


def test_half_an_interval() -> None:
  one = estimate([float(i % 2) for i in range(30)])
  assert one.deviation is not None
  assert one.half_width == pytest.approx(2.0452 * one.deviation / math.sqrt(30), rel=1e-4)  # t of 29 degrees of freedom


def test_differences_are_of_the_same_seed() -> None:
  results = [result("a", 0, 0.5), result("a", 1, 0.7), result("a", 2, 0.9), result("b", 1, 0.6), result("b", 0, 0.45)]
  assert figures(results, "b", "top1") == pytest.approx({0: 45.0, 1: 60.0})
  less = difference(results, "a", "b", "top1")
  assert less is not None
  assert (less.mean, less.num) == (pytest.approx(7.5), 2)  # 5 and 10 points; seed 2 has no partner
  assert difference(results, "a", "c", "top1") is None


def test_bend_is_0_where_the_loss_is_linear() -> None:
  linear = [result("full", 0, 0.60), result("near", 0, 0.58), result("far", 0, 0.56)]
  bent = [result("full", 0, 0.60), result("near", 0, 0.59), result("far", 0, 0.50)]
  straight, curved = (losses(rows, "full", "near", "far", "top1") for rows in (linear, bent))
  assert straight is not None
  assert curved is not None
  assert straight.bend.mean == pytest.approx(0, abs=1e-9)
  assert [one.mean for one in curved] == pytest.approx([1, 9, 8])
  assert losses(linear[:2], "full", "near", "far", "top1") is None


def test_texts() -> None:
  assert with_deviation(estimate([1.0, 2.0, 3.0])) == "2.00 ± 1.00"
  assert with_interval(estimate([1.0, 2.0, 3.0])) == "+2.00 (-0.48 to +4.48)"
  assert with_interval(None) == ""
  assert markdown_table(("a", "b"), [("1", ""), ("2", "x")]) == ["| a | b |", "| --- | --- |", "| 1 | |", "| 2 | x |"]
