"""Who comes to a zone, stays, stands and leaves: every nasty way with the right number, and tables from the log alone."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.track import event_log, scene, tables
from prn_jax.track.clock import Clock
from prn_jax.track.count import Given, rows_of_all, said_of, write
from prn_jax.track.ground import ground_of
from prn_jax.track.motchallenge import BoxTable
from prn_jax.track.polygon import crosses_itself, depths_px, points_inside
from prn_jax.track.scene import Line, Scene, SceneError, Zone
from tests.track.test_counting import Way, joined, straight, track, waiting

BOX = Zone("box", ((0, 0), (100, 0), (100, 100), (0, 100)))
FPS = 10.0
PLAIN = Scene((), zones=(BOX,))


def rows(*tracks: BoxTable, of: Scene = PLAIN) -> list[dict[str, Any]]:
  return rows_of_all(Given(joined(*tracks), of, (), Clock(FPS), {}))[1]


def happened(*tracks: BoxTable) -> list[str]:
  """Comings and goings; a + where the border was seen to be passed."""
  return [
    f"{row['direction']}{'+' if row['seen'] else '-'}"
    for row in rows(*tracks)
    if row["direction"] in ("enter", "leave")
  ]


IN, OUT, BORN, GONE = "enter+", "leave+", "enter-", "leave-"
NASTY: list[tuple[str, Way, list[str]]] = [
  ("through it", straight(-50, 160), [IN, OUT]),
  ("never in it", straight(-50, -5), []),
  ("past it", straight(-50, 160, x=130), []),
  ("jitters on the border, goes in, out", straight(-50, 0) + waiting(0, 4) + straight(0, 160), [IN, OUT]),
  ("jitters on the border, turns back", straight(-50, 0) + waiting(0, 4) + straight(0, -50), []),
  ("waits inside by the far border, jitters", straight(-50, 98) + waiting(98, 6) + straight(98, 160), [IN, OUT]),
  ("comes twice", straight(-50, 50) + straight(50, -50) + straight(-50, 160), [IN, OUT, IN, OUT]),
  ("begins inside", straight(50, 160), [BORN, OUT]),
  ("begins on the border and jitters, goes in", waiting(0, 3, 40) + straight(0, 160), [BORN, OUT]),
  ("ends inside", straight(-50, 50), [IN, GONE]),
  ("begins and ends inside", straight(20, 60), [BORN, GONE]),
  ("in one great step through it", [(50, -60), (50, 160)], [IN, OUT]),
  ("in one great step past a corner", [(-60, 20), (20, -60)], []),
  ("seen once, inside", [(50, 50)], [BORN, GONE]),
  ("seen once, outside", [(50, -50)], []),
]  # fmt: skip


@pytest.mark.parametrize(("way", "expected"), [pytest.param(w, e, id=name) for name, w, e in NASTY])
def test_every_way_through_a_zone_has_its_events(way: Way, expected: list[str]) -> None:
  found = happened(track(way))
  # On the border, `waiting` begins above or below by its own first step: either is one coming, no more.
  assert [one[:-1] for one in found] == [one[:-1] for one in expected]
  if way[0] != waiting(0, 3, 1)[0]:
    assert found == expected


def test_lost_inside_and_found_again_is_one_stay() -> None:
  way = straight(-50, 160)
  kept = [i for i, (_, y) in enumerate(way) if not 20 < y < 70]
  assert happened(track([way[i] for i in kept], frames=[i + 1 for i in kept])) == [IN, OUT]


def test_lost_on_both_borders_and_found_again_is_one_stay() -> None:
  way = straight(-50, 160)
  kept = [i for i, (_, y) in enumerate(way) if abs(y) > 20 and abs(y - 100) > 20]
  assert happened(track([way[i] for i in kept], frames=[i + 1 for i in kept])) == [IN, OUT]


def test_another_id_inside_neither_comes_nor_leaves_over_the_border() -> None:
  first, second = straight(-50, 50), straight(50, 160)
  frames = [len(first) + 1 + i for i in range(len(second))]
  assert happened(track(first), track(second, 2, frames)) == [IN, GONE, BORN, OUT]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-200, 300), min_size=2, max_size=5), st.integers(0, 2**31), st.floats(0, 0.2))
def test_whatever_the_way_comings_and_goings_alternate(stops: list[float], seed: int, jitter: float) -> None:
  """As many comings as stays between stops that are far in or far out, whatever the jitter; mirrored ways give the same."""
  stops = [min((-40.0, 50.0, 140.0), key=lambda far: abs(far - y)) for y in stops]
  clean = np.concatenate([np.linspace(a, b, 40) for a, b in itertools.pairwise(stops)])
  noisy = clean + np.random.default_rng(seed).uniform(-jitter, jitter, len(clean)) * 20
  inside = [abs(y - 50) < 50 for y in stops]
  # From one side to the other the way goes through the zone.
  expected = sum(b and not a for a, b in itertools.pairwise(inside)) + inside[0]
  expected += sum(abs(a - b) > 100 for a, b in itertools.pairwise(stops))
  for ys in (noisy, 100 - noisy):
    found = happened(track([(50.0, float(y)) for y in ys]))
    assert [one[:-1] for one in found] == ["enter", "leave"] * expected


def test_dwell_is_the_time_between_the_borders() -> None:
  """5 pixels a frame, 10 frames a second: 100 pixels take 2 seconds; from y = 0 in frame 11, at 1 s."""
  enter, leave = [row for row in rows(track(straight(-50, 160))) if row["kind"] == "zone"]
  assert (enter["time_sec"], leave["time_sec"], leave["dwell_sec"], leave["dwell_is_whole"]) == (1.0, 3.0, 2.0, True)
  assert enter["place_px"] == [50.0, 0.0]


ROAD = ground_of(np.array([[0, 0], [100, 0], [100, 100], [0, 100.0]]), np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]]))
"""From above: ten pixels are a metre."""


def stopping(y: float, number: int, begin: int, stand: int, label: int = 3) -> BoxTable:
  """Drives in at 5 m/s, stands at y for so many frames, drives on."""
  way = straight(-50, y) + [(50.0, y)] * stand + straight(y, 160)
  return track(way, number, [begin + i for i in range(len(way))], label)


def test_queues_have_their_number_and_length(tmp_path: Path) -> None:
  """Three stand, at 80, 50 and 20 pixels, 3 metres apart: from the first to the last 6 metres. The first stops at 2.6 s and
  the last goes on last; where they stand, and how many for how long, is in the table, also by class."""
  vehicles = stopping(80, 1, 1, 100), stopping(50, 2, 20, 80, 8), stopping(20, 3, 40, 60)
  view = Scene((Line("a", (0, 120), (100, 120)),), ground=ROAD, zones=(BOX,))
  given = Given(
    joined(*vehicles), view, ("person", "bicycle", "car"), Clock(FPS), said_of(view, ("person", "bicycle", "car"))
  )
  done = write(given, tmp_path, 900)
  everyone, cars, trucks = done["zones"]
  assert (everyone["class"], cars["class_name"], trucks["class"]) == ("all", "car", 8)
  assert (everyone["longest_queue"], everyone["longest_queue_m"]) == (3, 6.0)
  assert (cars["longest_queue"], cars["longest_queue_m"], trucks["longest_queue_m"]) == (2, 6.0, 0.0)
  stops = {
    row["track"]: row["time_sec"]
    for row in event_log.read(tmp_path / "events.jsonl").events
    if row["direction"] == "stop"
  }
  # Boxes stop at frames 27, 40 and 53; over one second, the speed falls under 5 km/h shortly before or after.
  assert stops == pytest.approx({1: 2.6, 2: 3.9, 3: 5.2}, abs=0.5)
  assert (everyone["came"], everyone["left"], everyone["began_inside"]) == (3, 3, 0)
  stood = sum(stand for stand in (100, 80, 60)) / FPS
  until = event_log.read(tmp_path / "events.jsonl").until_sec
  assert everyone["mean_queue"] == pytest.approx(stood / until, rel=0.05)
  assert everyone["mean_dwell_sec"] == pytest.approx(2 + stood / 3, abs=0.3)


def test_who_creeps_is_in_no_queue() -> None:
  fast, slow = track(straight(-50, 160, 2), label=3), track(straight(-50, 160, 0.8), 2)
  view = Scene((), ground=ROAD, zones=(BOX,))  # 2 m/s is 7.2 km/h, 0.8 m/s is 2.9 km/h
  assert {row["track"] for row in rows(fast, slow, of=view) if row["direction"] == "stop"} == {2}
  assert {row["track"] for row in rows(fast, slow) if row["direction"] == "stop"} == {
    2
  }  # half of 20 pixels in a second


def test_occupancy_is_the_time_in_which_somebody_is_inside() -> None:
  """2 s each; the second comes one second after the first, the third much later: 3 + 2 of 12 s."""
  ways = [track(straight(-50, 160), n, [begin + i for i in range(42)]) for n, begin in ((1, 1), (2, 11), (3, 80))]
  log = event_log.Log(said_of(Scene((), zones=(BOX,)), ()), [dict(row, event=0) for row in rows(*ways)], 12.0, True)
  table = tables.zones(log, float("inf"))
  assert table[0]["occupied_share"] == pytest.approx(5 / 12, abs=1e-4)
  parts = [row["occupied_share"] for row in tables.zones(log, 2.0) if row["class"] == "all"]
  assert parts == pytest.approx([0.5, 1.0, 0, 0, 0.55, 0.45], abs=1e-4)


def test_cover_is_the_share_of_the_zone_under_boxes() -> None:
  """A box of 20 x 20 of 100 x 100 pixels, then two that lie on each other by half."""
  one = [row["share"] for row in rows(track([(50, 50)])) if row["kind"] == "cover"]
  two = [row["share"] for row in rows(track([(50, 50)]), track([(60, 50)], 2)) if row["kind"] == "cover"]
  assert one == [pytest.approx(0.04, abs=0.003)]
  assert two == [pytest.approx(0.06, abs=0.003)]


def test_cover_of_a_road_counts_square_metres() -> None:
  """Seen at a slant the far half of a zone's pixels is most of its road."""
  pixels = np.array([[0, 0], [100, 0], [150, 100], [-50, 100.0]])
  slant = ground_of(pixels, np.array([[0, 20], [10, 20], [10, 0], [0, 0.0]]))
  far = track([(50, 40)])
  shares = [
    next(row["share"] for row in rows(far, of=Scene((), ground=ground, zones=(BOX,))) if row["kind"] == "cover")
    for ground in (None, slant)
  ]
  assert shares[1] > 1.2 * shares[0]
  corners = slant.metres(np.array([[40, 20], [60, 20], [60, 40], [40, 40.0]]))
  area = abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True))) / 2
  whole = slant.metres(np.array(BOX.corners))
  of = abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(whole, np.roll(whole, -1, axis=0), strict=True))) / 2
  assert shares[1] == pytest.approx(area / of, rel=0.08)


def test_all_tables_follow_from_the_log_alone(tmp_path: Path) -> None:
  """Written again from nothing but events.jsonl, byte for byte; and whole intervals add up to the whole."""
  view = Scene((Line("a", (0, 50), (100, 50)),), ground=ROAD, zones=(BOX,))
  many = [stopping(80 - 3 * n, n, 1 + 17 * n, 20 + n, 3 + n % 2) for n in range(1, 12)]
  write(Given(joined(*many), view, ("a", "b", "c"), Clock(FPS), said_of(view, ("a", "b", "c"))), tmp_path, 5)
  log = event_log.read(tmp_path / "events.jsonl")
  assert (tmp_path / "counts.csv").read_bytes().decode() == tables.counts(log, 5)
  assert (tmp_path / "zones.csv").read_bytes().decode() == tables.zones_csv(log, 5)
  found = list(csv.DictReader((tmp_path / "zones.csv").open()))
  whole = [row for row in found if row["class"] == "all"]
  assert (sum(int(row["came"]) for row in whole), sum(int(row["left"]) for row in whole)) == (11, 11)
  assert sum(int(row["came"]) for row in found if row["class"] != "all") == 11
  assert {row["covered_of"] for row in whole} == {"road"}


def test_headways_are_of_one_line_and_direction(tmp_path: Path) -> None:
  """Down at 1, 3 and 4.5 s, one up between them: means of 1.75 s."""
  view = Scene((Line("a", (0, 0), (100, 0), ("down", "up")),))
  down = [track(straight(-50, 50), n, [begin + i for i in range(20)]) for n, begin in ((1, 1), (2, 21), (3, 36))]
  up = track(straight(50, -50), 4, [10 + i for i in range(20)])
  write(Given(joined(*down, up), view, (), Clock(FPS), said_of(view, ())), tmp_path, 900)
  found = list(csv.DictReader((tmp_path / "counts.csv").open()))
  assert [(row["direction"], row["count"], row["mean_headway_sec"]) for row in found] == [
    ("down", "3", "1.75"),
    ("up", "1", ""),
  ]
  headways = tables.headways_of(event_log.read(tmp_path / "events.jsonl"))
  assert sorted(headways.values()) == [1.5, 2.0]


# -- polygons and the scene ------------------------------------------------------------------------
def test_depths_of_points_in_a_polygon() -> None:
  """An L of three squares of 10."""
  corners = np.array([[0, 0], [20, 0], [20, 10], [10, 10], [10, 20], [0, 20.0]])
  points = np.array([[5, 5], [15, 5], [15, 15], [-3, 5], [5, 19], [10, 10], [24, 13.0]])
  for turned in (corners, corners[::-1], np.roll(corners, 2, axis=0)):
    assert depths_px(turned, points).round(6).tolist() == [5, 5, -5, -3, 1, 0, -5]
  assert len(points_inside(corners)) / 64**2 == pytest.approx(0.75, abs=0.02)
  assert not crosses_itself(corners)
  assert crosses_itself(np.array([[0, 0], [10, 10], [10, 0], [0, 10.0]]))


YAML = "zones:\n  - name: box\n    corners: [[0, 0], [100, 0], [100, 100]]\n"
ROAD_YAML = "calibration:\n" + "".join(
  f"  - {{pixel: {p}, metres: {m}}}\n"
  for p, m in (([0, 50], [0, 20]), ([100, 50], [10, 20]), ([400, 100], [10, 0]), ([-300, 100], [0, 0]))
)


def test_a_scene_of_zones_alone(tmp_path: Path) -> None:
  (tmp_path / "s.yaml").write_text(YAML)
  assert scene.read(tmp_path / "s.yaml") == Scene((), zones=(Zone("box", ((0, 0), (100, 0), (100, 100))),))


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (YAML.replace(", [100, 100]", ""), "3: zones[0].corners has 2 corners; expected at least 3, [x, y] in pixels each."),
    (YAML.replace("[100, 100]", "[100, 0]"), "3: zones[0].corners has a corner twice; the last one need not repeat the first."),
    (YAML.replace("]]", "], [50, -50]]"), "3: zones[0].corners is a polygon that crosses itself; give the corners in their order round the zone."),
    (YAML.replace("[100, 100]", "[50, 0]"), "3: zones[0].corners has no room inside; expected corners that are no line."),
    (YAML.replace("corners", "corner"), "3: zones[0].corner is no key of a scene (did you mean 'corners'?); expected name, corners."),
    (YAML + "  - {name: box, corners: [[0, 0], [9, 0], [9, 9]]}\n", "4: zones[1].name is 'box', which zones[0] has already; every name stands once."),
    (YAML + "standing_kmh: 5\n", "4: standing_kmh needs speeds in km/h; add the calibration, or leave it out."),
    ("lines: [{name: a, from: [0, 99], to: [9, 99]}]\nstanding_kmh: 90\n" + ROAD_YAML, "2: standing_kmh is '90'; expected a finite number from 0.1 to 50.0."),
    (YAML + ROAD_YAML, "3: zones[0].corners reaches above the horizon of the calibration, where no road is."),
    ("zones: []\n", "1: zones is empty; expected at least one line, or one zone."),
  ],
)  # fmt: skip
def test_what_a_zone_may_not_be(tmp_path: Path, text: str, message: str) -> None:
  file = tmp_path / "s.yaml"
  file.write_text(text)
  with pytest.raises(SceneError) as error:
    scene.read(file)
  assert str(error.value) == f"{file}:{message}"


def test_a_log_says_what_it_is(tmp_path: Path) -> None:
  (tmp_path / "e.jsonl").write_text(json.dumps({"version": 1}) + "\n")
  with pytest.raises(
    event_log.EventLogError, match=r"e\.jsonl:1 is not the first line of a log of `prn count`, version 2"
  ):
    event_log.read(tmp_path / "e.jsonl")
