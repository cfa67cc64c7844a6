"""What the experiments' commands share: arguments, the order of work, exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.experiments import record
from prn_jax.experiments.record import Record
from prn_jax.experiments.runs import Job, check_networks, finished, run_missing
from prn_jax.files.disk import write_text
from prn_jax.hosts.exit_codes import DONE, PREEMPTED, exit_code_of
from prn_jax.train.log import say


def parser(experiment: str, about: str) -> argparse.ArgumentParser:
  """With --out, --seeds and --max-runs; the rest is the experiment's."""
  result = argparse.ArgumentParser(prog=f"python -m prn_jax.experiments.{experiment}", description=about)
  result.add_argument("--out", metavar="DIR", required=True, help="folder of the experiment; what is there is kept")
  result.add_argument("--seeds", metavar="N", type=int, default=3, help="trainings of every variant (default 3)")
  result.add_argument("--max-runs", metavar="N", type=int, help="trainings in this call; 0 writes the report alone")
  return result


def execute(
  jobs: Sequence[Job],
  args: argparse.Namespace,
  make_record: Callable[[Sequence[Job], Path], Record],
  report: Callable[[Record, Path], None],
  prepare: Callable[[Job], None] | None = None,
) -> int:
  """Trains what is missing; after every training, writes results.json and the report. Returns the exit code.

  Args:
    jobs: all trainings of the experiment.
    args: what `parser` has parsed.
    make_record: the record of what is finished in a folder.
    report: writes table and pictures into a folder.
    prepare: makes what a training starts from, right before it.
  """
  from prn_jax import compilation_cache

  compilation_cache.use()
  out = Path(args.out)
  try:
    for _ in run_missing(jobs, out, args.max_runs, prepare):
      _report(make_record(jobs, out), out, report)
    made = make_record(jobs, out)
    _report(made, out, report)
  except PrnError as error:
    say(f"error: {error}")
    return exit_code_of(error)
  missing = made.planned - len(made.runs)
  where = f"wrote {out}/" if made.runs else "nothing to report yet"
  print(f"{len(made.runs)} of {made.planned} trainings are finished; {where}", flush=True)
  return PREEMPTED if missing and args.max_runs is None else DONE


def _report(made: Record, out: Path, report: Callable[[Record, Path], None]) -> None:
  if made.runs:
    made.write(out / record.FILE)
    report(made, out)


def make_record(
  experiment: str, command: str, settings: Mapping[str, Any], jobs: Sequence[Job], out: Path, **more: Any
) -> Record:
  """The record of the jobs that are finished in `out`.

  Raises:
    PrnError: as `finished`, or the seeds of a variant have trained unequal networks.
  """
  runs = record.with_machines(finished(jobs, out), out / record.FILE)
  check_networks(runs)
  return Record(experiment, command, settings, len(jobs), runs, **more)


def write_report(made: Record, out: Path, title: str, blocks: Mapping[str, Sequence[str]], draw: Any) -> None:
  """EXPERIMENT.md, with all tables below each other, and EXPERIMENT.png in `out`."""
  draw(made, out / f"{made.experiment}.png")
  parts = [title, *("\n".join(lines) for lines in blocks.values()), f"![Figures]({made.experiment}.png)"]
  write_text(out / f"{made.experiment}.md", "\n\n".join(parts) + "\n")
