"""The paper's figure 11 in small: residual and partial residual forms of one network, trained alike, several seeds.

    python -m prn_jax.experiments.figure11 --data ROOT --out DIR [--seeds 3] [--epochs 30] [--width 1]

Trains darknet-cifar on CIFAR-10 (configs/cifar10_prn.py) as it is, and as fprn, shrink, expand and bottleneck at every
gamma, which for fprn is the sparsity. Stop it at any time: the same command goes on. After every training it writes
DIR/results.json, DIR/figure11.md and DIR/figure11.png.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from prn_jax.experiments.command import execute, make_record, parser, write_report
from prn_jax.experiments.curves import draw_curves, draw_trade, panels, save
from prn_jax.experiments.record import Record, machine_text
from prn_jax.experiments.runs import Job, Result, by_seed
from prn_jax.experiments.summary import (
  Estimate,
  curvature,
  difference,
  estimate,
  figures,
  markdown_table,
  with_deviation,
  with_interval,
)
from prn_jax.train.config import typed

TITLE = "## Figure 11 in small: which partial residual network learns best"
RESIDUAL = "residual"
FAMILIES = ("shrink", "fprn", "expand", "bottleneck")
GAMMAS = (0.5, 0.75)
TOP1 = "top1"


def variants(gammas: Sequence[float] = GAMMAS) -> tuple[str, ...]:
  """What is compared; residual first."""
  return (RESIDUAL, *(variant(family, gamma) for gamma in gammas for family in FAMILIES))


def variant(family: str, gamma: float) -> str:
  return f"{family}:{gamma:g}"


def job(variant: str, seed: int, *, root: str, epochs: float, width: float) -> Job:
  """One training; `width` multiplies the network's channels."""
  from configs import cifar10_prn

  config = cifar10_prn.get_config(f"{variant},{root}")
  config.seed = seed
  config.total.epochs = epochs
  config.eval.every.epochs = max(1.0, epochs / 10)
  config.model_options["width_multiplier"] = width
  config.optim.schedule.burn_in_steps = 100
  config.keep_checkpoints = 1
  config.log_every.steps = 100
  return Job(variant, seed, typed(config))


# -- report --------------------------------------------------------------------------------------------------


def picture(made: Record, path: Path) -> Path:
  """Top-1 over the epochs, one panel for each gamma, and top-1 at the end over BFLOPs."""
  figure, axes = panels(len(GAMMAS) + 1)
  for one, gamma in zip(axes, GAMMAS, strict=False):
    draw_curves(one, made.runs, {RESIDUAL: RESIDUAL, **{variant(f, gamma): f for f in FAMILIES}}, TOP1)
    one.set_title(f"gamma {gamma:g}; mean and deviation over seeds", fontsize=10)
    one.legend(frameon=False, fontsize=8)
  families = {RESIDUAL: (RESIDUAL,)} | {f: tuple(variant(f, gamma) for gamma in sorted(GAMMAS)) for f in FAMILIES}
  draw_trade(axes[-1], made.runs, families, TOP1)
  axes[-1].set_title("accuracy and cost, gamma 0.5 and 0.75", fontsize=10)
  axes[-1].legend(frameon=False, fontsize=8)
  return save(figure, path)


def section(made: Record, picture_path: str) -> list[str]:
  """Markdown: what was run, table, picture, and what it shows."""
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
    "after the last epoch. For fprn gamma is the sparsity: the share of channels that a shortcut does not add.",
    "",
    f"{len(made.runs)} of {made.planned} trainings are finished. Run on {machine_text(made.machine)}, by",
    "",
    f"    {made.command}",
    "",
    *_table(made.runs),
    "",
    f"![Top-1 over epochs, and over cost]({picture_path})",
    "",
    *_findings(made.runs),
  ]


def _table(results: Sequence[Result]) -> list[str]:
  rows = []
  for name in variants():
    values = figures(results, name, TOP1)
    if not values:
      rows.append([name, "not yet run", "", "", "", "", ""])
      continue
    chosen = [r for r in results if r.variant == name]
    rows.append([
      name,
      with_deviation(estimate(list(values.values()))),
      str(len(values)),
      with_interval(difference(results, name, RESIDUAL, TOP1)) if name != RESIDUAL else "",
      f"{estimate([_last_loss(r) for r in chosen]).mean:.3f}",
      f"{chosen[0].params:,}",
      f"{chosen[0].bflops:.4f}",
    ])  # fmt: skip
  header = ("network", "top-1, %", "seeds", "minus residual (95%)", "training loss", "parameters", "BFLOPs")
  return markdown_table(header, rows)


def _last_loss(result: Result) -> float:
  """Of the last two log lines, since one is noisy."""
  return estimate([loss for _, loss in result.loss[-2:]]).mean


def _findings(results: Sequence[Result]) -> list[str]:
  lines = ["What it shows:", ""]
  for gamma in GAMMAS:
    means = {name: estimate(list(figures(results, name, TOP1).values())) for name in _present(results, gamma)}
    if len(means) > 1:
      ordered = sorted(means.items(), key=lambda item: -item[1].mean)
      listed = " > ".join(f"{name.partition(':')[0]} {with_deviation(one, 1)}" for name, one in ordered)
      lines.append(f"- Order at gamma {gamma:g}, by mean top-1: {listed}.")
    lines += _is_shrink_best(results, gamma)
  return [*lines, *_is_loss_exponential(results), *_limits(results)]


def _present(results: Sequence[Result], gamma: float) -> list[str]:
  wanted = (RESIDUAL, *(variant(family, gamma) for family in FAMILIES))
  return [name for name in wanted if figures(results, name, TOP1)]


def _is_shrink_best(results: Sequence[Result], gamma: float) -> list[str]:
  leads: dict[str, Estimate] = {}
  for family in FAMILIES[1:]:
    if lead := difference(results, variant("shrink", gamma), variant(family, gamma), TOP1):
      leads[family] = lead
  if len(leads) < len(FAMILIES) - 1:
    return [f"- Shrink best at gamma {gamma:g}? Not all of its rivals are trained yet."]
  listed = "; ".join(f"minus {family} {with_interval(lead)}" for family, lead in leads.items())
  return [f"- Shrink best at gamma {gamma:g}? {_judged(leads)} Shrink {listed}."]


def _judged(leads: Mapping[str, Estimate]) -> str:
  ahead = [family for family, lead in leads.items() if lead.sign > 0]
  behind = [family for family, lead in leads.items() if lead.sign < 0]
  even = [family for family, lead in leads.items() if lead.sign == 0]
  if min(lead.num for lead in leads.values()) == 1:
    mean_ahead = sum(lead.mean > 0 for lead in leads.values())
    return f"One seed cannot tell; with it shrink is ahead of {mean_ahead} of {len(leads)}."
  if len(ahead) == len(leads):
    return "Yes, ahead of all others."
  verdict = [f"behind {_and(behind)}" if behind else "", f"ahead of {_and(ahead)}" if ahead else ""]
  verdict += [f"not told apart from {_and(even)}" if even else ""]
  return f"{'No' if behind else 'Not shown'}: " + ", ".join(filter(None, verdict)) + "."


def _and(words: Sequence[str]) -> str:
  return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _is_loss_exponential(results: Sequence[Result]) -> list[str]:
  """An exponential loss falls more from gamma 0.75 to 0.5 than from 1 to 0.75."""
  found = {}
  for family in FAMILIES:
    if family != "fprn" and (bend := curvature(results, variant(family, 0.75), variant(family, 0.5), RESIDUAL, TOP1)):
      found[family] = bend
  if not found:
    return ["- Exponential loss? Needs gamma 0.75 and 0.5 of the same seed, which are not there yet."]
  listed = "; ".join(f"{family} {with_interval(bend)}" for family, bend in found.items())
  bent = [family for family, bend in found.items() if bend.sign > 0]
  verdict = f"It shows for {_and(bent)}." if bent else "It does not show beyond the scatter."
  if min(bend.num for bend in found.values()) == 1:
    verdict = "One seed cannot tell."
  return [
    f"- Exponential loss as gamma falls? Then the step from 0.75 to 0.5 costs more than that from 1 to 0.75. {verdict} By "
    f"how many points the second step costs more: {listed}."
  ]


def _limits(results: Sequence[Result]) -> list[str]:
  return [
    "- Shrink, expand and bottleneck differ in parameters and BFLOPs at the same gamma (shrink has the fewest), so that "
    "equal gamma is not equal cost; the right panel sets accuracy against cost.",
  ]


# -- command -------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
  arguments = parser("figure11", "Trains residual and partial residual networks on CIFAR-10 and compares them.")
  arguments.add_argument(
    "--data", metavar="ROOT", required=True, help="folder with cifar10_train.tar.gz and cifar10_test.tar.gz"
  )
  arguments.add_argument("--epochs", metavar="N", type=float, default=30.0, help="length of a training (default 30)")
  arguments.add_argument("--width", metavar="X", type=float, default=1.0, help="multiplies the channels (default 1)")
  args = arguments.parse_args(argv)
  jobs = by_seed(functools.partial(job, root=args.data, epochs=args.epochs, width=args.width), variants(), args.seeds)
  options = f"--seeds {args.seeds} --epochs {args.epochs:g} --width {args.width:g}"
  command = f"python -m prn_jax.experiments.figure11 --data ROOT --out DIR {options}"

  def made(jobs: Sequence[Job], out: Path) -> Record:
    settings = {"width": args.width, "epochs": args.epochs, "test_images": _num_test_images(jobs[0])}
    return make_record("figure11", command, settings, jobs, out)

  return execute(jobs, args, made, lambda one, out: write_report(one, out, section, picture))


@functools.cache
def _num_images(spec: str) -> int:
  from data_pipelines.spec import open_spec

  return len(open_spec(spec))


def _num_test_images(job: Job) -> int:
  return _num_images(job.config.data.valid)


if __name__ == "__main__":
  sys.exit(main())
