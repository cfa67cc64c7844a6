"""A run on several sets with different classes, from the command line; a changed list is noticed when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from prn_jax.cli.main import main
from tests.data_pipelines.test_joined import yolo_set
from tests.train.test_effective import NET


def test_a_run_on_two_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  (tmp_path / "net.cfg").write_text(NET)
  first = yolo_set(tmp_path / "first", ["car", "bus"], [0, 1, 0, 1])
  second = yolo_set(tmp_path / "second", ["bus", "person"], [0, 1], grey=200)
  file = tmp_path / "sets.yaml"
  file.write_text(f"sets:\n- spec: '{first}'\n- spec: '{second}'\n  weight: 2\n")
  args = [
    "train",
    f"--config={tmp_path}/net.cfg",
    f"--config.data.train=sets:{file}",
    "--config.total.steps=3",
    "--config.batch_size=8",
    f"--workdir={tmp_path}/run",
  ]
  assert main(args) == 0
  text = capsys.readouterr().err
  assert "3 classes" in text, text + capsys.readouterr().out
  file.write_text(file.read_text().replace("weight: 2", "weight: 3"))
  assert main([*args, "--config.total.steps=4"]) == 2
  was, now = (f'["1 x (car, bus)", "{weight} x (bus, person)"]' for weight in (2, 3))
  assert f"sets:{file}: its sets: {was}, now {now}\n" in capsys.readouterr().err
  assert main(["eval", f"{tmp_path}/run", "--data", f"sets:{file}"]) == 2
  assert "Take the sets one by one." in capsys.readouterr().err
