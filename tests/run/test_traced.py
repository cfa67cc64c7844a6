"""Traced programs on disk: read instead of traced, never for another network or source, and never required."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.kinds.conv import Conv
from prn_jax.model import Model
from prn_jax.network import Network
from prn_jax.run import traced
from prn_jax.run.detector import DetectOptions, Detector
from prn_jax.run.inference import Inference
from tests.nets import random_model

IMAGES = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)


@pytest.fixture
def switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(traced, "_is_on", lambda: True)
  return tmp_path / "prn_jax" / "traced"


def untraceable(*args: Any, **kwargs: Any) -> Any:
  raise AssertionError("traced again")


def heads(model: Model, images: np.ndarray = IMAGES, **options: Any) -> dict[str, np.ndarray]:
  return {name: np.asarray(value) for name, value in Inference(model, **options)(images).items()}


def test_the_next_process_does_not_trace(switched_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  model = random_model()
  first = heads(model)
  assert len(list(switched_on.iterdir())) == 1
  monkeypatch.setattr(Network, "__call__", untraceable)
  again = heads(model)
  for name, value in first.items():
    np.testing.assert_array_equal(again[name], value)
  (file,) = switched_on.iterdir()
  monkeypatch.undo()
  file.write_bytes(file.read_bytes()[:100])
  monkeypatch.setenv("XDG_CACHE_HOME", str(switched_on.parent.parent))
  monkeypatch.setattr(traced, "_is_on", lambda: True)
  np.testing.assert_array_equal(*(found[next(iter(first))] for found in (heads(model), first)))
  assert file.stat().st_size > 100  # written anew


def test_a_process_that_traces_nothing_needs_no_flax() -> None:
  """Its import takes a third of a second, a tenth of the time to the first picture."""
  code = (
    "import sys, prn_jax.loading, prn_jax.run.detector, prn_jax.run.images, prn_jax.run.inference, prn_jax.detect.nms\n"
    "assert 'jax' in sys.modules, 'these are the modules that run networks'\n"
    "sys.exit('flax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_program_has_another_name(switched_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  model = random_model()

  def files() -> int:
    return len(list(switched_on.iterdir()))

  heads(model)
  heads(model, np.concatenate([IMAGES, IMAGES]))
  assert files() == 2
  heads(model, (IMAGES * 255).astype(np.uint8))
  assert files() == 3
  heads(model, dtype=jax.numpy.bfloat16)
  assert files() == 4
  layers = tuple(
    dataclasses.replace(layer, activation="mish") if isinstance(layer, Conv) and layer.activation == "leaky" else layer
    for layer in model.graph
  )
  heads(dataclasses.replace(model, graph=dataclasses.replace(model.graph, layers=layers)))
  assert files() == 5
  monkeypatch.setattr(traced, "sources", lambda: [("network.py", 1, 2)])
  heads(model)
  assert files() == 6
  heads(model)
  assert files() == 6


def test_a_detector_finds_the_same(switched_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  image = (np.random.default_rng(1).random((40, 50, 3)) * 255).astype(np.uint8)
  model = random_model()
  first = Detector(model)([image])[0]
  assert len(list(switched_on.iterdir())) == 2  # the network, and its boxes
  monkeypatch.setattr("prn_jax.detect.nms.postprocess", untraceable)
  again = Detector(model)([image])[0]
  np.testing.assert_array_equal(again.boxes_xyxy_px, first.boxes_xyxy_px)
  np.testing.assert_array_equal(again.scores, first.scores)


def test_detectors_of_one_network_share_its_programs(switched_on: Path) -> None:
  image = (np.random.default_rng(1).random((40, 50, 3)) * 255).astype(np.uint8)
  model = random_model()
  network = Inference(model)
  some, every = (
    Detector(model, DetectOptions(conf=0.1, classes=classes), network=network)([image])[0] for classes in ([1], None)
  )
  assert len(every) > len(some) > 0
  assert len(list(switched_on.iterdir())) == 2  # a choice of classes is an argument
  Detector(model, DetectOptions(conf=0.3), network=network)([image])
  assert len(network._with_heads) == 1


def test_nothing_is_kept_of_layers_from_elsewhere(switched_on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(Conv, "__module__", "mine.kinds")
  heads(random_model())
  assert not switched_on.exists()


def test_who_chose_another_cache_gets_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  heads(random_model())  # the tests have chosen a folder
  assert not list(tmp_path.rglob("*.stablehlo"))


def test_a_folder_that_cannot_be_written_is_no_matter(switched_on: Path) -> None:
  switched_on.parent.mkdir()
  switched_on.write_text("a file")
  assert heads(random_model())
