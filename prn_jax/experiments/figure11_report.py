"""Tables, picture and findings of the experiment of figure 11."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prn_jax.experiments.blocks import RESIDUAL, Stage, off_the_line, with_lines
from prn_jax.experiments.curves import Point, draw_curves, draw_trade, legend, panels, save
from prn_jax.experiments.figure11_findings import (
  FAMILIES,
  FAR,
  FPRN,
  NEAR,
  RHOS,
  TOP1,
  findings,
  loss_text,
  losses_of,
  variant,
  variants,
)
from prn_jax.experiments.machine import machines_text
from prn_jax.experiments.paper import FIGURE_11
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import (
  deviation_text,
  difference,
  estimate,
  figures,
  markdown_table,
  with_deviation,
  with_interval,
  words,
)

if TYPE_CHECKING:
  from matplotlib.axes import Axes

TITLE = "## Figure 11 in small: which partial residual network learns best"
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


def section(made: Record, picture_path: str) -> list[str]:
  """Markdown: what was run, tables, picture, and what it shows."""
  first = made.runs[0]
  residual = next((r for r in made.runs if r.variant == RESIDUAL), first)
  settings = made.settings
  return [
    TITLE,
    "",
    f"CIFAR-10, {first.train_images:,} training and {settings['test_images']:,} test images. The network is darknet-cifar "
    f"(Darknet-53's plan, three stages of 2, 4 and 4 units) with {settings['width']:g} times its channels: "
    f"{residual.params:,} parameters, {residual.bflops:.4f} BFLOPs. Every variant was trained alike (`configs/"
    f"cifar10_prn.py`: SGD, batch 64, cosine) for {round(first.epochs, 2):g} epochs, which is short of convergence; top-1 is that "
    "after the last epoch. The number behind shrink, expand and bottleneck is gamma, the share of channels at a stage's thin "
    "end; that behind fprn is rho, the share of channels that a shortcut does not add.",
    "",
    *_rule(made.blocks),
    f"{len(made.runs)} of {made.planned} trainings are finished. Run on {machines_text(run.machine for run in made.runs)}, by",
    "",
    f"    {made.command}",
    "",
    *_table(made.runs),
    "",
    *_beside_the_paper(made.runs),
    "",
    *_losses(made.runs),
    "",
    f"![Top-1 over epochs, and over cost]({picture_path})",
    "",
    *findings(made),
    "",
    *widths(made.blocks),
  ]


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
  lines = markdown_table(("gamma", "top-1, %", *FAMILIES), rows)
  return ["Beside the paper's figure 11, which is on ImageNet (its section 4.2 prints the numbers):", "", *lines]


def _losses(results: Sequence[Result]) -> list[str]:
  """What each step of gamma costs, and how the loss grows."""
  rows = []
  for index, family in enumerate(FAMILIES):
    steps = losses_of(results, family)
    paper = f"{PAPER_TOP1[NEAR][index] - PAPER_TOP1[FAR][index]:.1f}"
    cells = [with_interval(one) for one in steps] if steps else ["", "", ""]
    rows.append([family, *cells[:2], paper, cells[2], loss_text(steps)])
  header = (
    "points lost (95%)", f"gamma 1 to {NEAR:g}", f"{NEAR:g} to {FAR:g}, here", f"{NEAR:g} to {FAR:g}, the paper", "second minus first", "the loss"
  )  # fmt: skip
  return markdown_table(header, rows)


def _rule(blocks: Mapping[str, Sequence[Stage]]) -> list[str]:
  """Whether the networks that were trained follow the paper's figure 7; nothing where the record has no widths."""
  if RESIDUAL not in blocks:
    return []
  if any("inner" not in stage for found in blocks.values() for stage in found):
    return [
      "**Trained before figure 7's rule was known:** the 1x1 convolutions inside the blocks of shrink, expand and "
      "bottleneck were narrowed with their block, so that these networks are smaller than those that the transforms give "
      "today.",
      "",
    ]
  inner = {name: [list(stage["inner"]) for stage in found] for name, found in blocks.items()}
  others = [name for name, widths in inner.items() if widths != inner[RESIDUAL]]
  said = (
    f"are narrowed in {words(others)}, which the paper's figure 7 does not do"
    if others
    else "keep their channels in all of them, as in the paper's figure 7"
  )
  return [f"The 1x1 convolutions inside the blocks {said}.", ""]


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
  lines = markdown_table(("network", *(f"stage {i + 1}" for i in range(len(blocks[RESIDUAL])))), rows)
  off = [f"{one.variant} in stage {one.number}, where the line is {one.line_text}" for one in off_the_line(blocks)]
  said = f"**Not linear**, since widths are rounded: {'; '.join(off)}." if off else "Here, too, all are linear."
  return [
    "Channels in front of each stage and behind each of its blocks, read from the networks that were trained. The paper "
    f"changes them linearly. {said}",
    "",
    *lines,
  ]


def _cell(stage: Stage, exact: Sequence[float]) -> str:
  found = stage["channels"]
  text = " ".join(f"**{one}**" if one != wanted else str(one) for one, wanted in zip(found, exact, strict=True))
  all_added = [min(before, behind) for before, behind in itertools.pairwise(found)]
  if list(stage["added"]) == all_added:
    return text
  return f"{text}, adds {' '.join(dict.fromkeys(str(one) for one in stage['added']))}"
