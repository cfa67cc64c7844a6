"""`prn plan`: figures of a run before it starts, against arithmetic by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prn_jax.cli.main import main
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.train import plan as planning
from prn_jax.train.roofline import DEVICES, EFFICIENCY, device_of_kind, estimate
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


def counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
  """A plan without data."""
  own = [one for one in arguments(tmp_path) if not one.startswith(("--config.data", "--config.batch"))]
  assert main([*own, *more]) == 0
  found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
  return found


def test_counts_stand_for_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  hardware = ("--config.batch_size=64", "--images=1000", "--hardware=v5e:4")
  plan = counted(tmp_path, capsys, *hardware)
  assert (plan["train_images"], plan["valid_images"], plan["total_steps"]) == (1000, 0, 47)
  assert (plan["devices"], plan["device_kind"], plan["images_per_device"]) == (4, "v5e", 16)
  assert [step["memory_bytes"] for step in plan["steps"]] == [None, None], "nothing was compiled"
  told = plan["estimate"]
  assert told["images_per_sec"] == pytest.approx(64 / told["step_seconds"])
  assert told["days"] == pytest.approx(47 * told["step_seconds"] / 86_400)
  more_classes = counted(tmp_path, capsys, *hardware, "--classes=9")
  assert more_classes["params"] > plan["params"], "the head follows the classes"
  one_size = counted(tmp_path, capsys, *hardware, "--size=128x64")
  assert [step["size"] for step in one_size["steps"]] == [[128, 64]]
  twice = counted(tmp_path, capsys, *hardware[:2], "--hardware=v5e:8")
  assert told["step_seconds"] / 2 < twice["estimate"]["step_seconds"] < told["step_seconds"]


def test_the_roofline_by_hand() -> None:
  """One convolution of 1x1, 64 to 128 channels, 32x32: bound by arithmetic; and one of 1 to 1: by memory."""
  g = Builder(32, 32, 64, name="large")
  g.conv(128, 1, batch_normalize=False)
  flops = 2 * 32 * 32 * 64 * 128
  found = estimate([g.graph()], "cpu", 1, batch_size=1000, total_steps=10, dtype="float32")
  peak = float(found.source.split()[0]) * 80e9  # cores
  assert found.step_seconds == pytest.approx(3 * flops * 1000 / peak / EFFICIENCY, rel=1e-3)
  assert (found.memory_share, found.efficiency) == (0, EFFICIENCY)
  g = Builder(32, 32, 1, name="thin")
  g.conv(1, 1, batch_normalize=False)
  found = estimate([g.graph()], "h100", 2, batch_size=2000, total_steps=10, dtype="bfloat16")
  moved = 6 * 2 * 32 * 32 * 1000 + 8 * 4 * 2
  assert found.step_seconds == pytest.approx(moved / 3.35e12 / EFFICIENCY)
  assert found.memory_share == 1
  assert found.text().startswith("estimate for 2 x h100: ")
  assert "By roofline (memory decides) at an assumed efficiency of 40%, without communication" in found.text()


@pytest.mark.parametrize(
  ("kind", "name"),
  [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e"), ("TPU v4", "v4"),
   ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA A100-SXM4-80GB", "a100"), ("Tesla T4", "t4"), ("cpu", "cpu"),
   ("Radeon", None)],
)  # fmt: skip
def test_devices_by_their_kind(kind: str, name: str | None) -> None:
  assert device_of_kind(kind) == name
  assert name in (None, "cpu", *DEVICES)


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--images=9", "--hardware=v5"), r"--hardware v5: no device is called 'v5' (did you mean 'v5"),
    (("--images=9", "--hardware=v5e:x"), "--hardware v5e:x: expected NAME or NAME:COUNT, for example v5e:8."),
    (("--images=0",), "--images 0 --classes 0: expected at least one image and one class."),
    (("--classes=3",), "--classes belongs to --images N"),
    (("--hardware=v5e:3",), "batch_size 16 cannot be divided among 3 devices x 1 micro-batches (optim.accumulate). Choose a "
     "multiple of 3, such as --config.batch_size=15."),
    (("--hardware=v5e", "--topology=v5e:2x4"), "--topology compiles for hardware, --hardware calculates without"),
  ],
)  # fmt: skip
def test_what_cannot_be_planned(
  more: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert main(arguments(tmp_path, *more)) == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ("error", "advice"),
  [
    ("JAX TPU support not installed; cannot generate TPU topology.", "pip install 'jax[tpu]'"),
    ("Unable to open libtpu.so", "--hardware v5e:8"),
    ("The TPU is already in use by process with pid 7. Not attempting to load libtpu.so in this process.", "end it"),
    ("ABORTED: Internal error when accessing libtpu multi-process lockfile.", "remove /tmp/libtpu_lockfile"),
    ("Unknown topology v5e:3x9", "Expected as in v5e:2x4"),
  ],
)
def test_what_libtpu_says_gets_an_answer(error: str, advice: str) -> None:
  assert advice in planning._tpu_advice(error, "v5e:2x4")
