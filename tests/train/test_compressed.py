"""A pruned network, in few bits, with a teacher, in one training: it runs, is evaluated, goes on exactly, and is what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prn_jax.export import convert
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.quantize.rewrite import convolutions_of
from prn_jax.train import loop
from prn_jax.train.config import typed
from prn_jax.train.experiment import open_experiment
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from prn_jax.transforms.prune import cut, units_of
from tests.nets import random_model
from tests.train.test_teacher import NAMES, detector, saved


@pytest.mark.slow
def test_pruned_quantised_and_taught(tmp_path: Path) -> None:
  graph = detector(8, strides=(8,))
  dense = random_model(graph, 3, names=NAMES)
  gone = [unit for unit in units_of(graph).free if any(name == "c4" for name, _ in unit)][:3]
  small = Model(*cut(graph, dense.variables, gone), names=NAMES)
  assert small.graph.shapes["c4"].channels == 5
  convert.save(small, f"{tmp_path / 'small'}/")
  values = {
    "model": str(tmp_path / "small"),
    "weights": str(tmp_path / "small"),
    "data": {"train": "synthetic:traffic:8", "valid": "synthetic:traffic:4", "cache_mb": 50},
    "batch_size": 8,
    "total": {"steps": 4},
    "checkpoint_every": {"steps": 2},
    "eval": {"every": {"steps": 4}},
    "log_every": {"steps": 1},
    "optim": {"learning_rate": 1e-3, "ema_decay": 0.5, "schedule": {"policy": "constant"}},
    "quant": {"preset": "iao4", "fold": True, "freeze": 0.5, "fold_freeze": 0.75},
    "distill": {"teacher": saved(detector(10, strides=(4, 8)), tmp_path / "big"), "losses": ("objectness", "cwd")},
  }
  config, whole = typed(values), tmp_path / "whole"
  done = loop.train(open_experiment(config), whole)
  rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
  trained = [row for row in rows if "distill/objectness" in row]
  assert len(trained) == 4
  assert all(np.isfinite(row["loss"]) and row["distill/cwd"] > 0 for row in trained)

  model = load(whole)
  layers = convolutions_of(model.graph)
  bits = {name: layer.bits for name, layer in layers.items()}
  assert bits == {"stem": 8, "c4": 4, "c8": 4, "c16": 8, "f8": 4, "out8": 8}  # nothing reads c16
  assert (layers["c4"].filters, layers["c4"].folds, layers["c4"].bn_freeze_after) == (5, True, 3)
  images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
  folded = Model(*fold_batchnorm(model.graph, model.variables))
  wanted, found = (np.asarray(one.forward(images)["yolo8"]) for one in (model, folded))
  assert found == pytest.approx(wanted, abs=1e-4)

  parts = tmp_path / "parts"
  shutil.copytree(whole, parts)
  shutil.rmtree(parts / "checkpoints" / "4")
  assert loop.train(open_experiment(config, is_resumed=True), parts).digest == done.digest
