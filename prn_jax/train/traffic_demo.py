"""Trains the detector whose weights the package carries (`traffic-tiny-prn`), on drawn road scenes.

    python -m prn_jax.train.traffic_demo --out runs/traffic --minutes 25

Scenes are drawn once and kept in memory; mirrored and with other brightness and contrast they are new each time. The
loss is Darknet's, with the settings of yolov3-tiny-prn and several anchors per object.

The carried weights took two runs on 2 busy CPU cores: 30 minutes (1,263 steps) with the CIoU loss of yolov4-tiny
(iou_normalizer 0.07, learning rate 0.003) gave AP50 0.447 on 200 unseen scenes; from there, `--weights FIRST --minutes 18
--scenes 8000 --seed 1 --learning-rate 0.002` with the loss below gave 0.850. One run from scratch has not been measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.sources.synthetic import SyntheticTraffic
from prn_jax.detect.loss import detection_loss
from prn_jax.formats.darknet_training import HeadTraining
from prn_jax.graph.graph import Graph
from prn_jax.model import Model, load
from prn_jax.models.registry import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.train._demo_step import Metrics, TrainState, init_state, train_step

MAX_BOXES = 24
SETTINGS = HeadTraining(iou_loss="mse", iou_normalizer=0.75, ignore_thresh=0.7, iou_thresh=0.213, max=MAX_BOXES)


@dataclasses.dataclass(frozen=True)
class Options:
  """Settings of a run; durations in images."""

  num_scenes: int = 12000
  batch_size: int = 32
  learning_rate: float = 3e-3
  weight_decay: float = 5e-4
  ema_decay: float = 0.998
  seed: int = 0


def draw(index: int, seed: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
  """Scene `index` as (image uint8, truth (MAX_BOXES, 5): cx, cy, w, h relative, class; unused rows 0)."""
  image, boxes_xyxy_px, classes = SyntheticTraffic(index + 1, seed=seed, width=width, height=height)[index]
  boxes = boxes_xyxy_px[:MAX_BOXES] / np.array([width, height, width, height], np.float32)
  truth = np.zeros((MAX_BOXES, 5), np.float32)
  count = len(boxes)
  truth[:count, :2] = (boxes[:, :2] + boxes[:, 2:]) / 2
  truth[:count, 2:4] = boxes[:, 2:] - boxes[:, :2]
  truth[:count, 4] = classes[:count]
  return image, truth


def draw_all(graph: Graph, options: Options, workers: int) -> tuple[np.ndarray, np.ndarray]:
  job = functools.partial(draw, seed=options.seed, width=graph.width, height=graph.height)
  with ProcessPoolExecutor(workers) as pool:
    scenes = list(pool.map(job, range(options.num_scenes), chunksize=50))
  return np.stack([image for image, _ in scenes]), np.stack([truth for _, truth in scenes])


def batches(images: np.ndarray, truths: np.ndarray, options: Options) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches; every scene once per round, half of them mirrored."""
  rng = np.random.default_rng(options.seed)
  while True:
    order = rng.permutation(len(images))
    for start in range(0, len(order) - options.batch_size + 1, options.batch_size):
      chosen = order[start : start + options.batch_size]
      image, truth = images[chosen], truths[chosen].copy()
      mirrored = rng.random(len(chosen)) < 0.5
      image[mirrored] = image[mirrored][:, :, ::-1]
      used = mirrored[:, None] & (truth[..., 2] > 0)
      truth[..., 0] = np.where(used, 1 - truth[..., 0], truth[..., 0])
      gain = rng.uniform(0.7, 1.4, (len(chosen), 1, 1, 3)).astype(np.float32)
      shift = rng.uniform(-0.1, 0.1, (len(chosen), 1, 1, 1)).astype(np.float32)
      yield {"image": np.clip(image.astype(np.float32) / 255 * gain + shift, 0, 1), "truth": truth}


def make_loss(graph: Graph) -> tuple[tuple[str, ...], Any]:
  """The layers that the loss reads (below the heads), and the loss function of `train_step`."""
  heads = graph.heads
  inputs = {head.name: head.inputs[0] for head in heads}
  settings = {head.name: SETTINGS for head in heads}

  def loss_fn(outputs: dict[str, jax.Array], batch: Any) -> tuple[jax.Array, Metrics]:
    raw = {name: outputs[source] for name, source in inputs.items()}
    total, metrics = detection_loss(raw, batch["truth"], heads, settings, (graph.width, graph.height))  # type: ignore[arg-type]
    count = sum(m.num_assigned for m in metrics.values())
    overlap = sum(m.iou for m in metrics.values()) / jnp.maximum(count, 1)
    return total / batch["image"].shape[0], {"mean_iou": jnp.asarray(overlap)}

  return tuple(inputs.values()), loss_fn


def train(graph: Graph, options: Options, minutes: float, workers: int, start_weights: str | None) -> TrainState:
  """Trains for `minutes`, from `start_weights` if given; the learning rate falls along a cosine that ends with them."""
  start = time.perf_counter()
  images, truths = draw_all(graph, options, workers)
  print(f"drew {len(images)} scenes in {time.perf_counter() - start:.0f} s", flush=True)
  layers, loss_fn = make_loss(graph)
  # The share of time that has passed is fed in as a hyperparameter: the number of steps is not known before.
  tx = optax.inject_hyperparams(optax.adamw)(learning_rate=options.learning_rate, weight_decay=options.weight_decay)
  state = init_state(
    load(graph.name, start_weights).variables if start_weights else init_variables(graph, options.seed), tx
  )
  network, start = Network(graph), time.perf_counter()
  for step, batch in enumerate(batches(images, truths, options)):
    share = (time.perf_counter() - start) / (60 * minutes)
    if share >= 1:
      break
    rate = options.learning_rate * min(1, (step + 1) / 200) * (0.51 + 0.49 * np.cos(np.pi * share))
    state.opt_state.hyperparams["learning_rate"] = jnp.asarray(rate, jnp.float32)
    state, metrics = train_step(
      state,
      batch,
      network=network,
      tx=tx,
      loss_fn=loss_fn,
      layers=layers,
      ema_decay=jnp.float32(min(options.ema_decay, step / 100)),
    )
    if step % 100 == 0:
      speed = (step + 1) * options.batch_size / (time.perf_counter() - start)
      values = ", ".join(f"{k} {float(v):.3f}" for k, v in metrics.items())
      print(f"step {step}: {values}, {speed:.0f} images/s, {share:.0%}", flush=True)
  return state


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", type=Path, default=Path("runs/traffic"))
  parser.add_argument("--minutes", type=float, default=25)
  parser.add_argument("--scenes", type=int, default=Options.num_scenes)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--learning-rate", type=float, default=Options.learning_rate)
  parser.add_argument("--weights", help="go on from these")
  parser.add_argument("--workers", type=int, default=2)
  args = parser.parse_args()
  graph = build_graph("traffic-tiny-prn")
  options = Options(num_scenes=args.scenes, seed=args.seed, learning_rate=args.learning_rate)
  state = train(graph, options, args.minutes, args.workers, args.weights)
  host = jax.device_get({"params": state.ema, "batch_stats": state.batch_stats})
  model = Model(graph, host, names=SyntheticTraffic(1).names)
  model.save(args.out / "traffic-tiny-prn.weights")
  model.save(args.out / "model")
  print(f"{int(state.step)} steps; wrote {args.out}/")


if __name__ == "__main__":
  main()
