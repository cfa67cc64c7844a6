"""A run directory, or one checkpoint in it, is a model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax.cli.main import main
from prn_jax.errors import CheckpointError
from prn_jax.formats import checkpoints
from prn_jax.network import flatten_variables
from prn_jax.train.checkpoint import Checkpoints, load_params
from tests.nets import random_model
from tests.train.checkpoint_states import flip, largest_file, state_of


def write_run(run: Path, *, ema: bool, names: bool = True) -> dict[int, Any]:
  """A run directory with checkpoints of steps 1 to 3, the second the best; step -> model."""
  models = {step: random_model(seed=step, resize="letterbox") for step in (1, 2, 3)}
  averages = {step: random_model(seed=10 + step) for step in (1, 2, 3)}
  meta = {"graph_cfg": models[1].cfg(), "resize": "letterbox"} | ({"names": ["cat", "dog"]} if names else {})
  with Checkpoints(run / "checkpoints", keep=3) as checkpoints:
    for step, model in models.items():
      state = state_of(step)._replace(params=model.variables["params"], batch_stats=model.variables["batch_stats"])
      average = averages[step].variables if ema else {}
      state = state._replace(ema_params=average.get("params"), ema_batch_stats=average.get("batch_stats"))
      checkpoints.save(step, state, meta, metric=[None, 0.1, 0.9, 0.5][step])
  return averages if ema else models


@pytest.mark.parametrize("ema", [True, False])
def test_run_directory_is_a_model(tmp_path: Path, ema: bool, caplog: pytest.LogCaptureFixture) -> None:
  models = write_run(tmp_path / "run", ema=ema)
  with caplog.at_level(logging.INFO):
    loaded = prn_jax.load(tmp_path / "run")
  assert loaded.digest() == models[2].digest()
  assert (loaded.names, loaded.resize, loaded.graph.name) == (("cat", "dog"), "letterbox", "tiny")
  assert f"step 2 (metric 0.9), {'averaged (EMA)' if ema else 'plain'} weights" in caplog.text
  assert prn_jax.load(tmp_path / "run" / "checkpoints" / "3").digest() == models[3].digest()
  assert prn_jax.load(tmp_path / "run" / "checkpoints").digest() == models[2].digest()


def test_commands_take_a_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
  models = write_run(tmp_path / "run", ema=True)
  assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out.weights")]) == 0
  models[2].save(tmp_path / "expected.weights")
  assert (tmp_path / "out.weights").read_bytes() == (tmp_path / "expected.weights").read_bytes()
  assert main(["summary", str(tmp_path / "run"), "--json"]) == 0
  assert json.loads(capsys.readouterr().out.splitlines()[-1])["name"] == "tiny"
  Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
  assert main(["predict", str(tmp_path / "run"), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]) == 0


def test_load_params_chooses(tmp_path: Path) -> None:
  write_run(tmp_path, ema=True)
  plain, meta = load_params(tmp_path, 1, ema=False)
  assert meta["step"] == 1
  expected = flatten_variables(random_model(seed=1).variables)
  for key, value in flatten_variables(plain).items():
    np.testing.assert_array_equal(value, expected[key], err_msg=key)
  assert load_params(tmp_path, "latest")[1]["step"] == 3
  with pytest.raises(CheckpointError, match=r"no finished checkpoint of step 9; it has 1, 2, 3"):
    load_params(tmp_path, 9)


def test_names_and_graph_come_from_the_run_where_the_checkpoint_has_none(tmp_path: Path) -> None:
  write_run(tmp_path, ema=False, names=False)
  (tmp_path / "config.json").write_text(json.dumps({"names": ["owl", "fox"]}))
  assert prn_jax.load(tmp_path).names == ("owl", "fox")


def test_run_without_checkpoint_and_damaged_best(tmp_path: Path) -> None:
  (tmp_path / "fresh" / "checkpoints").mkdir(parents=True)
  with pytest.raises(CheckpointError, match=r"fresh' holds no finished checkpoint. Train until the first one"):
    prn_jax.load(tmp_path / "fresh")
  write_run(tmp_path / "run", ema=False)
  flip(largest_file(tmp_path / "run" / "checkpoints" / "2" / "state"))
  with pytest.raises(CheckpointError, match=r"has changed .* Give another checkpoint of the run, for example '.*/3'"):
    prn_jax.load(tmp_path / "run")
  assert prn_jax.load(tmp_path / "run" / "checkpoints" / "3").has_weights


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"arrays": {"params/a": ["float99", [1]]}}, r"arrays\.params/a\[0\] is 'float99'; expected the type of an array"),
    (
      {"arrays": {"params/a": ["float32", ["x"]]}},
      r"arrays\.params/a\[1\]\[0\] is 'x'; expected a whole number from 0",
    ),
    ({"arrays": []}, r"arrays is \[\]; expected keys with values"),
    ({"step": None}, r"step is None; expected a whole number"),
    ({"meta": 3}, r"meta is 3; expected keys with values"),
  ],
)
def test_metadata_of_another_type(tmp_path: Path, change: dict[str, object], said: str) -> None:
  write_run(tmp_path, ema=False)
  checkpoint = tmp_path / "checkpoints" / "3"
  meta = json.loads((checkpoint / checkpoints.META).read_text())
  (checkpoint / checkpoints.META).write_text(json.dumps(meta | change))
  checkpoints.write_manifest(checkpoint, 3, checkpoints.Rating(), checkpoints.hash_files(checkpoint))
  with pytest.raises(CheckpointError, match=rf"meta\.json: {said}"):
    load_params(checkpoint)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"metric": "good"}, r"metric is 'good'; expected a finite number"),
    ({"sha256": {"../../x": "0"}}, r"sha256 has the key '\.\./\.\./x'; expected the path of a file below the folder"),
    ({"step": -1}, r"step is -1; expected a whole number of at least 0"),
  ],
)
def test_a_manifest_of_another_type(tmp_path: Path, change: dict[str, object], said: str) -> None:
  checkpoints.write_manifest(tmp_path, 3, checkpoints.Rating(), {})
  manifest = json.loads((tmp_path / checkpoints.MANIFEST).read_text()) | change
  del manifest["checksum"]
  text = json.dumps(manifest | {"checksum": checkpoints._checksum(manifest)})
  (tmp_path / checkpoints.MANIFEST).write_text(text)
  with pytest.raises(CheckpointError, match=rf"manifest\.json: {said}"):
    checkpoints.read_manifest(tmp_path)
