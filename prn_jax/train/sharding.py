"""Data parallelism: a mesh of all devices of all hosts, the state on each of them, the batch split among them.

The same code runs on one core and on a pod. Two scopes of batch norm:

  global      `jax.jit` over the sharded batch. The program is that of one device with the whole batch, so batch norm
              sees all of it; XLA adds the communication.
  per_device  `jax.shard_map`: each device normalises with its own share, as several GPUs do in Darknet; gradients,
              and the rolling statistics, are averaged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prn_jax.errors import PrnError
from prn_jax.run.mesh import AXIS, jit, replicated, split
from prn_jax.train.step import Batch, Constants, Metrics, Recipe, TrainState, train_step

WHOLE = PartitionSpec()  # a copy on every device
StepFn = Callable[[TrainState, Batch, Constants], tuple[TrainState, Metrics]]


class BnScope(StrEnum):
  """Over which images batch norm takes its statistics."""

  GLOBAL = "global"
  PER_DEVICE = "per_device"


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Raises PrnError unless every device gets as many images of every micro-batch."""
  parts = accumulate * mesh.size
  if batch_size % parts:
    below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
    raise PrnError(
      f"batch_size {batch_size} cannot be divided among {mesh.size} devices x {accumulate} micro-batches "
      f"(optim.accumulate). Choose a multiple of {parts}, such as {above}{f' or {below}' if below else ''}."
    )


def put_constants(constants: Constants, mesh: Mesh, specs: Any = WHOLE) -> Constants:
  """The constants of a loss on the devices. Every process must hold all of them.

  Args:
    constants: arrays.
    mesh: the devices of the step.
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
