"""Settings that follow from the data where the user left them open: `batch_size` and `bn_momentum` of 0, and a warm-up that does
not fit into a short run.

A batch that suits COCO is a fifth of an epoch of 300 photos, and batch norm's usual averages need 500 updates to follow
the weights. A first training of a small data set would end with an evaluation that finds nothing. What was chosen is
said, and stands in effective.json.
"""

from __future__ import annotations

import dataclasses
import math

import jax

from prn_jax.graph.graph import Graph
from prn_jax.train.config import TrainConfig

USUAL_BATCH, SMALLEST_BATCH = 64, 8
STEPS_AN_EPOCH = 10  # at least so many, down to the smallest batch
USUAL_MOMENTUM, SMALLEST_MOMENTUM = 0.99, 0.5
MEMORIES = 5  # after so many times 1 / (1 - momentum) updates, e^-5 (0.7%) is left of what the averages began with


def resolve(config: TrainConfig, num_images: int, mesh: jax.sharding.Mesh) -> tuple[TrainConfig, tuple[str, ...]]:
  """The configuration with numbers for what is open, and a line for each choice that is not the usual one.

  Args:
    config: the user's configuration.
    num_images: number of training images that an epoch draws.
    mesh: every device must get as many images.

  Raises:
    ConfigError: `config.total` has two units.
  """
  notes = []
  if not config.batch_size:
    batch = _batch(config, num_images, mesh)
    config = dataclasses.replace(config, batch_size=batch)
    if batch != USUAL_BATCH:
      notes.append(f"batch_size {batch}, chosen for {num_images:,} images; --config.batch_size=N takes another")
  if not config.bn_momentum:
    steps = config.total.to_steps(config.batch_size, num_images, "config.total")
    momentum = _momentum(steps)
    config = dataclasses.replace(config, bn_momentum=momentum)
    if momentum != USUAL_MOMENTUM:
      notes.append(
        f"bn_momentum {momentum:g}, chosen for {steps:,} steps (the usual {USUAL_MOMENTUM} needs {settled(USUAL_MOMENTUM)}); "
        "--config.bn_momentum=M takes another"
      )
  config, note = _fitting_warm_up(config, num_images)
  return config, (*notes, *note)


def _fitting_warm_up(config: TrainConfig, num_images: int) -> tuple[TrainConfig, tuple[str, ...]]:
  """With a tenth of the run as the warm-up of a cosine where the one of the configuration is no shorter than the run: the few steps
  of a trial are far fewer than those that a recipe was written for."""
  schedule = config.optim.schedule
  steps = config.total.to_steps(config.batch_size, num_images, "config.total")
  if schedule.policy != "cosine" or not 0 < steps <= schedule.burn_in_steps:
    return config, ()
  fitting = dataclasses.replace(schedule, burn_in_steps=steps // 10)
  note = f"optim.schedule.burn_in_steps {fitting.burn_in_steps} instead of {schedule.burn_in_steps}, which do not fit into {steps:,} steps"
  return dataclasses.replace(config, optim=dataclasses.replace(config.optim, schedule=fitting)), (note,)


def settled(momentum: float) -> int:
  """Updates after which the averages of batch norm follow the weights."""
  return round(MEMORIES / (1 - momentum))


def has_batch_norm(graph: Graph, layer: str) -> bool:
  """Whether a layer keeps averages of batch norm."""
  return any(array.collection == "batch_stats" for one in graph if one.name == layer for array in graph.arrays(one))


def _batch(config: TrainConfig, num_images: int, mesh: jax.sharding.Mesh) -> int:
  """The largest power of 2 that leaves `STEPS_AN_EPOCH`, as a whole number of what devices, micro-batches and groups of
  mixed images need."""
  hosts = len({device.process_index for device in mesh.devices.flat})
  unit = math.lcm(config.augment.group_size * hosts, config.optim.accumulate * mesh.size)
  wanted = USUAL_BATCH
  while wanted > SMALLEST_BATCH and wanted * STEPS_AN_EPOCH > num_images:
    wanted //= 2
  wanted = min(wanted, max(1, num_images))
  return max(unit, wanted // unit * unit)


def _momentum(steps: int) -> float:
  """The usual one, or less, with which the averages are settled at the end of the run."""
  if steps >= settled(USUAL_MOMENTUM):
    return USUAL_MOMENTUM
  return max(SMALLEST_MOMENTUM, math.floor(100 * (1 - MEMORIES / max(steps, 1))) / 100)
