"""`prn train` as a user runs it: what it leaves, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax import Model
from prn_jax.cli.main import main
from prn_jax.cli.train import read_config
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.hosts import exit_codes
from prn_jax.models import build_graph
from prn_jax.network import init_variables
from prn_jax.train import evaluation, loop
from prn_jax.train import step_metrics as totals
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.config import typed
from prn_jax.train.diagnose import Diagnosis
from prn_jax.train.experiment import open_experiment
from prn_jax.train.log import read_metrics
from prn_jax.train.loop import train
from prn_jax.train.outcome import Outcome, Reason
from tests.conftest import REPO
from tests.nets import smooth_detector

pytestmark = pytest.mark.usefixtures("blank_pictures")  # `run` has real ones


@pytest.fixture(scope="session")
def detector_cfg(tmp_path_factory: pytest.TempPathFactory) -> Path:
  path = tmp_path_factory.mktemp("cfg") / "smooth.cfg"
  path.write_text(darknet_cfg.dump(smooth_detector()))
  return path


def train_now(cfg: Path, workdir: Path) -> Outcome:
  """The run in this process, without the command line around it."""
  more = ("--config.checkpoint_every.steps=3", "--config.eval.num_pictures=1")
  overrides = [one for one in arguments(cfg, workdir, *more) if one.startswith("--config.")]
  return train(open_experiment(typed(read_config("default", overrides))), workdir)


def arguments(cfg: Path, workdir: Path, *more: str) -> list[str]:
  return [
    "train", "--config=default", f"--config.model={cfg}", "--config.data.train=synthetic:traffic:24",
    "--config.data.valid=synthetic:traffic:9@valid", "--config.batch_size=8", "--config.total.steps=6",
    "--config.log_every.steps=2", "--config.eval.every.steps=3", "--config.optim.ema_decay=0.9", "--config.eval.conf=0.05",
    "--config.data.cache_mb=100", f"--workdir={workdir}", *more,
  ]  # fmt: skip


@pytest.fixture(scope="session")
def run(detector_cfg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A finished run, by the real program."""
  workdir = tmp_path_factory.mktemp("runs") / "detector"
  command = [sys.executable, "-m", "prn_jax.cli.main", *arguments(detector_cfg, workdir, "--json")]
  done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert result["reason"] == "done"
  assert result["step"] == 6
  assert set(result["metrics"]) >= {"AP", "AP50"}
  assert len(result["params_sha256"]) == 64
  assert "start: random weights in all" in done.stderr
  assert "step 6/6  loss" in done.stderr
  assert "evaluation at step 3: AP" in done.stderr
  return workdir


def test_a_run_directory_holds_what_it_should(run: Path) -> None:
  assert json.loads((run / "config.json").read_text())["batch_size"] == 8
  assert darknet_cfg.parse((run / "graph.cfg").read_text(), "graph.cfg").graph.width == 32
  assert json.loads((run / "env.json").read_text())["packages"]["jax"]
  steps = [row["step"] for row in read_metrics(run)]
  assert steps == [2, 3, 4, 6, 6]
  rows = read_metrics(run)
  assert {"loss", "grad_norm", "iou", "learning_rate", "images_per_sec", "data_wait_frac"} <= rows[0].keys()
  assert "eval/AP50" in rows[1]
  assert (run / "checkpoints" / "6" / "manifest.json").is_file()
  assert json.loads((run / "eval" / "coco.json").read_text())["images"] == 9
  assert (run / "eval" / "pr_curves.png").is_file()
  assert len(list((run / "eval" / "examples").glob("*.jpg"))) == 9
  assert list(run.glob("events.out.tfevents.*"))
  with Image.open(run / "curves.png") as picture:
    assert picture.width > 500


def test_a_run_is_a_model(run: Path) -> None:
  model = prn_jax.load(run)
  assert model.names == ("car", "truck", "bus", "person")
  assert model.graph.width == 32
  assert model.has_weights


def test_a_finished_run_is_left_as_it_is(run: Path, detector_cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
  before = (run / "metrics.jsonl").read_text()
  assert main(arguments(detector_cfg, run, "--json")) == 0
  told = capsys.readouterr()
  assert "going on" in told.err
  result = json.loads(told.out.splitlines()[-1])
  assert result["metrics"]["AP50"] == json.loads((run / "eval" / "coco.json").read_text())["metrics"]["AP50"]
  assert (run / "metrics.jsonl").read_text() == before


def test_other_settings_need_another_directory(
  run: Path, detector_cfg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert main(arguments(detector_cfg, run, "--config.optim.learning_rate=0.5")) == exit_codes.BAD_INPUT
  message = capsys.readouterr().err
  assert "holds a run of another configuration:\n  optim.learning_rate: 0.001, now 0.5" in message
  assert "--allow-changes" in message


def test_a_directory_with_other_things_is_left_alone(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "thesis.tex").write_text("x")
  assert main(arguments(detector_cfg, tmp_path)) == exit_codes.BAD_INPUT
  assert "is not empty and holds no run" in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_log_may_lie_in_a_new_run_directory(detector_cfg: Path, tmp_path: Path) -> None:
  """`prn train --workdir=runs/x > runs/x/train.log` in a shell makes the file first; the other is left of a run that was
  killed while it wrote its first one."""
  (tmp_path / "train.log").write_text("")
  (tmp_path / ".config.json.x7.tmp").write_text("{")
  assert main(arguments(detector_cfg, tmp_path, "--config.data.valid=", "--config.total.steps=1")) == 0


@pytest.mark.slow
def test_longer_run_that_was_killed_before_its_report_makes_it_up(
  run: Path, detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  """The report of the shorter run, which is still there, must not pass for it."""
  copy = tmp_path / "copy"
  shutil.copytree(run, copy)
  assert (copy / "eval" / "step.txt").read_text() == "6\n"
  longer = arguments(detector_cfg, copy, "--config.total.steps=7", "--allow-changes")
  assert main(longer) == 0
  assert "after step 6" in capsys.readouterr().err
  assert [row["step"] for row in read_metrics(copy)] == [2, 3, 4, 6, 6, 7, 7]
  assert (copy / "eval" / "step.txt").read_text() == "7\n"
  shutil.rmtree(copy / "eval")
  shutil.copytree(run / "eval", copy / "eval")
  assert main(longer) == 0
  assert (copy / "eval" / "step.txt").read_text() == "7\n"


DIVERGES = (
  "--config.optim.learning_rate=1e30", "--config.optim.schedule.policy=constant", "--config.data.valid=",
  "--config.optim.momentum=0.0", "--config.log_every.steps=1",
)  # fmt: skip


def test_what_failed_before_its_first_checkpoint_does_not_block_its_remedy(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  cfg, images = classifier_files(tmp_path)
  bad = images / "red" / "0.png"
  bad.write_bytes(bad.read_bytes()[:-60])
  command = [
    "train", "--config=default:classify", f"--config.model={cfg}", f"--config.data.train=imagefolder:{images}",
    "--config.batch_size=24", "--config.total.steps=1", f"--workdir={tmp_path / 'run'}",
  ]  # fmt: skip
  assert main(command) == exit_codes.BAD_INPUT
  assert "on_bad_data='skip'" in capsys.readouterr().err
  assert main([*command, "--config.data.on_bad_data=skip"]) == exit_codes.DONE, capsys.readouterr().err
  assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["on_bad_data"] == "skip"


@pytest.mark.slow
def test_what_diverged_before_its_first_checkpoint_starts_with_another_learning_rate(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  arguments_of_both = arguments(detector_cfg, tmp_path / "run", *DIVERGES, "--config.checkpoint_every.steps=6")
  assert main(arguments_of_both) == exit_codes.DIVERGED
  assert main([*arguments_of_both, "--config.optim.learning_rate=1e-4", "--config.total.steps=2"]) == exit_codes.DONE
  assert main(arguments_of_both) == exit_codes.BAD_INPUT, "now there is a run to protect"
  assert "holds a run of another configuration" in capsys.readouterr().err


def test_the_configuration_of_another_program_is_left_alone(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "config.json").write_text('{"compilerOptions": {}}')
  assert main(arguments(detector_cfg, tmp_path)) == exit_codes.BAD_INPUT
  assert "config.json' is not the configuration of a run. Give a new --workdir." in capsys.readouterr().err
  assert (tmp_path / "config.json").read_text() == '{"compilerOptions": {}}'


@pytest.mark.parametrize(
  "more", [(), ("--config.bn_scope=per_device", "--config.optim.accumulate=2", "--config.batch_size=16")]
)
def test_divergence_names_step_layer_and_images(
  more: tuple[str, ...], detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  code = main(arguments(detector_cfg, tmp_path / "run", *DIVERGES, *more))
  message = capsys.readouterr().err
  assert code == exit_codes.DIVERGED
  assert "training diverged at step" in message
  assert "layer '" in message
  assert "train_0_00000" in message, "the ids of the images"
  assert "lower it" in message


@pytest.mark.slow
def test_divergence_lists_all_images_of_a_large_batch(detector_cfg: Path, tmp_path: Path) -> None:
  run = tmp_path / "run"
  more = ("--config.batch_size=24", "--config.checkpoint_every.steps=6")
  assert main(arguments(detector_cfg, run, *DIVERGES, *more)) == exit_codes.DIVERGED
  found = json.loads((run / "diverged.json").read_text())
  assert {ids[0] for ids in found["record_ids"]} == {f"train_0_{i:07d}" for i in range(24)}
  assert found["step"] in (1, 2)
  assert found["learning_rate"] == pytest.approx(1e30)
  assert found["layer"] in found["where"]
  assert main(arguments(detector_cfg, run, "--config.total.steps=1", "--config.data.valid=")) == exit_codes.DONE
  assert not (run / "diverged.json").exists(), "it is over"


@pytest.mark.slow
def test_divergence_is_noticed_without_log_lines(
  detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  started: list[int] = []
  step = loop._Run._step
  monkeypatch.setattr(loop._Run, "_step", lambda run, number, batch: started.append(number) or step(run, number, batch))
  more = ("--config.log_every.steps=0", "--config.total.steps=300", "--config.checkpoint_every.steps=300")
  assert main(arguments(detector_cfg, tmp_path / "run", *DIVERGES, *more)) == exit_codes.DIVERGED
  assert "training diverged at step" in capsys.readouterr().err
  assert max(started) < totals.CHECK_STEPS + loop.STEPS_IN_FLIGHT


def test_divergence_is_told_although_the_search_fails(
  detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  def fail(*_: object) -> str:
    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")

  monkeypatch.setattr("prn_jax.train.diagnose._where", fail)
  assert main(arguments(detector_cfg, tmp_path / "run", *DIVERGES)) == exit_codes.DIVERGED
  message = capsys.readouterr().err
  assert "(the search for the layer failed: RuntimeError: RESOURCE_EXHAUSTED: out of memory)" in message
  assert "The images of that batch: train_0_00000" in message


def test_what_ends_an_evaluation_costs_no_step(
  detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def fail(*_: object) -> None:
    raise MemoryError("no place for the figures")

  monkeypatch.setattr("prn_jax.train.loop._Run._evaluate", fail)
  with pytest.raises(MemoryError):
    train_now(detector_cfg, tmp_path / "run")
  assert Checkpoints(tmp_path / "run" / "checkpoints").latest_step() == 3


@pytest.mark.slow
def test_asked_to_stop_where_an_evaluation_is_due_a_run_saves_and_makes_it_up(
  detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  workdir = tmp_path / "run"
  with monkeypatch.context() as patch:
    patch.setattr("prn_jax.hosts.group.Preemption.requested", lambda self, step: step == 3)
    assert train_now(detector_cfg, workdir).reason is Reason.PREEMPTED
  rows = read_metrics(workdir)
  assert [row["step"] for row in rows] == [2, 3], "the steps since the last line are told too"
  assert "loss" in rows[1]
  outcome = train_now(detector_cfg, workdir)
  rows = read_metrics(workdir)
  assert [row["step"] for row in rows] == [2, 3, 3, 4, 6, 6]
  assert "eval/AP50" in rows[2]
  rated = Checkpoints(workdir / "checkpoints").metrics()
  assert rated == {3: rows[2]["eval/AP50"], 6: rows[5]["eval/AP50"]}
  assert outcome.best is not None
  assert outcome.best[1] == max(rated.values())


@pytest.mark.slow
@pytest.mark.parametrize("at_the_end", [False, True])
def test_sigterm_in_an_evaluation_ends_it_between_two_batches(
  at_the_end: bool, detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """An evaluation may take longer than what is left before the kill."""
  workdir, batches = tmp_path / "run", list[int]()
  run = evaluation.Validation.__call__
  wanted_step = 6 if at_the_end else 3

  def stopped(self: evaluation.Validation, variables: Any, on_batch: Any, *more: Any) -> Any:
    def count() -> None:
      batches.append(1)
      if len(batches) == (3 if at_the_end else 1):  # of two in each evaluation
        os.kill(os.getpid(), signal.SIGTERM)
      on_batch()

    return run(self, variables, count, *more)

  with monkeypatch.context() as patch:
    patch.setattr(evaluation.Validation, "__call__", stopped)
    outcome = train_now(detector_cfg, workdir)
  assert (outcome.reason, outcome.step) == (Reason.PREEMPTED, wanted_step)
  assert len(batches) == (3 if at_the_end else 1)
  assert not (workdir / "eval").exists()
  assert [row["step"] for row in read_metrics(workdir) if "eval/AP50" in row] == ([3] if at_the_end else [])
  assert train_now(detector_cfg, workdir).reason is Reason.DONE
  assert [row["step"] for row in read_metrics(workdir) if "eval/AP50" in row] == [3, 6]
  assert (workdir / "eval" / "step.txt").read_text() == "6\n"


def test_the_search_for_what_diverged_may_take_longer_than_a_step(
  detector_cfg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def slow(*_: object) -> Diagnosis:
    time.sleep(5)
    return Diagnosis(3, "found", None, (("a",),), (), 1e30)

  barks: list[tuple[object, ...]] = []
  monkeypatch.setattr("prn_jax.train.loop.diagnosis", slow)
  monkeypatch.setattr("prn_jax.hosts.watchdog.Watchdog._bark", lambda self, *what: barks.append(what))
  code = main(
    arguments(
      detector_cfg, tmp_path / "run", "--config.optim.learning_rate=1e30", "--config.optim.schedule.policy=constant",
      "--config.data.valid=", "--config.optim.momentum=0.0", "--config.log_every.steps=6",
      "--config.checkpoint_every.steps=6", "--config.hosts.step_timeout_sec=3",
    )
  )  # fmt: skip
  assert code == exit_codes.DIVERGED
  assert not barks


def test_a_detector_needs_boxes(tmp_path: Path, detector_cfg: Path, capsys: pytest.CaptureFixture[str]) -> None:
  _, images = classifier_files(tmp_path)
  assert main(arguments(detector_cfg, tmp_path / "run", f"--config.data.train=imagefolder:{images}")) == 2
  assert "has classes of whole images, no boxes; a detector needs those" in capsys.readouterr().err


def test_profile_of_some_steps(detector_cfg: Path, tmp_path: Path) -> None:
  more = ("--config.profile_steps=(1, 2)", "--config.data.valid=", "--config.total.steps=4")
  assert main(arguments(detector_cfg, tmp_path / "run", *more)) == 0
  assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


def test_without_log_lines_only_the_last_step_is_told(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  more = ("--config.log_every.steps=0", "--config.data.valid=", "--config.total.steps=2")
  assert main(arguments(detector_cfg, tmp_path / "run", *more)) == 0
  assert [row["step"] for row in read_metrics(tmp_path / "run")] == [2]
  assert "run/: curves, checkpoints. Use it" in capsys.readouterr().out  # no evaluation, no report


def test_several_sizes(detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  more = ("--config.sizes=((64, 32),)", "--config.resize_every_steps=1", "--config.data.valid=")
  assert main(arguments(detector_cfg, tmp_path / "run", *more)) == 0
  assert "was compiled" not in capsys.readouterr().err
  assert len(read_metrics(tmp_path / "run")) == 3


def classifier_files(folder: Path) -> tuple[Path, Path]:
  """A cfg and a folder of images in two colours, which anything can tell apart."""
  g = Builder(16, 16, name="colours")
  g.conv(4, 3, padding=1, batch_normalize=True, activation="leaky", name="a")
  g.avgpool(name="pool")
  g.conv(2, 1, name="scores")
  g.softmax(name="probabilities")
  (folder / "colours.cfg").write_text(darknet_cfg.dump(g.graph()))
  rng = np.random.default_rng(0)
  for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
    (folder / "images" / name).mkdir(parents=True)
    for i in range(12):
      pixels = np.clip(np.array(colour) + rng.integers(0, 55, (16, 16, 3)), 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
  return folder / "colours.cfg", folder / "images"


def test_a_classifier_learns_two_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  cfg, images = classifier_files(tmp_path)
  code = main(
    [
      "train", "--config=default:classify", f"--config.model={cfg}", f"--config.data.train=imagefolder:{images}",
      f"--config.data.valid=imagefolder:{images}", "--config.batch_size=8", "--config.total.epochs=10.",
      "--config.optim.learning_rate=0.1", "--config.bn_momentum=0.5", "--config.dtype=bfloat16", "--config.remat",
      f"--workdir={tmp_path / 'run'}", "--json",
    ]
  )  # fmt: skip
  assert code == 0
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert result["metrics"] == {"top1": 1.0, "top5": 1.0}
  losses = [row["loss"] for row in read_metrics(tmp_path / "run") if "loss" in row]
  assert losses[-1] < 0.5


def test_a_figure_of_another_meaning_does_not_stay_the_best(tmp_path: Path) -> None:
  cfg, images = classifier_files(tmp_path)
  workdir = tmp_path / "run"
  command = [
    "train", "--config=default:classify", f"--config.model={cfg}", f"--config.data.train=imagefolder:{images}",
    f"--config.data.valid=imagefolder:{images}", "--config.batch_size=24", "--config.eval.every.steps=1",
    "--config.optim.learning_rate=1e-4", f"--workdir={workdir}",
  ]  # fmt: skip
  assert main([*command, "--config.total.steps=1", "--config.eval.metric=top5"]) == 0
  assert Checkpoints(workdir / "checkpoints").best() == (1, 1.0), "of two classes, five guesses hold the right one"
  assert main([*command, "--config.total.steps=2", "--config.eval.metric=top1", "--allow-changes"]) == 0
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    meant = [checkpoints.metric_of(step) for step in (1, 2)]
    figures = checkpoints.metrics()
  assert [one and (one["name"], one["images"]) for one in meant] == [("top1", 24)] * 2, "the first is made up"
  assert figures == {row["step"]: row["eval/top1"] for row in read_metrics(workdir) if "eval/top1" in row}
  assert max(value for value in figures.values() if value is not None) < 1, "else this test would say nothing"


def test_a_finished_run_is_evaluated_again_with_other_thresholds(run: Path, detector_cfg: Path, tmp_path: Path) -> None:
  copy = tmp_path / "copy"
  shutil.copytree(run, copy)
  before = Checkpoints(copy / "checkpoints").metric_of(6)
  assert main(arguments(detector_cfg, copy, "--config.eval.conf=0.9")) == 0
  after = Checkpoints(copy / "checkpoints").metric_of(6)
  assert before is not None
  assert (before["name"], before["protocol"], before["conf"], before["nms"]) == ("AP50", "coco", 0.05, 0.45)
  assert after == before | {"conf": 0.9}
  rows = [row for row in read_metrics(copy) if "eval/AP50" in row]
  assert [row["step"] for row in rows] == [3, 6], "the new figures stand in the place of the old"
  assert rows[-1]["eval/AP50"] == json.loads((copy / "eval" / "coco.json").read_text())["metrics"]["AP50"] == 0


@pytest.mark.slow
def test_weights_of_the_network_before_its_transforms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  _, images = classifier_files(tmp_path)
  graph = build_graph("darknet-cifar", num_classes=2, width_multiplier=0.25)
  Model(graph, init_variables(graph)).save(tmp_path / "residual.weights")
  code = main(
    [
      "train", "--config=default:classify", "--config.model=darknet-cifar", "--config.model_options.width_multiplier=0.25",
      "--config.transforms=('shrink:0.5',)", f"--config.weights={tmp_path / 'residual.weights'}",
      f"--config.data.train=imagefolder:{images}", "--config.batch_size=8", "--config.total.steps=1",
      f"--workdir={tmp_path / 'run'}",
    ]
  )  # fmt: skip
  out, err = capsys.readouterr()
  assert code == 0, err
  assert "residual.weights', cut to the channels of the transformed network" in out + err


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--config.batch_size=9"], r"batch_size 9 cannot be divided among 8 devices"),
    (["--config.task=classify"], r"config\.augment"),
    (["--config.data.train=imagefolder:nowhere"], r"nowhere"),
    (["--config.eval.metric=AP51"], r"config\.eval\.metric is 'AP51'.*did you mean.*AP5"),
    (["--config.weights=missing.weights"], r"cannot read weights 'missing\.weights'"),
    (
      ["--config.loss.head.ignore_tresh=0.5"],
      r"config\.loss\.head has no key 'ignore_tresh' \(did you mean 'ignore_thresh'",
    ),
    (["--config.optim.freeze_until=stemm"], r"stemm.*did you mean 'stem'"),
    (["--config.total.steps=0"], r"config\.total is empty; give the length of the run"),
  ],
)
def test_wrong_input_is_refused_before_the_first_step(
  more: list[str], message: str, detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  import re

  assert main(arguments(detector_cfg, tmp_path / "run", *more)) == exit_codes.BAD_INPUT
  assert re.search(message, capsys.readouterr().err, re.DOTALL)
  assert not (tmp_path / "run" / "config.json").exists()


def test_killed_before_its_report_a_run_makes_it_up(
  run: Path, detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  copy = tmp_path / "copy"
  shutil.copytree(run, copy)
  (copy / "eval").rename(copy / ".eval.tmp")  # the kill came while it was written
  (copy / ".eval.tmp" / "half.json").write_text("{")
  assert main(arguments(detector_cfg, copy, "--json")) == 0
  again = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert {path.name for path in (copy / "eval").iterdir()} == {path.name for path in (run / "eval").iterdir()}
  assert not (copy / ".eval.tmp").exists()
  assert (copy / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()
  assert again["metrics"]["AP50"] == pytest.approx(
    json.loads((run / "eval" / "coco.json").read_text())["metrics"]["AP50"]
  )
  assert again["best"] is not None
