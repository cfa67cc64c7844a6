"""Transforms and the compiled inference agree with the plain network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax import Model
from prn_jax.export.verify import probe_input
from prn_jax.run.inference import Inference
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from prn_jax.transforms.fuse_stem import fuse_stem
from tests.nets import random_model, tiny_detector


def differences(a: Model, b: Model) -> dict[str, float]:
  x = probe_input(a)
  out_a, out_b = a.forward(x), b.forward(x)
  return {name: float(np.abs(np.asarray(out_a[name] - out_b[name])).max()) for name in out_a}


def test_fold_batchnorm() -> None:
  model = random_model()
  graph, variables = fold_batchnorm(model.graph, model.variables)
  assert not any(getattr(layer, "batch_normalize", False) for layer in graph)
  assert "batch_stats" not in variables
  assert max(differences(model, Model(graph, variables)).values()) < 1e-5


def test_fold_keeps_shared_and_free_standing_norms() -> None:
  g = prn_jax.Builder(8, 8, 4)
  g.conv(4, 3, padding=1, batch_normalize=True, name="a")
  g.batchnorm(name="norm")
  g.conv(4, 3, padding=1, batch_normalize=True, share="a", name="b")
  g.connected(3, batch_normalize=True, name="d")
  model = random_model(g.graph())
  graph, variables = fold_batchnorm(model.graph, model.variables)
  assert set(variables["batch_stats"]) == {"norm"}
  assert max(differences(model, Model(graph, variables)).values()) < 1e-5


def test_fuse_stem_is_exact() -> None:
  model = random_model()
  folded = Model(*fold_batchnorm(model.graph, model.variables))
  graph, variables = fuse_stem(folded.graph, folded.variables)
  assert graph["stem"].size == 4  # type: ignore[attr-defined]
  assert graph["c1"].size == 3  # type: ignore[attr-defined]  # its input has more than 4 channels
  assert graph.shapes["stem_pool"] == model.graph.shapes["stem_pool"]
  assert max(differences(folded, Model(graph, variables)).values()) < 1e-6


@pytest.mark.parametrize(
  "change",
  [{"activation": "mish"}, {"stride": 2}, {"size": 1, "padding": 0}, {"leaky_slope": -0.1}],
  ids=str,
)
def test_fuse_stem_leaves_what_it_cannot_rewrite(change: dict[str, object]) -> None:
  g = prn_jax.Builder(16, 16)
  g.conv(**{"filters": 4, "size": 3, "padding": 1, "activation": "leaky", "name": "stem"} | change)
  g.maxpool(2, 2, name="pool")
  model = random_model(g.graph())
  assert fuse_stem(model.graph, model.variables)[0] == model.graph


def test_fuse_stem_leaves_a_map_that_others_read() -> None:
  g = prn_jax.Builder(16, 16)
  stem = g.conv(4, 3, padding=1, activation="leaky", name="stem")
  g.maxpool(2, 2, name="pool")
  g.upsample(2, name="up")
  g.shortcut(stem, name="skip")
  model = random_model(g.graph())
  assert fuse_stem(model.graph, model.variables)[0] == model.graph


def test_inference_agrees_at_any_size_and_type() -> None:
  model = random_model()
  run = Inference(model)
  rng = np.random.default_rng(0)
  for shape in ((1, 32, 32, 3), (3, 32, 32, 3), (2, 64, 32, 3)):
    images = rng.integers(0, 256, shape, np.uint8)
    exact = model.forward(images.astype(np.float32) / 255)
    for x in (images, images.astype(np.float32) / 255):
      got = run(x)
      for name, expected in exact.items():
        np.testing.assert_allclose(got[name], expected, atol=2e-5)


def test_other_sizes_are_refused_where_a_matrix_fixes_them() -> None:
  g = prn_jax.Builder(8, 8)
  g.connected(3, name="d")
  model = random_model(g.graph())
  with pytest.raises(prn_jax.PrnError, match="fully connected layers, which fix its input to 8x8; got 16x16"):
    model.forward(np.zeros((1, 16, 16, 3), np.float32))
  with pytest.raises(prn_jax.PrnError, match=r"takes images of shape \(n, 8, 8, 3\), RGB in \[0, 1\]; got shape"):
    model.forward(np.zeros((8, 8, 3), np.float32))


def test_trained_weights_folded(shared: Path) -> None:
  folder = shared / "data" / "weights" / "yolo-fastest-1.1"
  model = prn_jax.load(folder / "yolo-fastest-1.1.cfg", weights=folder / "yolo-fastest-1.1.weights")
  image = np.load(folder / "reference_dog.npz")["input_rgb_u8"][None]
  exact = model.forward(image.astype(np.float32) / 255)
  got = Inference(model)(image)
  for name, expected in exact.items():
    np.testing.assert_allclose(got[name], expected, atol=2e-4)


def test_graph_is_not_changed_by_transforms() -> None:
  graph = tiny_detector()
  model = random_model(graph)
  before = model.digest()
  fuse_stem(*fold_batchnorm(model.graph, model.variables))
  assert model.graph == graph
  assert model.digest() == before
