"""Which rows of a batch made a run diverge, where that can be told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.graph.builder import Builder
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import make_mesh, put_state
from prn_jax.train.diagnose import Diagnosis, Suspect, diagnosis
from prn_jax.train.step import Batch, Constants, Recipe, init_state

ROWS = 16
BAD_LABEL, BAD_SLOPE = 7, 8


def loss(
  outputs: dict[str, jax.Array], batch: Batch, constants: Constants = ()
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Not finite in value for one label, and in gradient alone for another."""
  scores = outputs["scores"].reshape(outputs["scores"].shape[0], -1)
  slope = jnp.sqrt(jnp.where(batch["label"] == BAD_SLOPE, scores[:, 0] * 0, 1.0))  # steep at 0
  value = jnp.where(batch["label"] == BAD_LABEL, jnp.inf, jnp.square(scores).mean(1))
  return (value + slope).mean(), {}


def recipe(parts: int) -> Recipe:
  g = Builder(8, 8, name="small")
  g.conv(4, 3, padding=1, batch_normalize=True, activation="leaky", name="stem")
  g.avgpool(name="pool")
  g.conv(2, 1, name="scores")
  g.softmax(name="probabilities")
  return Recipe(Network(g.graph()), optax.sgd(0.1), loss, ("scores",), accumulate=parts)


def look(batch: dict[str, np.ndarray], scope: str = "global", parts: int = 1, group_size: int = 1) -> Diagnosis:
  step = recipe(parts)
  mesh = make_mesh(jax.devices()[:4])
  state = init_state(init_variables(step.network.graph, 0), step)._replace(bad_step=jnp.int32(5))
  suspect = Suspect(put_state(jax.device_get(state), mesh), step, mesh, scope, rate=0.1)
  return diagnosis(suspect, lambda: batch, lambda index: f"image{index}", group_size)


def batch_of() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    "image": rng.uniform(size=(ROWS, 8, 8, 3)).astype(np.float32),
    "index": np.arange(100, 100 + ROWS, dtype=np.int32),
    "label": np.zeros(ROWS, np.int32),
  }


@pytest.mark.parametrize(("scope", "parts"), [("global", 1), ("global", 4), ("per_device", 1), ("per_device", 2)])
def test_one_bad_image_is_found_although_batch_norm_spreads_it(scope: str, parts: int) -> None:
  batch = batch_of()
  batch["image"][9, 3, 3] = np.nan
  found = look(batch, scope, parts)
  assert (found.step, found.layer, found.suspects) == (5, "stem", (9,))
  assert "layer 'stem' (conv) put out" in found.where
  text = found.text(Path("run/diverged.json"))
  first, second = (
    text.index("Suspicious are image109: 1 of 16 rows"),
    text.index("The images of that batch: image100, "),
  )
  assert first < second
  assert "run/diverged.json holds all of them" in text


@pytest.mark.parametrize(("scope", "parts"), [("global", 2), ("per_device", 1)])
@pytest.mark.parametrize(
  ("label", "where"), [(BAD_LABEL, "all layers are finite, but the loss is not"), (BAD_SLOPE, "but the gradient of")]
)
def test_rows_whose_loss_is_bad(scope: str, parts: int, label: int, where: str) -> None:
  batch = batch_of()
  batch["label"][[2, 11]] = label
  found = look(batch, scope, parts)
  assert where in found.where
  assert found.suspects == (2, 11)
  written = json.loads(json.dumps(found.to_json()))
  assert written["suspicious"] == [{"row": 2, "record_ids": ["image102"]}, {"row": 11, "record_ids": ["image111"]}]
  assert written["record_ids"] == [[f"image{100 + row}"] for row in range(ROWS)]
  assert (written["step"], written["learning_rate"]) == (5, 0.1)


def test_of_mixed_images_all_are_suspicious() -> None:
  batch = batch_of()
  batch["image"][6, 0, 0] = np.inf
  found = look(batch, group_size=4)
  assert found.suspects == (6,)
  assert found.image_ids[6] == ("image104", "image105", "image106", "image107")
  assert "Suspicious are image104, image105, image106, image107: 1 of 16" in found.text(Path("f"))


def test_where_all_rows_are_bad_none_is_named() -> None:
  batch = batch_of()
  batch["image"][:] = np.nan
  found = look(batch)
  assert found.suspects == ()
  assert "Suspicious" not in found.text(Path("f"))
  assert found.to_json()["suspicious"] == []


def test_the_layer_is_told_although_the_search_for_rows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
  def fail(*_: Any) -> None:
    raise RuntimeError("out of memory")

  monkeypatch.setattr("prn_jax.train.diagnose._bad_rows", fail)
  batch = batch_of()
  batch["image"][0] = np.nan
  found = look(batch)
  assert (found.layer, found.suspects) == ("stem", ())


def test_a_batch_that_cannot_be_made_again() -> None:
  found = dataclasses.replace(look(batch_of()), image_ids=(), where="w")
  assert "The images of that batch: unknown." in found.text(Path("f"))
