"""What detection and classification have of their own: the loss, and the figures of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from prn_jax.classify.loss import softmax_cross_entropy
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.detect.loss import LossStyle, default_settings, detection_loss, loss_of
from prn_jax.errors import PrnError
from prn_jax.formats.darknet_training import Training
from prn_jax.graph.graph import Graph
from prn_jax.graph.head import DetectionHead
from prn_jax.ranges import below
from prn_jax.train.step import Batch, Constants, LossFn, Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
  """Settings of the loss.

  Attributes:
    style: the kind of loss of a detector: "darknet" has Darknet's gradients to the bit, "autodiff" the losses that they stand for.
    label_smoothing: for a classifier, the share of the target that the other classes get in equal parts, as in Darknet;
      the class itself keeps 1 - label_smoothing. (Elsewhere it often is the share of all classes: k - 1 of k times as
      much for the others.)
    head: for a detector, fields of `HeadTraining` (or `RegionTraining`) for all heads, over those of the cfg.
  """

  style: str = "darknet"
  label_smoothing: float = dataclasses.field(
    default=0.0, metadata=below(0, 1, "the share of the target that the other classes get; 0 is off")
  )
  head: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_loss(graph: Graph, config: LossConfig, training: Training | None = None) -> tuple[tuple[str, ...], LossFn]:
  """The layers that the loss reads, and the loss of a batch.

  Args:
    graph: the network, at the size of the images that the loss will see.
    config: see `LossConfig`.
    training: settings of the cfg, if the network comes from one.

  Returns:
    Names of layers, and the loss (see `LossFn`), which needs no constants. A detector's batch has "truth" (n, t, 5):
    cx, cy, w, h relative to the input, class (-2: a region in which nothing is learned), and may have "images_seen" (n,),
    see `step.with_images_seen`, and "annotated" (n, classes), see `detect.loss.darknet_deltas`; a classifier's has "label" (n,) int32.

  Raises:
    PrnError: the network has heads that cannot be trained, or a setting does not exist.
  """
  if graph.detects:
    return _detection_loss(graph, config, training)
  return _classification_loss(graph, config)


def head_settings(graph: Graph, config: LossConfig, training: Training | None = None) -> dict[str, Any]:
  """Loss settings of every head: Darknet's defaults, under those of the cfg, under those of the config.

  Raises:
    PrnError: a head cannot be trained, or `config.head` has a setting that it does not know.
  """
  sections = training.sections if training else {}
  settings: dict[str, Any] = {}
  for head in graph.heads:
    usual = sections.get(head.name, default_settings(head))
    known = {f.name for f in dataclasses.fields(usual)}
    if unknown := sorted(set(config.head) - known):
      raise PrnError(
        f"config.loss.head.{unknown[0]} is no setting of layer '{head.name}' ({head.kind}); set it to None. Expected some "
        f"of {', '.join(sorted(known))}."
      )
    settings[head.name] = dataclasses.replace(usual, **config.head)
    loss_of(head).check(head, settings[head.name])
  return settings


def _detection_loss(graph: Graph, config: LossConfig, training: Training | None) -> tuple[tuple[str, ...], LossFn]:
  settings = head_settings(graph, config, training)
  heads = tuple(head for head in graph.heads if isinstance(head, DetectionHead))
  inputs = {head.name: head.inputs[0] for head in heads}
  style, size = LossStyle(config.style), (graph.width, graph.height)

  def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
    raw = {name: outputs[source].astype(jnp.float32) for name, source in inputs.items()}
    seen = batch["images_seen"][0] if "images_seen" in batch else None
    total, by_head = detection_loss(
      raw,
      batch["truth"],
      heads,
      settings,
      size,
      style=style,
      images_seen=seen,
      annotated=batch.get("annotated"),
    )
    return total / batch["image"].shape[0], _head_metrics(by_head)

  return tuple(inputs.values()), loss_fn


def _head_metrics(by_head: Mapping[str, HeadMetrics]) -> Metrics:
  """What Darknet prints while it trains, over all heads."""
  total: HeadMetrics = jax.tree.map(lambda *values: sum(values), *by_head.values())
  of_assigned = {
    "iou": total.iou,
    "objectness": total.objectness,
    "true_class": total.true_class,
    "recall50": total.recall50,
  }
  metrics = {key: _pair(value, total.num_assigned) for key, value in of_assigned.items()}
  return metrics | {"any_objectness": _pair(total.any_objectness, total.num_locations)}


def _classification_loss(graph: Graph, config: LossConfig) -> tuple[tuple[str, ...], LossFn]:
  source = logits_layer(graph)

  def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
    n = batch["image"].shape[0]
    logits = outputs[source].astype(jnp.float32).reshape(n, -1)
    value = jnp.mean(softmax_cross_entropy(logits, batch["label"], config.label_smoothing))
    is_right = jnp.argmax(logits, -1) == batch["label"]
    return value, {"top1": _pair(is_right.sum(), n)}

  return (source,), loss_fn


def logits_layer(graph: Graph) -> str:
  """Name of the layer whose output are the logits of a classifier."""
  last = graph.heads[-1]
  return last.inputs[0] if last.is_probability else last.name


MakeLoss = Callable[[Graph, LossConfig, Training | None], tuple[tuple[str, ...], LossFn]]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """The loss of a run, and what it reads beside the batch.

  Attributes:
    make_loss: makes the loss of a graph; `make_loss` by default.
    constants: a pytree of arrays that every call of the loss gets, such as the variables of a teacher. No step changes
      them, and no checkpoint holds them.
    specs: how they are divided among the devices, see `sharding.put_constants`.
  """

  make_loss: MakeLoss = make_loss
  constants: Constants = ()
  specs: Any = PartitionSpec()


FROM_CONFIG = Objective()  # the loss that the configuration asks for


def _pair(total: Any, count: Any) -> jax.Array:
  return jnp.stack([jnp.asarray(total, jnp.float32), jnp.asarray(count, jnp.float32)])
