"""Who is counted: every nasty way over a line with the right number."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.track import event_log, motchallenge, scene
from prn_jax.track.clock import Clock
from prn_jax.track.count import Given, said_of, write
from prn_jax.track.counting import events
from prn_jax.track.event_log import EventLogError
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.scene import Line, Movement, Scene, SceneError

Way = list[tuple[float, float]]
ACROSS = Line("road", (0, 0), (100, 0), ("down", "up"))  # from left to right: its right side is below, y goes down
SIDE = 20.0  # of a box: well on a side is farther than 10 px


def track(way: Way, number: int = 1, frames: list[int] | None = None, label: int = 3, score: float = 0.9) -> BoxTable:
  """A track whose boxes stand (bottom, middle) on the points of a way."""
  rows = zip(frames or range(1, len(way) + 1), way, strict=True)
  lines = [
    motchallenge.line_of(t, number, (x - SIDE / 2, y - SIDE, x + SIDE / 2, y), score, label) for t, (x, y) in rows
  ]
  return motchallenge.parse("".join(lines))


def joined(*tracks: BoxTable) -> BoxTable:
  arrays = {name: np.concatenate([getattr(t, name) for t in tracks]) for name in motchallenge.ARRAYS}
  return BoxTable(**arrays)


def directions(*tracks: BoxTable, lines: tuple[Line, ...] = (ACROSS,)) -> list[str]:
  return [row["direction"] for row in events(joined(*tracks), Scene(lines), Clock(30))]


def straight(start: float, end: float, step: float = 5, x: float = 50) -> Way:
  return [(x, float(y)) for y in np.arange(start, end, step if end > start else -step)]


def waiting(y: float, amplitude: float, count: int = 200) -> Way:
  return [(50.0, y + amplitude * (-1) ** i) for i in range(count)]


NASTY: list[tuple[str, Way, list[str]]] = [
  ("over it", straight(-50, 50), ["down"]),
  ("over it, the other way", straight(50, -50), ["up"]),
  ("not over it", straight(-50, -5), []),
  ("beside it", straight(-50, 50, x=130), []),
  ("waits and jitters on it, then drives on", straight(-50, 0) + waiting(0, 8) + straight(0, 50), ["down"]),
  ("waits and jitters on it, then turns back", straight(-50, 0) + waiting(0, 8) + straight(0, -50), []),
  ("waits before it for long, jittering over it", straight(-50, -4) + waiting(-4, 9, 900), []),
  ("turns round behind it", straight(-50, 50) + straight(50, -50), ["down", "up"]),
  ("turns round just behind it", straight(-50, 8) + straight(8, -50), []),
  ("twice over it", straight(-50, 50) + straight(50, -50) + straight(-50, 50), ["down", "up", "down"]),
  ("over it, and back beside it", [*straight(-50, 50), *((50.0 + 5 * i, 50.0) for i in range(16)), *straight(50, -50, x=130)], ["down"]),
  ("born on it", straight(0, 60), []),
  ("born on it, goes back and over it", straight(0, -30) + straight(-30, 50), ["down"]),
  ("in one great step", [(50, -60), (50, 60)], ["down"]),
  ("ends just behind it", straight(-50, 6), ["down"]),
  ("ends on it", straight(-50, 1), []),
  ("begins just before it", straight(-6, 50), ["down"]),
  ("begins just behind it", straight(6, 50), []),
  ("seen once", [(50, 0)], []),
]  # fmt: skip


@pytest.mark.parametrize(("way", "expected"), [pytest.param(w, e, id=name) for name, w, e in NASTY])
def test_every_way_over_a_line_has_its_number(way: Way, expected: list[str]) -> None:
  assert directions(track(way)) == expected


def test_no_tracks_have_no_events() -> None:
  assert events(motchallenge.parse(""), Scene((ACROSS,)), Clock(30)) == []


def test_lost_on_the_line_and_found_again_counts_once() -> None:
  way = straight(-50, 50)
  kept = [i for i, (_, y) in enumerate(way) if abs(y) > 20]
  assert directions(track([way[i] for i in kept], frames=[i + 1 for i in kept])) == ["down"]


@pytest.mark.parametrize("y", [-14, -10, -6, 2, 6, 10, 14])
def test_an_object_that_gets_another_id_near_the_line_counts_once(y: float) -> None:
  first, second = straight(-50, y + 0.1, 4), straight(y, 60, 4)
  frames = [len(first) + 1 + i for i in range(len(second))]
  assert len(directions(track(first), track(second, 2, frames))) <= 1
  if y != 2:  # that is on the line, where it may be missed
    assert directions(track(first), track(second, 2, frames)) == ["down"]


@settings(max_examples=150, deadline=None)
@given(
  st.lists(st.floats(-200, 200), min_size=2, max_size=5),
  st.integers(0, 2**31),
  st.floats(0, 0.45),
  st.floats(0, 0.5),
)
def test_whatever_the_way_counts_are_the_turns_between_far_sides(
  stops: list[float], seed: int, jitter: float, missed: float
) -> None:
  """Ways between stops, jittering by less than half a box, with boxes missing: directions alternate, a track that is far
  on one side first and far on the other side last has one crossing more in that direction, and one that never leaves a
  side has none. Mirrored ways have the other directions. The first and last box are far from the line."""
  stops = [y if abs(y) > 30 else (30 if y >= 0 else -30) for y in stops]
  rng = np.random.default_rng(seed)
  clean = np.concatenate([np.linspace(a, b, 40) for a, b in itertools.pairwise(stops)])
  noisy = clean + rng.uniform(-jitter, jitter, len(clean)) * SIDE
  is_seen = rng.random(len(clean)) >= missed
  is_seen[[0, *range(39, len(clean), 40)]] = True  # it is seen at its stops
  frames = np.flatnonzero(is_seen)
  found = directions(track([(50.0, y) for y in noisy[frames]], frames=(frames + 1).tolist()))
  sides = np.sign(stops)
  expected = ["down" if b > 0 else "up" for a, b in itertools.pairwise(sides) if a != b]
  assert found == expected
  assert found.count("down") - found.count("up") == int(sides[-1] > 0) - int(sides[0] > 0)
  mirrored = directions(track([(50.0, -y) for y in noisy[frames]], frames=(frames + 1).tolist()))
  assert mirrored == ["up" if one == "down" else "down" for one in found]


def test_the_event_says_when_where_and_by_what() -> None:
  row = events(track([(40, -30), (60, 10)]), Scene((ACROSS,)), Clock(10))[0]
  assert row == {
    "kind": "line", "name": "road", "direction": "down", "track": 1, "class": 3, "votes": {"3": 1.8}, "frame": 1.75,
    "time_sec": 0.075, "place_px": [55.0, 0.0], "before": [1.0, 40.0, -30.0], "after": [2.0, 60.0, 10.0],
  }  # fmt: skip


def test_the_class_is_what_the_boxes_of_the_whole_track_speak_for() -> None:
  way = straight(-50, 50)
  parts = [
    track([p], frames=[i + 1], label=3 if i < 12 else 8, score=0.4 if i < 12 else 0.9) for i, p in enumerate(way)
  ]
  assert [row["class"] for row in events(joined(*parts), Scene((ACROSS,)), Clock(30))] == [8]


def test_movements_are_pairs_of_lines_in_order() -> None:
  west, east = Line("west", (0, -50), (0, 50)), Line("east", (100, -50), (100, 50))
  movements = (
    Movement("through", ("west", None), ("east", None)),
    Movement("back", ("east", "forward"), ("west", None)),
  )
  one = Scene((west, east), movements)
  across: Way = [(x, 0.0) for x in np.arange(-50.0, 151, 5)]
  for way, expected in ((across, ["through"]), (across[::-1], ["back"]), (across[:25], []), (across * 2, ["through"])):
    rows = events(track(way), one, Clock(30))
    assert [row["name"] for row in rows if row["kind"] == "movement"][:1] == expected


YAML = """point: center
lines:
  - {name: north, from: [0, 0], to: [100, 0], forward: in, backward: out}
  - {name: east side, from: [100, 0], to: [100, 50.5]}
movements:
  - {name: turn, from: north in, to: east side}
"""


def test_a_scene_is_read(tmp_path: Path) -> None:
  (tmp_path / "s.yaml").write_text(YAML)
  assert scene.read(tmp_path / "s.yaml") == Scene(
    (Line("north", (0, 0), (100, 0), ("in", "out")), Line("east side", (100, 0), (100, 50.5))),
    (Movement("turn", ("north", "in"), ("east side", None)),),
    "center",
  )


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("point: center", "point: top", "1: point is 'top'; expected one of bottom, center."),
    ("forward: in", "forwards: in", "3: lines[0].forwards is no key of a scene (did you mean 'forward'?); expected name, from, to, forward, backward."),
    ("to: [100, 0]", "to: [0, 0]", "3: lines[0].to is [0.0, 0.0], where the line begins; expected another place."),
    ("to: [100, 0]", "to: [100]", "3: lines[0].to has 1 numbers; expected x and y in pixels."),
    ("to: [100, 0]", "to: [100, x]", "3: lines[0].to[1] is 'x'; expected a finite number from -1000000.0 to 1000000.0."),
    ("name: east side", "name: north", "6: movements[0].to is 'east side', which is no line; expected one of north, north in, north out, north forward, north backward."),
    ("from: north in", "from: north inn", "6: movements[0].from is 'north inn', which is no line (did you mean 'north in'?); expected one of north, east side, north in, north out, east side forward, east side backward."),
    ("backward: out", "backward: in", "3: lines[0] calls both directions 'in'; expected two names."),
    (YAML[YAML.index("lines:"):], "lines: []\n", "2: lines is empty; expected at least one line, or one zone."),
  ],
)  # fmt: skip
def test_what_a_scene_may_not_say(tmp_path: Path, old: str, new: str, message: str) -> None:
  file = tmp_path / "s.yaml"
  file.write_text(YAML.replace(old, new, 1))
  with pytest.raises(SceneError) as error:
    scene.read(file)
  assert str(error.value) == f"{file}:{message}"


def counted(tmp_path: Path) -> tuple[Given, bytes]:
  tracks = joined(*[track(straight(-50, 50), n, [3 * n + i for i in range(20)]) for n in range(1, 8)])
  names, lines = ("person", "bicycle", "car"), Scene((ACROSS,))
  one = Given(tracks, lines, names, Clock(30), {"fps": 30.0} | said_of(lines, names))
  whole = tmp_path / "whole"
  whole.mkdir()
  write(one, whole, 900)
  return one, (whole / event_log.NAME).read_bytes()


def test_a_kill_at_any_byte_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
  """The log is what a kill leaves: any beginning of the whole one."""
  one, whole = counted(tmp_path)
  out = tmp_path / "out"
  out.mkdir()
  for size in range(0, len(whole) + 1, 7):
    (out / event_log.NAME).write_bytes(whole[:size])
    done = write(one, out, 900)
    assert (out / event_log.NAME).read_bytes() == whole
    assert (done["events"], done["totals"][0]["count"], done["totals"][0]["class_name"]) == (7, 7, "car")
  assert done["found_before"] == 7


def test_totals_follow_from_the_log_alone(tmp_path: Path) -> None:
  _, whole = counted(tmp_path)
  rows = [json.loads(line) for line in whole.splitlines()]
  assert (rows[0]["version"], rows[-1]) == (2, {"end": 14, "until_sec": 1.3})
  assert event_log.totals(event_log.read(tmp_path / "whole" / event_log.NAME).events) == {
    ("line", "road", "down", 3): 7
  }
  assert (tmp_path / "whole" / "counts.csv").read_text().splitlines() == [
    "from_sec,to_sec,kind,name,direction,class,class_name,count,mean_kmh,mean_headway_sec",
    "0,900,line,road,down,3,car,7,,0.1",
  ]


def test_the_log_of_another_count_is_left_alone(tmp_path: Path) -> None:
  one, whole = counted(tmp_path)
  other = Given(one.tracks, one.scene, one.names, Clock(25), {"fps": 25.0})
  log = tmp_path / "whole" / event_log.NAME
  with pytest.raises(EventLogError) as error:
    write(other, tmp_path / "whole", 900)
  assert str(error.value) == (
    f"{log}:1 is not of this count: the log was made of other tracks, another scene or other settings, or was changed. Give "
    "another folder; a log is never written over."
  )
  assert log.read_bytes() == whole
