"""Data parallelism: a mesh of all devices of all hosts, the state on each of them, the batch split among them.

The same code runs on one core and on a pod. Two scopes of batch norm:

  global      `jax.jit` over the sharded batch. The program is that of one device with the whole batch, so batch norm
              sees all of it; XLA adds the communication.
  per_device  `jax.shard_map`: each device normalises with its own share, as several GPUs do in Darknet; gradients,
              and the rolling statistics, are averaged.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prn_jax.errors import PrnError
from prn_jax.run.inference import CPU_OPTIONS
from prn_jax.train.step import Batch, Constants, Metrics, Recipe, TrainState, train_step

AXIS = "data"
WHOLE = PartitionSpec()  # a copy on every device
StepFn = Callable[[TrainState, Batch, Constants], tuple[TrainState, Metrics]]


class BnScope(StrEnum):
  """Over which images batch norm takes its statistics."""

  GLOBAL = "global"
  PER_DEVICE = "per_device"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """One axis over the given devices, by default all of all processes."""
  devices = list(devices or jax.devices())
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """Split along the first axis of an array."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Raises PrnError unless every device gets as many images of every micro-batch."""
  parts = accumulate * mesh.size
  if batch_size % parts:
    below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
    raise PrnError(
      f"batch_size {batch_size} cannot be divided among {mesh.size} devices x {accumulate} micro-batches "
      f"(optim.accumulate). Choose a multiple of {parts}, such as {above}{f' or {below}' if below else ''}."
    )


def put_state(state: Any, mesh: Mesh) -> Any:
  """A copy of the state on every device. Every process must hold the same values."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x)), state)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """This process's rows of the global batch -> arrays that are split among all devices."""
  return {key: jax.make_array_from_process_local_data(split(mesh), value) for key, value in batch.items()}


def put_constants(constants: Constants, mesh: Mesh, specs: Any = WHOLE) -> Constants:
  """The constants of a loss on the devices. Every process must hold all of them.

  Args:
    constants: arrays.
    mesh: of the step.
    specs: how they are divided: one `PartitionSpec` for all, or a tree of them. `WHOLE` puts a copy on every device,
      `PartitionSpec(AXIS)` divides the first axis among them.

  Raises:
    ValueError: an axis cannot be divided so.
  """

  def put(x: Any, sharding: NamedSharding) -> jax.Array:
    value = np.asarray(x)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

  return jax.tree.map(put, constants, constant_shardings(constants, mesh, specs))


def constant_shardings(constants: Constants, mesh: Mesh, specs: Any = WHOLE) -> Any:
  """The sharding of every array of `put_constants`."""
  shardings = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
  )
  return jax.tree.broadcast(shardings, constants)


def compile_step(recipe: Recipe, mesh: Mesh, bn_scope: BnScope | str = BnScope.GLOBAL) -> StepFn:
  """`train_step` as one program over the mesh; it is compiled at the first call, and reuses the state's buffers.

  Constants are arguments of the program, no part of it, and stay usable. They are divided as `put_constants` has divided
  them; the loss sees all of them in any case, for which XLA brings the parts together.
  """

  def step(state: TrainState, batch: Batch, constants: Constants) -> tuple[TrainState, Metrics]:
    return train_step(state, batch, recipe, constants)

  if BnScope(bn_scope) is BnScope.PER_DEVICE:
    recipe = dataclasses.replace(recipe, axis=AXIS)
    step = jax.shard_map(
      step,
      mesh=mesh,
      in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
      out_specs=(PartitionSpec(), PartitionSpec()),
      check_vma=False,  # with it, every loss would need casts that jax 0.7 spells differently
    )
  return jit(
    step,
    mesh,
    donate_argnums=0,
    in_shardings=(replicated(mesh), split(mesh), None),
    out_shardings=(replicated(mesh),) * 2,
  )


def compiled(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
  """The program of a function of `jit` for arguments of these shapes; nothing is run. It takes no others, so that nothing
  is compiled unseen later.
  """
  program: Callable[..., Any] = cast(Any, function).lower(*args).compile()
  return program


def jit(function: Callable[..., Any], mesh: Mesh, **options: Any) -> Any:
  """`jax.jit`, for CPUs with the compiler options of `prn_jax.run.inference` where this jaxlib knows them."""
  if mesh.devices.flat[0].platform != "cpu" or not _knows_cpu_options():
    return jax.jit(function, **options)
  return jax.jit(function, compiler_options=CPU_OPTIONS, **options)


@functools.cache
def _knows_cpu_options() -> bool:
  try:
    jax.jit(lambda x: x + 1, compiler_options=CPU_OPTIONS)(0)
  except Exception:  # jaxlib's error type for an unknown option has changed between versions
    return False
  return True
