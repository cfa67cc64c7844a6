"""How long the metrics of a whole COCO-sized evaluation take: 5,000 images, 500,000 detections, drawn at random.

Run: python benchmarks/eval_speed.py [--images N] [--detections PER_IMAGE] [--json]
Prints seconds per step; `coco` is what `prn eval` computes after the network (collecting, 12 figures, table of classes).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from prn_jax.detect import metrics

NUM_CLASSES = 80


@dataclasses.dataclass(frozen=True)
class Image:
  """The truths of one image, as `metrics.collect` wants them."""

  image_id: int
  width: int
  height: int
  boxes_xyxy_px: np.ndarray
  classes: np.ndarray
  is_crowd: np.ndarray
  is_difficult: np.ndarray
  area_px: np.ndarray


def draw(num_images: int, per_image: int, seed: int = 0) -> tuple[list[Image], dict[int, metrics.ImageDetections]]:
  """COCO-like scenes: 7.3 objects per image, half of them of one class, 1% crowd; detections scatter around them."""
  rng = np.random.default_rng(seed)
  truths, detections = [], {}
  for image_id in range(num_images):
    count = max(int(rng.poisson(7.3)), 1)
    classes = rng.integers(0, NUM_CLASSES, count)
    classes = np.where(rng.random(count) < 0.5, classes[0], classes)
    corner, size = rng.random((count, 2)) * 500, rng.random((count, 2)) * 120 + 5
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    is_crowd = rng.random(count) < 0.01
    truths.append(
      Image(image_id, 640, 640, boxes, classes, is_crowd, np.zeros(count, bool), np.prod(size, axis=1) * 0.6)
    )
    source = rng.integers(0, count, per_image)
    moved = boxes[source] + rng.normal(0, 8, (per_image, 4))
    moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
    guessed = np.where(rng.random(per_image) < 0.7, classes[source], rng.integers(0, NUM_CLASSES, per_image))
    scores = rng.random(per_image).astype(np.float32)
    detections[image_id] = metrics.ImageDetections(moved.astype(np.float32), scores, guessed)
  return truths, detections


def main() -> None:
  """Draws, measures, prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--images", type=int, default=5000)
  parser.add_argument("--detections", type=int, default=100, help="per image")
  parser.add_argument("--json", action="store_true")
  options = parser.parse_args()
  truths, detections = draw(options.images, options.detections)
  names = [f"class {index}" for index in range(NUM_CLASSES)]
  seconds: dict[str, float] = {}

  def measure(name: str, run: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = run()
    seconds[name] = round(time.perf_counter() - start, 3)
    return result

  data = measure("collect", lambda: metrics.collect(names, truths, detections))
  for protocol in ("coco", "voc07", "voc", "darknet"):
    measure(protocol, lambda protocol=protocol: metrics.evaluate(data, protocol))
  measure("curves", lambda: metrics.compute_curves(data))
  measure("confusion", lambda: metrics.confusion_matrix(metrics.assign(data)))
  measure("explain", lambda: metrics.explain(data))
  result = {"images": data.num_images, "detections": data.num_detections, "seconds": seconds}
  if options.json:
    print(json.dumps(result))
    return
  print(f"{data.num_images:,} images, {data.num_detections:,} detections")
  for name, value in seconds.items():
    print(f"  {name:<10}{value:8.3f} s")


if __name__ == "__main__":
  main()
