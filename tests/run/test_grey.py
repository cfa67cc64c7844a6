"""Networks of one channel, used as any other: Python, the command line, training, ONNX. And those of four."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax import Model
from prn_jax.cli.main import main
from prn_jax.data_pipelines.images.channels import to_grey
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.run.images import predictor
from tests.nets import ANCHORS, random_model

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 56, 3), np.uint8)


def detector(channels: int = 1) -> Graph:
  g = Builder(32, 32, channels, name="grey")
  g.conv(8, size=3, stride=1, padding=1, batch_normalize=True, activation="leaky", name="stem")
  g.maxpool(2, 2, name="pool")  # with the convolution, what inference on CPU rewrites
  g.conv(8, size=3, stride=8, padding=1, batch_normalize=True, activation="leaky", name="body")
  g.conv(27, name="out")
  g.yolo(4, ANCHORS, name="yolo")
  return g.graph()


@pytest.fixture(scope="module")
def model() -> Model:
  return random_model(detector())


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_photo_is_seen_in_grey(model: Model, resize: str) -> None:
  grey = to_grey(PHOTO)
  found = [model(image, conf=0.01, resize=resize) for image in (PHOTO, grey, grey[..., 0], grey / np.float32(255))]
  assert len(found[0]) > 1
  for other in found[1:]:
    np.testing.assert_array_equal(other.boxes_xyxy_px, found[0].boxes_xyxy_px)
  assert found[0].image is not None
  assert np.array_equal(found[0].image, PHOTO), "boxes are drawn on the photo in its colours"


def test_what_detection_computes_is_what_forward_computes(model: Model) -> None:
  square = RNG.integers(0, 256, (32, 32, 3), np.uint8)
  candidates = model.forward(to_grey(square)[None])["yolo"]
  best = np.asarray(candidates).reshape(4, 3, 9)[..., 4].max()
  found = model(square, conf=0.0)
  assert found.scores.max() <= best
  np.testing.assert_allclose(predictor(model).run([predictor(model).prepare(square)]).objectness.max(), best, rtol=1e-4)  # type: ignore[union-attr]


def test_forward_says_which_array_it_takes(model: Model) -> None:
  with pytest.raises(prn_jax.PrnError, match=r"shape \(n, 32, 32, 1\), grey in \[0, 1\]; got shape \(1, 32, 32, 3\)"):
    model.forward(PHOTO[None, :32, :32])


@pytest.mark.parametrize("channels", [2, 4])
def test_other_counts_are_refused_for_photos_alone(channels: int) -> None:
  several = random_model(detector(channels))
  with pytest.raises(
    prn_jax.PrnError, match=rf"'grey' takes images of {channels} channels .* photos have 3 \(RGB\), or 1"
  ):
    several(PHOTO)
  assert several.forward(RNG.random((1, 32, 32, channels), np.float32))["yolo"].shape == (1, 2, 2, 27)
  g = Builder(8, 8, channels, name="classes")
  g.avgpool(name="pool")
  with pytest.raises(prn_jax.PrnError, match=rf"'classes' takes images of {channels} channels"):
    random_model(g.graph())(PHOTO)


@pytest.mark.slow
def test_the_whole_way_of_a_grey_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Trained, scored, asked and written as ONNX, from its cfg alone."""
  cfg, run, photo = tmp_path / "grey.cfg", tmp_path / "run", tmp_path / "photo.png"
  cfg.write_text(random_model(detector()).cfg())
  Image.fromarray(PHOTO).save(photo)
  settings = {
    "model": cfg, "data.train": "synthetic:traffic:8", "data.valid": "synthetic:traffic:4@valid", "batch_size": 8,
    "total.steps": 2, "eval.every.steps": 2, "eval.conf": 0.05, "augment.mosaic": True, "eval.num_pictures": 1,
  }  # fmt: skip
  given = [f"--config.{key}={value}" for key, value in settings.items()]
  assert main(["train", "--config=default", *given, f"--workdir={run}"]) == 0
  assert "channels=1" in (run / "graph.cfg").read_text()
  assert main(["eval", str(run), "--data", "synthetic:traffic:3@valid", "--out", str(tmp_path / "eval")]) == 0
  assert main(["predict", str(run), str(photo), "--conf", "0.01", "--out", str(tmp_path / "found")]) == 0
  assert (tmp_path / "found" / "images" / "photo.jpg").exists()
  capsys.readouterr()
  assert main(["convert", str(run), str(tmp_path / "grey.onnx")]) == 0
  assert "difference" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["predict", "eval", "train"])
def test_four_channels_end_every_command_with_a_sentence(
  command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  cfg, weights, photo = (tmp_path / name for name in ("four.cfg", "four.weights", "photo.png"))
  four = random_model(dataclasses.replace(detector(4), name="four"))
  cfg.write_text(four.cfg())
  four.save(weights)
  Image.fromarray(PHOTO).save(photo)
  rest = {
    "predict": [cfg, photo, "--weights", weights],
    "eval": [cfg, "--weights", weights, "--data", "synthetic:traffic:3@valid"],
    "train": ["--config=default", f"--config.model={cfg}", "--config.data.train=synthetic:traffic:8",
              "--config.batch_size=8", "--config.total.steps=1", f"--workdir={tmp_path / 'run'}"],
  }[command]  # fmt: skip
  assert main([command, *map(str, rest)]) == 2
  said = capsys.readouterr().err
  assert re.search(rf"prn {command}: network 'four' takes images of 4 channels \(\[net\] channels=4\)", said), said
