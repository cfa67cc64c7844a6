"""`prn plan`: figures of a run before it starts, against arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prn_jax.cli.main import main
from prn_jax.formats import darknet_cfg
from tests.nets import tiny_detector


def arguments(tmp_path: Path, *more: str) -> list[str]:
  cfg = tmp_path / "tiny.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_detector(64, classes=4)))
  return [
    "plan", "--config=default", f"--config.model={cfg}", "--config.data.train=synthetic:traffic:24",
    "--config.data.valid=synthetic:traffic:9@valid", "--config.batch_size=16", "--config.total.epochs=3.",
    "--config.sizes=((96, 64),)", "--json", *more,
  ]  # fmt: skip


def test_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(arguments(tmp_path)) == 0
  plan = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (plan["devices"], plan["images_per_device"]) == (8, 2)
  assert (plan["train_images"], plan["valid_images"]) == (24, 9)
  assert plan["total_steps"] == 4  # 3 epochs of 24 images, rounded to steps of 16
  params = plan["params"]
  # parameters and momentum; rolling statistics, counters and the rest are small
  assert 8 * params <= plan["state_bytes"] <= 8.5 * params + 200
  sizes = {tuple(step["size"]): step for step in plan["steps"]}
  assert sizes.keys() == {(64, 64), (96, 64)}
  small, large = sizes[64, 64], sizes[96, 64]
  assert large["bflops"] == pytest.approx(1.5 * small["bflops"], rel=0.02)
  assert small["tflops_per_step"] == pytest.approx(3 * 16 * small["bflops"] / 1000)
  assert large["memory_bytes"]["temporary"] > small["memory_bytes"]["temporary"] > 0
  assert small["collectives"]["all-reduce"] > 0


def test_topology_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(arguments(tmp_path, "--topology=v99:2x2")) == 2
  message = capsys.readouterr().err
  assert "cannot compile for topology 'v99:2x2'" in message
  assert "libtpu" in message


def test_text_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main([one for one in arguments(tmp_path) if one != "--json"]) == 0
  text = capsys.readouterr().out
  assert "4 steps, 2.7 epochs" in text
  assert "8 x cpu: batch 16, 2 images per device" in text
