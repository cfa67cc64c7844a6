"""Records of experiments that never ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prn_jax.experiments import figure11_report, table2
from prn_jax.experiments.figure11_report import FAMILIES, FPRN, GAMMAS, variant
from prn_jax.experiments.record import Record
from tests.experiments.test_summary import result

MACHINE = {"cores": 2, "device": "CPU", "jax": "0.9", "prn_jax": "1.0"}
OTHER = {"cores": 8, "cpu": "Fast", "device": "1 x H1", "jax": "0.9", "prn_jax": "1.0"}
SCATTER = (-0.001, 0.0, 0.001)  # of the seeds


def cifar_record(
  top1: Callable[[str, float], float], seeds: int = 3, families: tuple[str, ...] = (*FAMILIES, FPRN), **more: object
) -> Record:
  """Every variant with the top-1 that `top1` gives for (family, gamma or rho), scattered alike."""
  runs = []
  for seed in range(seeds):
    runs.append(result("residual", seed, top1("residual", 1.0) + SCATTER[seed], machine=MACHINE))
    for share in GAMMAS:
      for family in families:
        one = top1(family, share) + SCATTER[seed] * (1 + share)
        runs.append(result(variant(family, share), seed, one, machine=MACHINE))
  settings = {"width": 0.5, "epochs": 2.0, "test_images": 2500}
  return Record("figure11", "python -m x", settings, 27, runs, **more)  # type: ignore[arg-type]


def section(made: Record) -> str:
  return _text(figure11_report.blocks(made))


def heads_section(made: Record) -> str:
  return _text(table2.blocks(made))


def _text(blocks: Mapping[str, Sequence[str]]) -> str:
  return "\n".join(line for lines in blocks.values() for line in lines)


def as_in_the_paper(family: str, gamma: float) -> float:
  """Shrink loses linearly, the others ever faster."""
  lost = 1 - gamma
  return 0.7 - (0.02 * lost if family in ("shrink", "residual") else 0.4 * lost**2 + 0.1 * lost)


def heads_record(seeds: int = 2) -> Record:
  runs = [
    result(
      name, seed, 0.0, group=group, values={"AP50": 0.3 + lead + SCATTER[seed]}, curve=[{"epoch": 1.0, "AP50": 0.3}],
      machine=MACHINE,
    )
    for group in table2.GROUPS
    for name, lead in zip(table2.VARIANTS, (0.0, 0.05, -0.05), strict=True)
    for seed in range(seeds)
  ]  # fmt: skip
  settings = {"steps": 100, "sizes": {"vehicles": "128x128", "traffic": "192x128"}}
  latency = {"here": {"vehicles yolov3-tiny 128x128": 12.34, "traffic yolov3-tiny 64x64": 1.0}}
  return Record("table2", "python -m y", settings, 6, runs, latency)
