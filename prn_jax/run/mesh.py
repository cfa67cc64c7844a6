"""A mesh of all devices of all hosts: what is copied to each of them, and what is split among them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prn_jax.run.inference import CPU_OPTIONS

AXIS = "data"
Batch = dict[str, jax.Array]


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """One axis over the given devices, by default all of all processes."""
  devices = list(devices or jax.devices())
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
  """Split along the first axis of an array."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


def put_state(state: Any, mesh: Mesh) -> Any:
  """A copy of the state on every device. Every process must hold the same values."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x)), state)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """This process's rows of the global batch -> arrays that are split among all devices."""
  return {key: jax.make_array_from_process_local_data(split(mesh), value) for key, value in batch.items()}


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
