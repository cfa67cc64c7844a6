"""What a new user types first: no data, no weights, no network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax.cli.main import main
from prn_jax.data_pipelines.sources.synthetic import SyntheticTraffic
from tests.cli.test_cli import json_line, prn

SCENE = SyntheticTraffic(7, width=640, height=480, split="valid")[6]


def test_the_carried_picture_is_the_scene_that_its_description_names() -> None:
  with Image.open(prn_jax.example_image()) as image:
    carried = np.asarray(image.convert("RGB"), np.float32)
  assert np.abs(carried - np.asarray(SCENE[0], np.float32)).mean() < 3  # JPEG's loss


def test_predict_without_a_source_finds_what_stands_in_the_carried_picture(tmp_path: Path) -> None:
  values = json_line(prn("predict", "traffic-tiny-prn", "--out", tmp_path, "--json"))
  (row,) = values["results"]
  found = np.array([d["box_xyxy_px"] for d in row["detections"]])
  truths = SCENE[1]
  assert len(found) >= len(truths) > 5
  low, high = np.maximum(found[:, None, :2], truths[None, :, :2]), np.minimum(found[:, None, 2:], truths[None, :, 2:])
  overlap = np.clip(high - low, 0, None).prod(-1)
  areas = (found[:, 2:] - found[:, :2]).prod(-1)[:, None] + (truths[:, 2:] - truths[:, :2]).prod(-1)
  assert ((overlap / (areas - overlap)).max(0) > 0.5).sum() >= len(truths) - 1
  assert (tmp_path / "images" / "street.jpg").stat().st_size > 10_000


def test_classes_are_chosen_by_name_or_number_as_in_the_api(capsys: pytest.CaptureFixture[str]) -> None:
  def boxes(*options: str) -> list[dict[str, object]]:
    assert main(["predict", "traffic-tiny-prn", "--json", *options]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out.splitlines()[-1])["results"][0]["detections"]
    return found

  every = boxes()
  kinds = {str(box["name"]): box["class"] for box in every}
  assert len(kinds) > 2
  (one, number), (other, _) = sorted(kinds.items())[:2]
  assert boxes("--classes", one) == [box for box in every if box["name"] == one]
  assert boxes("--classes", f"{number}, {other}") == [box for box in every if box["name"] in (one, other)]
  assert main(["predict", "traffic-tiny-prn", "--classes", "zebra"]) == 2
  assert "classes: 'zebra' is no class of network 'traffic-tiny-prn'" in capsys.readouterr().err
  assert main(["predict", "traffic-tiny-prn", "--classes", f"{one},"]) == 2
  assert f"--classes '{one},': expected names or numbers of classes with commas between" in capsys.readouterr().err
