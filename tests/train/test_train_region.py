"""A YOLOv2 network is trained from its cfg: loss settings, warm-up, evaluation, and the same numbers after a stop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import prn_jax
from prn_jax.cli.main import main
from prn_jax.detect.region_deltas import WARM_UP_IMAGES
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import RegionTraining
from prn_jax.network import Network
from prn_jax.train.checkpoint import load_params
from prn_jax.train.darknet_config import config_from_cfg
from prn_jax.train.log import read_metrics
from prn_jax.train.losses import LossConfig, head_settings, make_loss
from prn_jax.train.step import Recipe, TrainState, with_images_seen

pytestmark = pytest.mark.usefixtures("blank_pictures")

CFG = """
[net]
width=64
height=64
channels=3
batch=16
subdivisions=2
max_batches=4
learning_rate=0.001
burn_in=2
policy=constant

[convolutional]
filters=8
size=3
stride=4
pad=1
activation=leaky

[convolutional]
filters=12
size=3
stride=2
pad=1
activation=leaky

[reorg]
stride=2

[convolutional]
filters=18
size=1
activation=linear

[region]
anchors=0.6,0.6, 1.5,1.2
classes=4
num=2
softmax=1
bias_match=1
rescore=1
object_scale=5
thresh=.6
max=17
jitter=.2
random=0
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
  path = tmp_path / "v2.cfg"
  path.write_text(CFG)
  return path


def test_settings_of_the_cfg(cfg: Path) -> None:
  config = config_from_cfg(str(cfg))
  assert (config.data.max_boxes, config.augment.jitter, config.optim.accumulate) == (17, 0.2, 2)
  parsed = darknet_cfg.read(cfg)
  (settings,) = head_settings(parsed.graph, LossConfig(head={"rescore": False}), parsed.training).values()
  assert settings == RegionTraining(bias_match=True, object_scale=5.0, thresh=0.6, max=17, jitter=0.2, rescore=False)
  with pytest.raises(
    PrnError, match=r"config\.loss\.head\.iou_loss is no setting of layer 'region_4' \(region\); set it"
  ):
    head_settings(parsed.graph, LossConfig(head={"iou_loss": "ciou"}), parsed.training)


def test_a_class_hierarchy_is_refused(cfg: Path) -> None:
  cfg.write_text(CFG.replace("random=0", "tree=9k.tree"))
  parsed = darknet_cfg.read(cfg)
  with pytest.raises(OutOfScopeError, match=r"layer 'region_4' \(region\) has a class hierarchy \(tree=9k\.tree\)"):
    make_loss(parsed.graph, LossConfig(), parsed.training)


def state_at(step: int) -> TrainState:
  return TrainState(jnp.int32(step), {}, {}, {}, {}, {}, jnp.int32(-1))


def test_images_are_counted_by_micro_batch(cfg: Path) -> None:
  """Row r of a batch of 8 in 2 micro-batches of rows 0, 2, ... and 1, 3, ...; no overflow in long runs."""
  network = Network(darknet_cfg.read(cfg).graph)
  recipe = Recipe(network=network, tx=None, loss_fn=None, layers=(), accumulate=2)  # type: ignore[arg-type]
  batch = {"image": jnp.zeros((8, 2, 2, 3))}
  assert with_images_seen(state_at(10), batch, recipe)["images_seen"].tolist() == [84, 88] * 4
  assert with_images_seen(state_at(2**31 - 1), batch, recipe)["images_seen"].min() > 10**9


@pytest.mark.slow
def test_the_pull_to_the_anchors_ends(cfg: Path) -> None:
  parsed = darknet_cfg.read(cfg)
  (source,), loss_fn = make_loss(parsed.graph, LossConfig(), parsed.training)
  batch: dict[str, Any] = {"image": jnp.zeros((2, 64, 64, 3)), "truth": jnp.zeros((2, 5, 5))}
  outputs = {source: jnp.full((2, 4, 4, 18), 0.3)}

  def cost(seen: int) -> float:
    return float(loss_fn(outputs, batch | {"images_seen": jnp.full(2, seen)})[0])

  assert cost(WARM_UP_IMAGES - 1) > cost(WARM_UP_IMAGES) == float(loss_fn(outputs, batch)[0])


@pytest.mark.slow
def test_train_evaluate_and_resume(cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  def command(workdir: str, *more: str) -> list[str]:
    return [
      "train", f"--config={cfg}", "--config.data.train=synthetic:traffic:24", "--config.data.valid=synthetic:traffic:4@valid",
      "--config.log_every.steps=1", "--config.checkpoint_every.steps=2", "--config.eval.every.steps=4",
      "--config.eval.num_pictures=0", "--config.eval.conf=0.01", f"--workdir={tmp_path / workdir}", *more,
    ]  # fmt: skip

  assert main(command("whole")) == 0
  assert "evaluation at step 4: AP" in capsys.readouterr().err
  losses = [row["loss"] for row in read_metrics(tmp_path / "whole") if "loss" in row]
  assert len(losses) == 4
  assert np.isfinite(losses).all()
  assert main(command("parts", "--config.total.steps=2")) == 0
  assert main(command("parts", "--allow-changes")) == 0
  whole, parts = (load_params(tmp_path / name)[0] for name in ("whole", "parts"))
  for layer, arrays in whole["params"].items():
    np.testing.assert_array_equal(arrays["conv"]["kernel"], parts["params"][layer]["conv"]["kernel"], err_msg=layer)
  assert json.loads((tmp_path / "whole" / "config.json").read_text())["task"] == "detect"
  overview = (tmp_path / "whole" / "parameters.txt").read_text()
  # 3x3 convolutions of 3 to 8 and 8 to 12 channels; behind reorg 12 * 4 to 18
  kernels = {"conv_0": 3 * 3 * 3 * 8, "conv_1": 3 * 3 * 8 * 12, "conv_3": 48 * 18}
  for layer, size in kernels.items():
    assert re.search(rf"\| {layer}/conv/kernel +\|.*\| {size:,} +\|", overview)
  assert f"Total: {sum(kernels.values()) + 8 + 12 + 18:,}" in overview
  model = prn_jax.load(tmp_path / "whole")
  assert model.graph.heads[-1].kind == "region"
