"""Training in few bits: ranges move where they should, batch norm folds without touching an integer, and what is refused."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from prn_jax.errors import PrnError
from prn_jax.export import convert
from prn_jax.kinds.quantize import Quantize
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.nested import flattened
from prn_jax.network import init_variables
from prn_jax.quantize.kernels import own_arrays
from prn_jax.quantize.rewrite import convolutions_of, image_range, with_ranges
from prn_jax.train.quant import QuantConfig, quantized_for_training
from prn_jax.train.start import start_variables
from prn_jax.train.step import eval_variables, init_state, train_step
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from tests.nets import random_model
from tests.train.test_step import batch_of, classifier, recipe_for

FROZEN_AFTER = 2


def test_a_short_training_in_four_bits() -> None:
  graph = quantized_for_training(QuantConfig(preset="iao4", freeze=0.2), classifier(), 10)
  layers = {layer.name: layer for layer in graph if isinstance(layer, Quantize)}
  assert {layer.freeze_after for layer in layers.values()} == {FROZEN_AFTER}
  assert {name: layer.bits for name, layer in convolutions_of(graph).items()} == {"a": 8, "b": 4, "scores": 8}
  variables = with_ranges(graph, init_variables(graph, 1), image_range(graph))
  recipe = recipe_for(graph)
  step = jax.jit(lambda state, batch: train_step(state, batch, recipe))
  state, seen = init_state(variables, recipe), []
  for number in range(4):
    state, metrics = step(state, batch_of(8, number))
    assert np.isfinite(metrics["loss"][0])
    seen.append({name: float(state.batch_stats[name]["high"][0]) for name in layers if not layers[name].share})
  assert all(seen[0][name] != seen[1][name] for name in seen[0] if name != "input_q")
  assert seen[1] == seen[2] == seen[3]  # frozen
  assert {name: high for name, high in seen[3].items() if name == "input_q"} == {"input_q": 1.0}
  assert not np.array_equal(state.params["b"]["conv"]["kernel"], variables["params"]["b"]["conv"]["kernel"])

  model = Model(graph, jax.device_get(eval_variables(state)))
  folded, fixed = fold_batchnorm(graph, model.variables)
  x = np.asarray(batch_of(4)["image"])
  wanted, found = (np.asarray(one.forward(x)["probabilities"]) for one in (model, Model(folded, fixed)))
  assert found == pytest.approx(wanted, abs=1e-4)
  before, after = (own_arrays(flattened(one), "b") for one in (model.variables, fixed))
  integers = [graph_["b"].integers(own)[0] for graph_, own in ((graph, before), (folded, after))]  # type: ignore[attr-defined]
  signs = np.sign(before["bn/scale"]).astype(np.int8)
  assert np.array_equal(integers[0] * signs, integers[1])


@pytest.mark.parametrize("preset", ["iao4", "iao8-pow2"])
def test_batch_norm_folded_while_training(preset: str, tmp_path: Path) -> None:
  """Statistics stay at the end, evaluation moves nothing, and the folded network has the integers that were trained, also from a
  file, also folded twice."""
  config = QuantConfig(preset=preset, fold=True, freeze=0.2, fold_freeze=0.2)
  graph = quantized_for_training(config, classifier(), 10)
  assert {(c.folds, c.bn_freeze_after) for c in convolutions_of(graph).values()} == {(True, FROZEN_AFTER), (False, 0)}
  variables = with_ranges(graph, init_variables(graph, 1), image_range(graph))
  recipe = recipe_for(graph)
  step = jax.jit(lambda state, batch: train_step(state, batch, recipe))
  state, seen = init_state(variables, recipe), []
  for number in range(3):
    state, metrics = step(state, batch_of(8, number))
    assert np.isfinite(metrics["loss"][0])
    seen.append(np.asarray(state.batch_stats["b"]["bn"]["var"]))
  assert not np.array_equal(seen[0], seen[1])
  assert np.array_equal(seen[1], seen[2])  # frozen
  model = Model(graph, jax.device_get(eval_variables(state)))
  x = np.asarray(batch_of(4)["image"])
  wanted = np.asarray(model.forward(x)["probabilities"])
  convert.save(model, f"{tmp_path / 'saved'}/")
  again = load(tmp_path / "saved")
  assert again.graph == graph
  folded, fixed = fold_batchnorm(again.graph, again.variables)
  assert np.asarray(Model(folded, fixed).forward(x)["probabilities"]) == pytest.approx(wanted, abs=1e-5)
  assert not any(layer.has_batchnorm for layer in folded)
  once, twice = (own_arrays(flattened(one), "b") for one in (fixed, fold_batchnorm(folded, fixed)[1]))
  trained = convolutions_of(graph)["b"].integers(own_arrays(flattened(model.variables), "b"))
  for own in (once, twice):
    integers, scale = convolutions_of(folded)["b"].integers(own)
    assert np.array_equal(integers, trained[0])
    assert np.array_equal(scale, trained[1])
    if preset == "iao8-pow2":
      assert np.log2(scale[0]) == round(np.log2(scale[0]))


@pytest.mark.parametrize("fold", [False, True])
def test_a_float_start_fits(fold: bool, tmp_path: Path) -> None:
  """Weights of the network before it was quantised: all of its layers are loaded, and steps are counted from 0."""
  convert.save(random_model(classifier()), f"{tmp_path}/float/")
  graph = quantized_for_training(QuantConfig(preset="iao8", fold=fold), classifier(), 10)
  variables, report = start_variables(graph, str(tmp_path / "float"), 1, original=classifier())
  assert set(report.loaded) == {"a", "b", "scores"}
  assert ("steps" in variables["batch_stats"]["b"]["bn"]) == fold


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"preset": "ptq-mse"}, "'ptq-mse', whose ranges come from a calibration .prn quantize.; expected one of iao8"),
    ({"preset": "lsq4"}, "starts from steps that a calibration finds"),
    ({"preset": "iao8", "bits": 3}, "3 bits; expected 8, 4 or 2"),
    (
      {"preset": "bwn", "fold": True},
      "fold is for presets whose scales follow the folded kernel .iao8, iao4, iao8-pow2., not for 'bwn'",
    ),
    (
      {"preset": "iao8-pow2"},
      "scales are powers of two: multiplied with batch norm they would be none. Set config.quant.fold=True",
    ),
    ({"preset": "iao"}, "there is no preset 'iao' .did you mean"),
  ],
)
def test_what_is_no_training(settings: dict[str, object], message: str) -> None:
  with pytest.raises(PrnError, match=message):
    quantized_for_training(QuantConfig(**settings), classifier(), 10)  # type: ignore[arg-type]


def test_a_quantised_model_needs_no_preset() -> None:
  graph = quantized_for_training(QuantConfig(preset="iao8"), classifier(), 10)
  assert quantized_for_training(QuantConfig(), graph, 10) is graph
  with pytest.raises(PrnError, match="is quantised already"):
    quantized_for_training(QuantConfig(preset="iao8"), graph, 10)
