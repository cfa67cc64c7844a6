"""Integers as files: a reader of its own, in numpy alone, gets the outputs of the integer reference from nothing but the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.cli.main import main
from prn_jax.errors import OutOfScopeError, PrnError
from prn_jax.export import convert
from prn_jax.quantize import fpga, integer, ptq
from prn_jax.quantize.presets import preset_of
from tests.nets import random_model
from tests.quantize.test_integer import made, network

TILES = (3, 2)  # that divide nothing evenly


class Reader:
  """docs/compression.md, "Integers as files", and nothing of the package."""

  def __init__(self, folder: Path) -> None:
    self.manifest = json.loads((folder / "manifest.json").read_text())
    for name, digest in self.manifest["files"].items():
      assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    self.weights = np.frombuffer((folder / "weights.bin").read_bytes(), "<i1")
    self.biases = (folder / "biases.bin").read_bytes()

  def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
    maps: dict[str, np.ndarray] = {}
    for one in self.manifest["operations"]:
      xs = [maps[name] for name in one["inputs"] if name != "input"]
      maps[one["name"]] = getattr(self, one["op"])(one, image, *xs)
      assert list(maps[one["name"]].shape) == one["shape"]
    return maps

  def image(self, one: Any, image: np.ndarray) -> np.ndarray:
    return (
      np.floor(image.astype(np.float64) * 2 ** one["fraction_bits"] + 0.5).clip(one["low"], one["high"]).astype(int)
    )

  def quantize(self, one: Any, image: np.ndarray, x: np.ndarray) -> np.ndarray:
    shift = one["shift"]
    if shift <= 0:
      return (x << -shift).clip(one["low"], one["high"])
    return (np.sign(x) * ((abs(x) + (1 << shift - 1)) >> shift)).clip(one["low"], one["high"])

  def kernel(self, one: Any) -> np.ndarray:
    height, width, channels, filters = one["kernel"]["shape"]
    tile, at = self.manifest["tile"], one["kernel"]["offset"]
    kernel = np.zeros((height * width, filters, channels), int)
    for out in range(0, filters, tile["out"]):
      for into in range(0, channels, tile["in"]):
        block = kernel[:, out : out + tile["out"], into : into + tile["in"]]
        block[:] = self.weights[at : at + block.size].reshape(block.shape)
        at += block.size
    return kernel.reshape(height, width, filters, channels)

  def conv(self, one: Any, image: np.ndarray, x: np.ndarray) -> np.ndarray:
    kernel, (down, across), groups = self.kernel(one), one["strides"], one["groups"]
    rows, columns, filters = one["shape"]
    bias = np.frombuffer(self.biases, "<i4", filters, one["bias"]["offset"])
    padded = np.pad(x, (*one["zeros"], (0, 0)))
    y = np.zeros((rows, columns, filters), int)
    for row in range(rows):
      for column in range(columns):
        for f in range(filters):
          first = f // (filters // groups) * kernel.shape[3]
          step = one["dilation"]
          window = padded[row * down :, column * across :][
            : (kernel.shape[0] - 1) * step + 1 : step, : (kernel.shape[1] - 1) * step + 1 : step
          ]
          y[row, column, f] = (window[..., first : first + kernel.shape[3]] * kernel[:, :, f]).sum() + bias[f]
    return self.activated(one, y)

  def activated(self, one: Any, y: np.ndarray) -> np.ndarray:
    kind = one["activation"]
    if kind["name"] == "leaky":
      return np.where(y > 0, y << kind["shift"], y * kind["multiplier"])
    return np.maximum(y, 0) if kind["name"] == "relu" else y

  def add(self, one: Any, image: np.ndarray, x: np.ndarray, *others: np.ndarray) -> np.ndarray:
    y = x.copy()
    for other in others:
      common = min(y.shape[2], other.shape[2])
      y[..., :common] += other[..., :common]
    return self.activated(one, y)

  def concat(self, one: Any, image: np.ndarray, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate([np.split(x, one["groups"], 2)[one["group"]] for x in xs], 2)

  def maxpool(self, one: Any, image: np.ndarray, x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, (*one["outside"], (0, 0)), constant_values=-(2**31))
    (down, across), size = one["strides"], one["size"]
    rows = range(0, one["shape"][0] * down, down)
    columns = range(0, one["shape"][1] * across, across)
    return np.array([[padded[r : r + size, c : c + size].max((0, 1)) for c in columns] for r in rows])

  def upsample(self, one: Any, image: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x.repeat(one["factor"], 0).repeat(one["factor"], 1)

  def copy(self, one: Any, image: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x


@pytest.mark.parametrize("slope", [0.125, 0.1])
def test_the_files_alone_give_the_reference_to_the_last_bit(slope: float, tmp_path: Path) -> None:
  model, images = made(network(slope))
  manifest = fpga.write(tmp_path / "out", model, TILES)
  reader = Reader(tmp_path / "out")
  assert reader.manifest == manifest
  assert {one["op"] for one in manifest["operations"]} >= {
    "image",
    "quantize",
    "conv",
    "add",
    "concat",
    "maxpool",
    "upsample",
  }
  found, wanted = reader.run(images[0]), integer.run(model.graph, model.variables, images[:1])
  assert set(found) == set(wanted)
  for name, fixed in wanted.items():
    np.testing.assert_array_equal(found[name], fixed.values[0], err_msg=name)
    assert {one["name"]: one["fraction_bits"] for one in manifest["operations"]}[name] == fixed.bits
  assert {
    one["activation"]["multiplier"] for one in manifest["operations"] if one.get("activation", {}).get("shift")
  } == (
    {1} if slope == 0.125 else {13}  # 26 / 256
  )


def test_tiles_by_hand() -> None:
  """1x1 kernel of 3 channels and 3 filters, w[i, o] = 10 i + o, in tiles of 2 filters and 2 channels."""
  kernel = (10 * np.arange(3)[:, None] + np.arange(3)).reshape(1, 1, 3, 3)
  blocks = [block.ravel().tolist() for block in fpga.tiles(kernel, (2, 2))]
  assert blocks == [[0, 10, 1, 11], [20, 21], [2, 12], [22]]


def test_what_has_no_files(tmp_path: Path) -> None:
  model, images = made(network())
  with pytest.raises(PrnError, match=r"a tile of 0x8; expected filters x channels of at least 1 each, as 64x8"):
    fpga.write(tmp_path / "out", model, (0, 8))
  with pytest.raises(
    PrnError, match=r"network 'shifts' is not quantised, so that it has no integers. Write it with --preset"
  ):
    fpga.write(tmp_path / "out", random_model(network()))
  apart = ptq.quantize(random_model(network()), preset_of("ptq-minmax"), [images])
  with pytest.raises(OutOfScopeError, match=r"Quantise with --preset ptq-pow2"):
    fpga.write(tmp_path / "out", apart)
  (tmp_path / "file").write_text("")
  with pytest.raises(PrnError, match=r"file' is a file; expected a folder for manifest.json"):
    fpga.write(tmp_path / "file", model)
  assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  convert.save(made(network())[0], f"{tmp_path / 'q'}/")
  arguments = ["quantize", str(tmp_path / "q"), str(tmp_path / "out")]
  assert main([*arguments, "--fpga", "--tile", "8x"]) == 2
  assert "--tile 8x: expected filters x channels of a block, as 64x8" in capsys.readouterr().err
  assert main([*arguments, "--tile", "8x8"]) == 2
  assert "--tile 8x8 is the order of the integers that --fpga writes" in capsys.readouterr().err
  assert main([*arguments, "--fpga", "--tile", "8x8"]) == 0
  assert "4 of them convolutions (manifest.json)" in capsys.readouterr().out
  assert json.loads((tmp_path / "out" / "manifest.json").read_text())["tile"] == {"out": 8, "in": 8}
