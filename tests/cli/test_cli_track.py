"""`prn track` and `prn eval --tracks`: what they write, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.examples import example_image

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


def passing(num_frames: int = 12) -> str:
  """Detections of two objects, one to the right and one to the left."""
  rows = [(t, 10 + 4 * t, 20) for t in range(1, num_frames + 1)] + [
    (t, 200 - 4 * t, 80) for t in range(1, num_frames + 1)
  ]
  return "".join(f"{t},-1,{x},{y},30,30,0.9,-1,-1,-1\n" for t, x, y in sorted(rows))


@pytest.mark.parametrize("tracker", ["bytetrack", "ocsort", "sort"])
def test_boxes_of_a_file_are_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str], tracker: str) -> None:
  (tmp_path / "det.txt").write_text(passing())
  out = tmp_path / "tracks.txt"
  given = ["track", "--detections", str(tmp_path / "det.txt"), str(out), "--tracker", tracker, "--save", "txt,jsonl"]
  assert main([*given, "--json"]) == 0
  shown = capsys.readouterr()
  found = json.loads(shown.out.splitlines()[-1])
  assert (found["frames"], found["tracks"], found["boxes"], found["out"]) == (12, 2, 24, str(out))
  assert shown.err.startswith(f"{tracker}: 2 tracks, 24 boxes in 12 frames, ")
  rows = [line.split(",") for line in out.read_text().splitlines()]
  assert [row[:2] for row in rows[:4]] == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
  assert {row[1]: round(float(row[2])) for row in rows} == {"1": 58, "2": 152}
  lines = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
  assert [line["frame"] for line in lines] == list(range(1, 13))
  assert lines[-1]["time_sec"] == 0.366667
  assert [one["id"] for one in lines[-1]["tracks"]] == [1, 2]


def test_scores_that_are_no_probabilities_are_made_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  det = tmp_path / "det.txt"
  det.write_text(passing().replace(",0.9,", ",2,").replace("12,-1,58,20,30,30,2,", "12,-1,58,20,30,30,-3,"))
  assert main(["track", "--detections", str(det), str(tmp_path / "t.txt"), "--tracker", "sort"]) == 0
  assert (
    f"prn track: scores of {det} are no probabilities; each counts as 1 / (1 + exp(-score))" in capsys.readouterr().err
  )
  rows = [line.split(",") for line in (tmp_path / "t.txt").read_text().splitlines()]
  assert {row[6] for row in rows} == {"0.880797"}
  assert [row[1] for row in rows if row[0] == "12"] == ["2"]


def test_frames_of_a_folder_are_followed_in_the_order_of_their_numbers(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  """One of them cannot be read: the others keep their numbers, and their objects their ids."""
  picture = Path(example_image()).read_bytes()
  for number in (1, 2, 3, 4, 10):
    (tmp_path / f"{number}.jpg").write_bytes(picture if number != 4 else b"no picture")
  out = tmp_path / "t.txt"
  given = ["track", "traffic-tiny-prn", str(tmp_path), str(out), "--save", "txt,jsonl", "--json"]
  assert main(given) == 0
  shown = capsys.readouterr()
  found = json.loads(shown.out.splitlines()[-1])
  assert (found["frames"], [Path(one["path"]).name for one in found["failures"]]) == (5, ["4.jpg"])
  lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
  assert [(line["frame"], Path(line["source"]).name) for line in lines] == [
    (1, "1.jpg"), (2, "2.jpg"), (3, "3.jpg"), (5, "10.jpg"),
  ]  # fmt: skip
  first, last = lines[0]["tracks"], lines[-1]["tracks"]
  assert [one["id"] for one in first] == [one["id"] for one in last] == list(range(1, found["tracks"] + 1))
  assert len(first) >= 3
  assert {one["name"] for one in first} <= {"car", "bus", "truck", "motorcycle", "person"}
  classes = {int(line.split(",")[7]) for line in out.read_text().splitlines()}
  assert classes == {one["class"] for one in first}


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ([], "got nothing; expected MODEL, a video or a folder of frames, and perhaps OUT.txt; or --detections FILE for boxes that were found before."),
    (["m"], "got m; expected MODEL, a video or a folder of frames, and perhaps OUT.txt; or --detections FILE for boxes that were found before."),
    (["--detections", "d.txt", "a.txt", "b.txt"], "got a.txt b.txt; expected OUT.txt alone."),
    (["--detections", "d.txt", "out/"], "cannot write tracks to 'out/': expected the name of a file that ends in .txt or .txt.gz."),
    (["--detections", "d.txt", "--tracker", "sorted"], "unknown tracker 'sorted' (did you mean 'sort'?); expected one of bytetrack, ocsort, sort."),
    (["--detections", "d.txt", "--conf", "1.5"], "conf is 1.5; expected a number from 0 to 1: weaker boxes begin no track."),
    (["--detections", "d.txt", "--max-lost", "-1"], "max_lost_sec is -1.0; expected at least 0: seconds until a lost object is given up."),
    (["--detections", "d.txt", "--fps", "0"], "--fps 0: expected frames a second, above 0."),
    (["--detections", "d.txt", "--save", "mp4"], "--save 'mp4': expected some of txt, jsonl, video, crops with commas between."),
    (["--detections", "d.txt", "--save", "txt,video"], "--save video: boxes of a file have no pictures; give MODEL and a video in place of --detections."),
    (["--detections", "nosuch.txt"], "nosuch.txt cannot be read: No such file or directory."),
    (["yolov3-tiny", "nosuch"], "'nosuch' does not exist."),
  ],
)  # fmt: skip
def test_what_track_refuses(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["track", *given]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == f"prn track: {message}"


def test_what_is_no_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  (tmp_path / "a.mp4").write_bytes(b"")
  assert main(["track", "yolov3-tiny", str(tmp_path / "a.mp4")]) == 2
  assert f"prn track: '{tmp_path / 'a.mp4'}' is no video that OpenCV can read, or is damaged" in capsys.readouterr().err
  (tmp_path / "a.doc").write_bytes(b"")
  assert main(["track", "yolov3-tiny", str(tmp_path / "a.doc")]) == 2
  assert (
    "is no folder of pictures, no list of them (.txt), and no video by its name (.mp4, .mov" in capsys.readouterr().err
  )
  assert main(["track", "yolov3-tiny", str(tmp_path / "b.mp4")]) == 2
  assert f"'{tmp_path / 'b.mp4'}' does not exist, or is no file." in capsys.readouterr().err
  assert main(["track", "yolov3-tiny", str(tmp_path / "a.mp4"), "--fps", "25"]) == 2
  assert "--fps 25: the frames of" in capsys.readouterr().err


SCENE = "lines:\n  - {name: road, from: [100, 200], to: [100, 0], forward: right, backward: left}\n"


def test_tracks_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Two objects pass the line, in two directions; again the same finds all that was counted."""
  (tmp_path / "det.txt").write_text(passing(40))
  (tmp_path / "s.yaml").write_text(SCENE)
  assert main(["track", "--detections", str(tmp_path / "det.txt"), str(tmp_path / "t.txt")]) == 0
  given = ["count", "--scene", str(tmp_path / "s.yaml"), "--tracks", str(tmp_path / "t.txt"), str(tmp_path / "out")]
  capsys.readouterr()
  assert main(given) == 0
  shown = capsys.readouterr()
  assert [line.split() for line in shown.out.splitlines()] == [
    ["what", "name", "direction", "class", "count"],
    ["line", "road", "left", "unknown", "1"],
    ["line", "road", "right", "unknown", "1"],
  ]
  assert shown.err == f"2 events of 2 tracks, in {tmp_path / 'out'}/\n"
  assert main([*given, "--json"]) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (found["events"], found["found_before"], [row["count"] for row in found["totals"]]) == (2, 2, [1, 1])


def test_the_scene_is_drawn_on_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """A line from below upwards, and its arrow on the right of it."""
  Image.new("RGB", (200, 200), "white").save(tmp_path / "f.png")
  (tmp_path / "s.yaml").write_text(SCENE)
  out = tmp_path / "out"
  assert main(["count", "--scene", str(tmp_path / "s.yaml"), "--check", str(tmp_path / "f.png"), str(out)]) == 0
  assert capsys.readouterr().err == f"scene of {tmp_path / 's.yaml'} on {tmp_path / 'f.png'}: {out / 'scene.png'}\n"
  drawn = np.asarray(Image.open(out / "scene.png")) < 255
  assert drawn[20:180, 100].any(axis=1).all()
  assert drawn[100, 100:115].any(axis=1).all()
  assert not drawn[:, :95].any()
  assert [file.name for file in out.iterdir()] == ["scene.png"]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (["--fps", "0"], "--fps 0: expected a number above 0."),
    (["--interval", "-5"], "--interval -5: expected a number above 0."),
    ([], "d.txt:2: id -1 is twice in frame 1, also on line 1; expected every id once in a frame. These are detections, which have no ids: track them first."),
  ],
)  # fmt: skip
def test_what_count_refuses(
  given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  Path("d.txt").write_text(passing())
  Path("s.yaml").write_text(SCENE)
  assert main(["count", "--scene", "s.yaml", "--tracks", "d.txt", "out", *given]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == f"prn count: {message}"
  assert not Path("out").exists()
