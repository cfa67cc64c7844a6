"""How fast training batches are made: images/s by stage, and side by side with a torch DataLoader doing the same work.

    python benchmarks/input_pipeline.py [--images 256] [--size 416] [--threads 2] [--rounds 3] [--json]
    python benchmarks/input_pipeline.py --data coco:ANNOTATIONS.json:IMAGES_DIR

Without --data, drawn road scenes are written as 640x480 JPEGs (quality 90) to a temporary folder. "prepared" is the same
data after `prn data prepare --size`, which stores the images at the size of the network. Stages are timed one after
another in CPU time of one thread, the best of the rounds. Whole pipelines take turns in every round, ours with threads and
with processes (`data.workers`), torch's with as many processes; the ratio is between their medians. CPU time per image is measured too, because it
does not depend on what else the machine does (Linux alone).

torch is used where it can be imported. Its data set does the same work in the fastest way Pillow has: decode, crop with
jitter and resize in one call, flip, hue, saturation and brightness by three tables in one pass through HSV, collate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.feed.batching import DecodeSize, Rows, stack, truth_rows
from prn_jax.data_pipelines.feed.decoding import make_sample
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, train_batches
from prn_jax.data_pipelines.parallel import default_threads
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions
from prn_jax.data_pipelines.records import Dataset
from prn_jax.data_pipelines.sources.synthetic import SyntheticTraffic
from prn_jax.data_pipelines.spec import open_spec

AUGMENT = DetectionAugment(jitter=0.3, hue=0.1, saturation=1.5, exposure=1.5)  # yolov3.cfg
MAX_BOXES = 90
BATCH_SIZE = 16
PREFETCH = 4  # batches made ahead, in all
PAUSE_SEC = 1.5
STEPS = 48  # timed at a time
TORCH = "torch, jpeg, processes"


def write_photos(folder: Path, count: int) -> str:
  """Draws scenes as JPEG files with labels; returns their SPEC."""
  scenes = SyntheticTraffic(count, width=640, height=480)
  for part in ("images", "labels"):
    (folder / part / "train").mkdir(parents=True)
  for index in range(count):
    image, boxes, classes = scenes[index]
    grain = np.random.default_rng(index).normal(0, 6, image.shape)  # a camera's; drawings alone compress too well
    noisy = np.clip(image + grain, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / "images" / "train" / f"{index:05d}.jpg", quality=90)
    relative = boxes / np.array([640, 480, 640, 480])
    lines = [
      f"{label} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"
      for label, (x1, y1, x2, y2) in zip(classes, relative, strict=True)
    ]
    (folder / "labels" / "train" / f"{index:05d}.txt").write_text("".join(lines))
  names = "".join(f"  {index}: {name}\n" for index, name in enumerate(scenes.names))
  (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/train\nnames:\n{names}")
  return f"yolo:{folder / 'data.yaml'}:train"


def images_per_cpu_sec(work: Callable[[], object], num_images: int) -> float:
  began = time.thread_time()
  work()
  return num_images / (time.thread_time() - began)


def stages(dataset: Dataset, size: int, rounds: int, limit: int = 128) -> dict[str, float]:
  """Images per CPU second of every stage; the best of the rounds."""
  count = min(len(dataset), limit)
  at_least = DecodeSize(AUGMENT, (size, size), PipelineConfig.decode_margin)
  result: dict[str, list[float]] = {}

  def read(index: int) -> int:
    image = dataset[index].image
    return len(image if isinstance(image, bytes) else image.read_bytes())

  for _ in range(rounds):
    speed = {"read": images_per_cpu_sec(lambda: [read(index) for index in range(count)], count)}
    records = [dataset[index] for index in range(count)]
    speed["read+decode"] = images_per_cpu_sec(lambda: [make_sample(record, at_least) for record in records], count)  # noqa: B023
    samples = [make_sample(record, at_least) for record in records]
    rng = np.random.default_rng(0)
    speed["augment"] = images_per_cpu_sec(lambda: [AUGMENT.apply([one], (size, size), rng) for one in samples], count)  # noqa: B023
    outputs = [AUGMENT.apply([one], (size, size), rng)[0] for one in samples]

    def batch() -> None:
      truths = [truth_rows(one, MAX_BOXES, rng)[0] for one in outputs]  # noqa: B023
      for start in range(0, count, BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        stack([Rows(tuple(outputs[rows]), tuple(range(count))[rows], tuple(truths[rows]))])  # noqa: B023

    speed["batch"] = images_per_cpu_sec(batch, count)
    for name, value in speed.items():
      result.setdefault(name, []).append(value)
  return {name: max(values) for name, values in result.items()}


def our_batches(dataset: Dataset, size: int, num: int, *, processes: bool) -> Iterator[int]:
  """Numbers of images of endless batches, made by threads of this process or by processes of their own."""
  config = PipelineConfig(
    seed=0, batch_size=BATCH_SIZE, sizes=((size, size),), max_boxes=MAX_BOXES, prefetch=PREFETCH,
    threads=1 if processes else num, workers=num if processes else 0,
  )  # fmt: skip
  with train_batches(dataset, AUGMENT, config) as batches:
    for _, batch in batches:
      yield len(batch["image"])


# -- the same work in torch --------------------------------------------------------------------------------------------


class TorchDataset:
  """Map-style data set for torch's DataLoader; what it does to an image is what `AUGMENT` does."""

  def __init__(self, dataset: Dataset, size: int) -> None:
    self.records = [dataset[index] for index in range(len(dataset))]
    self.size = size

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> tuple[Any, Any]:
    import torch

    record = self.records[index]
    with Image.open(record.image) as file:  # type: ignore[arg-type]
      image = file.convert("RGB")
    width, height = image.size
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    left, right = (int(rng.uniform(-AUGMENT.jitter, AUGMENT.jitter) * width) for _ in range(2))
    top, bottom = (int(rng.uniform(-AUGMENT.jitter, AUGMENT.jitter) * height) for _ in range(2))
    box_width, box_height = width - left - right, height - top - bottom
    # Pillow resizes without smoothing, as Darknet does, by an affine map; outside the photo it is black.
    matrix = (box_width / self.size, 0, left, 0, box_height / self.size, top)
    image = image.transform((self.size, self.size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    boxes = torch.from_numpy(record.boxes_xyxy_px.copy())
    boxes = ((boxes - torch.tensor([left, top] * 2)) / torch.tensor([box_width, box_height] * 2)).clamp(0, 1)
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    tables = np.arange(256) + np.array([[rng.uniform(-AUGMENT.hue, AUGMENT.hue) * 255], [0], [0]])
    tables[0] %= 256
    tables[1] *= rng.uniform(1 / AUGMENT.saturation, AUGMENT.saturation)
    tables[2] *= rng.uniform(1 / AUGMENT.exposure, AUGMENT.exposure)
    image = image.convert("HSV").point(tables.clip(0, 255).astype(int).ravel().tolist()).convert("RGB")
    truth = torch.zeros(MAX_BOXES, 5)
    count = min(len(boxes), MAX_BOXES)
    truth[:count, :2] = (boxes[:count, :2] + boxes[:count, 2:]) / 2
    truth[:count, 2:4] = boxes[:count, 2:] - boxes[:count, :2]
    truth[:count, 4] = torch.from_numpy(record.classes[:count].astype(np.float32))
    return torch.from_numpy(np.array(image)), truth


def torch_batches(dataset: Dataset, size: int, workers: int) -> Iterator[int] | None:
  """As `our_batches`, by processes; None without torch."""
  try:
    import torch
  except ImportError:
    return None
  torch.set_num_threads(1)
  images = TorchDataset(dataset, size)
  loader = torch.utils.data.DataLoader(
    images,
    batch_size=BATCH_SIZE,
    sampler=torch.utils.data.RandomSampler(images, replacement=True, num_samples=10**7),
    num_workers=workers,
    prefetch_factor=PREFETCH // workers,
  )
  return (len(image) for image, _ in loader)


def cpu_sec() -> float:
  """CPU seconds of this process and of its living children (Linux; elsewhere of this process alone)."""
  total = time.process_time()
  for child in multiprocessing.active_children():
    stat = Path(f"/proc/{child.pid}/stat")
    if stat.exists():
      fields = stat.read_text().rpartition(")")[2].split()
      total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  return total


class Speed(NamedTuple):
  images_per_sec: float
  cpu_ms_per_image: float


def compare(runs: dict[str, Iterator[int]], steps: int, rounds: int) -> dict[str, list[Speed]]:
  """Speed of every pipeline in every round, while it runs; a first round, in which files are cached, does not count.

  A pipeline that waits fills its buffers: each turn begins when the one before has done so, and with taking more
  batches than they hold, which do not count.
  """
  speeds: dict[str, list[Speed]] = {name: [] for name in runs}
  for number in range(rounds + 1):
    for name, batches in runs.items():
      time.sleep(PAUSE_SEC)
      for _ in range(4 * PREFETCH):
        next(batches)
      began, cpu_began = time.perf_counter(), cpu_sec()
      count = sum(next(batches) for _ in range(steps))
      if number:
        speeds[name].append(Speed(count / (time.perf_counter() - began), (cpu_sec() - cpu_began) / count * 1e3))
  return speeds


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
  """All figures."""
  spec = options.data or write_photos(folder, options.images)
  dataset = open_spec(spec)
  size = (options.size, options.size)
  sets = {
    "jpeg": dataset,
    "prepared": open_spec(prepare(spec, folder / "prepared", split="train", options=ShrinkOptions(size=size)).spec),
  }
  result: dict[str, Any] = {"images": len(dataset), "size": options.size, "threads": options.threads, "stages": {}}
  runs: dict[str, Iterator[int]] = {}
  for name, one in sets.items():
    result["stages"][name] = stages(one, options.size, options.rounds)
    runs[f"ours, {name}, threads"] = our_batches(one, options.size, options.threads, processes=False)
    runs[f"ours, {name}, processes"] = our_batches(one, options.size, options.threads, processes=True)
  torch = torch_batches(dataset, options.size, options.threads)
  if torch is not None:
    runs[TORCH] = torch
  speeds = compare(runs, STEPS, options.rounds)
  result["whole"] = {name: median(values) for name, values in speeds.items()}
  if torch is not None:
    base = result["whole"][TORCH]
    result["times_torch"] = {
      name: {
        "images_per_sec": speed["images_per_sec"] / base["images_per_sec"],
        "images_per_cpu_sec": base["cpu_ms_per_image"] / speed["cpu_ms_per_image"],
      }
      for name, speed in result["whole"].items()
      if name != TORCH
    }
  return result


def median(speeds: list[Speed]) -> dict[str, float]:
  return {name: statistics.median(getattr(speed, name) for speed in speeds) for name in Speed._fields}


def lines(result: dict[str, Any]) -> Iterator[str]:
  yield f"{result['images']} images, {result['size']}x{result['size']}, {result['threads']} threads or workers"
  for name, speeds in result["stages"].items():
    yield f"stages of {name}, images per second of one core:"
    yield from (f"  {stage:<14}{speed:10,.0f}" for stage, speed in speeds.items())
  yield "whole, medians:"
  for name, speed in result["whole"].items():
    yield f"  {name:<26}{speed['images_per_sec']:8,.0f} images/s {speed['cpu_ms_per_image']:8.2f} ms of CPU an image"
  for name, ratio in result.get("times_torch", {}).items():
    yield (
      f"{name}: {ratio['images_per_sec']:.2f} times the images/s of torch's DataLoader, "
      f"{ratio['images_per_cpu_sec']:.2f} times its images per CPU second"
    )


def main() -> None:
  """Reads the options, measures, prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--images", type=int, default=256)
  parser.add_argument("--size", type=int, default=416)
  parser.add_argument("--threads", type=int, default=default_threads())
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--data", help="SPEC of images in files, instead of drawn scenes")
  parser.add_argument("--json", action="store_true")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    result = measure(options, Path(folder))
  print(json.dumps(result) if options.json else "\n".join(lines(result)))


if __name__ == "__main__":
  main()
