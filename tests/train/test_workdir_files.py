"""What a run directory holds for people and other programs: curves, samples, one file of weights; and its lock."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from prn_jax import Model
from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, batch_at, first_rows
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.files import lease
from prn_jax.files.places import to_path
from prn_jax.formats.darknet_weights import Header
from prn_jax.hosts.group import Hosts
from prn_jax.hosts.peers import Peers
from prn_jax.loading import with_weights
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.config import ConfigError
from prn_jax.train.curves import plot_curves
from prn_jax.train.export import write_best
from prn_jax.train.lock import FILE, locked
from prn_jax.train.samples import COLUMNS, GAP_PX, TILE_PX, batch_tiles, write_sheet
from tests.conftest import REPO
from tests.nets import random_model
from tests.object_store import ObjectStore
from tests.train.checkpoint_states import state_of


def legends(figure: Any) -> dict[str, list[str]]:
  return {
    axes.get_title(): [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else []
    for axes in figure.axes
  }


def test_curves_show_one_evaluation_and_the_learning_rate() -> None:
  rows: list[dict[str, Any]] = [
    {"step": step, "loss": 9.0 / step, "learning_rate": 0.1, "iou": 0.5, "recall50": 0.25} for step in (10, 20, 30)
  ]
  rows.append({"step": 30, "eval/AP50": 0.5, "eval_at_conf_25/precision": 0.75, "eval_at_conf_25/recall": None})
  figure = plot_curves(rows)
  assert legends(figure) == {
    "training loss per image": [],
    "learning rate": [],
    "held-out images": ["AP50: 0.500", "precision at confidence .25: 0.750"],
    "training batches": ["IoU: 0.500", "recall at IoU .5: 0.250"],
  }
  held_out = figure.axes[2]
  assert held_out.get_xlim() == figure.axes[0].get_xlim() == pytest.approx((0, 30.9)), "one scale"
  line = held_out.lines[0]
  assert (list(line.get_xdata()), line.get_marker(), line.get_markersize()) == ([30], "o", 7)
  assert list(figure.axes[1].lines[0].get_ydata()) == [0.1, 0.1, 0.1]


def test_the_first_rows_are_those_of_the_training() -> None:
  dataset = open_spec("synthetic:traffic:8")
  for augment in (DetectionAugment(), DetectionAugment(mosaic=True)):
    config = PipelineConfig(seed=3, batch_size=8, sizes=((64, 64),), max_boxes=20)
    whole, first = batch_at(dataset, augment, config, 0), first_rows(dataset, augment, config, 3)
    count = 4 if augment.mosaic else 3
    for key, rows in first.items():
      np.testing.assert_array_equal(rows, whole[key][:count])


def test_a_sheet_shows_images_with_their_boxes(tmp_path: Path) -> None:
  truth = np.zeros((5, 3, 5), np.float32)
  truth[:, 0] = (0.5, 0.5, 0.5, 0.5, 1)
  batch = {"image": np.full((5, 32, 64, 3), 90, np.uint8), "truth": truth}
  tiles = batch_tiles(batch, ("car", "bus"), most=5)
  assert [tile.size for tile in tiles] == [(TILE_PX, TILE_PX // 2)] * 5
  edge = np.asarray(tiles[0]).astype(int)[:, TILE_PX // 4]  # the left side of the box
  assert (np.abs(edge - 90).max(axis=1) > 40).sum() >= TILE_PX // 8
  assert (np.asarray(tiles[0])[5, 5] == 90).all(), "nothing is drawn where nothing is"
  write_sheet(tiles, tmp_path / "sheet.jpg")
  with Image.open(tmp_path / "sheet.jpg") as sheet:
    assert sheet.size == (COLUMNS * (TILE_PX + GAP_PX) + GAP_PX, 2 * (TILE_PX // 2 + GAP_PX) + GAP_PX)


def test_classes_of_whole_images_stand_on_them() -> None:
  batch = {"image": np.full((2, 32, 32, 1), 90, np.uint8), "label": np.array([1, 0], np.int32)}
  first, second = (np.asarray(tile) for tile in batch_tiles(batch, ("car", "bus")))
  assert (first[:20] != 90).any()
  assert (first[30:] == 90).all()
  assert (first != second).any()


def test_the_best_weights_are_one_file(tmp_path: Path) -> None:
  model, other = random_model(seed=1), random_model(seed=2)
  meta = {"graph_cfg": model.cfg(), "header": {"major": 0, "minor": 2, "revision": 5, "seen": 640, "seen_bytes": 8}}
  with Checkpoints(tmp_path / "checkpoints") as checkpoints:
    for step, (one, metric) in enumerate(((model, 0.9), (other, 0.5)), 1):
      state = state_of(step)._replace(params=one.variables["params"], batch_stats=one.variables["batch_stats"])
      checkpoints.save(step, state._replace(ema_params={}, ema_batch_stats={}), meta, metric=metric)
  (tmp_path / "best.safetensors").write_text("of a network before")
  assert write_best(tmp_path) == "best.weights"
  back = with_weights(Model(model.graph, training=model.training), tmp_path / "best.weights")
  assert back.digest() == model.digest() != other.digest()
  assert not (tmp_path / "best.safetensors").exists()
  header = Header(0, 2, 5, 640).pack()
  assert (tmp_path / "best.weights").read_bytes()[: len(header)] == header, "images seen"


HOLDS = """
import sys, time
from pathlib import Path
from prn_jax.train.lock import locked
with locked(Path(sys.argv[1])):
  print("held", flush=True)
  time.sleep(60)
"""


def test_two_runs_cannot_write_one_directory(tmp_path: Path) -> None:
  workdir = tmp_path / "run"
  other = subprocess.Popen([sys.executable, "-c", HOLDS, str(workdir)], cwd=REPO, stdout=subprocess.PIPE, text=True)
  assert other.stdout is not None
  with other, other.stdout:
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ConfigError) as error, locked(workdir):
      raise AssertionError
    assert str(error.value).startswith(f"'{workdir}' is being written by another run (process {other.pid} on '")
    assert str(error.value).endswith("', for 0 min). Wait until it ends, stop it, or give another --workdir.")
    assert json.loads((workdir / FILE).read_text())["pid"] == other.pid, "the message leaves it as it is"
    other.kill()
  with locked(workdir):  # a kill frees it, although the file is there
    assert json.loads((workdir / FILE).read_text())["pid"] == os.getpid()
  assert not (workdir / FILE).exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_told_later(tmp_path: Path) -> None:
  tmp_path.chmod(0o500)
  with locked(tmp_path / "run"):
    assert not (tmp_path / "run").exists()


def test_two_runs_cannot_write_one_bucket(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(lease, "Lease", functools.partial(lease.Lease, beat_sec=0.2))
  workdir = to_path("gs://bucket/run")
  with locked(workdir):
    with pytest.raises(ConfigError) as error, locked(workdir):
      raise AssertionError
    assert str(error.value).startswith(f"'gs://bucket/run' is being written by another run (process {os.getpid()} on '")
    assert str(error.value).endswith("', for 0 min). Wait until it ends, stop it, or give another --workdir.")
    assert store.names() == [f"run/{FILE}"]
  assert store.names() == []


def test_a_run_whose_bucket_was_taken_over_ends(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
  ended, told = [], list[tuple[int, str]]()
  monkeypatch.setattr("prn_jax.train.lock.end_process", lambda code, text: ended.append((code, text)))
  hosts = Hosts(0, 2, cast(Peers, types.SimpleNamespace(fail=lambda code, text: told.append((code, text)))))
  with locked(to_path("gs://bucket/run"), hosts) as confirm:
    confirm()
    assert ended == []
    store.put(f"run/{FILE}", json.dumps(dataclasses.asdict(lease.Owner("x", "other-vm", 7))).encode())
    confirm()
  assert (
    ended
    == told
    == [
      (
        2,
        "'gs://bucket/run' has been taken over by another run (process 7 on 'other-vm') while this one gave no sign of "
        "life. What this one did since its last checkpoint is lost; the other goes on from there.",
      )
    ]
  )
  assert store.names() == [f"run/{FILE}"], "it is the other's"
