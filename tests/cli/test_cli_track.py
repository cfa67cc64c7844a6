"""`prn track` and `prn eval --tracks`: what they write, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prn_jax.cli.main import main

TRUTH = "".join(f"{t},1,{10 * t},0,10,10,1,1,1\n" for t in range(1, 5))


def test_tracks_are_scored_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  (tmp_path / "gt.txt").write_text(TRUTH)
  (tmp_path / "r.txt").write_text("1,7,10,0,10,10,1,-1,-1,-1\n2,7,20,0,10,10,1,-1,-1,-1\n")
  given = ["eval", "--tracks", str(tmp_path / "r.txt"), "--truth", str(tmp_path / "gt.txt")]
  assert main([*given, "--json"]) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (found["frames"], found["tracks"], found["boxes"]) == (4, 1, 2)
  assert found["metrics"]["IDF1"] == 2 / 3
  assert main(given) == 0
  shown = capsys.readouterr().out
  assert shown.splitlines()[0].split()[:2] == ["HOTA", "DetA"]
  assert "66.667" in shown


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ([], "nothing to score: give MODEL, or tracks with --tracks FILE and their truth with --truth FILE."),
    (["--tracks", "r.txt"], "--tracks is given without --truth. Tracks are scored against truth: give both files."),
    (["--truth", "r.txt"], "--truth is given without --tracks. Tracks are scored against truth: give both files."),
    (
      ["yolov3-tiny", "--tracks", "r.txt", "--truth", "g.txt"],
      "--tracks r.txt: tracks are scored without a model; leave 'yolov3-tiny' out.",
    ),
    (["--tracks", "nosuch.txt", "--truth", "g.txt"], "nosuch.txt cannot be read: No such file or directory."),
  ],
)
def test_what_eval_refuses(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["eval", *given]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == f"prn eval: {message}"
