"""Class names: built-in lists, names files, and the check that they fit a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prn_jax.data_pipelines.class_names import VOC_NAMES as VOC_NAMES
from prn_jax.data_pipelines.class_names import match_names
from prn_jax.errors import PrnError
from prn_jax.files.places import to_path
from prn_jax.files.structured import MAX_BYTES, read_lines
from prn_jax.graph.graph import Graph

COCO_NAMES = (
  "person", "bicycle", "car", "motorbike", "aeroplane", "bus", "train", "truck", "boat", "traffic light",
  "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
  "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
  "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
  "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
  "carrot", "hot dog", "pizza", "donut", "cake", "chair", "sofa", "pottedplant", "bed", "diningtable", "toilet",
  "tvmonitor", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
  "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes by Darknet's names (data/coco.names)."""

COCO_CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""COCO's own numbers of its 80 classes; ten numbers were never used (`detector.c:coco_ids`)."""


def num_classes(graph: Graph) -> int:
  """Classes that the network tells apart: of its detection heads, else the channels of its result."""
  for head in graph.heads:
    if head.is_head:
      return int(head.classes)  # type: ignore[attr-defined]
  return graph.shapes[graph.heads[-1].name].channels


def default_names(graph: Graph) -> tuple[str, ...]:
  """COCO's names for a detector with 80 classes, VOC's for 20, else none."""
  return {80: COCO_NAMES, 20: VOC_NAMES}.get(num_classes(graph), ()) if graph.detects else ()


def coco_category_ids(names: Sequence[str]) -> tuple[int, ...] | None:
  """COCO's own number of every class, if these are its 80 classes in any order and spelling; else None."""
  places = match_names(names, COCO_NAMES)
  return tuple(COCO_CATEGORY_IDS[i] for i in places) if sorted(places) == list(range(len(COCO_NAMES))) else None


def read_names(names: str | Path | Sequence[str]) -> tuple[str, ...]:
  """Names from a sequence, or from a text file with one name per line; blank lines at the end are dropped."""
  if not isinstance(names, str | os.PathLike):
    return tuple(names)
  advice = "Give a text file with one class name per line."
  lines = read_lines(to_path(names), PrnError, MAX_BYTES, advice)
  while lines and not lines[-1].strip():
    lines.pop()
  if not lines:
    raise PrnError(f"class names '{names}': the file is empty; expected one name per line.")
  return tuple(line.strip() for line in lines)


def check_names(names: Sequence[str], graph: Graph) -> None:
  """Raises PrnError unless there are no names or as many as classes."""
  count = num_classes(graph)
  if names and len(names) != count:
    raise PrnError(
      f"{len(names)} class names were given, but network '{graph.name}' has {count} classes. "
      "Give the names file that belongs to the weights."
    )
