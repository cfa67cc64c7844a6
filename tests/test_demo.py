"""The detector that the package carries: its weights are there, small, and detect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prn_jax
from tests.cli.test_cli import json_line, prn

ASSET = Path(prn_jax.__file__).parent / "assets" / "traffic-tiny-prn.weights"


def test_carried_weights_load_by_name() -> None:
  model = prn_jax.load("traffic-tiny-prn")
  assert model.has_weights
  assert model.names == ("car", "truck", "bus", "person")
  assert ASSET.stat().st_size < 1_000_000
  assert not prn_jax.build("traffic-tiny-prn").has_weights
  assert not prn_jax.load("traffic-tiny-prn", num_classes=7).has_weights


@pytest.mark.slow
def test_the_main_job_on_unseen_scenes(tmp_path: Path) -> None:
  """A short form of `make demo`."""
  args = ("--data", "synthetic:traffic:40@valid", "--batch", 4, "--out", tmp_path, "--json")
  values = json_line(prn("eval", "traffic-tiny-prn", *args))
  assert values["images"] == 40
  assert values["metrics"]["AP50"] > 0.75  # 0.85 on 200 scenes
  saved = json.loads((tmp_path / "coco.json").read_text())
  assert saved["metrics"] == values["metrics"]
  assert len(list((tmp_path / "examples").iterdir())) == 16
  assert (tmp_path / "mistakes.png").exists()
