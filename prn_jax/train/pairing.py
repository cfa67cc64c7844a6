"""What of a teacher can be compared with what of a student: heads by their grids, boxes by their anchors, classes by their names,
feature maps by their places. Where nothing can, it says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from prn_jax.data_pipelines.class_names import match_names
from prn_jax.data_pipelines.records import classes_text
from prn_jax.distill.lesson import DISTILLATIONS, Distillation, Needs
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.graph import Graph, Shape
from prn_jax.graph.head import DetectionHead
from prn_jax.labels import num_classes

TASKS = {True: "detects", False: "classifies"}
WeightedLosses = Sequence[tuple[Distillation, float]]


@dataclasses.dataclass(frozen=True)
class HeadPair:
  """Names of two heads, and the student's boxes and classes among the teacher's."""

  student: str
  teacher: str
  boxes: tuple[int, ...]


def check_kind(where: str, teacher: Graph, student: Graph) -> None:
  if teacher.detects != student.detects:
    raise PrnError(
      f"{where} {TASKS[teacher.detects]}, but '{student.name}' {TASKS[student.detects]}. Take a teacher that "
      f"{TASKS[student.detects]}."
    )
  if teacher.channels != student.channels:
    raise PrnError(
      f"{where} takes images of {teacher.channels} channels, but '{student.name}' takes {student.channels}. Both see the same "
      "images: take a teacher for those."
    )


def check_losses(losses: WeightedLosses, graph: Graph) -> None:
  for loss, _ in losses:
    is_wrong = loss.needs & (Needs.LOGITS if graph.detects else Needs.HEADS | Needs.MAPS)
    if is_wrong:
      whom = "classifiers" if graph.detects else "detectors"
      fitting = [n for n, d in DISTILLATIONS.items() if bool(d.needs & Needs.LOGITS) != graph.detects]
      raise PrnError(
        f"config.distill.losses: '{loss.name}' teaches {whom}, but '{graph.name}' {TASKS[graph.detects]}. Expected some of "
        f"{', '.join(fitting)}."
      )


def class_places(
  where: str, names: Sequence[str], known: Sequence[str], count: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
  """For each class of the student its index among the teacher's, and notes."""
  if not known:
    if count != len(names):
      raise PrnError(
        f"{where} has {count} classes without names, and the data has {len(names)}: which is which cannot be told. Give "
        "config.distill.names, a file with the teacher's class names, one a line."
      )
    return tuple(range(count)), ("the teacher's classes have no names: they are taken in the order of the data's",)
  places = match_names(names, known)
  if missing := [name for name, place in zip(names, places, strict=True) if place < 0]:
    shown = f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    raise PrnError(
      f"{where} knows nothing of {classes_text(missing)} of the data{did_you_mean(missing[0], known)}; its {len(known)} "
      f"classes are {shown}. Classes are matched by name. Take a teacher that was trained on all of them, or give its true "
      "names (config.distill.names)."
    )
  return places, ()


def head_of(graph: Graph, name: str) -> DetectionHead:
  head = graph[name]
  assert isinstance(head, DetectionHead)
  return head


def anchors_rel(graph: Graph, head: DetectionHead) -> np.ndarray:
  """(a, 2) float32 relative to the network input."""
  shape = graph.shapes[head.name]
  size = np.array((graph.width, graph.height))
  return (head.own_anchors_px((shape.width, shape.height), (graph.width, graph.height)) / size).astype(np.float32)


def _stride(graph: Graph, name: str) -> str:
  shape = graph.shapes[name]
  return f"{graph.width / shape.width:g}" if graph.width * shape.height == graph.height * shape.width else str(shape)


def paired_heads(where: str, student: Graph, teacher: Graph) -> tuple[HeadPair, ...]:
  """Heads on equal grids, in the order of the student's."""
  pairs, free = [], list(teacher.heads)
  for head in (*student.heads, *teacher.heads):
    if not isinstance(head, DetectionHead) or type(head).layout is DetectionHead.layout:
      raise PrnError(
        f"layer '{head.name}' ({head.kind}) has no layout of its values, so that no teacher can be compared."
      )
  for head in student.heads:
    grid = student.shapes[head.name][:2]
    other = next((one for one in free if teacher.shapes[one.name][:2] == grid), None)
    if other is not None:
      free.remove(other)
      boxes = paired_boxes(where, student, teacher, head.name, other.name)
      pairs.append(HeadPair(head.name, other.name, boxes))
  if not pairs:
    own, others = (", ".join(_stride(graph, head.name) for head in graph.heads) for graph in (student, teacher))
    raise PrnError(
      f"{where} has heads of stride {others}, and '{student.name}' of stride {own}: none of them look at the same cells. Take a "
      "teacher with a head of one of these strides."
    )
  return tuple(pairs)


def paired_boxes(where: str, student: Graph, teacher: Graph, mine: str, other: str) -> tuple[int, ...]:
  """For each box of a cell that of the teacher with the anchor of the most similar shape."""
  heads = (head_of(student, mine), head_of(teacher, other))
  counts = [
    graph.shapes[head.name].channels // head.entries for graph, head in zip((student, teacher), heads, strict=True)
  ]
  own, theirs = anchors_rel(student, heads[0])[:, None], anchors_rel(teacher, heads[1])[None]
  if not (own.size and theirs.size):
    if counts[0] != counts[1]:
      raise PrnError(
        f"{where} has {counts[1]} boxes in a cell of head '{other}', and '{mine}' of the student {counts[0]}, without anchors to "
        "compare. Take a teacher with as many."
      )
    return tuple(range(counts[0]))
  shared = np.minimum(own, theirs).prod(-1)
  return tuple(np.argmax(shared / (own.prod(-1) + theirs.prod(-1) - shared), 1).tolist())


def check_same_heads(
  student: Graph, teacher: Graph, pairs: Sequence[HeadPair], classes: Sequence[int], losses: WeightedLosses
) -> None:
  """Raises PrnError unless all values of the heads stand for the same."""
  names = ", ".join(loss.name for loss, _ in losses if loss.needs & Needs.SAME_HEADS)
  is_same = len(pairs) == len(student.heads) == len(teacher.heads)
  is_same &= list(classes) == list(range(num_classes(teacher)))
  for pair in pairs:
    own, other = head_of(student, pair.student), head_of(teacher, pair.teacher)
    a, b = anchors_rel(student, own), anchors_rel(teacher, other)
    is_same &= type(own) is type(other) and a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-3))
  if not is_same:
    raise PrnError(
      f"config.distill.losses: {names} compare heads value by value, but those of the teacher have other "
      f"strides, anchors or classes than those of '{student.name}'. Take objectness or bckd, which compare boxes and classes."
    )


def _feature(graph: Graph, head: str) -> str:
  """What the last layer with a kernel in front of a head reads."""
  layer = graph[graph[head].inputs[0]]
  while not layer.kernel and layer.inputs and layer.inputs[0] in {one.name for one in graph}:
    layer = graph[layer.inputs[0]]
  return layer.inputs[0]


def paired_features(
  texts: Sequence[str], student: Graph, teacher: Graph, heads: Sequence[HeadPair]
) -> tuple[tuple[str, str], ...]:
  """Layers whose maps are compared: those that were named, or what the heads are computed of."""
  if not texts and not heads:
    raise PrnError(
      f"config.distill.features is empty, and '{student.name}' has no detection heads whose features could be taken. Name the "
      "layers: STUDENT_LAYER=TEACHER_LAYER ('prn summary' lists them)."
    )
  pairs = [(text.split("=")[0], text.split("=")[1]) for text in texts]
  pairs = pairs or [(_feature(student, pair.student), _feature(teacher, pair.teacher)) for pair in heads]
  for own, other in pairs:
    _check_layer(student, own, "student")
    _check_layer(teacher, other, "teacher")
  if len({own for own, _ in pairs}) < len(pairs):
    raise PrnError(f"config.distill.features {list(texts)} name a layer of the student twice; expected each once.")
  for own, other in pairs:
    _check_grid(own, student.shapes[own], other, teacher.shapes[other])
  return tuple(pairs)


def _check_layer(graph: Graph, name: str, whose: str) -> None:
  known = [layer.name for layer in graph]
  if name not in known:
    raise PrnError(
      f"config.distill.features: the {whose} '{graph.name}' has no layer '{name}'{did_you_mean(name, known)}."
    )


def _check_grid(own: str, mine: Shape, other: str, theirs: Shape) -> None:
  if mine[:2] != theirs[:2]:
    raise PrnError(
      f"config.distill.features: '{own}' of the student is {mine}, but '{other}' of the teacher is {theirs}. Width and height must "
      "match; an adapter fits the channels only."
    )


def paired_maps(student: Graph, teacher: Graph) -> tuple[tuple[str, str], ...]:
  """All layers with kernels that no head reads, in their order."""
  own, other = _kernel_layers(student), _kernel_layers(teacher)
  pairs = tuple(zip(own, other, strict=False))
  unequal = [f"'{a}' and '{b}'" for a, b in pairs if student.shapes[a][:2] != teacher.shapes[b][:2]]
  if len(own) != len(other) or unequal:
    why = f"{unequal[0]} differ in size" if unequal else f"{len(own)} and {len(other)}"
    raise PrnError(
      f"config.distill.losses: kd4 and kd5 compare the maps of all layers in their order, but those of "
      f"'{student.name}' and of the teacher do not belong to each other ({why}). They are for pruned forms of one network; take cwd or fgd."
    )
  return pairs


def _kernel_layers(graph: Graph) -> list[str]:
  read = {name for head in graph.heads for name in head.inputs}
  return [
    layer.name
    for layer in graph
    if layer.name not in read
    and any(array.path.endswith("kernel") for array in layer.arrays(graph.input_shapes(layer)))
  ]
