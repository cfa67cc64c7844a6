"""What a run will need, before it takes the hardware: steps, operations, and memory as the compiler plans it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import jax
import numpy as np

from prn_jax.errors import PrnError
from prn_jax.graph.cost import cost
from prn_jax.graph.sizes import Size
from prn_jax.train.config import TrainConfig
from prn_jax.train.experiment import Experiment, open_experiment
from prn_jax.train.sharding import make_mesh, replicated, split
from prn_jax.train.step import init_state

TRAIN_FORWARD_RATIO = 3  # a backward pass costs two forward passes


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """One compiled step.

  Attributes:
    size: width and height of its images.
    bflops: billions of operations of a forward pass of one image, as Darknet counts them.
    tflops_per_step: trillions of operations of a step over all devices: three forward passes of every image.
    memory_bytes: on one device: state, batch, and what the step keeps for its backward pass; None where the compiler
      does not say.
    collectives: communication between devices, by kind.
  """

  size: Size
  bflops: float
  tflops_per_step: float
  memory_bytes: dict[str, int] | None
  collectives: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run before it starts.

  Attributes:
    model, params: name and learnable parameters of the network.
    devices, device_kind: how many, and of which kind.
    train_images, valid_images: sizes of the data.
    batch_size, images_per_device: of a step, and of a micro-batch on one device.
    total_steps, epochs: length of the run.
    state_bytes: of the state on each device; a checkpoint is as large.
    steps: one entry for every size of multi-scale training.
  """

  model: str
  params: int
  devices: int
  device_kind: str
  train_images: int
  valid_images: int
  batch_size: int
  images_per_device: float
  total_steps: int
  epochs: float
  state_bytes: int
  steps: tuple[StepPlan, ...]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  def text(self) -> str:
    """For people."""
    lines = [
      f"{self.model}: {self.params:,} parameters, {self.train_images:,} training images, {self.valid_images:,} to evaluate",
      f"{self.devices} x {self.device_kind}: batch {self.batch_size}, {self.images_per_device:g} images per device and "
      f"micro-batch, state {_mb(self.state_bytes)} on each",
      f"{self.total_steps:,} steps, {self.epochs:.1f} epochs",
    ]
    for step in self.steps:
      memory = step.memory_bytes
      needs = f"{_mb(sum(memory.values()))} per device ({_mb(memory['temporary'])} of it temporary)" if memory else "?"
      talk = ", ".join(f"{count} {kind}" for kind, count in step.collectives.items()) or "no communication"
      lines.append(
        f"  {step.size[0]}x{step.size[1]}: {step.bflops:.3f} BFLOPs forward, {step.tflops_per_step:.3f} TFLOPs per step, "
        f"memory {needs}, {talk}"
      )
    return "\n".join(lines)


def make_plan(config: TrainConfig, topology: str = "") -> Plan:
  """Opens the data, compiles every step, runs none.

  Args:
    config: of the run.
    topology: hardware that need not be here, as "v5e:2x4" (needs libtpu); by default the devices of this machine.

  Raises:
    PrnError: the configuration does not fit, or the topology cannot be compiled for here.
  """
  mesh = make_mesh(topology_devices(topology) if topology else None)
  experiment = open_experiment(config, mesh)
  config = experiment.config
  state = jax.eval_shape(lambda: init_state(experiment.variables, experiment.recipe))
  device = mesh.devices.flat[0]
  return Plan(
    model=experiment.graph.name,
    params=cost(experiment.graph).params,
    devices=mesh.size,
    device_kind=device.device_kind,
    train_images=len(experiment.dataset),
    valid_images=len(experiment.evaluator.dataset) if experiment.evaluator else 0,
    batch_size=config.batch_size,
    images_per_device=config.batch_size / mesh.size / config.optim.accumulate,
    total_steps=experiment.total_steps,
    epochs=experiment.total_steps * config.batch_size / len(experiment.dataset),
    state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    steps=tuple(_step_plan(experiment, size, state) for size in experiment.steps),
  )


def topology_devices(name: str) -> list[Any]:
  """Devices of a TPU that need not be here, for compiling.

  Raises:
    PrnError: no libtpu, or an unknown topology.
  """
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
  except Exception as error:  # libtpu's own errors have no common type
    raise PrnError(
      f"cannot compile for topology '{name}': {str(error).splitlines()[0][:200]}. Expected as in v5e:2x4 or v4:2x2x1, "
      "with the package libtpu of this JAX installed (docs/pods.md)."
    ) from None


def _step_plan(experiment: Experiment, size: Size, state: Any) -> StepPlan:
  recipe, mesh = experiment.recipes[size], experiment.mesh
  placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state)
  step: Any = experiment.steps[size]
  compiled = step.lower(placed, _batch_shapes(experiment, size)).compile()
  bflops = cost(recipe.network.graph).bflops
  return StepPlan(
    size=size,
    bflops=bflops,
    tflops_per_step=TRAIN_FORWARD_RATIO * bflops * experiment.config.batch_size / 1000,
    memory_bytes=_memory(compiled),
    collectives=_collectives(compiled.as_text()),
  )


def _batch_shapes(experiment: Experiment, size: Size) -> dict[str, jax.ShapeDtypeStruct]:
  n, (width, height) = experiment.config.batch_size, size
  shapes: dict[str, tuple[tuple[int, ...], Any]] = {
    "image": ((n, height, width, experiment.graph.channels), np.uint8),
    "index": ((n,), np.int32),
  }
  if experiment.graph.detects:
    shapes["truth"] = ((n, experiment.config.data.max_boxes, 5), np.float32)
  else:
    shapes["label"] = ((n,), np.int32)
  sharding = split(experiment.mesh)
  return {key: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for key, (shape, dtype) in shapes.items()}


def _memory(compiled: Any) -> dict[str, int] | None:
  """Bytes on one device; outputs that reuse the arguments' buffers count once."""
  found = compiled.memory_analysis()
  if found is None:
    return None
  return {
    "arguments": int(found.argument_size_in_bytes),
    "outputs": int(found.output_size_in_bytes - found.alias_size_in_bytes),
    "temporary": int(found.temp_size_in_bytes),
  }


def _collectives(hlo: str) -> dict[str, int]:
  kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
  return dict(Counter(re.findall(rf"= [^=\n]*? ({kinds})(?:-start)?\(", hlo)))


def _mb(size: int) -> str:
  return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
