"""A model without what matters least in it, with what that cost: sizes, and accuracy on annotated images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prn_jax.data_pipelines.records import Dataset
from prn_jax.errors import PrnError
from prn_jax.formats.darknet_training import NET
from prn_jax.graph.cost import cost
from prn_jax.model import Model
from prn_jax.prune.blocks import least_blocks, without_blocks
from prn_jax.prune.candidates import Found, Rating, best_candidate
from prn_jax.prune.cut import cut
from prn_jax.prune.method_names import DEFAULT_METHOD
from prn_jax.prune.methods import Method, by_family, get_method
from prn_jax.prune.recalibrate import recalibrated
from prn_jax.prune.report import by_layer
from prn_jax.prune.selection import Choice, Goal, Kept, Target, by_scores, choose, is_sparse, units_for
from prn_jax.prune.taylor import taylor_scores
from prn_jax.quantize.rewrite import is_quantized
from prn_jax.run.calibration import images_of, spread
from prn_jax.run.evaluate import UsualFigures, usual_figures
from prn_jax.run.latency import latencies, measured_on

BATCH = 8  # images at a time, for statistics and figures
RECALIBRATE = 64  # images of eagle-eye's adaptive batch norm, where nothing else is said


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneOptions:
  """What goes.

  Attributes:
    method: see `prune.methods`.
    target: how many channels go; None: only blocks do.
    kept: what must stay of every layer.
    blocks: residual blocks that go first, as a whole.
    recalibrate: images, evenly spread over the data, from which batch norm is estimated again; 0 is off.
    images: annotated images for gradients (taylor) and for rating candidates (eagle-eye).
    candidates: how many eagle-eye tries.
    seed: the seed of the methods random and eagle-eye.
    force: go on although what goes matters by its gammas.
  """

  method: str = DEFAULT_METHOD
  target: Target | None = None
  kept: Kept = Kept()
  blocks: int = 0
  recalibrate: int = 0
  images: int = 64
  candidates: int = 50
  seed: int = 0
  force: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
  """The smaller model.

  Attributes:
    model: it, with names, training settings and all else of the original.
    choice: the channels that went; None if only blocks did.
    blocks: names of the shortcuts whose blocks went.
    layers: rows of a table; see `prune.report.by_layer`.
    ratings: those of eagle-eye's candidates.
    best: the number of the one that went.
  """

  model: Model
  choice: Choice | None
  blocks: tuple[str, ...]
  layers: list[dict[str, Any]]
  ratings: tuple[Rating, ...] = ()
  best: int = 0

  def to_json(self) -> dict[str, Any]:
    """What was removed, layer by layer."""
    choice = self.choice
    found = {
      "units": choice.considered if choice else 0,
      "units_removed": len(choice.units) if choice else 0,
      "score_removed": choice.removed_share if choice else 0.0,
      "blocks_removed": list(self.blocks),
      "layers": self.layers,
    }
    if self.ratings:
      found["candidates"] = [rating._asdict() for rating in self.ratings]
      found["candidate"] = self.best
    return found


def prune(
  model: Model,
  options: PruneOptions,
  dataset: Dataset | None = None,
  on_bad_data: str = "stop",
  on_rating: Callable[[Rating], None] = lambda rating: None,
) -> Pruned:
  """Removes what the options say.

  Args:
    model: with weights.
    options: see `PruneOptions`.
    dataset: images for `recalibrate`, whose annotations do not matter; for methods that need data, annotated with the
      classes of the model.
    on_bad_data: "stop" or "skip".
    on_rating: called with every rating of a candidate.

  Raises:
    PrnError: an option does not fit the network, or what would go matters (without `force`).
  """
  method = get_method(options.method)
  _check(model, options, method, dataset)
  graph, variables = model.graph, model.variables
  blocks = least_blocks(graph, variables, options.blocks) if options.blocks else []
  if blocks:
    graph, variables = without_blocks(graph, variables, blocks)
  choice, found, num_images = None, None, options.recalibrate
  if options.target is not None:
    base = dataclasses.replace(model, graph=graph, weights=variables, training=_training(model, graph))
    if method.score == "candidates":
      assert dataset is not None
      num_images = num_images or RECALIBRATE
      found = _candidates(base, method, options, dataset, num_images, on_bad_data, on_rating)
      choice = found.choice
    else:
      choice = _chosen(base, method, options, dataset, on_bad_data)
    if method.score == "gamma" and not is_sparse(choice) and not options.force:
      raise _not_sparse(model, options, choice)
    graph, variables = cut(graph, variables, choice.units)
  if num_images and dataset is not None:
    images = images_of(model, spread(dataset, num_images), BATCH, on_bad_data)
    variables = recalibrated(graph, variables, images)
  smaller = dataclasses.replace(model, graph=graph, weights=variables, training=_training(model, graph), header=None)
  gone = tuple(block.shortcut for block in blocks)
  ratings, best = (found.ratings, found.best) if found else ((), 0)
  return Pruned(smaller, choice, gone, by_layer(model.graph, graph), ratings, best)


def _check(model: Model, options: PruneOptions, method: Method, dataset: Dataset | None) -> None:
  """Raises PrnError where the options do not go together."""
  if options.target is None and not options.blocks:
    raise PrnError("nothing to remove: give a share of the channels, of the operations, or a number of blocks.")
  if is_quantized(model.graph):
    raise PrnError(
      f"network '{model.graph.name}' is quantised, and its ranges hold for the channels that it has. Prune the float network, "
      "then quantise what is left."
    )
  if options.recalibrate and dataset is None:
    raise PrnError(f"recalibrate={options.recalibrate} needs images; give data.")
  if options.recalibrate and not model.variables.get("batch_stats"):
    raise PrnError(
      f"network '{model.graph.name}' has no batch norm, which is what is estimated again from images: leave --recalibrate out."
    )
  if method.needs_data and options.target is not None and dataset is None:
    what = "gradients of the training loss" if method.score == "taylor" else "the figures of candidates"
    raise PrnError(
      f"the method '{options.method}' judges by {what}, for which it needs annotated images: give those of training "
      "(--calibrate SPEC), or others (--data SPEC)."
    )


def _chosen(model: Model, method: Method, options: PruneOptions, dataset: Dataset | None, on_bad_data: str) -> Choice:
  assert options.target is not None
  if method.score != "taylor":
    return choose(model.graph, model.variables, method, options.target, options.kept, seed=options.seed)
  assert dataset is not None
  units = units_for(model.graph, method)
  found = taylor_scores(model, units, dataset, images=options.images, on_bad_data=on_bad_data)
  found = by_family(found, units) if method.is_relative else found
  return by_scores(model.graph, units, found, method, options.target, options.kept)


def _candidates(
  model: Model, method: Method, options: PruneOptions, dataset: Dataset, num_images: int, on_bad_data: str,
  on_rating: Callable[[Rating], None],
) -> Found:  # fmt: skip
  assert options.target is not None
  figures = UsualFigures(model, spread(dataset, options.images), batch_size=BATCH, on_bad_data=on_bad_data)
  return best_candidate(
    model.graph,
    model.variables,
    method,
    options.target,
    options.kept,
    seeds=range(options.seed, options.seed + options.candidates),
    images=list(images_of(model, spread(dataset, num_images), BATCH, on_bad_data)),
    rate=lambda variables: float(figures(variables)[figure_name(model)] or 0.0),
    on_rating=on_rating,
  )


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


def figure_name(model: Model) -> str:
  """The figure that is compared: COCO's AP50 of a detector, top-1 of a classifier."""
  return "AP50" if model.graph.detects else "top1"


def figure(model: Model, dataset: Dataset, on_bad_data: str = "stop") -> tuple[str, float]:
  """Name and value of the figure that is compared."""
  name = figure_name(model)
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


def times(before: Model, after: Model) -> dict[str, Any]:
  """Least milliseconds of one image of both, measured in turn, and where."""
  found = latencies({"before": before.graph, "after": after.graph})
  return {
    "before_ms": found["before"],
    "after_ms": found["after"],
    "width": before.graph.width,
    "height": before.graph.height,
    "machine": measured_on(),
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
    options = dataclasses.replace(options, target=Target(Goal.SHARE, share), force=True)
    pruned = prune(model, options, calibration, on_bad_data)
    name, value = figure(pruned.model, dataset, on_bad_data)
    removed = pruned.choice.removed_share if pruned.choice else 0.0
    yield {"share": share, "score_removed": removed, name: value} | sizes(model, pruned.model)
