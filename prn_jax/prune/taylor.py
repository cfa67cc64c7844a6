"""What the training loss would lose with a unit, to first order, from its gradients on annotated images.

Every unit gets a gate u, 1 in the network as it is, that multiplies what `cut` takes away: the scales of batch norm of its
layers (the bias stays, as the constant that is carried on), kernels where there is no batch norm, and biases too where no
constant can be carried. At u = 0 the network is the one without the unit, so that to first order its loss changes by -dL/du.
The score is the mean over the images of (dL/du)^2: eq. 8 of Molchanov et al., "Importance Estimation for Neural Network
Pruning" (CVPR 2019), with the sum taken over all layers of the unit, as the dependency graph ties them (Fang et al.,
DepGraph, CVPR 2023).

A layer that only depthwise convolutions of the same unit read has no gate of its own: theirs is the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.augment import NO_DETECTION_AUGMENT
from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, train_batches
from prn_jax.data_pipelines.images import Resize
from prn_jax.data_pipelines.records import Dataset, OnBadData
from prn_jax.errors import PrnError
from prn_jax.graph.channels import How
from prn_jax.graph.consumers import consumers_of
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.nested import flattened, nested
from prn_jax.network import Network
from prn_jax.prune.constants import without_constants
from prn_jax.prune.units import Unit
from prn_jax.run.calibration import spread
from prn_jax.train.losses import LossConfig, make_loss
from prn_jax.train.step import LossFn, to_unit_range

Variables = dict[str, Any]
Batch = Mapping[str, Any]

BATCH = 4  # images at a time, each with gradients of its own


def taylor_scores(
  model: Model, units: Sequence[Unit], dataset: Dataset, *, images: int, on_bad_data: str = "stop"
) -> NDArray[np.float64]:
  """(units,) the mean square of what each adds to the loss, to first order.

  Args:
    model: with weights; its training settings shape the loss as they do in `prn train`.
    units: those of its graph.
    dataset: annotated, with the classes of the model.
    images: how many, evenly spread over the data set.
    on_bad_data: "stop", or "skip" (the next image counts twice).

  Raises:
    PrnError: the network cannot be trained, an image cannot be used, or a gradient is not finite.
  """
  total, count = np.zeros(len(units)), 0
  gradients = gate_gradients(model, units)
  for batch in _batches(model, spread(dataset, images), on_bad_data):
    found = np.asarray(gradients(batch), np.float64)
    total += np.square(found).sum(0)
    count += len(found)
  if not np.isfinite(total).all():
    raise PrnError(
      f"network '{model.graph.name}' has gradients that are not finite on this data, so that they say nothing about its "
      "channels. Check its weights and the annotations, or take the method 'variance', which needs no data."
    )
  return total / count


def gate_gradients(model: Model, units: Sequence[Unit]) -> Callable[[Batch], jax.Array]:
  """Batch -> (n, units) float32, the gradient of the loss of each image by the gates of the units."""
  graph, variables = model.graph, model.variables
  layers, loss_fn = make_loss(graph, LossConfig(), model.training)
  gated = _gates(graph, units)
  network = Network(graph)

  @jax.jit
  def gradients(variables: Variables, batch: Batch) -> jax.Array:
    def loss(gates: jax.Array, one: Batch) -> jax.Array:
      return gated_loss(network, layers, loss_fn, gated(variables, gates), one)

    rows = jax.tree.map(lambda x: x[:, None], dict(batch))  # every image is a batch of its own
    return jax.vmap(jax.grad(loss), (None, 0))(jnp.ones(len(units)), rows)

  return lambda batch: gradients(variables, batch)


def gated_loss(
  network: Network, layers: tuple[str, ...], loss_fn: LossFn, variables: Variables, batch: Batch
) -> jax.Array:
  """The loss of a batch with the rolling statistics of batch norm."""
  outputs = network.apply(variables, to_unit_range(batch["image"]), layers=layers)
  assert isinstance(outputs, dict)
  return loss_fn(outputs, dict(batch))[0]


def _gates(graph: Graph, units: Sequence[Unit]) -> Callable[[Variables, jax.Array], Variables]:
  """(variables, gates (units,)) -> variables of the network through the gates."""
  number = {channel: i for i, unit in enumerate(units) for channel in unit.makers}
  constant_free = {channel for unit in without_constants(graph, units) for channel in unit.makers}
  places: dict[str, tuple[int, NDArray[np.int64]]] = {}  # variable -> axis of its channels, number of each one's gate
  for layer in graph:
    channels = [(layer.name, i) for i in range(graph.shapes[layer.name].channels)]
    if not any(channel in number for channel in channels) or _has_gate_behind(graph, layer.name, number):
      continue
    for array in graph.arrays(layer):
      leaf = array.path.split("/")[-1]
      if array.makes is None or array.collection != "params" or (leaf == "kernel" and layer.has_batchnorm):
        continue
      counts = [c in number and (leaf != "bias" or c in constant_free) for c in channels]
      if any(counts):
        gate = [number[c] if is_gated else len(units) for c, is_gated in zip(channels, counts, strict=True)]
        places[array.key(layer.name)] = array.makes, np.array(gate)

  def through(variables: Variables, gates: jax.Array) -> Variables:
    all_gates = jnp.append(gates, 1.0)
    flat = dict(flattened(variables))
    for key, (axis, which) in places.items():
      shape = [-1 if i == axis else 1 for i in range(flat[key].ndim)]
      flat[key] = flat[key] * all_gates[which].reshape(shape)
    return nested(flat)

  return through


def _has_gate_behind(graph: Graph, name: str, number: Mapping[tuple[str, int], int]) -> bool:
  """Whether only depthwise convolutions of the same units read a layer."""
  readers = [graph[reader] for reader in consumers_of(graph)[name]]
  return bool(readers) and all(
    reader.kernel
    and all(span.how is How.KEEP for reads in graph.reads(reader) for span in reads.spans)
    and graph.shapes[reader.name].channels == graph.shapes[name].channels
    and all(number.get((reader.name, i)) == number.get((name, i)) for i in range(graph.shapes[name].channels))
    for reader in readers
  )


def _batches(model: Model, dataset: Dataset, on_bad_data: str) -> Iterator[Batch]:
  """Images with their annotations, as the network sees them when it is used."""
  graph = model.graph
  if not graph.detects:
    with eval_batches(
      dataset, (graph.width, graph.height), resize=Resize.CENTER_CROP, channels=graph.channels,
      batch_size=min(BATCH, len(dataset)), on_bad_data=OnBadData(on_bad_data),
    ) as found:  # fmt: skip
      for batch in found:
        if batch["mask"].any():
          yield {key: batch[key][batch["mask"]] for key in ("image", "label")}
    return
  size = min(BATCH, len(dataset))
  config = PipelineConfig(
    seed=0, batch_size=size, sizes=((graph.width, graph.height),), channels=graph.channels, on_bad_data=on_bad_data
  )
  augment = dataclasses.replace(NO_DETECTION_AUGMENT, letterbox=model.resize is Resize.LETTERBOX)
  with train_batches(dataset, augment, config, num_steps=-(-len(dataset) // size)) as steps:
    for step, batch in steps:
      rows = min(size, len(dataset) - step * size)  # the rest of the last batch begins the data again
      yield {key: batch[key][:rows] for key in ("image", "truth", "annotated") if key in batch}
