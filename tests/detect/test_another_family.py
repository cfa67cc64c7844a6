"""A detection head of another family, in one file: this one. Nothing in the package knows of it.

It has no anchors and no objectness: each cell says how far the four sides of a box are from its middle, as FCOS does
(Tian et al., ICCV 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.detect import loss
from prn_jax.detect.boxes import giou_cxcywh
from prn_jax.detect.decode import decode
from prn_jax.detect.head_metrics import HeadMetrics
from prn_jax.detect.nms import postprocess
from prn_jax.errors import GraphError, PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.graph import graph as graphs
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Context, Graph, Shape
from prn_jax.graph.head import Cells, DetectionHead, Scores
from prn_jax.network import Network, init_variables
from prn_jax.train.losses import LossConfig, make_loss
from prn_jax.train.step import Recipe, init_state, mean, train_step
from prn_jax.transforms.num_classes import with_num_classes
from tests.nets import random_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distances(DetectionHead):
  """Distances from the middle of the cell to the left, top, right and bottom side, in cells; then the classes."""

  kind = "distances"
  sections = ("distances",)

  @property
  def entries(self) -> int:
    return 4 + self.classes

  def shape(self, inputs: Sequence[Shape]) -> Shape:
    if inputs[0].channels != self.entries:
      raise ValueError(f"the input has {inputs[0].channels} channels; {self.classes} classes need {self.entries}.")
    return inputs[0]

  def lower(self, xs: Sequence[jax.Array], ctx: Context) -> jax.Array:
    x = xs[0].astype(jnp.float32)
    return jnp.concatenate([jnp.exp(x[..., :4]), jax.nn.sigmoid(x[..., 4:])], -1)

  def decode(self, x: jax.Array, cells: Cells) -> jax.Array:
    middle, grid = cells.xy + 0.5, cells.pairs(cells.grid)
    low, high = (middle - x[..., :2]) / grid, (middle + x[..., 2:4]) / grid
    return jnp.concatenate([(low + high) / 2, high - low], -1)

  def encode(self, boxes: jax.Array, cells: Cells) -> jax.Array:
    middle, grid = cells.xy + 0.5, cells.pairs(cells.grid)
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    return jnp.concatenate([middle - low * grid, high * grid - middle], -1)

  def scores(self, x: jax.Array) -> Scores:
    return Scores(x[..., 4:].max(-1), x[..., 4:])  # no objectness: a box is as likely as its best class


@dataclasses.dataclass(frozen=True)
class DistancesTraining:
  box_weight: float = 1.0


def distances_loss(
  raw: jax.Array, truth: jax.Array, head: Distances, settings: DistancesTraining, net_size: Any, **_: Any
) -> tuple[jax.Array, HeadMetrics]:
  """Of one truth an image, in the cell of its centre: 1 - GIoU, and the cross-entropy of all classes."""
  _, height, width, _ = raw.shape
  cells = Cells.all((width, height), net_size)

  def one_image(raw: jax.Array, truth: jax.Array) -> jax.Array:
    number = (truth[1] * height).astype(jnp.int32) * width + (truth[0] * width).astype(jnp.int32)
    logits = raw.reshape(-1, head.entries)[..., 4:]
    wanted = jnp.zeros_like(logits).at[number, truth[4].astype(jnp.int32)].set(1)
    own = head.lower([raw], Context()).reshape(-1, 1, head.entries)[number][None]
    box = head.decode(own, cells.at(number[None]))
    overlap = giou_cxcywh(box[0, 0], truth[:4])
    return settings.box_weight * (1 - overlap) + jnp.sum(optax.sigmoid_binary_cross_entropy(logits, wanted))

  value = jnp.sum(jax.vmap(one_image)(raw, truth[:, 0]))
  return value, HeadMetrics(*[jnp.float32(0)] * len(HeadMetrics._fields))._replace(cost=value)


def no_check(head: Distances, settings: DistancesTraining) -> None:
  """Everything can be trained."""


@pytest.fixture(autouse=True)
def kind() -> Iterator[None]:
  """The kind is known while a test of this file runs."""
  graphs.register_kind(Distances)
  yield
  del graphs.KINDS["distances"], graphs.SECTIONS["distances"]


def network(classes: int = 2) -> Graph:
  """4x2 cells of 16x16 pixels."""
  g = Builder(64, 32, name="new_family")
  g.conv(8, 3, padding=1, stride=4, activation="leaky", name="stem")
  g.conv(4 + classes, 3, padding=1, stride=4, name="out")
  g.add(Distances, classes, name="head")
  return g.graph()


def outputs(*cells: tuple[int, int, list[float]]) -> dict[str, jax.Array]:
  """Outputs of one image that are 0 but for (column, row, values)."""
  x = np.zeros((1, 2, 4, 6), np.float32)
  for column, row, values in cells:
    x[0, row, column] = values
  return {"head": jnp.asarray(x)}


def test_boxes_by_hand() -> None:
  """Cell (2, 1), middle (2.5, 1.5) of 4x2: sides at 1.5, 1, 3, 2 cells, that is .375, .5, .75, 1 of the image."""
  found = decode(outputs((2, 1, [1, 0.5, 0.5, 0.5, 0.25, 0.75])), network())
  assert found.boxes_cxcywh_rel.shape == (1, 8, 4)
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 6], [0.5625, 0.75, 0.375, 0.5])
  assert float(found.objectness[0, 6]) == 0.75
  assert found.scores[0, 6].tolist() == [0.25, 0.75]
  assert found.uncertainty is None
  assert not found.scores[0, :6].any()


def test_suppression() -> None:
  """Two cells see the same object of class 1, and the first also one of class 0, which stays; the third is too weak."""
  same = outputs(
    (1, 0, [0.5, 0.5, 0.5, 0.5, 0.5, 0.75]), (2, 0, [1.5, 0.5, -0.5, 0.5, 0.25, 0.9]), (3, 1, [1, 1, 1, 1, 0.2, 0.1])
  )
  found = postprocess(same, network(), conf=0.25)
  assert found.count.tolist() == [2]
  assert found.classes[0, :2].tolist() == [1, 0]
  np.testing.assert_allclose(found.scores[0, :2], [0.9, 0.5])
  np.testing.assert_allclose(found.objectness[0, :2], [0.9, 0.75])
  assert found.candidates[0, :2].tolist() == [2, 1]
  np.testing.assert_allclose(found.boxes_cxcywh_rel[0, 0], [0.375, 0.25, 0.25, 0.5])


def test_encoding_inverts_decoding() -> None:
  head, cells = Distances(name="head", inputs=("out",), classes=2), Cells.all((4, 2), (64, 32))
  x = np.random.default_rng(0).uniform(0.1, 3, (2, 4, 1, 6)).astype(np.float32)
  np.testing.assert_allclose(head.encode(head.decode(jnp.asarray(x), cells), cells), x[..., :4], rtol=1e-5, atol=1e-6)


def test_it_is_a_kind_like_others() -> None:
  graph = network()
  text = darknet_cfg.dump(graph, darknet_cfg.Training())
  assert "[distances]\n# name = head\nclasses=2\n" in text
  assert darknet_cfg.parse(text).graph == graph
  assert with_num_classes(graph, 5) == network(5)
  with pytest.raises(GraphError, match=r"layer 'head' \(distances\): the input has 6 channels; 7 classes need 11"):
    dataclasses.replace(graph, layers=(*graph.layers[:2], Distances(name="head", inputs=("out",), classes=7)))


def test_a_model_detects_with_it() -> None:
  model = random_model(network())
  image = np.random.default_rng(0).integers(0, 256, (48, 96, 3)).astype(np.uint8)
  found = model(image, conf=0.01)
  assert len(found) > 0
  assert set(np.asarray(found.classes)) <= {0, 1}


def test_it_is_trained_once_it_has_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
  graph = network()
  with pytest.raises(
    PrnError,
    match=r"'head' \(distances\) cannot be trained: there are losses for \[Gaussian_yolo\], \[region\], \[yolo\] heads "
    r"only. `register_loss` of prn_jax.detect.loss adds one",
  ):
    make_loss(graph, LossConfig())
  monkeypatch.setattr(loss, "_LOSSES", dict(loss._LOSSES))
  loss.register_loss(Distances, loss.HeadLoss(DistancesTraining, no_check, distances_loss))
  layers, loss_fn = make_loss(graph, LossConfig(head={"box_weight": 2.0}))
  recipe = Recipe(Network(graph), optax.adam(0.02), loss_fn, layers)
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.integers(0, 256, (2, 32, 64, 3)).astype(np.uint8),
    "truth": np.float32([[[0.6, 0.7, 0.3, 0.4, 1]], [[0.3, 0.2, 0.2, 0.3, 0]]]),
  }
  state, step = init_state(init_variables(graph, 0), recipe), jax.jit(lambda state: train_step(state, batch, recipe))
  state, first = step(state)
  for _ in range(60):
    state, last = step(state)
  assert mean(jax.device_get(last))["loss"] < mean(jax.device_get(first))["loss"] / 4
  assert int(state.bad_step) == -1
