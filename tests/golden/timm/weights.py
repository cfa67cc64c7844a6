"""Weights for every network of timm that follow from their names: the same for timm, which made the golden, and for us."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
CLASSES = 7
IMAGES = np.random.default_rng(0).random((1, 75, 62, 3), np.float32)
"""RGB in [0, 1]; an odd size, so that the sides of maps and their padding differ."""

Shapes = dict[str, tuple[int, ...]]


def shapes(name: str) -> Shapes:
  """timm's names and shapes of a network of `CLASSES` classes, without counters."""
  with gzip.open(FOLDER / "names.json.gz", "rt", encoding="utf-8") as file:
    return {key: tuple(shape) for key, shape in json.load(file)[name].items()}


def pixels(name: str) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
  """Tag -> mean and std that timm says."""
  found = json.loads((FOLDER / "pixels.json").read_text())[name]
  return {tag: (tuple(mean), tuple(std)) for tag, (mean, std) in found.items()}


def arrays(of: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Values no one of which cancels: random kernels, scales, biases and statistics."""
  return {name: _array(name, shape, of) for name, shape in of.items()}


def _array(name: str, shape: tuple[int, ...], of: Mapping[str, tuple[int, ...]]) -> np.ndarray:
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  stem, _, last = name.rpartition(".")
  if last == "running_var" or (f"{stem}.running_var" in of and last == "weight"):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  if last in ("running_mean", "bias"):
    return rng.normal(0, 0.1, shape).astype(np.float32)
  return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)


def places(shape: tuple[int, ...], layer: str) -> np.ndarray:
  """64 places in a map, as flat indices; all of a smaller one."""
  size = int(np.prod(shape))
  return np.random.default_rng(zlib.crc32(layer.encode())).permutation(size)[:64]
