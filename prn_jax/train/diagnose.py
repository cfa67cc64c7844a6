"""Where the numbers of a diverged run stopped being finite."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from prn_jax.errors import PrnError
from prn_jax.network import Network
from prn_jax.train.exit_codes import DIVERGED
from prn_jax.train.step import Recipe, TrainState, mean_gradients, to_unit_range


class DivergedError(PrnError):
  """The loss or its gradient is not finite."""

  exit_code = DIVERGED


def diagnosis(
  state: TrainState, batch: dict[str, np.ndarray], recipe: Recipe, image_ids: list[Any], rate: float
) -> str:
  """Says in words where a bad step went wrong.

  Args:
    state: on the host, as it was before the step (a bad step changes nothing).
    batch: the whole batch of that step.
    recipe: of the step.
    image_ids: ids of the images of the batch.
    rate: learning rate of the step.
  """
  where = _first_bad_output(state, batch, recipe) or _bad_gradients(state, batch, recipe)
  shown = ", ".join(str(one) for one in image_ids[:16]) + (f", ... ({len(image_ids)})" if len(image_ids) > 16 else "")
  return (
    f"training diverged at step {int(state.bad_step)}: {where}.\nThe images of that batch: {shown}.\n"
    f"The weights before it are untouched, and so are the checkpoints. The learning rate was {rate:.3g}: lower it, "
    "lengthen the warm-up (optim.schedule.burn_in_steps), or clip the gradient (optim.clip_norm)."
  )


def _first_bad_output(state: TrainState, batch: dict[str, np.ndarray], recipe: Recipe) -> str:
  """The first layer whose output or weights are not finite, or ""."""
  network = Network(recipe.network.graph, dtype=recipe.network.dtype)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  for layer, values in state.params.items():
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values)):
      return f"the weights of layer '{layer}' are not finite"

  @jax.jit
  def num_bad(images: jax.Array) -> dict[str, jax.Array]:
    outputs, _ = network.apply(
      variables, to_unit_range(images), train=True, layers="all", mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(recipe.seed)},
    )  # fmt: skip
    return {name: (~jax.numpy.isfinite(output)).sum() for name, output in outputs.items()}

  bad = jax.device_get(num_bad(batch["image"]))
  for layer in recipe.network.graph:
    if bad[layer.name]:
      return f"layer '{layer.name}' ({layer.kind}) put out {int(bad[layer.name]):,} values that are not finite"
  return ""


def _bad_gradients(state: TrainState, batch: dict[str, np.ndarray], recipe: Recipe) -> str:
  recipe = dataclasses.replace(recipe, axis=None)
  grads, _, metrics = jax.device_get(jax.jit(lambda s, b: mean_gradients(s, b, recipe))(state, batch))
  if not np.isfinite(metrics["loss"][0]):
    return "all layers are finite, but the loss is not"
  bad = [
    layer for layer, values in grads.items() if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values))
  ]
  if bad:
    last = [layer.name for layer in recipe.network.graph if layer.name in bad][-1]
    return f"outputs and loss are finite, but the gradient of layer '{last}' is not ({len(bad)} layers in all)"
  return "the sum over the gradient's squares overflows"
