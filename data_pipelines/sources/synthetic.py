"""Drawn road scenes: `synthetic:traffic:N`, images with boxes for as many as one wants and without any download.

Cars, trucks, buses and people on streets by day, dusk and night, with perspective, occlusion, haze and lamps. A
scene is a function of (split, seed, index) alone: the same on every platform, in any order, in any process.

`synthetic:traffic:N` are the first N training scenes; `synthetic:traffic:N@valid` are scenes that no training set
holds, whatever its seed and size.

Labels: a box is the exact extent of the drawn object (without its shadow and the glow of its lamps), clipped to the
image. An object of which less than a quarter of its area is seen, because something nearer hides it or it lies
outside the image, is drawn but not labelled (areas are those of convex outlines; see `traffic.visible`). No vehicle that is in view is less than 1/16 of the image's height
wide or high, and nobody on foot is less than 1/10 of it high, before clipping and hiding.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.records import DataError, Problem, ProblemLog, Record, Task
from prn_jax.data_pipelines.spec import register_source
from prn_jax.data_pipelines.traffic.dice import Dice
from prn_jax.data_pipelines.traffic.scene import CLASS_NAMES, draw_scene

WIDTH, HEIGHT = 320, 240
MIN_SIDE_PX = 32


class Split(StrEnum):
  """Scenes of different splits never coincide."""

  TRAIN = "train"
  VALID = "valid"


@dataclass(frozen=True)
class SyntheticTraffic:
  """Road scenes by index, drawn when asked for.

  Attributes:
    count: number of scenes; the first scenes do not depend on it.
    seed: another seed gives other scenes.
    width, height: image size in pixels; for one aspect, the same scenes at any size.
    split: scenes of "train" and "valid" never coincide.

  Raises:
    DataError: count or seed is negative, or a side is below 32 pixels.
  """

  count: int
  seed: int = 0
  width: int = WIDTH
  height: int = HEIGHT
  split: Split | str = Split.TRAIN

  def __post_init__(self) -> None:
    if self.split not in list(Split):
      raise DataError(f"synthetic traffic: split is {self.split!r}; expected 'train' or 'valid'.")
    if self.count < 1 or self.seed < 0:
      raise DataError(f"synthetic traffic: {self.count} scenes with seed {self.seed}; expected at least 1 and 0.")
    if min(self.width, self.height) < MIN_SIDE_PX:
      raise DataError(
        f"synthetic traffic: images of {self.width}x{self.height} pixels; expected at least {MIN_SIDE_PX}x{MIN_SIDE_PX}."
      )

  @property
  def names(self) -> tuple[str, ...]:
    return CLASS_NAMES

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """Draws a scene.

    Args:
      index: 0 to count - 1, or negative, from the end.

    Returns:
      Image uint8 (height, width, 3) RGB; boxes float32 (n, 4) as x1, y1, x2, y2 in pixels within the image; classes
      int32 (n,), indices of `names`.

    Raises:
      IndexError: there is no such scene.
    """
    at = operator.index(index)
    if not -self.count <= at < self.count:
      raise IndexError(f"synthetic traffic has {self.count} scenes, 0 to {self.count - 1}; there is no scene {at}.")
    stream = list(Split).index(Split(self.split))
    return draw_scene(Dice(stream, self.seed, at % self.count), self.width, self.height)


@dataclass(frozen=True)
class TrafficRecords:
  """Scenes as annotated images; the image of a record is a PPM file in memory, the fastest to decode.

  Attributes:
    scenes: the scenes that the images show.
  """

  scenes: SyntheticTraffic

  @property
  def names(self) -> tuple[str, ...]:
    return self.scenes.names

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.names)))

  @property
  def task(self) -> Task:
    return Task.DETECT

  @property
  def problems(self) -> Sequence[Problem]:
    return ()

  def __len__(self) -> int:
    return len(self.scenes)

  def __getitem__(self, index: int) -> Record:
    image, boxes_xyxy_px, classes = self.scenes[index]
    height, width, _ = image.shape
    nothing = np.zeros(len(classes), np.bool_)
    return Record(
      image=b"P6 %d %d 255\n" % (width, height) + image.tobytes(),
      image_id=f"{self.scenes.split}_{self.scenes.seed}_{index % len(self.scenes):07d}",
      width=width,
      height=height,
      boxes_xyxy_px=boxes_xyxy_px,
      classes=classes,
      is_crowd=nothing,
      is_difficult=nothing,
    )


@register_source("synthetic:traffic:N", "drawn road scenes, nothing to download; traffic:N@valid draws others")
def open_synthetic(parts: tuple[str, ...], log: ProblemLog) -> TrafficRecords:
  """Opens `synthetic:traffic:N` (training scenes) or `synthetic:traffic:N@valid`; nothing is drawn yet.

  Raises:
    DataError: another name than traffic, N is not a positive number, or the split is neither train nor valid.
  """
  name, number = parts
  spec = f"synthetic:{name}:{number}"
  if name != "traffic":
    raise DataError(f"data '{spec}': there are no drawn scenes '{name}'. Expected synthetic:traffic:N.")
  count, _, split = number.partition("@")
  if not (count.isascii() and count.isdigit() and int(count) > 0):
    raise DataError(f"data '{spec}': '{count}' is no number of scenes. Expected as in synthetic:traffic:1000.")
  if "@" in number and split not in list(Split):
    raise DataError(f"data '{spec}': unknown split '{split}'. Expected synthetic:traffic:{count}@train or @valid.")
  return TrafficRecords(SyntheticTraffic(int(count), split=split or Split.TRAIN))
