"""`prn train FILE.cfg` as the owner of a Darknet project starts: relative paths, other classes, weights that go away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prn_jax
from prn_jax.cli.main import main
from prn_jax.formats import darknet_cfg, darknet_weights
from tests.nets import random_model, tiny_detector

COMMAND = [
  "train", "--config=mine.cfg", "--config.data.train=synthetic:traffic:16", "--config.batch_size=8",
  "--config.weights=mine.weights", "--workdir=run", "--json",
]  # fmt: skip


def test_a_cfg_with_other_classes_trains_and_its_run_needs_the_weights_no_more(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  monkeypatch.chdir(tmp_path)
  model = random_model(tiny_detector(64, classes=2))
  text = darknet_cfg.dump(model.graph).replace("[net]\n", "[net]\nmax_batches=2\n", 1)
  Path("mine.cfg").write_text(text)
  weights = Path("mine.weights")
  darknet_weights.save(weights, model.graph, model.variables)
  assert main(COMMAND) == 0
  first = capsys.readouterr()
  assert "64x64 for the 4 classes of the data: 16 training images, no evaluation" in first.err
  assert "2 steps of 8 images" in first.err
  assert "layers from 'mine.weights'" in first.err
  assert prn_jax.load("run").names == ("car", "truck", "bus", "person")
  weights.unlink()
  assert main(COMMAND) == 0
  again = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert again["step"] == 2
  assert again["params_sha256"] == json.loads(first.out.splitlines()[-1])["params_sha256"]
  assert main([*COMMAND[:-2], "--workdir=other"]) == 2
  assert "cannot read weights 'mine.weights'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "plan", "data inspect", "data prepare", "data anchors"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(SystemExit) as ended:
    main([*command.split(), "--help"])
  assert ended.value.code == 0
  text = capsys.readouterr().out
  assert f"  prn {command} -" in text or f"Example: prn {command} " in text
  assert "--json" in text
