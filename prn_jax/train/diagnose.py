"""Where the numbers of a diverged run stopped being finite.

The search runs the batch as the step did: split among all devices, one micro-batch at a time, with the same batch norm.
So it finds what the step found, and needs no more memory. All processes take part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from prn_jax.errors import PrnError
from prn_jax.hosts.exit_codes import DIVERGED
from prn_jax.network import Network
from prn_jax.run.mesh import AXIS, compiled, jit, replicated, split
from prn_jax.train.sharding import BnScope
from prn_jax.train.step import (
  Batch,
  Constants,
  Recipe,
  TrainState,
  dropout_key,
  mean_gradients,
  micro_batches,
  to_unit_range,
  with_images_seen,
)

OUTPUTS, LOSS, GRADIENT = "outputs", "loss", "gradient"
FILE = "diverged.json"


class DivergedError(PrnError):
  """The loss or its gradient is not finite."""

  exit_code = DIVERGED


@dataclasses.dataclass(frozen=True, eq=False)
class Suspect:
  """A step that was not finite.

  Attributes:
    state: on the mesh, as it was before the step (a bad step changes nothing).
    recipe: the recipe of the step.
    mesh, bn_scope: how it ran.
    rate: its learning rate.
    constants: the constants of the loss, on the mesh.
    meet: returns when all processes have called it; they do so before they start a program together.
  """

  state: TrainState
  recipe: Recipe
  mesh: Mesh
  bn_scope: BnScope | str
  rate: float
  constants: Constants = ()
  meet: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """Where a bad step went wrong.

  Attributes:
    step: counted from 0.
    where: the place in words.
    layer: the first that is not finite, if it is a layer.
    image_ids: for every row of the batch, the ids of all images that are mixed in it; empty if the batch could not be made again.
    suspects: rows that are not finite while others are. Empty where all are alike, and where the fault is no row's.
    rate: the learning rate.
  """

  step: int
  where: str
  layer: str | None
  image_ids: tuple[tuple[Any, ...], ...]
  suspects: tuple[int, ...]
  rate: float

  def text(self, file: Path) -> str:
    """For people; `file` is where all ids stand."""
    ids = list(dict.fromkeys(one for row in self.image_ids for one in row))
    suspicious = list(dict.fromkeys(one for row in self.suspects for one in self.image_ids[row]))
    first = (
      f"Suspicious are {_shown(suspicious)}: {len(self.suspects)} of {len(self.image_ids)} rows of the batch are not "
      "finite by themselves, the others are.\n"
      if suspicious
      else ""
    )
    return (
      f"training diverged at step {self.step}: {self.where}.\n{first}The images of that batch: "
      f"{_shown(ids) if ids else 'unknown'}. {file} holds all of them.\n"
      f"The weights before it are untouched, and so are the checkpoints. The learning rate was {self.rate:.3g}: lower it, "
      "lengthen the warm-up (optim.schedule.burn_in_steps), or clip the gradient (optim.clip_norm)."
    )

  def to_json(self) -> dict[str, Any]:
    """The content of RUN/diverged.json."""
    rows = [list(ids) for ids in self.image_ids]
    return {
      "step": self.step,
      "where": self.where,
      "layer": self.layer,
      "learning_rate": self.rate,
      "suspicious": [{"row": row, "record_ids": rows[row]} for row in self.suspects],
      "record_ids": rows,
    }


class _Fault(NamedTuple):
  """What is not finite: in words, the layer if it is one, and where to look for its rows ("" if it is no row's)."""

  where: str
  layer: str | None = None
  place: str = ""


def diagnosis(
  suspect: Suspect, make_batch: Callable[[], dict[str, np.ndarray]], id_of: Callable[[int], Any], group_size: int = 1
) -> Diagnosis:
  """Says where a bad step went wrong. A search that fails is part of the answer.

  Args:
    suspect: the step.
    make_batch: gives the whole batch of that step, in every process.
    id_of: record index -> id of the image.
    group_size: rows in a row that mix the same images.
  """
  fault, ids = _Fault("the loss or its gradient is not finite"), list[Any]()
  try:
    batch = make_batch()
    ids = [id_of(int(index)) for index in batch["index"]]
    fault = _where(suspect, batch)
  except Exception as error:  # out of memory, an image that is gone: the run has diverged all the same
    reason = (str(error).splitlines() or [""])[0]
    fault = _Fault(f"{fault.where} (the search for the layer failed: {type(error).__name__}: {reason})")
  bad = np.zeros(len(ids), np.bool_)
  if fault.place:
    with contextlib.suppress(Exception):  # the layer is known; that must be told although more cannot be found out
      bad = _bad_rows(suspect, batch, fault)
  groups = [row // group_size * group_size for row in range(len(ids))]
  return Diagnosis(
    step=int(suspect.state.bad_step),
    where=fault.where,
    layer=fault.layer,
    image_ids=tuple(tuple(ids[first : first + group_size]) for first in groups),
    suspects=() if bad.all() else tuple(np.flatnonzero(bad).tolist()),
    rate=suspect.rate,
  )


def _shown(ids: list[Any]) -> str:
  return ", ".join(str(one) for one in ids[:16]) + (f", ... ({len(ids)})" if len(ids) > 16 else "")


def _where(suspect: Suspect, batch: dict[str, np.ndarray]) -> _Fault:
  """The first thing that is not finite: weights, an output, the loss, a gradient."""
  for layer, values in suspect.state.params.items():
    if _is_bad(jax.device_get(values)):
      return _Fault(f"the weights of layer '{layer}' are not finite", layer)
  on_mesh = _on_mesh(batch, suspect.mesh)
  bad = _run(suspect, _num_bad_outputs, on_mesh, by_row=True)
  for layer in suspect.recipe.network.graph:
    if number := int(bad[layer.name].sum()):
      text = f"layer '{layer.name}' ({layer.kind}) put out {number:,} values that are not finite"
      return _Fault(text, layer.name, OUTPUTS)
  grads, _, metrics = _run(suspect, mean_gradients, on_mesh)
  if not np.isfinite(metrics["loss"][0]):
    return _Fault("all layers are finite, but the loss is not", None, LOSS)
  layers = [layer for layer, values in grads.items() if _is_bad(values)]
  if layers:
    last = [layer.name for layer in suspect.recipe.network.graph if layer.name in layers][-1]
    text = f"outputs and loss are finite, but the gradient of layer '{last}' is not ({len(layers)} layers in all)"
    return _Fault(text, last, GRADIENT)
  return _Fault("the sum over the gradient's squares overflows")


def _bad_rows(suspect: Suspect, batch: dict[str, np.ndarray], fault: _Fault) -> np.ndarray:
  """(n,) bool, the rows that are not finite by themselves.

  Batch norm makes one bad row the fault of its whole micro-batch. With the rolling statistics rows stay apart.
  """
  on_mesh = _on_mesh(batch, suspect.mesh)
  if fault.place != OUTPUTS:
    return np.asarray(_run(suspect, _bad_losses, on_mesh, by_row=True)[fault.place])
  together = _run(suspect, _num_bad_outputs, on_mesh, by_row=True)[fault.layer] > 0
  numbers = _run(suspect, functools.partial(_num_bad_outputs, train=False), on_mesh, by_row=True)
  apart = np.any([number > 0 for number in numbers.values()], axis=0) & together
  return apart if apart.any() else together


def _is_bad(tree: Any) -> bool:
  return not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def _on_mesh(batch: dict[str, np.ndarray], mesh: Mesh) -> Batch:
  """Rows that every process holds, split among all devices."""

  def put(rows: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(rows.shape, split(mesh), lambda index: rows[index])

  return {key: put(rows) for key, rows in batch.items()}


def _run(
  suspect: Suspect,
  function: Callable[[TrainState, Batch, Recipe, Constants], Any],
  batch: Batch,
  *,
  by_row: bool = False,
) -> Any:
  """`function` over the mesh, as `sharding.compile_step` runs the step; the result on the host.

  Args:
    suspect, batch: what to run it on.
    function: gives what all devices agree on, or (`by_row`) arrays with one entry for every row of its batch.
    by_row: see `function`.
  """
  recipe, mesh = suspect.recipe, suspect.mesh
  if BnScope(suspect.bn_scope) is BnScope.PER_DEVICE:
    recipe = dataclasses.replace(recipe, axis=AXIS)

  def call(state: TrainState, batch: Batch, constants: Constants) -> Any:
    return function(state, batch, recipe, constants)

  if recipe.axis is not None:
    specs = (PartitionSpec(), PartitionSpec(AXIS), PartitionSpec())
    out_specs = PartitionSpec(AXIS) if by_row else PartitionSpec()
    call = jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)
  # None: the constants are divided as they are already
  run = jit(call, mesh, in_shardings=(replicated(mesh), split(mesh), None), out_shardings=replicated(mesh))
  program = compiled(run, suspect.state, batch, suspect.constants)
  suspect.meet()
  return jax.device_get(program(suspect.state, batch, suspect.constants))


def _num_bad_outputs(
  state: TrainState, batch: Batch, recipe: Recipe, constants: Constants, train: bool = True
) -> dict[str, jax.Array]:
  """Layer name -> (n,) values of its output that are not finite, for every row; with the statistics of the
  micro-batch, or with the rolling ones."""

  def count(micro: Batch, index: jax.Array) -> dict[str, jax.Array]:
    outputs = _outputs(state, micro["image"], index, recipe, "all", train=train)
    return {name: (~jnp.isfinite(output)).reshape(output.shape[0], -1).sum(1) for name, output in outputs.items()}

  return _by_micro_batch(count, batch, recipe)


def _bad_losses(state: TrainState, batch: Batch, recipe: Recipe, constants: Constants) -> dict[str, jax.Array]:
  """(n,) bool: whether the loss of a row by itself is not finite, and its gradient by what the network puts out."""
  batch = with_images_seen(state, batch, recipe)

  def look(micro: Batch, index: jax.Array) -> dict[str, jax.Array]:
    outputs = _outputs(state, micro["image"], index, recipe, recipe.layers, train=True)

    def of_row(row: tuple[dict[str, jax.Array], Batch]) -> dict[str, jax.Array]:
      own, truth = jax.tree.map(lambda x: x[None], row)
      value, grads = jax.value_and_grad(lambda found: recipe.loss_fn(found, truth, constants)[0])(own)
      is_bad = [~jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads)]
      return {LOSS: ~jnp.isfinite(value), GRADIENT: jnp.stack(is_bad).any()}

    return lax.map(of_row, (outputs, micro))

  return _by_micro_batch(look, batch, recipe)


def _outputs(
  state: TrainState, images: jax.Array, index: jax.Array, recipe: Recipe, layers: Any, *, train: bool
) -> dict[str, jax.Array]:
  """What layers put out for micro-batch `index`, as in `step.mean_gradients`."""
  network = Network(recipe.network.graph, dtype=recipe.network.dtype)
  variables, images = {"params": state.params, "batch_stats": state.batch_stats}, to_unit_range(images)
  if not train:
    return cast(dict[str, jax.Array], network.apply(variables, images, layers=layers))
  rngs = {"dropout": dropout_key(state, index, recipe)}
  outputs, _ = network.apply(variables, images, train=True, layers=layers, mutable=["batch_stats"], rngs=rngs)
  return outputs


def _by_micro_batch(
  function: Callable[[Batch, jax.Array], dict[str, jax.Array]], batch: Batch, recipe: Recipe
) -> dict[str, jax.Array]:
  """`function` of every micro-batch and its number; its (rows of the micro-batch,) arrays in the order of the batch."""
  parts = recipe.accumulate
  found = lax.map(lambda one: function(one[1], one[0]), (jnp.arange(parts), micro_batches(batch, parts)))
  return {key: value.swapaxes(0, 1).reshape(-1) for key, value in found.items()}
