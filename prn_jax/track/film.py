"""A drawn video as files: frames, MOTChallenge truth, the scene to count in, and what is to be counted.

What `prn track` and `prn count` find can be compared with what is so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.traffic.scene import CLASS_NAMES, MIN_VISIBLE
from prn_jax.data_pipelines.traffic.vehicles import BUS_EDGE_M
from prn_jax.data_pipelines.traffic.video import Frame, Video, VideoSettings
from prn_jax.errors import PrnError
from prn_jax.files.disk import write_text, written_beside
from prn_jax.files.places import make_folder

FRAMES, TRUTH, SCENE, COUNTS, SEQUENCE = "img1", "gt.txt", "scene.yaml", "truth.json", "seqinfo.ini"
DIRECTIONS = {-1: "towards", 1: "away"}  # by heading
LEAST_SIDE_PX = 8.0  # smaller boxes do not count in the figures of tracks
JPEG_QUALITY = 92
SCORED = 1  # the class that the figures of MOTChallenge score; what kind a vehicle is stands in truth.json


def write_film(
  folder: Path, seed: int, settings: VideoSettings, advance: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
  """Draws a video into a folder that is new or empty.

  Files: img1/000001.jpg, ...; gt.txt, MOTChallenge text whose flag is 0 where less than a quarter of a vehicle is seen or
  its box has a side below 8 pixels, and whose class is 1 for all; scene.yaml, a line across the road and its calibration; truth.json, every crossing
  of it with kind, time and speed, and four places on the road in pixels and metres; seqinfo.ini.

  Args:
    folder: where.
    seed, settings: see `traffic.video.Video`.
    advance: told after every frame.

  Returns:
    What truth.json holds.

  Raises:
    PrnError: the folder holds something.
  """
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise PrnError(f"'{folder}' is not empty; name a new folder: frames of two videos must not mix.")
  make_folder(folder / FRAMES)
  video, lines = Video(seed, settings), []
  for number, frame in enumerate(video.frames(), start=1):
    with written_beside(folder / FRAMES / f"{number:06d}.jpg") as file:
      Image.fromarray(frame.image).save(file, format="jpeg", quality=JPEG_QUALITY, subsampling=0)
    lines += _truth_lines(number, frame)
    advance(1)
  write_text(folder / TRUTH, "".join(lines))
  write_text(folder / SCENE, _scene_text(video))
  write_text(folder / SEQUENCE, _sequence_text(folder.name, settings))
  found = truth(video)
  write_text(folder / COUNTS, json.dumps(found, indent=1) + "\n")
  return found


def truth(video: Video) -> dict[str, Any]:
  """JSON values: what is so of a video whose frames have all been drawn."""
  crossings = [
    {
      "id": one.id,
      "class": CLASS_NAMES[one.label],
      "direction": DIRECTIONS[one.heading],
      "time_sec": round(one.time_sec, 4),
      "speed_kmh": round(3.6 * one.speed, 3),
    }
    for one in video.crossings
  ]
  counts = {name: sum(one["direction"] == name for one in crossings) for name in DIRECTIONS.values()}
  ground = [{"pixel": list(pixel), "metres": list(metres)} for pixel, metres in video.ground_points()]
  return {
    "settings": dataclasses.asdict(video.settings),
    "frames": video.settings.num_frames,
    "line": [list(end) for end in video.line_px()],
    "counts": counts,
    "crossings": crossings,
    "ground": ground,
    "camera_height_m": round(video.camera.eye_height, 4),
    "lower_edge_m": {"bus": BUS_EDGE_M},
  }


def _truth_lines(number: int, frame: Frame) -> list[str]:
  sizes = frame.boxes_xyxy_px[:, 2:] - frame.boxes_xyxy_px[:, :2]
  counts = (frame.visible >= MIN_VISIBLE) & (sizes.min(1, initial=np.inf) >= LEAST_SIDE_PX)
  return [
    f"{number},{track},{left:.2f},{top:.2f},{width:.2f},{height:.2f},{int(flag)},{SCORED},{seen:.4f}\n"
    for track, (left, top, _, _), (width, height), flag, seen in zip(
      frame.ids, frame.boxes_xyxy_px, sizes, counts, frame.visible, strict=True
    )
  ]


def _scene_text(video: Video) -> str:
  (x0, y0), (x1, y1) = video.line_px()
  places = "".join(
    f"  - {{pixel: [{x:.3f}, {y:.3f}], metres: [{right:.4f}, {away:.4f}]}}\n"
    for (x, y), (right, away) in video.ground_points()
  )
  return (
    "lines:\n"
    "  - name: road\n"
    f"    from: [{x0:.1f}, {y0:.1f}]\n"
    f"    to: [{x1:.1f}, {y1:.1f}]\n"
    f"    forward: {DIRECTIONS[-1]}\n"
    f"    backward: {DIRECTIONS[1]}\n"
    f"calibration:\n{places}"
  )


def _sequence_text(name: str, settings: VideoSettings) -> str:
  """As MOTChallenge has it; its frame rate is a whole number there, but ours is the true one."""
  return (
    f"[Sequence]\nname={name}\nimDir={FRAMES}\nframeRate={settings.fps:g}\nseqLength={settings.num_frames}\n"
    f"imWidth={settings.width}\nimHeight={settings.height}\nimExt=.jpg\n"
  )
