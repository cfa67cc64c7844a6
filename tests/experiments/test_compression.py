"""The experiment of compression: what starts from what, its table, and the whole way in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from prn_jax.experiments import compression, compression_report
from prn_jax.experiments.compression import Way, jobs_of
from prn_jax.experiments.compression_report import DENSE, FLOPS, METHODS, SPARSE, TEACHER, untuned_key
from prn_jax.experiments.record import FILE, Record, read
from prn_jax.formats import darknet_cfg
from tests.data_pipelines.little_sets import make_set
from tests.experiments.made_up import MACHINE
from tests.experiments.test_summary import result
from tests.nets import tiny_detector


def test_every_training_starts_from_one_before_it(tmp_path: Path) -> None:
  jobs = jobs_of(Way({"bccd": "cells", "vehicles": "cars"}, tmp_path, 40.0, 20.0), seeds=2)
  assert len(jobs) == 2 * 2 * (3 + len(FLOPS) * (2 * len(METHODS) + 1))
  assert len({job.name for job in jobs}) == len(jobs)
  known: set[str] = set()
  for job in jobs:
    needed = {job.config.weights, job.config.distill.teacher} - {""}
    runs = {name for name in needed if Path(name).parent.name == "runs"}
    assert runs <= known
    if needed - runs:
      assert needed - runs == {job.config.model}
      assert str(tmp_path / "runs" / f"{job.group}_{SPARSE}_seed{job.seed}") in known
    known.add(str(tmp_path / "runs" / job.name))
  by_name = {job.name: job.config for job in jobs}
  assert by_name["bccd_sparse_seed1"].sparse.strength > 0
  assert by_name["bccd_slim_05+teacher_seed0"].distill.losses == ("objectness", "cwd")
  assert by_name["bccd_slim_05_seed0"].total.epochs == 20
  assert by_name["bccd_variance_02+scratch_seed0"].total.epochs == 100
  assert not by_name["bccd_variance_02+scratch_seed0"].weights


def made_up() -> Record:
  runs = []
  for seed in (0, 1):
    for variant, ap50, params, bflops in (
      (DENSE, 0.80, 1000, 1.0), (SPARSE, 0.79, 1000, 1.0), ("slim:0.5", 0.78, 300, 0.5), (f"slim:0.5{TEACHER}", 0.81, 300, 0.5),
    ):  # fmt: skip
      value = ap50 + seed * 0.01
      runs.append(
        result(
          variant, seed, 0.0, group="bccd", values={"AP50": value}, curve=[{"epoch": 1.0, "AP50": value}], params=params,
          bflops=bflops, machine=MACHINE,
        )
      )  # fmt: skip
  untuned = {untuned_key("bccd", "slim:0.5", seed): 0.4 for seed in (0, 1)}
  return Record("compression", "python -m z", {}, 30, runs, untuned=untuned)


def test_table_and_picture(tmp_path: Path) -> None:
  made = made_up()
  made.write(tmp_path / FILE)
  assert read(tmp_path / FILE).untuned == made.untuned
  lines = compression_report.blocks(read(tmp_path / FILE))["bccd"]
  assert (
    "| slim:0.5 | 300 (30%) | 0.500 (50%) | 40.00 ± 0.00 | 78.50 ± 0.71 | 81.50 ± 0.71 | | +1.00 (+1.00 to +1.00) |"
    in lines
  )
  assert sum(line.startswith("| slim") for line in lines) == 1
  assert compression_report.picture(made, tmp_path / "x.png").stat().st_size > 5_000


@pytest.mark.slow
def test_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
  """A small network, one step of each training, one method."""
  monkeypatch.setattr(compression, "METHODS", ("slim",))
  monkeypatch.setattr(compression, "FLOPS", (0.5,))
  cfg = tmp_path / "tiny.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_detector()))
  root = make_set("voc", tmp_path / "set").root
  lists = root / "ImageSets" / "Main"
  (lists / "train.txt").write_bytes((lists / "val.txt").read_bytes())
  args = ["--bccd", str(root), "--out", str(tmp_path / "out"), "--epochs", "0.1", "--tune-epochs", "0.1"]
  args += ["--model", str(cfg), "--scale", "0.125", "--max-runs", "3"]
  assert compression.main(args) == 0
  assert "3 of 6 trainings are finished" in capsys.readouterr().out
  made = read(tmp_path / "out" / FILE)
  costs = {run.variant: run.bflops for run in made.runs}
  assert 0.3 < costs["slim:0.5"] / costs[DENSE] <= 0.5
  assert list(made.untuned) == ["bccd slim:0.5 seed0"]
