"""Tables and picture of the experiment of figure 11.

The paper's figure 11 compares shrink, expand and bottleneck at one gamma, the share of channels at the thin end of a
stage. FPRN is not in it: its ratio rho is the share of channels that a shortcut does not add, and it keeps all
parameters. What the figures mean is written by hand in docs/experiments.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prn_jax.experiments.blocks import RESIDUAL, Stage, with_lines
from prn_jax.experiments.curves import Point, draw_curves, draw_trade, legend, panels, save
from prn_jax.experiments.paper import FIGURE_11
from prn_jax.experiments.record import Record, run_lines
from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import (
  Losses,
  deviation_text,
  difference,
  estimate,
  figures,
  losses,
  markdown_table,
  with_deviation,
  with_interval,
)

if TYPE_CHECKING:
  from matplotlib.axes import Axes

TITLE = "## Figure 11 in small: which partial residual network learns best"
FAMILIES = ("shrink", "expand", "bottleneck")
FPRN = "fprn"
GAMMAS = (0.5, 0.75)
RHOS = (0.5, 0.75)
NEAR, FAR = 0.75, 0.5  # the steps of gamma from 1
TOP1 = "top1"
# gamma -> top-1 on ImageNet, in the order of FAMILIES.
PAPER_TOP1 = {gamma: tuple(FIGURE_11[f"PRN-{family}"][gamma] for family in FAMILIES) for gamma in (NEAR, FAR)}
STYLES = (0, 1, 2, 3)  # of residual and FAMILIES, in all panels
FPRN_STYLES = (4, 5)
# Of the gammas in the picture of cost, at NEAR and FAR: expand costs more than bottleneck at NEAR, and less at FAR.
LABEL_OFFSETS_PT = {
  "shrink": ((-16.0, 4.0), (14.0, -4.0)),
  "expand": ((16.0, -5.0), (-14.0, 0.0)),
  "bottleneck": ((-16.0, 4.0), (14.0, 0.0)),
}


def variants() -> tuple[str, ...]:
  """What is trained; residual first."""
  families = tuple(variant(family, gamma) for gamma in GAMMAS for family in FAMILIES)
  return (RESIDUAL, *families, *(variant(FPRN, rho) for rho in RHOS))


def variant(family: str, share: float) -> str:
  return f"{family}:{share:g}"


def losses_of(results: Sequence[Result], family: str) -> Losses | None:
  """What the steps of gamma from 1 to 0.75 and on to 0.5 cost a family."""
  return losses(results, RESIDUAL, variant(family, NEAR), variant(family, FAR), TOP1)


def picture(made: Record, path: Path) -> Path:
  """Top-1 over the epochs, for each gamma and for fprn, and top-1 at the end over BFLOPs."""
  figure, axes = panels(2, 2)
  for one, gamma in zip(axes, (NEAR, FAR), strict=False):
    names = {RESIDUAL: "residual (gamma 1)", **{variant(f, gamma): f for f in FAMILIES}}
    draw_curves(one, made.runs, names, TOP1, STYLES)
    one.set_title(f"gamma {gamma:g}", fontsize=10)
  names = {RESIDUAL: "residual (rho 0)", **{variant(FPRN, rho): f"{FPRN}, rho {rho:g}" for rho in RHOS}}
  draw_curves(axes[2], made.runs, names, TOP1, (0, *FPRN_STYLES))
  axes[2].set_title("fprn, at residual's cost", fontsize=10)
  _draw_cost(axes[3], made.runs)
  for one in axes:
    legend(one)
  for one in axes[1:3]:
    one.sharey(axes[0])
  figure.suptitle("mean over seeds; bands and bars are one standard deviation", fontsize=9)
  return save(figure, path)


def _draw_cost(axes: Axes, results: Sequence[Result]) -> None:
  """Every family goes from residual, which is its gamma 1, to the smaller gammas. fprn costs what residual costs."""
  families = {
    family: [
      Point(variant(family, gamma), f"{gamma:g}", offset)
      for gamma, offset in zip((NEAR, FAR), LABEL_OFFSETS_PT[family], strict=True)
    ]
    for family in FAMILIES
  }
  draw_trade(axes, results, RESIDUAL, families, TOP1, STYLES)
  axes.set_title("accuracy and cost, with gamma (residual: 1)", fontsize=10)


# -- text ------------------------------------------------------------------------------------------------


def blocks(made: Record) -> dict[str, list[str]]:
  """Name -> lines of Markdown: what was run, and the tables."""
  return {
    "run": run_lines(made),
    "results": _table(made.runs),
    "paper": _beside_the_paper(made.runs),
    "losses": _losses(made.runs),
    "widths": widths(made.blocks),
  }


def _table(results: Sequence[Result]) -> list[str]:
  rows = []
  for name in variants():
    values = figures(results, name, TOP1)
    if not values:
      rows.append([name, "not yet run", "", "", "", "", "", ""])
      continue
    chosen = [r for r in results if r.variant == name]
    apart = difference(results, name, RESIDUAL, TOP1) if name != RESIDUAL else None
    rows.append([
      name,
      with_deviation(estimate(list(values.values()))),
      str(len(values)),
      with_interval(apart),
      deviation_text(apart),
      f"{estimate([_last_loss(r) for r in chosen]).mean:.3f}",
      f"{chosen[0].params:,}",
      f"{chosen[0].bflops:.4f}",
    ])  # fmt: skip
  header = ("network", "top-1, %", "seeds", "minus residual (95%)", "± of it", "training loss", "parameters", "BFLOPs")
  return markdown_table(header, rows)


def _last_loss(result: Result) -> float:
  """Of the last two log lines, since one is noisy."""
  return estimate([loss for _, loss in result.loss[-2:]]).mean


def _beside_the_paper(results: Sequence[Result]) -> list[str]:
  """Our figures of the paper's three families, and the paper's."""
  rows = []
  for gamma, paper in PAPER_TOP1.items():
    ours = [list(figures(results, variant(family, gamma), TOP1).values()) for family in FAMILIES]
    rows.append([f"{gamma:g}", "here", *(with_deviation(estimate(one)) if one else "not yet run" for one in ours)])
    rows.append([f"{gamma:g}", "the paper", *(f"{value:.1f}" for value in paper)])
  return markdown_table(("gamma", "top-1, %", *FAMILIES), rows)


def _losses(results: Sequence[Result]) -> list[str]:
  """What each step of gamma costs. A loss grows faster than linearly where the last column lies above 0."""
  rows = []
  for index, family in enumerate(FAMILIES):
    steps = losses_of(results, family)
    paper = f"{PAPER_TOP1[NEAR][index] - PAPER_TOP1[FAR][index]:.1f}"
    cells = [with_interval(one) for one in steps] if steps else ["", "", ""]
    rows.append([family, *cells[:2], paper, cells[2]])
  header = (
    "points lost (95%)", f"gamma 1 to {NEAR:g}", f"{NEAR:g} to {FAR:g}, here", f"{NEAR:g} to {FAR:g}, the paper", "second minus first"
  )  # fmt: skip
  return markdown_table(header, rows)


# -- widths ----------------------------------------------------------------------------------------------


def widths(blocks: Mapping[str, Sequence[Stage]]) -> list[str]:
  """Table of the channels that were trained; those off the line between a stage's ends are bold."""
  if RESIDUAL not in blocks:
    return ["Widths of the blocks are not in this record. The experiment's command with `--max-runs 0` adds them."]
  rows = []
  for name in variants():
    if name in blocks:
      stages = with_lines(name, blocks[name], blocks[RESIDUAL])
      rows.append([name, *(_cell(stage, exact) for stage, exact in stages)])
  return markdown_table(("network", *(f"stage {i + 1}" for i in range(len(blocks[RESIDUAL])))), rows)


def _cell(stage: Stage, exact: Sequence[float]) -> str:
  found = stage["channels"]
  text = " ".join(f"**{one}**" if one != wanted else str(one) for one, wanted in zip(found, exact, strict=True))
  all_added = [min(before, behind) for before, behind in itertools.pairwise(found)]
  if list(stage["added"]) == all_added:
    return text
  return f"{text}, adds {' '.join(dict.fromkeys(str(one) for one in stage['added']))}"
