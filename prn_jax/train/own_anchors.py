"""Anchors of the training data in place of the network's: `config.fit_anchors`."""

from __future__ import annotations

import numpy as np

from prn_jax.data_pipelines.doctor.anchors import Anchors, box_sizes, fit_anchors, score_anchors
from prn_jax.data_pipelines.records import Dataset
from prn_jax.graph.graph import Graph
from prn_jax.transforms.num_classes import anchors_of, with_anchors


def with_own_anchors(graph: Graph, dataset: Dataset, resize: str) -> tuple[Graph, tuple[str]]:
  """The detector with as many anchors, clustered from the boxes of a data set, as its input shows them.

  Args:
    graph: the detector, with anchors of its own or of the configuration.
    dataset: the training data; the result is a function of its boxes.
    resize: how images come to the network's size.

  Returns:
    The network, and one line that says how well the new anchors and those that they replace stand for the boxes.

  Raises:
    PrnError: its heads have no anchors, or lists of their own; the data has too few boxes.
  """
  sizes = box_sizes(dataset, (graph.width, graph.height), resize)
  before = score_anchors(sizes, np.array(anchors_of(graph), np.float64))
  own = fit_anchors(sizes, len(before.sizes_wh_px))
  text = ", ".join(f"{w:g}x{h:g}" for w, h in own.sizes_wh_px)
  line = f"anchors {text}, clustered from {own.num_boxes:,} boxes: {_figures(own)}; those before: {_figures(before)}"
  return with_anchors(graph, [(float(w), float(h)) for w, h in own.sizes_wh_px]), (line,)


def _figures(anchors: Anchors) -> str:
  return f"mean IoU {anchors.mean_iou:.3f}, best possible recall at IoU .5 {anchors.recall[0.5]:.3f}"
