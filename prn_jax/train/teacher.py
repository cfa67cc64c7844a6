"""Distillation in a training: the teacher, what of it is compared with what of the student, and the loss that follows.

The teacher's variables are constants of the step: no part of the program, no gradient, no checkpoint. It runs in the step, on the
student's images, as at inference: batch norm folded, rolling statistics. Adapters are 1x1 convolutions in the student's graph, behind
the layer that they adapt, so that optimiser, averages and checkpoints know them as layers; readers of the run leave them out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.distill.lesson import Distillation, HeadLesson, Lesson, Needs, distillation, read_head
from prn_jax.errors import GraphError, PrnError
from prn_jax.formats.darknet_training import Training
from prn_jax.graph.graph import Graph, Layer
from prn_jax.graph.sizes import resized
from prn_jax.kinds.conv import Conv
from prn_jax.labels import num_classes
from prn_jax.loading import load
from prn_jax.network import Network, Variables, init_variables
from prn_jax.ranges import at_least, between, check
from prn_jax.train.losses import LossConfig, Objective, logits_layer
from prn_jax.train.pairing import (
  HeadPair,
  anchors_rel,
  check_kind,
  check_losses,
  check_same_heads,
  class_places,
  head_of,
  paired_features,
  paired_heads,
  paired_maps,
)
from prn_jax.train.step import Batch, Constants, LossFn, Metrics, one_value, to_unit_range
from prn_jax.transforms.fold_batchnorm import fold_batchnorm

ADAPTER = "adapter_"  # begins the names of layers that exist only while a student is taught
USUAL = {True: ("objectness",), False: ("hinton",)}  # losses of detectors and of classifiers


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig:
  """What a trained network teaches the one that is trained.

  Attributes:
    teacher: run directory, saved model, .cfg or registered name; "" is none.
    weights: its weights, where it has none of its own.
    names: file with its class names, where it has none of its own.
    losses: names of losses, each with a weight in place of its usual one if need be ("cwd:5"); () is "objectness" for detectors,
      "hinton" for classifiers. Those that exist: kd1 to kd5, objectness, bckd, cwd, fgd, hinton, and registered ones.
    features: pairs "STUDENT_LAYER=TEACHER_LAYER" for losses on feature maps; () is what the heads' convolutions read.
    temperature: in place of those of the losses; 0 keeps them.
    confidence: the objectness from which on the teacher is sure of a box (loss "objectness").
  """

  teacher: str = ""
  weights: str = ""
  names: str = ""
  losses: tuple[str, ...] = ()
  features: tuple[str, ...] = ()
  temperature: float = dataclasses.field(default=0.0, metadata=at_least(0, "0 keeps those of the losses"))
  confidence: float = dataclasses.field(
    default=0.3, metadata=between(0, 1, "the objectness from which on the teacher is sure of a box")
  )

  def __post_init__(self) -> None:
    check(self, PrnError, "distill.{}")
    for text in self.losses:
      weighted_loss(text)
    for text in self.features:
      if len(text.split("=")) != 2:
        raise PrnError(f"distill.features has '{text}'; expected STUDENT_LAYER=TEACHER_LAYER.")
    given = [key for key in ("weights", "names", "losses", "features") if getattr(self, key)]
    if given and not self.teacher:
      raise PrnError(
        f"distill.{given[0]} is given, but distill.teacher is empty; name the teacher, or leave distill.{given[0]} empty."
      )


def weighted_loss(text: str) -> tuple[Distillation, float]:
  """A loss and its weight from "NAME" or "NAME:WEIGHT".

  Raises:
    PrnError: there is no such loss, or the weight is none.
  """
  name, colon, number = text.partition(":")
  loss = distillation(name)
  if not colon:
    return loss, loss.weight
  try:
    weight = float(number)
  except ValueError:
    weight = -1.0
  if not 0 < weight < float("inf"):
    raise PrnError(
      f"distill.losses has '{text}'; expected NAME:WEIGHT with a weight above 0, as in {name}:{loss.weight:g}."
    )
  return loss, weight


@dataclasses.dataclass(frozen=True, eq=False)
class Lessons:
  """A teacher, fitted to a student.

  Attributes:
    graph, variables: the teacher, with batch norm folded, at its own size.
    losses: the losses with their weights.
    classes: for each class of the student its index among the teacher's.
    heads, features, maps: pairs of layers, student's and teacher's.
    adapters: student's layer -> channels of its adapter.
    notes: what is worth a line before the run.
    config: see there.
    dtype: the type of the teacher's computation; None is float32.
    seed: the seed of the adapters.
  """

  graph: Graph
  variables: Variables
  losses: tuple[tuple[Distillation, float], ...]
  classes: tuple[int, ...]
  heads: tuple[HeadPair, ...]
  features: tuple[tuple[str, str], ...]
  maps: tuple[tuple[str, str], ...]
  adapters: Mapping[str, int]
  notes: tuple[str, ...]
  config: DistillConfig
  dtype: Any = None
  seed: int = 0

  def student(self, graph: Graph) -> Graph:
    """The student with its adapters."""
    layers: list[Layer] = []
    for layer in graph:
      layers.append(layer)
      if layer.name in self.adapters:
        layers.append(Conv(name=ADAPTER + layer.name, inputs=(layer.name,), filters=self.adapters[layer.name]))
    return dataclasses.replace(graph, layers=tuple(layers))

  @property
  def adapter_names(self) -> tuple[str, ...]:
    """Layers that only the student in training has."""
    return tuple(ADAPTER + name for name in self.adapters)

  def with_adapters(self, variables: Variables, graph: Graph) -> Variables:
    """The student's variables, and random ones for the adapters."""
    drawn = init_variables(self.student(graph), self.seed)["params"]
    own = {name: value for name, value in drawn.items() if name.startswith(ADAPTER)}
    return {**variables, "params": {**variables["params"], **own}}

  def objective(self, base: Objective) -> Objective:
    """The loss of `base`, and beside it what the teacher has to say."""

    def make_loss(graph: Graph, config: LossConfig, training: Training | None) -> tuple[tuple[str, ...], LossFn]:
      layers, base_loss = base.make_loss(graph, config, training)
      taught = _Taught(self, graph)

      def loss_fn(outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()) -> tuple[jax.Array, Metrics]:
        value, metrics = base_loss(outputs, batch, constants["base"])
        for name, one in taught(outputs, batch, constants["teacher"]).items():
          value, metrics = value + one, metrics | {f"distill/{name}": one_value(one)}
        return value, metrics

      return tuple(dict.fromkeys((*layers, *taught.student_layers))), loss_fn

    specs = {"base": base.specs, "teacher": jax.sharding.PartitionSpec()}
    return Objective(make_loss, {"base": base.constants, "teacher": self.variables}, specs)


class _Taught:
  """The losses at one size of the images."""

  def __init__(self, lessons: Lessons, student: Graph) -> None:
    self.lessons, self.graph = lessons, student
    self.teacher = resized(lessons.graph, (student.width, student.height), "config.distill.teacher")
    self.heads = [(head_of(student, pair.student), head_of(self.teacher, pair.teacher), pair) for pair in lessons.heads]
    self.logits = () if student.detects else (logits_layer(student), logits_layer(self.teacher))
    pairs = [(s.inputs[0], t.inputs[0]) for s, t, _ in self.heads]
    pairs += [(self._adapted(s), t) for s, t in lessons.features]
    pairs += [*lessons.maps, *([self.logits] if self.logits else [])]
    self.student_layers = tuple(dict.fromkeys(s for s, _ in pairs))
    self.teacher_layers = tuple(dict.fromkeys(t for _, t in pairs))
    self.network = Network(self.teacher, dtype=lessons.dtype)

  def __call__(self, outputs: dict[str, jax.Array], batch: Batch, teacher: Variables) -> dict[str, jax.Array]:
    """Name -> weighted loss, the mean over the images."""
    said: Any = self.network.apply(teacher, to_unit_range(batch["image"]), layers=self.teacher_layers)
    lesson = self._lesson(outputs, jax.lax.stop_gradient(said), batch)
    found = {}
    for loss, weight in self.lessons.losses:
      own = lesson._replace(temperature=self.lessons.config.temperature or loss.temperature)
      found[loss.name] = weight * loss.loss(own)
    return found

  def _lesson(self, outputs: dict[str, jax.Array], said: dict[str, jax.Array], batch: Batch) -> Lesson:
    lessons, size = self.lessons, (self.graph.width, self.graph.height)

    def of(student: str, teacher: str) -> tuple[jax.Array, jax.Array]:
      return outputs[student].astype(jnp.float32), said[teacher].astype(jnp.float32)

    n = batch["image"].shape[0]
    logits = tuple(x.reshape(n, -1) for x in of(*self.logits)) if self.logits else None
    if logits:
      logits = (logits[0], jnp.take(logits[1], np.asarray(lessons.classes), axis=1))
    return Lesson(
      num_images=n,
      confidence=lessons.config.confidence,
      heads=tuple(
        HeadLesson(
          read_head(outputs[s.inputs[0]], s, size),
          read_head(said[t.inputs[0]], t, size, boxes=pair.boxes, classes=lessons.classes),
          anchors_rel(self.graph, s),
          s.layout.objectness,
          s.layout.first_class,
        )
        for s, t, pair in self.heads
      ),
      features=tuple(of(self._adapted(s), t) for s, t in lessons.features),
      maps=tuple(of(s, t) for s, t in lessons.maps),
      logits=logits,  # type: ignore[arg-type]
      truth=batch.get("truth"),
    )

  def _adapted(self, layer: str) -> str:
    return ADAPTER + layer if layer in self.lessons.adapters else layer


# -- fitting -----------------------------------------------------------------------------------------------------------


def open_lessons(
  config: DistillConfig, graph: Graph, names: Sequence[str], *, dtype: Any = None, seed: int = 0
) -> Lessons | None:
  """Opens the teacher and finds what of it can be compared with the student; None without a teacher.

  Args:
    config: see there.
    graph: the student at its main size.
    names: its class names.
    dtype: the type of the teacher's computation.
    seed: the seed of the adapters.

  Raises:
    PrnError: the teacher cannot be opened, has no weights, or has nothing to say to this student.
  """
  if not config.teacher:
    return None
  where = f"config.distill.teacher: '{config.teacher}'"
  try:
    model = load(config.teacher, config.weights or None, config.names or None)
  except PrnError as error:
    raise type(error)(f"config.distill.teacher: {error}") from None
  if not model.has_weights or model.missing:
    what = f"no weights for {', '.join(model.missing[:5])}" if model.missing else "no weights, and would teach noise"
    raise PrnError(f"{where} has {what}. Give config.distill.weights, or a run directory as the teacher.")
  check_kind(where, model.graph, graph)
  losses = tuple(weighted_loss(text) for text in config.losses or USUAL[graph.detects])
  check_losses(losses, graph)
  known = () if model.names_are_assumed and num_classes(model.graph) == len(names) else model.names
  classes, notes = class_places(where, names, known, num_classes(model.graph))
  try:
    teacher = resized(model.graph, (graph.width, graph.height), "config.width and config.height")
  except GraphError as error:
    raise PrnError(f"{where} sees the student's images, and cannot: {error}") from None
  needs = _needs(losses)
  has_heads = Needs.HEADS in needs or (Needs.FEATURES in needs and not config.features and graph.detects)
  heads = paired_heads(where, graph, teacher) if has_heads else ()
  taught = {pair.student for pair in heads}
  if has_heads and (alone := [head.name for head in graph.heads if head.name not in taught]):
    notes = (*notes, f"the teacher has no head on the grid of {', '.join(alone)}: they learn without it")
  if Needs.SAME_HEADS in needs:
    check_same_heads(graph, teacher, heads, classes, losses)
  features = paired_features(config.features, graph, teacher, heads) if Needs.FEATURES in needs else ()
  maps = paired_maps(graph, teacher) if Needs.MAPS in needs else ()
  folded, variables = fold_batchnorm(model.graph, model.variables)
  channels = {s: teacher.shapes[t].channels for s, t in features}
  return Lessons(
    graph=folded,
    variables=variables,
    losses=losses,
    classes=classes,
    heads=heads if Needs.HEADS in needs else (),
    features=features,
    maps=maps,
    adapters={name: count for name, count in channels.items() if graph.shapes[name].channels != count},
    notes=(f"taught by {model.graph.name} ('{config.teacher}'): {_losses_text(losses)}", *notes),
    config=config,
    dtype=dtype,
    seed=seed,
  )


def _needs(losses: Sequence[tuple[Distillation, float]]) -> Needs:
  needs = Needs(0)
  for loss, _ in losses:
    needs |= loss.needs
  return needs


def _losses_text(losses: Sequence[tuple[Distillation, float]]) -> str:
  return ", ".join(f"{loss.name} x {weight:g}" for loss, weight in losses)
