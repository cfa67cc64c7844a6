"""What `prn predict` writes without being asked, and what it says about it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from tests.nets import random_model


def test_pictures_are_saved_by_default_and_only_files_of_this_run_count(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  monkeypatch.chdir(tmp_path)
  model = random_model()
  model.save("n.CFG")
  model.save("n.weights")
  noise = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
  for name, pixels in zip("ab", noise, strict=True):
    Image.fromarray(pixels).save(f"{name}.png")
  command = ["predict", "n.CFG", "--weights", "n.weights", "--conf", "0.1"]

  assert main([*command, "a.png"]) == 0
  first, no_names, *_, last = capsys.readouterr().err.splitlines()
  assert first.startswith("prn predict: on the CPU, ")
  assert no_names == "prn predict: 'n.CFG' has no class names: give them with --names FILE."
  assert last.endswith("pictures in predictions/images/")
  assert Path("predictions/images/a.jpg").is_file()

  assert main([*command, "b.png", "--out", "predictions", "--save", "json,csv,images", "--json"]) == 0
  values = json.loads(capsys.readouterr().out)
  assert (values["images"], values["files"], values["out"]) == (1, 3, "predictions")  # a.jpg is of the run before
  names = {row["name"] for row in values["results"][0]["detections"]}
  assert names
  assert names <= {"class 0", "class 1"}
  with open("predictions/predictions.csv", newline="") as file:
    assert {row["name"] for row in csv.DictReader(file)} == names

  assert main([*command, "a.png", "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["files"] == 0
  Path("predictions/images/a.jpg").unlink()
  assert main([*command, "a.png", "--save", "none"]) == 0
  assert not Path("predictions/images/a.jpg").exists()

  with pytest.MonkeyPatch.context() as patch:  # an image that ends the run: what was found before is kept
    from prn_jax.run.save import ResultWriter

    add, count = ResultWriter.add, iter(range(9))
    patch.setattr(ResultWriter, "add", lambda self, result: add(self, result) if next(count) < 1 else 1 / 0)
    assert main([*command, "a.png", "b.png", "--out", "kept"]) == 3
  kept = json.loads(Path("kept/predictions.json").read_text())["results"]
  assert [Path(row["path"]).name for row in kept] == ["a.png"]
  said = capsys.readouterr().err
  assert ": 1 image in " in said
  assert "; 1 image was not looked at" in said
