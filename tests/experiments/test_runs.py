"""Trainings one after another: what is finished stays, what differs is refused, order and folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.augment.classification import ClassificationAugment
from prn_jax.errors import PrnError
from prn_jax.experiments.runs import RESULT, Job, by_seed, check_networks, finished, run_missing
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.run.machine import machine
from prn_jax.train.config import DataConfig, Duration, EvalConfig, TrainConfig
from tests.experiments.test_summary import result

NUM_IMAGES, BATCH = 24, 8


def tiny_classifier() -> Graph:
  g = Builder(width=8, height=8, name="tiny")
  g.conv(4, size=3, padding=1, batch_normalize=True, activation="leaky", name="conv")
  g.avgpool(name="pool")
  g.conv(2, name="scores")
  g.softmax(name="softmax")
  return g.graph()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
  """Two seeds of a classifier of dark and bright images, which it learns at once."""
  root = tmp_path_factory.mktemp("images")
  rng = np.random.default_rng(0)
  for i in range(NUM_IMAGES):
    folder = root / ("dark", "bright")[i % 2]
    folder.mkdir(exist_ok=True)
    pixels = rng.integers(0, 60, (8, 8, 3)) + 190 * (i % 2)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
  cfg = root.parent / f"{root.name}.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_classifier()))
  spec = f"imagefolder:{root}"

  def make(variant: str, seed: int) -> Job:
    config = TrainConfig(
      task="classify", model=str(cfg), batch_size=BATCH, seed=seed, total=Duration(epochs=2.0), log_every=Duration(steps=3),
      data=DataConfig(train=spec, valid=spec), augment=ClassificationAugment(min_scale=1.0, min_ratio=1.0, max_ratio=1.0),
      eval=EvalConfig(every=Duration(epochs=1.0)),
    )  # fmt: skip
    return Job(variant, seed, config)

  return by_seed(make, ["plain:0.5"], 2)


def test_names_and_order() -> None:
  config = TrainConfig()
  listed = by_seed(lambda variant, seed: Job(variant, seed, config), ["residual", "shrink:0.75"], 2)
  assert [job.name for job in listed] == ["residual_seed0", "shrink_075_seed0", "residual_seed1", "shrink_075_seed1"]
  assert Job("multi-source", 1, config, "traffic").name == "traffic_multi-source_seed1"


@pytest.mark.slow
def test_what_is_finished_is_not_repeated(jobs: list[Job], tmp_path: Path) -> None:
  first = list(run_missing(jobs, tmp_path, max_jobs=1))
  assert [(r.variant, r.seed) for r in first] == [("plain:0.5", 0)]
  written = (tmp_path / "runs" / jobs[0].name / RESULT).read_bytes()
  second = list(run_missing(jobs, tmp_path))
  assert [r.seed for r in second] == [1]
  assert (tmp_path / "runs" / jobs[0].name / RESULT).read_bytes() == written
  assert finished(jobs, tmp_path) == first + second
  assert list(run_missing(jobs, tmp_path)) == []

  result = first[0]
  counted = cost(tiny_classifier())
  assert (result.params, result.bflops) == (counted.params, counted.bflops)
  assert (result.train_images, result.epochs) == (NUM_IMAGES, 2.0)
  assert [row["epoch"] for row in result.curve] == [1.0, 2.0]
  assert [epoch for epoch, _ in result.loss] == [1.0, 2.0]
  assert result.curve[-1]["top1"] == result.values["top1"]
  assert 0 <= result.values["top1"] <= 1
  assert result.machine == machine()

  # A result of the time before trainings recorded their machine.
  path = tmp_path / "runs" / jobs[0].name / RESULT
  values = json.loads(path.read_text())
  del values["machine"]
  path.write_text(json.dumps(values))
  assert finished(jobs, tmp_path) == [dataclasses.replace(first[0], machine=None), *second]


def test_another_configuration_is_refused(jobs: list[Job], tmp_path: Path) -> None:
  folder = tmp_path / "runs" / jobs[0].name
  list(run_missing(jobs[:1], tmp_path))
  other = [dataclasses.replace(jobs[0], config=dataclasses.replace(jobs[0].config, total=Duration(epochs=3.0)))]
  with pytest.raises(PrnError, match=r"another configuration \(total\.epochs: 2\.0, now 3\.0\)\. Use another --out"):
    finished(other, tmp_path)
  assert json.loads((folder / RESULT).read_text())["epochs"] == 2.0


def test_seeds_of_unequal_networks_are_refused() -> None:
  first = result("shrink:0.75", 0, 0.5)
  check_networks([first, result("shrink:0.75", 1, 0.6), result("residual", 0, 0.6, params=99)])
  with pytest.raises(
    PrnError, match=r"seeds 0 and 1 of 'shrink:0\.75' have trained networks of 10 and 1,011 parameters; .*another --out"
  ):
    check_networks([first, result("shrink:0.75", 1, 0.6, params=1011)])
