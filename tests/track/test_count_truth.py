"""Counts against truth: the score by hand, and what a file of truth may say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prn_jax.cli.main import main
from prn_jax.track import count_truth, event_log
from prn_jax.track.count import said_of
from prn_jax.track.count_truth import Group, Passing, TruthError, nwrmse
from prn_jax.track.scene import Line, Movement, Scene

VIEW = Scene(
  (Line("road", (0, 0), (9, 0), ("in", "out")), Line("east", (9, 0), (9, 9))),
  (Movement("turn", ("road", "in"), ("east", None)),),
)


def log_of(*rows: tuple[str, str, int, float], until: float = 10.0) -> event_log.Log:
  kinds = {"turn": "movement"}
  events = [
    {"event": n, "kind": kinds.get(name, "line"), "name": name, "direction": way, "class": label, "time_sec": at}
    for n, (name, way, label, at) in enumerate(rows, start=1)
  ]
  return event_log.Log({"version": 2} | said_of(VIEW, ("person", "bicycle", "car")), events, until, True)


def test_the_score_by_hand() -> None:
  """Ten segments of one second; weights i / 55."""
  true = [0.5, 2.5, 4.5, 9.5]
  assert nwrmse(true, true, 10) == 1.0
  assert nwrmse(true, [0.6, 2.4, 4.6, 9.4], 10) == 1.0  # in the same segments
  # The second counted a second late: one too few at the end of segment 3, of weight 3 / 55.
  assert nwrmse(true, [0.5, 3.5, 4.5, 9.5], 10) == pytest.approx(1 - (3 / 55) ** 0.5 / 4)
  # The last missed: wrong at the end of segment 10 alone.
  assert nwrmse(true, true[:3], 10) == pytest.approx(1 - (10 / 55) ** 0.5 / 4)
  # None counted: errors 1 1 2 2 after segments 1 to 4 ... 3 from the fifth on, 4 in the last.
  errors = [1, 1, 2, 2, 3, 3, 3, 3, 3, 4]
  assert nwrmse(true, [], 10) == pytest.approx(1 - (sum(i * e * e for i, e in enumerate(errors, 1)) / 55) ** 0.5 / 4)
  assert nwrmse([9.5], [1.0, 1.1, 1.2], 10) == 0.0  # worse than nothing is nothing


def test_groups_are_weighted_by_what_is_so() -> None:
  """Three cars right and one bicycle missed at the very end: (3 + 1 - sqrt(10 / 55)) / 4. Counted where none passed: an error, no weight."""
  truth = [Passing("road", "in", "car", t) for t in (1.0, 2.0, 3.0)] + [Passing("road", "in", "bicycle", 9.9)]
  log = log_of(*(("road", "in", 3, t) for t in (1.0, 2.0, 3.0)), ("road", "out", 3, 5.0), ("east", "forward", 3, 6.0))
  groups = count_truth.compare(log, truth)
  assert groups == [
    Group("road", "in", "bicycle", 1, 0, pytest.approx(1 - (10 / 55) ** 0.5)),
    Group("road", "in", "car", 3, 3, 1.0),
    Group("road", "out", "car", 0, 1, None),
  ]
  found = count_truth.to_dict(groups)
  assert found["effectiveness"] == pytest.approx((3 + 1 - (10 / 55) ** 0.5) / 4)
  assert (found["true"], found["counted"], found["error_share"]) == (4, 4, 0.5)
  assert count_truth.text(groups).splitlines()[1:] == [
    "road  in         bicycle  1     0        -1     0.5736",
    "road  in         car      3     3        +0     1.0000",
    "road  out        car      0     1        +1",
    "effectiveness 0.8934, sum of errors 50.00% of 4",
  ]


def test_truth_is_read_from_json_and_csv(tmp_path: Path) -> None:
  rows = [
    {"time_sec": 1.5, "name": "road", "direction": "in", "class": "car"},
    {"time_sec": 2, "name": "turn", "class": "bicycle"},
  ]
  (tmp_path / "t.json").write_text(json.dumps({"crossings": rows}))
  (tmp_path / "t.csv").write_text("time_sec,name,direction,class\n1.5,road,in,car\n2,turn,,bicycle\n")
  for name in ("t.json", "t.csv"):
    expected = [Passing("road", "in", "car", 1.5), Passing("turn", "", "bicycle", 2.0)]
    assert count_truth.read(tmp_path / name, log_of(), False) == expected
    assert {one.label for one in count_truth.read(tmp_path / name, log_of(), True)} == {"all"}


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("1,raod,in,car", "3: name is 'raod', which the scene does not have (did you mean 'road'?); expected one of road, east, turn."),
    ("1,road,up,car", "3: direction is 'up', which 'road' does not have; expected in or out."),
    ("1,road,in,lorry", "3: class is 'lorry', which no class of the tracks is called (bicycle, car, person). --names FILE names them, --all-classes tells no classes apart."),
    ("x,road,in,car", "3: time_sec is 'x'; expected a finite number of at least 0."),
    ("1,road,,car", "3: direction is None; expected text."),
  ],
)  # fmt: skip
def test_what_truth_may_not_say(tmp_path: Path, row: str, message: str) -> None:
  file = tmp_path / "t.csv"
  file.write_text(f"time_sec,name,direction,class\n1.5,road,in,car\n{row}\n")
  with pytest.raises(TruthError) as error:
    count_truth.read(file, log_of(), False)
  assert str(error.value) == f"{file}:{message}"


def test_columns_that_are_not_known(tmp_path: Path) -> None:
  (tmp_path / "t.csv").write_text("time,name\n1,road\n")
  with pytest.raises(
    TruthError, match=r"t\.csv:1 has the columns time, name; expected some of time_sec, name, direction, class"
  ):
    count_truth.read(tmp_path / "t.csv", log_of(), False)


def test_a_drawn_film_is_counted_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Its truth names no line: the scene has one."""
  film = tmp_path / "film"
  assert main(["data", "video", str(film), "--seconds", "6", "--size", "320x180", "--seed", "4", "--flow", "40"]) == 0
  given = [
    "count",
    str(tmp_path / "out"),
    "--scene",
    str(film / "scene.yaml"),
    "--tracks",
    str(film / "gt.txt"),
    "--fps",
    "12.5",
  ]
  capsys.readouterr()
  assert main([*given, "--truth", str(film / "truth.json"), "--all-classes", "--json"]) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])["truth"]
  assert found["true"] == found["counted"] > 3
  assert found["effectiveness"] > 0.97  # a box ends at whole pixels: one may pass in the segment before or after
  assert main([*given, "--truth", str(film / "truth.json")]) == 2
  assert "which no class of the tracks is called (1). --names FILE" in capsys.readouterr().err
  assert main([*given, "--all-classes"]) == 2
  assert "--all-classes is about what --truth FILE is compared with" in capsys.readouterr().err
