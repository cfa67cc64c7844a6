"""Every public cfg becomes ONNX that the checker accepts and onnxruntime runs; those that compile at once agree with JAX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax.errors import PrnError
from prn_jax.export import onnx
from prn_jax.graph.graph import INPUT, Graph
from tests.conftest import shared_params
from tests.nets import narrow, random_model

onnx_package = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LARGE = (
  "yolo9000",
  "vgg-16",
  "alexnet",
  "jnet-conv",
  "strided",
)  # seconds each, for their many classes or their one size
COMPARED = ("cifar", "tiny", "strided")


def small(graph: Graph) -> Graph:
  """On images of 64, or of 128, where the network allows it."""
  for size in (64, 128):
    if max(graph.width, graph.height) > size:
      try:
        return graph.resized(size, size)
      except PrnError:
        continue
  return graph


@pytest.mark.parametrize(
  "cfg",
  [
    pytest.param(one.values[0], id=one.id, marks=[*one.marks, *([pytest.mark.slow] if one.id in LARGE else [])])
    for one in shared_params("cfg/*.cfg")
  ],
)
def test_every_cfg_becomes_onnx(cfg: Path) -> None:
  """An eighth of the width; checked with shape inference."""
  model = random_model(narrow(small(prn_jax.load(cfg).graph), 8))
  proto = onnx.to_proto(model)
  onnx_package.checker.check_model(proto, full_check=True)
  session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
  g = model.graph
  x = np.random.default_rng(0).random((2, g.height, g.width, g.channels), np.float32)
  names = [head.name for head in g.heads]
  theirs = session.run(names, {INPUT: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
  for name, found in zip(names, theirs, strict=True):
    shape = g.shapes[name]
    assert found.shape == (2, shape.channels, shape.height, shape.width)
    assert np.isfinite(found).all()
  if cfg.stem in COMPARED:
    ours = model.forward(x)
    for name, found in zip(names, theirs, strict=True):
      expected = np.asarray(ours[name]).transpose(0, 3, 1, 2)
      np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
