"""The formats of data sets and tools through the real command: looked at, and prepared with their ignored regions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from prn_jax.data_pipelines.spec import open_spec
from tests.conftest import REPO
from tests.data_pipelines.pictures import write, write_image


def prn(*arguments: object) -> dict[str, Any]:
  """What a `prn data` command prints with --json."""
  command = [sys.executable, "-m", "prn_jax", "data", *map(str, arguments), "--json"]
  done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  return dict(json.loads(done.stdout))


def test_visdrone_is_looked_at_and_prepared(tmp_path: Path) -> None:
  root = tmp_path / "VisDrone2019-DET-val"
  write_image(root / "images" / "a.jpg")
  write(
    root / "annotations" / "a.txt", "10,5,20,30,1,4,0,1,\n0,0,8,9,0,6,0,0\n40,10,20,20,0,0,0,0\n70,10,5,5,1,11,0,0\n"
  )
  spec = f"visdrone:{root}"
  seen = prn("inspect", spec, "--out", tmp_path / "look")
  assert (seen["objects"], seen["crowd"], seen["ignored_regions"], seen["images_with_ignored_regions"]) == (2, 1, 2, 1)
  assert (tmp_path / "look" / "samples.png").exists()
  done = prn("prepare", spec, tmp_path / "out", "--max-side", 50)
  record = open_spec(done["spec"])[0]
  assert record.ignored_xyxy_px.tolist() == [[20, 5, 30, 15], [35, 5, 37.5, 7.5]]
  assert record.is_crowd.tolist() == [False, True]
