"""States of known content, and programs that save them until they are killed."""

from __future__ import annotations

import functools
import itertools
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from prn_jax.train import checkpoint as checkpoint_module
from prn_jax.train.checkpoint import Checkpoints

EXIT_AT_POINT = 42
META = {"config": {"seed": 3}, "graph_cfg": "[net]\n"}


class State(NamedTuple):
  """The fields of a training state."""

  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema_params: Any
  ema_batch_stats: Any
  bad_step: Any


TX = optax.chain(
  optax.masked(optax.add_decayed_weights(5e-4), {"stem": {"conv": {"kernel": True}}, "out": {"conv": {"bias": False}}}),
  optax.sgd(optax.constant_schedule(0.1), momentum=0.9),
)


def state_of(step: int, sharding: Any = None, ema: bool = True, width: int = 16) -> State:
  """The state after `step` steps: every number follows from the step and its place."""
  rng = np.random.default_rng(step)

  def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)

  def network() -> Any:
    return {"stem": {"conv": {"kernel": draw(3, 3, 8, width)}}, "out": {"conv": {"bias": draw(width)}}}

  params, stats = network(), {"stem": {"bn": {"mean": draw(width), "var": draw(width)}}}
  optimiser = jax.tree.map(lambda leaf: np.asarray(leaf) + np.asarray(step).astype(leaf.dtype), TX.init(params))
  averages = (network(), jax.tree.map(np.copy, stats)) if ema else (None, None)
  state = State(np.int32(step), params, stats, optimiser, *averages, np.int32(-1))
  return state if sharding is None else jax.device_put(state, sharding)


def assert_same(state: State, expected: State) -> None:
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), err_msg=jax.tree_util.keystr(path))
    assert ours.dtype == theirs.dtype


def metric_of(step: int) -> float:
  """Rises and falls, so that the best is now the newest and now an old one."""
  return float(step * 7 % 11)


def save_forever(folder: Path, pipe: Connection) -> None:
  """Resumes, proves the values right, and saves every step. Sends what it knows to be finished."""
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with Checkpoints(folder) as checkpoints:
    start = checkpoints.latest_step()
    if start is not None:
      state, meta = checkpoints.restore(state_of(0, device))
      assert (int(state.step), meta["step"], meta["config"]) == (start, start, META["config"])
      assert_same(state, state_of(start))
    pipe.send(("resumed", start or 0, checkpoints.metrics()))
    for step in itertools.count((start or 0) + 1):
      checkpoints.save(step, state_of(step, device), META, metric=metric_of(step))
      pipe.send(("finished", step - 1, None))  # a save begins by finishing the one before


def save_and_die(folder: Path, point: str, call: int) -> None:
  """Saves steps 1, 2, ... and ends at once, without any clean-up, at the `call`-th passage of a point in the code."""
  passages = itertools.count(1)

  def dying(function: Any, before: bool) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
      last = next(passages) == call
      if last and before:
        os._exit(EXIT_AT_POINT)
      result = function(*args, **kwargs)
      if last:
        os._exit(EXIT_AT_POINT)
      return result

    return wrapped

  path, when = point.rsplit(" ", 1)
  owner: Any = checkpoint_module
  *names, last = path.split(".")
  for name in names:
    owner = getattr(owner, name)
  setattr(owner, last, dying(getattr(owner, last), when == "before"))
  with Checkpoints(folder, keep=1) as checkpoints:
    for step in range(1, 8):
      checkpoints.save(step, state_of(step), META, metric=metric_of(step))


def save_together(folder: Path, pipe: Connection, port: int, index: int, dies: bool) -> None:
  """One of two processes. The first time both save steps 1 and 2. The second time (`dies`) they resume, and process 1
  dies in the save of step 3, when its data is written and that of process 0 may not be."""
  jax.distributed.initialize(f"localhost:{port}", 2, index, initialization_timeout=60)
  if dies and index == 1:
    from orbax.checkpoint._src.multihost import multihost

    multihost.get_barrier_sync_fn = lambda **_: lambda **_: os._exit(EXIT_AT_POINT)
  checkpoints = Checkpoints(folder, timeout_s=4)
  start = checkpoints.latest_step() or 0
  if start:
    state, meta = checkpoints.restore(shared_state(0))
    assert meta["step"] == start
    assert jax.jit(
      lambda a, b: jax.tree.reduce(jax.numpy.logical_and, jax.tree.map(lambda x, y: (x == y).all(), a, b))
    )(state, shared_state(start))
  for step in (start + 1, start + 2)[: 1 if dies else 2]:
    checkpoints.save(step, shared_state(step), META, metric=float(step))
  try:
    checkpoints.wait()
    pipe.send((start, checkpoints.latest_step()))
  except Exception as error:
    pipe.send((start, str(error)))
    os._exit(0)  # what the watchdog of a real run does: JAX's own exit waits for the dead


@functools.cache
def _mesh() -> jax.sharding.Mesh:
  return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def shared_state(step: int) -> dict[str, jax.Array]:
  """One array on every device of all processes, and one split among them; on any number of devices up to 16."""
  values = {"replicated": np.arange(6, dtype=np.float32) + step, "split": np.arange(32, dtype=np.float32) * (step + 1)}
  specs = {"replicated": jax.sharding.PartitionSpec(), "split": jax.sharding.PartitionSpec("data")}
  shardings = {key: jax.sharding.NamedSharding(_mesh(), spec) for key, spec in specs.items()}
  return {key: jax.make_array_from_callback(v.shape, shardings[key], v.__getitem__) for key, v in values.items()}


def largest_file(checkpoint: Path) -> Path:
  return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)
