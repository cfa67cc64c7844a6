"""Tables and picture of the experiment of compression. What the figures mean is written by hand in docs/compression.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prn_jax.experiments.curves import Point, draw_trade, legend, panels, save
from prn_jax.experiments.record import Record, run_lines
from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import difference, estimate, figures, markdown_table, with_deviation, with_interval

TITLE = "## Compression in small: a network made sparse, pruned and fine-tuned"
METHODS = ("variance", "slim", "group-norm", "l1")
FLOPS = (0.5, 0.35, 0.2)  # share of the operations that stays
DENSE, SPARSE, TUNED_DENSE = "dense", "sparse", "dense, fine-tuned"
TEACHER, SCRATCH = "+teacher", "+scratch"  # ends of a variant's name
AP50 = "AP50"
GROUPS = {"bccd": "blood cells (BCCD)", "vehicles": "vehicles (Open Images)"}


def untuned_key(group: str, variant: str, seed: int) -> str:
  """Of the AP50 of one pruned network before its fine-tuning."""
  return f"{group} {variant} seed{seed}"


def blocks(made: Record) -> dict[str, list[str]]:
  """Name -> lines of Markdown: what was run, and a table for each data set."""
  return {"run": run_lines(made)} | {group: _table(made, group) for group in _groups(made.runs)}


def picture(made: Record, path: Path) -> Path:
  """AP50 over BFLOPs, for each data set: one line for every method, fine-tuned alone and with the teacher."""
  ends = {"": "fine-tuned alone", TEACHER: "fine-tuned with the teacher"}
  wanted = [(group, end) for group in _groups(made.runs) for end in ends if _cuts(made.runs, group, end)]
  figure, axes = panels(max(1, -(-len(wanted) // 2)), min(2, max(1, len(wanted))))
  for one, (group, end) in zip(axes, wanted, strict=False):
    results = [r for r in made.runs if r.group == group]
    lines = {method: [Point(f"{method}:{share:g}{end}") for share in FLOPS] for method in METHODS}
    draw_trade(one, results, DENSE, lines, AP50)
    one.set_title(f"{GROUPS[group]}, {ends[end]}", fontsize=10)
    legend(one)
  return save(figure, path)


def _cuts(results: Sequence[Result], group: str, end: str) -> bool:
  """Whether a cut network is finished that was fine-tuned in this way."""
  names = {f"{method}:{share:g}{end}" for method in METHODS for share in FLOPS}
  return any(r.group == group and r.variant in names for r in results)


def _groups(results: Sequence[Result]) -> list[str]:
  return [group for group in GROUPS if any(r.group == group for r in results)]


def _table(made: Record, group: str) -> list[str]:
  results = [r for r in made.runs if r.group == group]
  dense = next(r for r in results if r.variant == DENSE)
  rows = [_plain_row(results, variant) for variant in (DENSE, TUNED_DENSE, SPARSE)]
  for method in METHODS:
    for share in FLOPS:
      if row := _pruned_row(made, results, dense, f"{method}:{share:g}"):
        rows.append(row)
  header = (
    "network", "parameters", "BFLOPs", "AP50 cut, %", "fine-tuned, %", "with teacher, %", "from scratch, %", "best minus dense (95%)",
  )  # fmt: skip
  return markdown_table(header, [row for row in rows if row])


def _plain_row(results: Sequence[Result], variant: str) -> list[str]:
  values = list(figures(results, variant, AP50).values())
  if not values:
    return []
  one = next(r for r in results if r.variant == variant)
  less = with_interval(difference(results, variant, DENSE, AP50)) if variant != DENSE else ""
  return [variant, f"{one.params:,}", f"{one.bflops:.3f}", "", with_deviation(estimate(values)), "", "", less]


def _pruned_row(made: Record, results: Sequence[Result], dense: Result, cut: str) -> list[str]:
  """The row of one method and share; empty if nothing of it is finished."""
  ways = [f"{cut}{end}" for end in ("", TEACHER, SCRATCH)]
  found = [list(figures(results, way, AP50).values()) for way in ways]
  if not any(found):
    return []
  one = next(r for r in results if r.variant in ways)
  untuned = [
    100 * value
    for r in results
    if r.variant == cut and (value := made.untuned.get(untuned_key(r.group, cut, r.seed))) is not None
  ]
  means = {way: estimate(values).mean for way, values in zip(ways, found, strict=True) if values}
  best = max(means, key=lambda way: means[way])
  return [
    cut, f"{one.params:,} ({one.params / dense.params:.0%})", f"{one.bflops:.3f} ({one.bflops / dense.bflops:.0%})",
    *(with_deviation(estimate(values)) if values else "" for values in (untuned, *found)),
    with_interval(difference(results, best, DENSE, AP50)),
  ]  # fmt: skip
