"""Figures of tracks: by hand, and those of the reference implementation on real tracks to the last digit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from prn_jax.track import motchallenge
from prn_jax.track.metrics.evaluate import evaluate
from prn_jax.track.motchallenge import BoxTable, TrackFileError

GOLDEN = ("MPNTrack", "ODC", "broken_ids", "false_positives", "noisy", "perfect")


def table(*rows: tuple[float, ...]) -> BoxTable:
  """Boxes from (frame, id, left, top, width, height[, flag, class])."""
  return motchallenge.parse("\n".join(",".join(map(str, row)) for row in rows), "t.txt")


def truth(*rows: tuple[float, ...]) -> BoxTable:
  return table(*[(*row, 1, 1)[:8] for row in rows])


@pytest.fixture(scope="module")
def mot_truth(shared: Path) -> BoxTable:
  return motchallenge.read(shared / "data/mot/gt.txt.gz")


@pytest.mark.parametrize("name", GOLDEN)
def test_figures_are_those_of_the_reference(shared: Path, mot_truth: BoxTable, name: str) -> None:
  """Every digit that it printed: trackeval 1.3.0."""
  counts = (mot_truth.scores != 0) & (mot_truth.classes == 1)
  file = shared / f"data/mot/{name}.txt.gz"
  result = mot_truth[counts] if name == "perfect" else motchallenge.read(file)
  found, expected = evaluate(result, mot_truth), json.loads((shared / "data/mot/golden.json").read_text())[name]
  assert found.keys() == expected.keys()
  for key, value in expected.items():  # older versions of NumPy add in another order: the last bits differ there
    assert found[key] == pytest.approx(value, rel=1e-14), key


def test_a_switch_of_identity_by_hand() -> None:
  """One object over four frames; the track has id 7 in two, id 8 in one, and lies elsewhere (id 9) in one."""
  true = truth(*[(frame, 1, 10 * frame, 0, 10, 10) for frame in (1, 2, 3, 4)])
  found = evaluate(
    table((1, 7, 10, 0, 10, 10), (2, 7, 20, 0, 10, 10), (3, 9, 90, 0, 5, 5), (4, 8, 40, 0, 10, 10)), true
  )
  assert (found["CLR_TP"], found["CLR_FN"], found["CLR_FP"], found["IDSW"], found["Frag"]) == (3, 1, 1, 1, 1)
  assert found["MOTA"] == (3 - 1 - 1) / 4
  assert (found["IDTP"], found["IDFP"], found["IDFN"], found["IDF1"]) == (2, 2, 2, 0.5)
  assert (found["MT"], found["PT"], found["ML"]) == (0, 1, 0)
  # DetA = 3 / (4 + 4 - 3). AssA: boxes of id 7 have 2 / (4 + 2 - 2), that of id 8 has 1 / (4 + 1 - 1): (2 * 1/2 + 1/4) / 3.
  assert found["DetA"] == 0.6
  assert found["AssA"] == pytest.approx(5 / 12, abs=1e-15)
  assert found["HOTA"] == pytest.approx(math.sqrt(0.6 * 5 / 12), abs=1e-15)


def test_overlap_decides_at_every_threshold() -> None:
  """Boxes of 10x10 that are 2 px apart overlap by 80 / 120: HOTA is 1 up to 0.65 and 0 above."""
  found = evaluate(table((1, 1, 2, 0, 10, 10)), truth((1, 1, 0, 0, 10, 10)))
  assert found["HOTA_alpha"] == [1.0] * 13 + [0.0] * 6
  assert found["MOTP"] == 80 / 120


def test_what_lies_on_a_distractor_is_neither_right_nor_wrong() -> None:
  rows = [(1, 1, 0, 0, 10, 10, 1, 1), (1, 2, 100, 0, 10, 10, 0, 8), (1, 3, 200, 0, 10, 10, 0, 3)]
  found = evaluate(table((1, 1, 0, 0, 10, 10), (1, 2, 100, 0, 10, 10), (1, 3, 200, 0, 10, 10)), table(*rows))
  assert (found["CLR_TP"], found["CLR_FP"]) == (1, 1)  # the car (class 3) is no distractor


def test_truth_with_flag_0_is_not_missed() -> None:
  rows = [(1, 1, 0, 0, 10, 10, 1, 1), (1, 2, 100, 0, 10, 10, 0, 1)]
  assert evaluate(table((1, 1, 0, 0, 10, 10)), table(*rows))["CLR_FN"] == 0


def test_no_tracks_at_all() -> None:
  found = evaluate(table(), truth((1, 1, 0, 0, 10, 10), (2, 1, 0, 0, 10, 10)))
  assert (found["HOTA"], found["MOTA"], found["IDF1"], found["CLR_FN"], found["ML"]) == (0, 0, 0, 2, 1)


def test_tracks_after_the_last_frame_of_the_truth_are_false() -> None:
  found = evaluate(table((1, 1, 0, 0, 10, 10), (9, 1, 0, 0, 10, 10)), truth((1, 1, 0, 0, 10, 10)))
  assert (found["CLR_TP"], found["CLR_FP"]) == (1, 1)


def test_the_order_of_lines_and_the_names_of_ids_do_not_matter() -> None:
  rng = np.random.default_rng(3)
  rows = [(f, i, 30 * i + f, 5 * f, 20, 20) for f in range(1, 9) for i in range(1, 6)]
  noisy = [(f, i, x + rng.normal(0, 3), y, w, h) for f, i, x, y, w, h in rows]
  renamed = [(f, 1000 - 7 * i, *box) for f, i, *box in noisy]
  shuffled = [renamed[i] for i in rng.permutation(len(renamed))]
  first, second = evaluate(table(*noisy), truth(*rows)), evaluate(table(*shuffled), truth(*rows))
  assert first.pop("HOTA_alpha") == pytest.approx(second.pop("HOTA_alpha"), abs=1e-12)
  assert first == pytest.approx(second, abs=1e-12)


@pytest.mark.parametrize(
  ("result", "true", "message"),
  [
    (
      [(1, 5, 0, 0, 9, 9), (1, 6, 0, 0, 9, 9), (1, 5, 0, 0, 9, 9)], [(1, 1, 0, 0, 9, 9, 1, 1)],
      "t.txt:3: id 5 is twice in frame 1, also on line 1; expected every id once in a frame. What it was written by gives "
      "one id to two objects.",
    ),
    (
      [(1, -1, 0, 0, 9, 9), (1, -1, 5, 0, 9, 9)], [(1, 1, 0, 0, 9, 9, 1, 1)],
      "t.txt:2: id -1 is twice in frame 1, also on line 1; expected every id once in a frame. These are detections, which "
      "have no ids: track them first.",
    ),
    (
      [(1, 5, 0, 0, 9, 9, 1, 3)], [(1, 1, 0, 0, 9, 9, 1, 1)],
      "t.txt:1: class is 3, but MOTChallenge scores pedestrians, class 1, alone. Leave boxes of other classes out, or score all alike with --all-classes.",
    ),
    (
      [(1, 5, 0, 0, 9, 9)], [(1, 1, 0, 0, 9, 9, 1, -1)],
      "t.txt:1: class is -1; expected one of MOTChallenge's, 1 to 13. Is this a file of truth?",
    ),
    (
      [(1, 5, 0, 0, 9, 9)], [(1, 1, 0, 0, 9, 9, 0, 1)],
      "t.txt holds no box that counts: none has class 1 and flag 1.",
    ),
  ],
)  # fmt: skip
def test_what_cannot_be_scored(result: list[tuple[int, ...]], true: list[tuple[int, ...]], message: str) -> None:
  with pytest.raises(TrackFileError) as error:
    evaluate(table(*result), table(*true))
  assert str(error.value) == message
