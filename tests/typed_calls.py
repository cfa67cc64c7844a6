"""What a type checker and an editor know about `model(images)`: mypy checks this file (pyproject.toml), a test runs it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import assert_type

import numpy as np
from PIL import Image

import prn_jax
from prn_jax import Classification, Detections, Model


def one_detection(model: Model, path: Path) -> list[Detections]:
  """One image in every form is one result."""
  with Image.open(path) as picture:
    return [
      assert_type(model(path), Detections),
      assert_type(model(str(path), conf=0.5), Detections),
      assert_type(model(path.read_bytes()), Detections),
      assert_type(model(io.BytesIO(path.read_bytes())), Detections),
      assert_type(model(picture), Detections),
      assert_type(model(np.asarray(picture)), Detections),
    ]


def many_detections(model: Model, path: Path) -> list[list[Detections]]:
  """Many images are a list of results."""
  return [
    assert_type(model([path], batch_size=1), list[Detections]),
    assert_type(model((str(path),)), list[Detections]),
    assert_type(model(one for one in [path.read_bytes()]), list[Detections]),
  ]


def classes(model: Model, path: Path) -> tuple[Classification, list[Classification]]:
  """A classifier's results have the types of `classify`."""
  return assert_type(model.classify(path), Classification), assert_type(model.classify([path]), list[Classification])


def loaded(path: Path) -> Model:
  """What is loaded is a `Model`."""
  return assert_type(prn_jax.load(path), Model)
