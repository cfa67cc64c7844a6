"""What a run will need, before it takes the hardware: steps, operations, and memory as the compiler plans it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import jax
import numpy as np

from prn_jax.data_pipelines.records import Dataset, Problem, Record, Task
from prn_jax.errors import PrnError
from prn_jax.graph.cost import cost
from prn_jax.graph.sizes import Size
from prn_jax.run.mesh import make_mesh, replicated, split
from prn_jax.train.config import ConfigError, TrainConfig
from prn_jax.train.experiment import Experiment, open_experiment, own_classes
from prn_jax.train.losses import FROM_CONFIG, Objective
from prn_jax.train.roofline import DEVICES, TRAIN_FORWARD_RATIO, Estimate, device_of_kind, estimate, parse_hardware
from prn_jax.train.sharding import constant_shardings
from prn_jax.train.step import init_state


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
    is_compiled: False where only arithmetic was done: memory and communication are not known then.
  """

  size: Size
  bflops: float
  tflops_per_step: float
  memory_bytes: dict[str, int] | None
  collectives: dict[str, int]
  is_compiled: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run before it starts.

  Attributes:
    model, params: name and learnable parameters of the network.
    devices, device_kind: how many, and of which kind.
    train_images, valid_images: sizes of the data.
    batch_size, images_per_device: images of a step, and of a micro-batch on one device.
    total_steps, epochs: length of the run.
    state_bytes: size of the state on each device; a checkpoint is as large.
    steps: one entry for every size of multi-scale training.
    estimate: the estimate of time; None for hardware of which no peaks are known.
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
  estimate: Estimate | None

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
      compiled = f", memory {needs}, {talk}" if step.is_compiled else ""
      lines.append(
        f"  {step.size[0]}x{step.size[1]}: {step.bflops:.3f} BFLOPs forward, {step.tflops_per_step:.3f} TFLOPs per step{compiled}"
      )
    if not all(step.is_compiled for step in self.steps):
      lines.append(
        "memory and communication are known only for what is compiled: --topology for TPUs, or no --hardware"
      )
    if self.estimate:
      lines.append(self.estimate.text())
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Counts:
  """What a plan needs of data that is not here.

  Attributes:
    images: number of training images.
    classes: 0: those of the model.
  """

  images: int
  classes: int = 0


def make_plan(
  config: TrainConfig,
  topology: str = "",
  *,
  counts: Counts | None = None,
  size: Size | None = None,
  hardware: str = "",
  objective: Objective = FROM_CONFIG,
) -> Plan:
  """Opens the data, compiles every step, runs none.

  Args:
    config: the configuration of the run.
    topology: hardware that need not be here, as "v5e:2x4" (needs libtpu); by default the devices of this machine.
    counts: numbers in place of the data, which is not opened then.
    size: width and height in place of all that the configuration has.
    hardware: see `roofline.parse_hardware`. Nothing is compiled then: there is a time, but no memory.
    objective: see `open_experiment`.

  Raises:
    PrnError: the configuration does not fit, or the topology cannot be compiled for here.
  """
  if topology and hardware:
    raise PrnError("--topology compiles for hardware, --hardware calculates without compiling: give one of them.")
  wanted = parse_hardware(hardware) if hardware else None
  if size:
    config = dataclasses.replace(config, width=size[0], height=size[1], sizes=())
  mesh = make_mesh(topology_devices(topology) if topology else None)
  if wanted:
    mesh = make_mesh(list(mesh.devices.flat)[:1])
  experiment = open_experiment(config, mesh, dataset=stand_in(config, counts) if counts else None, objective=objective)
  config, devices = experiment.config, wanted[1] if wanted else mesh.size
  _check_divisible(config, devices)
  state = jax.eval_shape(lambda: init_state(experiment.variables, experiment.recipe))
  kind = wanted[0] if wanted else mesh.devices.flat[0].device_kind
  return Plan(
    model=experiment.graph.name,
    params=cost(experiment.graph).params,
    devices=devices,
    device_kind=kind,
    train_images=len(experiment.dataset),
    valid_images=len(experiment.evaluator.dataset) if experiment.evaluator else 0,
    batch_size=config.batch_size,
    images_per_device=config.batch_size / devices / config.optim.accumulate,
    total_steps=experiment.total_steps,
    epochs=experiment.total_steps * config.batch_size / len(experiment.dataset),
    state_bytes=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
    steps=tuple(_step_plan(experiment, one, state, compile_it=not wanted) for one in experiment.steps),
    estimate=_estimate(experiment, kind if wanted else device_of_kind(kind), devices),
  )


def _check_divisible(config: TrainConfig, devices: int) -> None:
  """Raises PrnError unless the batch can be divided among so many devices."""
  parts = config.optim.accumulate * devices
  if config.batch_size % parts:
    near = max(1, round(config.batch_size / parts)) * parts
    raise PrnError(
      f"batch_size {config.batch_size} cannot be divided among {devices} devices x {config.optim.accumulate} micro-batches "
      f"(optim.accumulate). Choose a multiple of {parts}, such as --config.batch_size={near}."
    )


def _estimate(experiment: Experiment, name: str | None, devices: int) -> Estimate | None:
  if name is None:
    return None
  graphs = [recipe.network.graph for recipe in experiment.recipes.values()]
  config = experiment.config
  return estimate(
    graphs, name, devices, batch_size=config.batch_size, total_steps=experiment.total_steps, dtype=config.dtype
  )


@dataclasses.dataclass(frozen=True)
class StandIn:
  """A data set of which only the numbers are known: every image is the same, and none can be decoded."""

  names: tuple[str, ...]
  images: int
  record: Record
  problems: tuple[Problem, ...] = ()

  @property
  def category_ids(self) -> tuple[int, ...]:
    return tuple(range(len(self.names)))

  @property
  def task(self) -> Task:
    return Task.DETECT if self.record.label is None else Task.CLASSIFY

  def __len__(self) -> int:
    return self.images

  def __getitem__(self, index: int) -> Record:
    return self.record


def stand_in(config: TrainConfig, counts: Counts) -> Dataset:
  """Data for a plan; the number of classes is the model's where none is given.

  Raises:
    PrnError: no model is named, or the counts cannot be.
  """
  if not config.model:
    raise ConfigError("config.model is empty; give a registered model or a .cfg file: --config.model=NAME.")
  if counts.images < 1 or counts.classes < 0:
    raise PrnError(f"--images {counts.images} --classes {counts.classes}: expected at least one image and one class.")
  classes = counts.classes or own_classes(config)
  no = np.zeros(0, np.bool_)
  label = None if config.task == "detect" else 0
  record = Record(b"", 0, None, None, np.zeros((0, 4), np.float32), no.astype(np.int32), no, no, label=label)
  return StandIn(tuple(f"class_{i}" for i in range(classes)), counts.images, record)


def topology_devices(name: str) -> list[Any]:
  """Devices of a TPU that need not be here, for compiling.

  Raises:
    PrnError: no libtpu, or an unknown topology.
  """
  from jax.experimental import topologies

  try:
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
  except Exception as error:  # libtpu's own errors have no common type
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    raise PrnError(f"cannot compile for topology '{name}': {reason}. {_tpu_advice(str(error), name)}") from None


def _tpu_advice(error: str, name: str) -> str:
  """What to do about what libtpu says; docs/pods.md has the list."""
  text = error.lower()
  if "lockfile" in text or "already in use" in text:
    return (
      "Another process has the TPU: end it ('sudo lsof -w /dev/accel* /dev/vfio/*' shows which), and if none is left, "
      'remove /tmp/libtpu_lockfile (docs/pods.md, "No TPU, or a locked one").'
    )
  if "not installed" in text or "libtpu.so" in text:
    chip = name.partition(":")[0].lower()
    hardware = chip if chip in DEVICES else "v5e"
    return (
      "Compiling for a TPU needs the package libtpu: pip install 'jax[tpu]' of the same version as this JAX. A time "
      f'without it, by roofline: --hardware {hardware}:8 (docs/pods.md, "No TPU, or a locked one").'
    )
  return "Expected as in v5e:2x4 or v4:2x2x1; libtpu knows which exist (docs/pods.md)."


def _step_plan(experiment: Experiment, size: Size, state: Any, *, compile_it: bool) -> StepPlan:
  recipe, mesh = experiment.recipes[size], experiment.mesh
  bflops = cost(recipe.network.graph).bflops
  tflops = TRAIN_FORWARD_RATIO * bflops * experiment.config.batch_size / 1000
  if not compile_it:
    return StepPlan(size, bflops, tflops, None, {}, is_compiled=False)
  placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state)
  step: Any = experiment.steps[size]
  compiled = step.lower(placed, _batch_shapes(experiment, size), _constant_shapes(experiment)).compile()
  return StepPlan(
    size=size,
    bflops=bflops,
    tflops_per_step=tflops,
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


def _constant_shapes(experiment: Experiment) -> Any:
  constants, specs = experiment.objective.constants, experiment.objective.specs
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.canonicalize_dtype(x.dtype), sharding=sharding),
    constants,
    constant_shardings(constants, experiment.mesh, specs),
  )


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
