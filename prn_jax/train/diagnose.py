"""Where the numbers of a diverged run stopped being finite.

The search runs the batch as the step did: split among all devices, one micro-batch at a time, with the same batch norm.
So it finds what the step found, and needs no more memory. All processes take part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from prn_jax.errors import PrnError
from prn_jax.network import Network
from prn_jax.train.exit_codes import DIVERGED
from prn_jax.train.sharding import AXIS, BnScope, jit, replicated, split
from prn_jax.train.step import Batch, Recipe, TrainState, mean_gradients, to_unit_range


class DivergedError(PrnError):
  """The loss or its gradient is not finite."""

  exit_code = DIVERGED


@dataclasses.dataclass(frozen=True, eq=False)
class Suspect:
  """A step that was not finite.

  Attributes:
    state: on the mesh, as it was before the step (a bad step changes nothing).
    recipe: of the step.
    mesh, bn_scope: how it ran.
    rate: its learning rate.
  """

  state: TrainState
  recipe: Recipe
  mesh: Mesh
  bn_scope: BnScope | str
  rate: float


def diagnosis(suspect: Suspect, make_batch: Callable[[], dict[str, np.ndarray]], id_of: Callable[[int], Any]) -> str:
  """Says in words where a bad step went wrong. A search that fails is part of the answer.

  Args:
    suspect: the step.
    make_batch: gives the whole batch of that step, in every process.
    id_of: record index -> id of the image.
  """
  where, ids = "the loss or its gradient is not finite", "unknown"
  try:
    batch = make_batch()
    ids = _shown([id_of(int(index)) for index in batch["index"]])
    where = _where(suspect, batch)
  except Exception as error:  # out of memory, an image that is gone: the run has diverged all the same
    reason = (str(error).splitlines() or [""])[0]
    where += f" (the search for the layer failed: {type(error).__name__}: {reason})"
  return (
    f"training diverged at step {int(suspect.state.bad_step)}: {where}.\nThe images of that batch: {ids}.\n"
    f"The weights before it are untouched, and so are the checkpoints. The learning rate was {suspect.rate:.3g}: lower it, "
    "lengthen the warm-up (optim.schedule.burn_in_steps), or clip the gradient (optim.clip_norm)."
  )


def _shown(ids: list[Any]) -> str:
  return ", ".join(str(one) for one in ids[:16]) + (f", ... ({len(ids)})" if len(ids) > 16 else "")


def _where(suspect: Suspect, batch: dict[str, np.ndarray]) -> str:
  """The first thing that is not finite: weights, an output, the loss, a gradient."""
  for layer, values in suspect.state.params.items():
    if _is_bad(jax.device_get(values)):
      return f"the weights of layer '{layer}' are not finite"
  on_mesh = {key: _on_mesh(value, suspect.mesh) for key, value in batch.items()}
  bad = _run(suspect, _num_bad_outputs, on_mesh)
  for layer in suspect.recipe.network.graph:
    if bad[layer.name]:
      return f"layer '{layer.name}' ({layer.kind}) put out {int(bad[layer.name]):,} values that are not finite"
  grads, _, metrics = _run(suspect, mean_gradients, on_mesh)
  if not np.isfinite(metrics["loss"][0]):
    return "all layers are finite, but the loss is not"
  layers = [layer for layer, values in grads.items() if _is_bad(values)]
  if layers:
    last = [layer.name for layer in suspect.recipe.network.graph if layer.name in layers][-1]
    return f"outputs and loss are finite, but the gradient of layer '{last}' is not ({len(layers)} layers in all)"
  return "the sum over the gradient's squares overflows"


def _is_bad(tree: Any) -> bool:
  return not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def _on_mesh(rows: np.ndarray, mesh: Mesh) -> jax.Array:
  """Rows that every process holds, split among all devices."""
  return jax.make_array_from_callback(rows.shape, split(mesh), lambda index: rows[index])


def _run(suspect: Suspect, function: Callable[[TrainState, Batch, Recipe], Any], batch: Batch) -> Any:
  """`function` over the mesh, as `sharding.compile_step` runs the step; the result on the host."""
  recipe, mesh = suspect.recipe, suspect.mesh
  if BnScope(suspect.bn_scope) is BnScope.PER_DEVICE:
    recipe = dataclasses.replace(recipe, axis=AXIS)

  def call(state: TrainState, batch: Batch) -> Any:
    return function(state, batch, recipe)

  if recipe.axis is not None:
    specs = (PartitionSpec(), PartitionSpec(AXIS))
    call = jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
  run = jit(call, mesh, in_shardings=(replicated(mesh), split(mesh)), out_shardings=replicated(mesh))
  return jax.device_get(run(suspect.state, batch))


def _num_bad_outputs(state: TrainState, batch: Batch, recipe: Recipe) -> dict[str, jax.Array]:
  """Layer name -> values of its output that are not finite, over all micro-batches."""
  network = Network(recipe.network.graph, dtype=recipe.network.dtype)

  def count(micro: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    index, images = micro
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), state.step), index)
    if recipe.axis is not None:
      key = jax.random.fold_in(key, lax.axis_index(recipe.axis))
    outputs, _ = network.apply(
      {"params": state.params, "batch_stats": state.batch_stats}, to_unit_range(images), train=True, layers="all",
      mutable=["batch_stats"], rngs={"dropout": key},
    )  # fmt: skip
    return {name: (~jnp.isfinite(output)).sum() for name, output in outputs.items()}

  images, parts = batch["image"], recipe.accumulate
  micros = images.reshape(-1, parts, *images.shape[1:]).swapaxes(0, 1)  # as in `step.mean_gradients`
  counts = {name: numbers.sum() for name, numbers in lax.map(count, (jnp.arange(parts), micros)).items()}
  return counts if recipe.axis is None else lax.psum(counts, recipe.axis)
