"""What a run sees, for people: training images as they are augmented, with their boxes, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS
from prn_jax.data_pipelines.images.hatched import hatched
from prn_jax.detect.draw import class_color, draw_boxes, text_color
from prn_jax.files.disk import written_beside
from prn_jax.fonts import letters

TRAIN, VALID = "train_samples.jpg", "valid_samples.jpg"
MOST, COLUMNS = 16, 4
TILE_PX, GAP_PX = 288, 6
_PAPER = (245, 245, 245)


def batch_tiles(batch: Mapping[str, np.ndarray], names: Sequence[str], most: int = MOST) -> list[Image.Image]:
  """The first images of a training batch with what the loss is told of them."""
  tiles = []
  for row in range(min(most, len(batch["image"]))):
    image = np.asarray(batch["image"][row])
    image = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[-1] == 1 else image[..., :3]
    height, width = image.shape[:2]
    scale = TILE_PX / max(height, width)
    shown = Image.fromarray(np.ascontiguousarray(image)).resize(
      (max(1, round(scale * width)), max(1, round(scale * height))), Image.Resampling.BICUBIC
    )
    tiles.append(_with_truth(np.asarray(shown), batch, row, names))
  return tiles


def _with_truth(image: np.ndarray, batch: Mapping[str, np.ndarray], row: int, names: Sequence[str]) -> Image.Image:
  height, width = image.shape[:2]
  if "truth" not in batch:
    label = int(batch["label"][row])
    tile = Image.fromarray(image)
    _caption(tile, names[label] if 0 <= label < len(names) else "?", class_color(label))
    return tile
  truth = np.asarray(batch["truth"][row], np.float64)
  truth = truth[(truth[:, 2] > 0) & (truth[:, 3] > 0)]
  centres, sides = truth[:, :2] * (width, height), truth[:, 2:4] * (width, height)
  boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)
  classes = truth[:, 4].astype(int)
  is_object = classes != IGNORED_CLASS
  shown = hatched(image, boxes[~is_object])
  boxes, classes = boxes[is_object], classes[is_object]
  return draw_boxes(shown, boxes, [names[c] for c in classes], classes)


def _caption(tile: Image.Image, text: str, color: tuple[int, int, int]) -> None:
  draw, font = ImageDraw.Draw(tile), letters(14)
  draw.rectangle((0, 0, tile.width, 20), fill=color)
  font.draw(draw, (4, 2), text, text_color(color))


def write_sheet(tiles: Sequence[Image.Image], file: Path) -> None:
  """Writes pictures side by side, each scaled to its tile; the file appears whole or not at all."""
  columns = min(COLUMNS, len(tiles))
  small = [_fitted(tile) for tile in tiles]
  height = max(tile.height for tile in small)
  rows = math.ceil(len(small) / columns)
  sheet = Image.new("RGB", (columns * (TILE_PX + GAP_PX) + GAP_PX, rows * (height + GAP_PX) + GAP_PX), _PAPER)
  for number, tile in enumerate(small):
    left, top = number % columns * (TILE_PX + GAP_PX) + GAP_PX, number // columns * (height + GAP_PX) + GAP_PX
    sheet.paste(tile, (left + (TILE_PX - tile.width) // 2, top + (height - tile.height) // 2))
  with written_beside(file) as out:
    sheet.save(out, "JPEG", quality=90)


def _fitted(tile: Image.Image) -> Image.Image:
  scale = TILE_PX / max(tile.size)
  size = (max(1, round(scale * tile.width)), max(1, round(scale * tile.height)))
  return tile if size == tile.size else tile.resize(size, Image.Resampling.BICUBIC)


def write_training_samples(batch: Mapping[str, Any], names: Sequence[str], workdir: Path) -> None:
  """RUN/train_samples.jpg."""
  write_sheet(batch_tiles(batch, names), workdir / TRAIN)


def write_validation_samples(pictures: Sequence[Path], workdir: Path) -> None:
  """RUN/valid_samples.jpg, of pictures with detections that are there already."""
  tiles = []
  for file in pictures[:MOST]:
    with Image.open(file) as picture:
      tiles.append(picture.convert("RGB"))
  if tiles:
    write_sheet(tiles, workdir / VALID)
