"""A diagnosis as lines for the terminal."""

from __future__ import annotations

from prn_jax.data_pipelines.doctor.checkup import Diagnosis, Found, Severity
from prn_jax.errors import printable

MOST_PLACES = 5


def text(diagnosis: Diagnosis, *, most_places: int = MOST_PLACES) -> str:
  """All findings, the worst first, each with its first places and what to do."""
  exam = diagnosis.exam
  split = exam.split
  lines = [f"{split.spec}: {len(split):,} images, {len(split.names):,} classes, {len(split.classes):,} objects"]
  lines += [f"against {other.spec}: {len(other):,} images" for _, other in exam.others]
  for found in diagnosis.found:
    lines += ["", *_lines(found, most_places)]
  counts = [f"{number:,} {severity}" for severity, number in diagnosis.counts.items() if number]
  lines += ["", f"found: {', '.join(counts)}" if counts else "found: nothing"]
  reasons: dict[str, list[str]] = {}
  for check, reason in diagnosis.not_run.items():
    reasons.setdefault(reason, []).append(check)
  lines += [f"not run, for {reason}: {', '.join(names)}" for reason, names in reasons.items()]
  return "\n".join(lines)


def _lines(found: Found, most_places: int) -> list[str]:
  check, number = found.check, len(found.spots)
  mark = "!" if check.severity is Severity.SERIOUS else " "
  lines = [f"{mark} [{check.id}] {check.severity}, {number:,}: {check.meaning}"]
  for place, spot in list(zip(found.places, found.spots, strict=True))[:most_places]:
    lines.append(f"    {printable(place)}: {printable(spot.text)}")
  if number > most_places:
    lines.append(f"    ... and {number - most_places:,} more (--json lists all)")
  return [*lines, f"    What to do: {check.fix}"]
