"""A model without what matters least in it, with what that cost: sizes, and accuracy on annotated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from prn_jax.data_pipelines.records import Dataset
from prn_jax.errors import PrnError
from prn_jax.formats.darknet_training import NET
from prn_jax.graph.cost import cost
from prn_jax.model import Model
from prn_jax.prune.blocks import least_blocks, without_blocks
from prn_jax.prune.cut import cut
from prn_jax.prune.method_names import DEFAULT_METHOD
from prn_jax.prune.methods import Choice, by_layer, choose, get_method, is_sparse
from prn_jax.prune.recalibrate import recalibrated
from prn_jax.quantize.rewrite import is_quantized
from prn_jax.run.calibration import images_of, spread
from prn_jax.run.evaluate import usual_figures

BATCH = 8  # images at a time, for statistics and figures


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneOptions:
  """What goes.

  Attributes:
    method: see `prune.methods`.
    share: the share of the channels of the method's scope that goes; None: `flops` decides.
    flops: the share of the operations that stays; None: `share` decides, or only blocks go.
    round_to, min_keep: see `prune.methods.choose`; None is the method's own.
    blocks: residual blocks that go first, as a whole.
    recalibrate: images, evenly spread over the data, from which batch norm is estimated again; 0 is off.
    seed: the seed of the method random.
    force: go on although what goes matters by its gammas.
  """

  method: str = DEFAULT_METHOD
  share: float | None = None
  flops: float | None = None
  round_to: int | None = None
  min_keep: int = 1
  blocks: int = 0
  recalibrate: int = 0
  seed: int = 0
  force: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
  """The smaller model.

  Attributes:
    model: it, with names, training settings and all else of the original.
    choice: the channels that went; None if only blocks did.
    blocks: names of the shortcuts whose blocks went.
    layers: rows of a table; see `prune.methods.by_layer`.
  """

  model: Model
  choice: Choice | None
  blocks: tuple[str, ...]
  layers: list[dict[str, Any]]

  def to_json(self) -> dict[str, Any]:
    """What was removed, layer by layer."""
    choice = self.choice
    return {
      "units": choice.considered if choice else 0,
      "units_removed": len(choice.units) if choice else 0,
      "score_removed": choice.removed_share if choice else 0.0,
      "blocks_removed": list(self.blocks),
      "layers": self.layers,
    }


def prune(model: Model, options: PruneOptions, dataset: Dataset | None = None, on_bad_data: str = "stop") -> Pruned:
  """Removes what the options say.

  Args:
    model: with weights.
    options: see `PruneOptions`.
    dataset: images for `recalibrate`; its annotations do not matter.
    on_bad_data: "stop" or "skip".

  Raises:
    PrnError: an option does not fit the network, or what would go matters (without `force`).
  """
  if options.share is None and options.flops is None and not options.blocks:
    raise PrnError("nothing to remove: give a share of the channels, of the operations, or a number of blocks.")
  if is_quantized(model.graph):
    raise PrnError(
      f"network '{model.graph.name}' is quantised, and its ranges hold for the channels that it has. Prune the float network, "
      "then quantise what is left."
    )
  if options.recalibrate and dataset is None:
    raise PrnError(f"recalibrate={options.recalibrate} needs images; give data.")
  graph, variables, method = model.graph, model.variables, get_method(options.method)
  blocks = least_blocks(graph, variables, options.blocks) if options.blocks else []
  if blocks:
    graph, variables = without_blocks(graph, variables, blocks)
  choice = None
  if options.share is not None or options.flops is not None:
    choice = choose(
      graph,
      variables,
      method,
      share=options.share,
      flops=options.flops,
      round_to=options.round_to,
      min_keep=options.min_keep,
      seed=options.seed,
    )
    if method.score == "gamma" and not is_sparse(choice) and not options.force:
      raise _not_sparse(model, options, choice)
    graph, variables = cut(graph, variables, choice.units)
  if options.recalibrate and dataset is not None:
    images = images_of(model, spread(dataset, options.recalibrate), BATCH, on_bad_data)
    variables = recalibrated(graph, variables, images)
  smaller = dataclasses.replace(model, graph=graph, weights=variables, training=_training(model, graph), header=None)
  return Pruned(smaller, choice, tuple(block.shortcut for block in blocks), by_layer(model.graph, graph))


def _not_sparse(model: Model, options: PruneOptions, choice: Choice) -> PrnError:
  return PrnError(
    f"the {len(choice.units):,} of {choice.considered:,} channels that would go hold {choice.removed_share:.0%} of all "
    f"gammas of '{model.graph.name}', so that the network would find much less (sparse ones hold less than 5%). Train it "
    "with a penalty on gammas first (prn train ... --config.sparse.strength=STRENGTH, docs/training.md), take fewer channels or the method "
    "variance, or go on all the same with --force."
  )


def _training(model: Model, graph: Any) -> Any:
  """Training settings of the layers that are left."""
  if model.training is None:
    return None
  names = {NET, *graph.shapes}
  layers = {name: value for name, value in model.training.layers.items() if name in names}
  extra = {name: value for name, value in model.training.extra.items() if name in names}
  return dataclasses.replace(model.training, layers=layers, extra=extra)


def figure(model: Model, dataset: Dataset, on_bad_data: str = "stop") -> tuple[str, float]:
  """Name and value of the figure that is compared: COCO's AP50 of a detector, top-1 of a classifier."""
  name = "AP50" if model.graph.detects else "top1"
  return name, float(usual_figures(model, dataset, batch_size=BATCH, on_bad_data=on_bad_data)[name] or 0.0)


def sizes(before: Model, after: Model) -> dict[str, Any]:
  """Parameters and operations of both."""
  old, new = cost(before.graph), cost(after.graph)
  return {
    "params": old.params,
    "params_left": new.params,
    "bflops": old.bflops,
    "bflops_left": new.bflops,
    "params_share": new.params / old.params,
    "bflops_share": new.bflops / old.bflops,
  }


def sweep(
  model: Model,
  options: PruneOptions,
  shares: Sequence[float],
  dataset: Dataset,
  calibration: Dataset,
  on_bad_data: str = "stop",
) -> Iterator[dict[str, Any]]:
  """For every share of the channels: sizes and the figure without fine-tuning. Nothing is written."""
  for share in shares:
    pruned = prune(model, dataclasses.replace(options, share=share, flops=None, force=True), calibration, on_bad_data)
    name, value = figure(pruned.model, dataset, on_bad_data)
    removed = pruned.choice.removed_share if pruned.choice else 0.0
    yield {"share": share, "score_removed": removed, name: value} | sizes(model, pruned.model)
