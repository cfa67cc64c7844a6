"""Times of day: across changes of the clocks, and starts that can be read in two ways."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from prn_jax.track import event_log, scene
from prn_jax.track.clock import Clock
from prn_jax.track.count import Given, said_of, write
from prn_jax.track.scene import SceneError
from prn_jax.track.wall_clock import wall_clock
from tests.track.test_counting import joined, straight, track

LINES = "lines:\n  - {name: road, from: [0, 0], to: [100, 0], forward: down, backward: up}\n"


def test_across_changes_of_the_clocks() -> None:
  """In Berlin clocks go from 3 back to 2 on 25 October 2026, and from 2 on to 3 on 29 March."""
  autumn, spring = (
    wall_clock("2026-10-25T02:30:00+02:00", "Europe/Berlin"),
    wall_clock("2026-03-29T01:30:00", "Europe/Berlin"),
  )
  assert [autumn.at(60 * m) for m in (0, 29, 30, 90)] == [
    "2026-10-25T02:30:00.000+02:00", "2026-10-25T02:59:00.000+02:00", "2026-10-25T02:00:00.000+01:00", "2026-10-25T03:00:00.000+01:00",
  ]  # fmt: skip
  assert [spring.at(60 * m) for m in (0, 30)] == ["2026-03-29T01:30:00.000+01:00", "2026-03-29T03:00:00.000+02:00"]
  fixed = wall_clock("2026-10-25T02:30:00+02:00", None)
  assert fixed.at(3600.0405) == "2026-10-25T03:30:00.040+02:00"


def test_events_and_tables_carry_it(tmp_path: Path) -> None:
  """One over the line at 10 frames a second in each of two intervals of 60 s, between which the clocks go back."""
  (tmp_path / "s.yaml").write_text(f"{LINES}start: 2026-10-25T02:59:00+02:00\ntime_zone: Europe/Berlin\n")
  view = scene.read(tmp_path / "s.yaml")
  ways = [track(straight(-50, 50), n, [begin + i for i in range(20)]) for n, begin in ((1, 1), (2, 601))]
  write(Given(joined(*ways), view, (), Clock(10), said_of(view, ())), tmp_path, 60)
  events = [row for row in event_log.read(tmp_path / "events.jsonl").events if row["kind"] == "line"]
  assert [row["time"] for row in events] == ["2026-10-25T02:59:01.000+02:00", "2026-10-25T02:00:01.000+01:00"]
  found = list(csv.DictReader((tmp_path / "counts.csv").open()))
  assert [(row["from_sec"], row["from"], row["to"]) for row in found] == [
    ("0", "2026-10-25T02:59:00.000+02:00", "2026-10-25T02:00:00.000+01:00"),
    ("60", "2026-10-25T02:00:00.000+01:00", "2026-10-25T02:01:00.000+01:00"),
  ]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("start: 2026-10-25T02:30:00\ntime_zone: Europe/Berlin\n", "3: start is '2026-10-25T02:30:00', which comes twice in Europe/Berlin; say which: 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00."),
    ("start: 2026-03-29T02:30:00\ntime_zone: Europe/Berlin\n", "3: start is '2026-03-29T02:30:00', which does not exist in Europe/Berlin: clocks went forward over it."),
    ("start: 2026-05-01T08:00:00\n", "3: start is '2026-05-01T08:00:00', which is another moment in every time zone; add +02:00 or the like, or time_zone: Europe/Berlin."),
    ("start: 2026-05-01T08:00:00+01:00\ntime_zone: Europe/Berlin\n", "3: start is '2026-05-01T08:00:00+01:00', but in Europe/Berlin that moment is 2026-05-01T09:00:00+02:00; make them agree, or leave one out."),
    ("start: 2026-05-01\n", "3: start is '2026-05-01'; expected a day and a time, as 2026-05-01T08:00:00+02:00."),
    ("start: noon\n", "3: start is 'noon'; expected a day and a time, as 2026-05-01T08:00:00+02:00."),
    ("time_zone: Europe/Berlin\n", "3: time_zone stands without start, when the first frame was; give both."),
    ("start: 2026-05-01T08:00:00\ntime_zone: Europe/Berlim\n", "4: time_zone is 'Europe/Berlim', which is no time zone that is known here; expected a name as Europe/Berlin."),
    ("start: 2026-05-01T08:00:00\ntime_zone: ../etc\n", "4: time_zone is '../etc', which is no time zone that is known here; expected a name as Europe/Berlin."),
  ],
)  # fmt: skip
def test_starts_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
  file = tmp_path / "s.yaml"
  file.write_text(LINES + text)
  with pytest.raises(SceneError) as error:
    scene.read(file)
  assert str(error.value) == f"{file}:{message}"
