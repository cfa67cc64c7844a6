"""Post-training quantisation: a trained network in few bits, from a few images and without a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prn_jax.errors import PrnError
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.nested import flattened
from prn_jax.network import Variables
from prn_jax.quantize.calibrate import calibrated, with_graph
from prn_jax.quantize.equalize import equalized, largest_values
from prn_jax.quantize.kernels import corrected_biases, on_grid, paired, with_pairs, with_scales
from prn_jax.quantize.presets import Preset
from prn_jax.quantize.rewrite import check_not_quantized, convolutions_of, quantized_graph, quantized_variables
from prn_jax.quantize.rounding import rounded_by_error
from prn_jax.transforms.fold_batchnorm import fold_batchnorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """What may be done besides rounding.

  Attributes:
    equalize: shift factors between consecutive convolutions first, so that their filters have ranges of one size.
    adaptive: round each kernel so that errors within a filter cancel on real inputs, instead of each weight to the nearest.
    correct_bias: take back what rounding the kernels moves on average.
  """

  equalize: bool = False
  adaptive: bool = False
  correct_bias: bool = True


class Quantized(NamedTuple):
  """A model in few bits, and the variables with which the same graph computes as the float model, equalised as it was."""

  model: Model
  before: Variables


def quantize(model: Model, preset: Preset, batches: Sequence[np.ndarray], options: Options | None = None) -> Model:
  """The model in few bits; see `quantized`."""
  return quantized(model, preset, batches, options).model


def quantized(model: Model, preset: Preset, batches: Sequence[np.ndarray], options: Options | None = None) -> Quantized:
  """The model in few bits, and what it was.

  Args:
    model: a float model with weights.
    preset: how; one that needs a training gives where the training begins.
    batches: images for the calibration as the network sees them, (n, h, w, c) float32; empty for a preset that trains.
    options: see there.

  Raises:
    PrnError: it is quantised already, has no convolution, or there are no images.
  """
  options = options or Options()
  check_not_quantized(model.graph)
  if not batches:
    raise PrnError("there is no image for the calibration, so no range of any feature map is known. Give some.")
  graph, variables = prepared(model, preset, batches, options)
  rewritten = quantized_graph(graph, preset)
  before = quantized_variables(rewritten, variables)
  kernels = {name: flattened(before)[f"params/{name}/conv/kernel"] for name in convolutions_of(rewritten)}
  variables = calibrated(rewritten, before, batches, preset.observer)
  in_pairs = paired(rewritten) if preset.spares else {}
  variables = with_scales(rewritten, variables, preset.weights_observer, in_pairs)
  if not any(layer.has_batchnorm for layer in graph):
    if options.adaptive:
      variables = rounded_by_error(rewritten, variables, batches)
    variables = with_pairs(rewritten, variables, in_pairs)
    if options.correct_bias:
      variables = corrected_biases(rewritten, variables, kernels, batches)
    variables = on_grid(rewritten, variables)
  return Quantized(with_graph(model, rewritten, variables), before)


def prepared(model: Model, preset: Preset, batches: Sequence[np.ndarray], options: Options) -> tuple[Graph, Variables]:
  """The float network that is rounded: batch norm folded and factors moved, where that is wanted."""
  if not (preset.folds or options.equalize):
    return model.graph, model.variables
  graph, variables = fold_batchnorm(model.graph, model.variables)
  if options.equalize:
    front = preset.splits
    largest = largest_values(graph, variables, batches, in_front=front) if preset.per_channel else None
    variables = equalized(graph, variables, largest)
  return graph, variables
