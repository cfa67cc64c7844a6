"""A real junction, 437 frames with a real Darknet's boxes: counted by hand, and by each tracker.

By hand: the pixels of the line (row 240) in every frame, one below the other (docs/junction_count.jpg), show each vehicle
that passes as one picture of itself, which begins when its front reaches the line. So these are frames and places of
fronts; the lower edge of a box reaches the line a little earlier or later.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prn_jax.cli.main import main

LEFT, RIGHT, ROW = 100, 440, 240
WIDTH, HEIGHT, FPS = 640, 360, 30
HAND = (  # frame, x
  (24, 313), (33, 140), (52, 222), (81, 170), (102, 316), (118, 213), (143, 307), (162, 225), (186, 137), (222, 222), (220, 307),
  (265, 132), (273, 304), (290, 217), (316, 317), (330, 226), (359, 130), (359, 315), (363, 222), (420, 312), (437, 221),
)  # fmt: skip
BEGINS_AT_THE_LINE, BEHIND_A_VAN = 24, 81  # frames of the two that no tracker counts
SCENE = f"""
lines:
  - {{name: towards us, from: [{RIGHT}, {ROW}], to: [{LEFT}, {ROW}], forward: away, backward: in}}
"""


def detections(shared: Path) -> str:
  """The boxes as MOTChallenge text."""
  rows = []
  for frame in json.loads((shared / "data/traffic_frames/detections.json").read_text()):
    for found in frame["objects"]:
      at = found["relative_coordinates"]
      width, height = WIDTH * at["width"], HEIGHT * at["height"]
      left, top = WIDTH * at["center_x"] - width / 2, HEIGHT * at["center_y"] - height / 2
      label = 1 + ["car", "bus"].index(found["name"])
      rows.append(
        f"{frame['frame_id']},-1,{left:.2f},{top:.2f},{width:.2f},{height:.2f},{found['confidence']:.4f},{label},-1,-1"
      )
  return "\n".join(rows) + "\n"


@pytest.mark.parametrize(("tracker", "counted"), [("bytetrack", 19), ("ocsort", 16), ("sort", 16)])
def test_a_junction_against_a_count_by_hand(shared: Path, tmp_path: Path, tracker: str, counted: int) -> None:
  (tmp_path / "scene.yaml").write_text(SCENE)
  (tmp_path / "det.txt").write_text(detections(shared))
  out = tmp_path / "out"
  given = ["--scene", str(tmp_path / "scene.yaml"), "--detections", str(tmp_path / "det.txt"), "--fps", str(FPS)]
  assert main(["count", str(out), *given, "--tracker", tracker]) == 0
  rows = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
  events = [row for row in rows if row.get("kind") == "line"]
  assert {row["direction"] for row in events} == {"in"}
  left = list(HAND)
  for row in sorted(events, key=lambda row: row["frame"]):
    near = [one for one in left if abs(one[0] - row["frame"]) <= 12 and abs(one[1] - row["place_px"][0]) <= 40]
    assert len(near) == 1, f"nobody saw {row} by eye"
    left.remove(near[0])
  assert len(events) == counted
  assert {BEGINS_AT_THE_LINE, BEHIND_A_VAN} <= {frame for frame, _ in left}
