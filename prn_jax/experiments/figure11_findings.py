"""What the experiment of figure 11 shows, and what it cannot show.

The paper's figure 11 compares shrink, expand and bottleneck at one gamma, the share of channels at the thin end of a
stage. FPRN is not in it: its ratio rho is the share of channels that a shortcut does not add, and it keeps all
parameters. It has its own sentence and takes no part in the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prn_jax.experiments.blocks import RESIDUAL, off_the_line
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import Result
from prn_jax.experiments.summary import (
  Estimate,
  Losses,
  difference,
  estimate,
  few_seeds,
  figures,
  losses,
  pairing,
  sampling_error,
  with_deviation,
  with_interval,
  words,
)

FAMILIES = ("shrink", "expand", "bottleneck")
RIVALS = FAMILIES[1:]  # of shrink
FPRN = "fprn"
GAMMAS = (0.5, 0.75)
RHOS = (0.5, 0.75)
NEAR, FAR = 0.75, 0.5  # the steps of gamma from 1
TOP1 = "top1"


def variants() -> tuple[str, ...]:
  """What is trained; residual first."""
  families = tuple(variant(family, gamma) for gamma in GAMMAS for family in FAMILIES)
  return (RESIDUAL, *families, *(variant(FPRN, rho) for rho in RHOS))


def variant(family: str, share: float) -> str:
  return f"{family}:{share:g}"


def findings(made: Record) -> list[str]:
  """Markdown, one point a line."""
  results = made.runs
  orders = {gamma: leads_of_shrink(results, gamma) for gamma in sorted(GAMMAS, reverse=True)}
  steps = {family: losses_of(results, family) for family in FAMILIES}
  lines = ["What it shows:", "", *_in_short(orders, steps)]
  for gamma, leads in orders.items():
    lines += _order(results, gamma, leads)
  lines += _exponential(steps)
  lines += [*_fprn(results), "", "What it cannot show:", "", *_limits(made)]
  return lines


# -- shrink best -----------------------------------------------------------------------------------------


def leads_of_shrink(results: Sequence[Result], gamma: float) -> dict[str, Estimate]:
  """Rival -> shrink minus it; rivals that are not trained yet are missing."""
  found = {rival: difference(results, variant("shrink", gamma), variant(rival, gamma), TOP1) for rival in RIVALS}
  return {rival: lead for rival, lead in found.items() if lead is not None}


def _order(results: Sequence[Result], gamma: float, leads: Mapping[str, Estimate]) -> list[str]:
  found = {name: figures(results, name, TOP1) for name in (RESIDUAL, *(variant(f, gamma) for f in FAMILIES))}
  found = {name.partition(":")[0]: values for name, values in found.items() if values}
  common = sorted(set.intersection(*(set(values) for values in found.values())))
  means = {name: estimate([values[seed] for seed in common]) for name, values in found.items()} if common else {}
  ordered = sorted(means.items(), key=lambda item: -item[1].mean)
  listed = " > ".join(f"{name} {with_deviation(one, 1)}" for name, one in ordered)
  apart = "; ".join(f"minus {rival} {with_interval(lead)}" for rival, lead in leads.items())
  by_mean = f" By mean top-1: {listed}." if len(means) > 1 else ""
  by_lead = f" Shrink {apart}." if apart else ""
  return [f"- Shrink best at gamma {gamma:g}? {_judged(leads)}{by_mean}{by_lead}"]


def _judged(leads: Mapping[str, Estimate]) -> str:
  if len(leads) < len(RIVALS):
    return "Not all of its rivals are trained yet."
  ahead, behind, even = (words([r for r, lead in leads.items() if lead.sign == sign]) for sign in (1, -1, 0))
  if min(lead.num for lead in leads.values()) == 1:
    return f"One seed cannot tell; with it, {_by_means(leads)}."
  if not behind and not even:
    return f"Yes: the intervals set it ahead of {ahead}."
  parts = [f"behind {behind}" if behind else "", f"ahead of {ahead}" if ahead else ""]
  parts += [f"not told apart from {even}" if even else ""]
  return f"{'No' if behind else 'Not shown'}: {', '.join(filter(None, parts))}. In the means, {_by_means(leads)}."


def _by_means(leads: Mapping[str, Estimate]) -> str:
  ahead = [rival for rival, lead in leads.items() if lead.mean > 0]
  if len(ahead) == len(leads):
    return "it is ahead of both"
  return f"it is ahead of {words(ahead)} alone" if ahead else "it is ahead of neither"


# -- exponential loss ------------------------------------------------------------------------------------


def losses_of(results: Sequence[Result], family: str) -> Losses | None:
  """What the steps of gamma from 1 to 0.75 and on to 0.5 cost a family."""
  return losses(results, RESIDUAL, variant(family, NEAR), variant(family, FAR), TOP1)


def loss_text(steps: Losses | None) -> str:
  """How a family's loss grows, in a few words."""
  if steps is None:
    return "not yet trained"
  if steps.bend.num == 1:
    return "one seed cannot tell"
  if steps.grows:
    return "grows faster than linearly"
  if steps.first.mean < 0:
    return f"not shown: in the mean nothing is lost from gamma 1 to {NEAR:g}"
  if steps.second.mean <= 0:
    return f"not shown: in the mean nothing is lost from gamma {NEAR:g} to {FAR:g}"
  return "grows more slowly than linearly" if steps.bend.sign < 0 else "not told apart from a linear one"


def _exponential(steps: Mapping[str, Losses | None]) -> list[str]:
  rivals = "; ".join(f"{rival.capitalize()}'s loss: {loss_text(steps[rival])}" for rival in RIVALS)
  return [
    f"- Exponential loss as gamma falls? Such a network loses from gamma 1 to {NEAR:g}, and more from there to {FAR:g}. "
    f"{rivals}. Shrink's loss, of which the paper reports little: {loss_text(steps['shrink'])}. Two steps can show a loss that grows "
    "faster than linearly, as an exponential one does; they cannot show that it is exponential."
  ]


# -- in short --------------------------------------------------------------------------------------------


def _in_short(orders: Mapping[float, Mapping[str, Estimate]], steps: Mapping[str, Losses | None]) -> list[str]:
  """One sentence on each half of the paper's claim."""
  said: dict[str, list[str]] = {}
  for gamma, leads in orders.items():
    said.setdefault(_order_in_short(leads), []).append(f"{gamma:g}")
  parts = "; ".join(f"at gamma {words(gammas)} it {text}" for text, gammas in said.items())
  rivals = [steps[rival] for rival in RIVALS]
  if any(one is None for one in rivals):
    loss = "cannot be judged yet"
  elif any(one is not None and one.bend.num == 1 for one in rivals):
    loss = "cannot be judged from one seed"
  else:
    grown = [rival for rival, one in zip(RIVALS, rivals, strict=True) if one is not None and one.grows]
    loss = {0: "does not show", len(RIVALS): "shows, as far as two steps can"}.get(
      len(grown), f"shows for {words(grown)} alone"
    )
  return [
    f"- **The paper's order.** Shrink best of the three: {parts}. Exponential loss of expand and bottleneck: it {loss}."
  ]


def _order_in_short(leads: Mapping[str, Estimate]) -> str:
  if len(leads) < len(RIVALS):
    return "cannot be judged yet"
  if min(lead.num for lead in leads.values()) == 1:
    return "cannot be judged from one seed"
  if all(lead.sign > 0 for lead in leads.values()):
    return "shows"
  if any(lead.sign < 0 for lead in leads.values()):
    return "does not show, and an interval contradicts it"
  if all(lead.mean > 0 for lead in leads.values()):
    return "shows in the means, but the intervals do not separate it from chance"
  apart = any(lead.sign > 0 for lead in leads.values())
  return "does not show, even in the means" + ("" if apart else ", and no interval separates the three")


# -- fprn and limits -------------------------------------------------------------------------------------


def _fprn(results: Sequence[Result]) -> list[str]:
  parts = []
  for rho in RHOS:
    apart = difference(results, variant(FPRN, rho), RESIDUAL, TOP1)
    if apart is None:
      continue
    verdict = {1: "better", -1: "worse", 0: "not told apart"}[apart.sign] if apart.num > 1 else "one seed cannot tell"
    parts.append(
      f"{variant(FPRN, rho)}, which drops {rho:.0%} and adds {1 - rho:.0%}, {with_interval(apart)}: {verdict}"
    )
  if not parts:
    return []
  sizes = {r.variant: r.params for r in results}
  more = [
    f"{sizes[variant(FPRN, rho)] / sizes[variant('shrink', rho)]:.1f} times those of {variant('shrink', rho)}"
    for rho in RHOS
    if variant(FPRN, rho) in sizes and variant("shrink", rho) in sizes
  ]
  size = f" It keeps residual's parameters ({words(more)})" if more else " It keeps residual's parameters"
  return [
    "- fprn is not in the paper's comparison and not in the verdict above. Its ratio is not gamma but rho, the share of "
    f"channels that a shortcut does not add.{size}. Minus residual: {'; '.join(parts)}."
  ]


def _limits(made: Record) -> list[str]:
  results = made.runs
  found = [list(figures(results, name, TOP1).values()) for name in variants() if figures(results, name, TOP1)]
  mean = estimate([value for values in found for value in values]).mean
  num_test = int(made.settings["test_images"])
  return [
    *few_seeds([apart.num for name in variants()[1:] if (apart := difference(results, name, RESIDUAL, TOP1))]),
    f"- All seeds are tested on the same {num_test:,} images. Another test set of this size would move a top-1 of {mean:.0f}% "
    f"with a standard deviation of {sampling_error(mean, num_test):.1f} points (binomial); no deviation over seeds and no "
    "interval here holds that. A difference moves less than two separate figures would, as far as the networks err on the same "
    "images.",
    *pairing(results, variants()[1:], RESIDUAL, TOP1),
    *_rounding(made),
    "- Shrink, expand and bottleneck differ in parameters and BFLOPs at the same gamma (shrink has the fewest), so that "
    "equal gamma is not equal cost; the last panel sets accuracy against cost.",
  ]


def _rounding(made: Record) -> list[str]:
  off = off_the_line(made.blocks)
  if not off:
    return []
  wider = all(have >= want for one in off for have, want in zip(one.channels, one.line, strict=True))
  text = "- Widths are rounded, so that not all stages change linearly (last table)."
  if wider and all(one.variant.endswith(f":{NEAR:g}") for one in off):
    names = words(list(dict.fromkeys(one.variant for one in off)))
    text += (
      f" All are rounded up, and only for {names}: with exact widths the step from gamma 1 to {NEAR:g} would take away more "
      f"channels, and that to {FAR:g} fewer, so that their loss would presumably bend less."
    )
  return [text]
