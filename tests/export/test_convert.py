"""Conversion between file types, each proven by reading back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax import Model
from prn_jax.errors import CheckpointError, PrnError, WeightsError
from prn_jax.export import convert, onnx
from prn_jax.export.verify import compare
from prn_jax.formats import safetensors
from prn_jax.formats.darknet_weights import Header
from prn_jax.network import init_variables
from tests.conftest import shared_params
from tests.nets import random_model, tiny_detector


@pytest.mark.parametrize("suffix", ["", ".weights", ".safetensors", ".cfg", ".onnx"])
def test_proof_holds(tmp_path: Path, suffix: str) -> None:
  model = random_model(names=["a", "b"])
  proof = convert.convert(model, tmp_path / f"out{suffix}")
  assert proof.holds
  if suffix in ("", ".weights", ".safetensors"):
    assert proof.identical
    assert proof.outputs == {"p5_yolo": 0.0, "p4_yolo": 0.0}
  if suffix == ".onnx":
    assert not proof.identical
    assert max(proof.outputs.values()) < 1e-4


def test_a_wrong_result_fails_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  model, other = random_model(seed=1), random_model(seed=2)
  monkeypatch.setitem(convert.WRITERS, ".safetensors", lambda _, dst: convert._save_safetensors(other, dst))
  proof = convert.convert(model, tmp_path / "x.safetensors")
  assert not proof.holds
  assert "NOT equal" in proof.text


@pytest.mark.parametrize(
  "header", [Header(), Header(seen=2**40), Header(0, 1, 0, 77, 4), Header(0, 1001, 3, 5), Header(0, 1001, 3, 5, 4)]
)
def test_weights_come_back_byte_for_byte_through_a_directory(tmp_path: Path, header: Header) -> None:
  """Also with connected layers, whose kernels some versions store transposed, and any `seen`."""
  g = prn_jax.Builder(6, 4, name="dense")
  g.conv(4, 3, padding=1, batch_normalize=True, name="c")
  g.connected(7, activation="leaky", name="d1")
  g.connected(5, batch_normalize=True, name="d2")
  g.softmax(name="s")
  model = random_model(g.graph(), header=header)
  model.save(tmp_path / "a.weights")
  (tmp_path / "a.cfg").write_text(model.cfg())
  first = prn_jax.load(tmp_path / "a.cfg", weights=tmp_path / "a.weights")
  assert first.digest() == model.digest()
  assert first.header == header
  first.save(tmp_path / "dir")
  prn_jax.load(tmp_path / "dir").save(tmp_path / "b.weights")
  assert (tmp_path / "a.weights").read_bytes() == (tmp_path / "b.weights").read_bytes()


def test_training_keys_survive_a_directory(tmp_path: Path, shared: Path) -> None:
  model = prn_jax.load(shared / "cfg" / "yolov4-tiny.cfg")
  small = Model(model.graph, init_variables(model.graph), training=model.training)
  small.save(tmp_path / "m")
  back = prn_jax.load(tmp_path / "m")
  assert back.training == model.training
  assert back.graph == model.graph


def test_refusals(tmp_path: Path) -> None:
  model = random_model()
  with pytest.raises(PrnError, match=r"type '\.onx' is unknown \(did you mean '\.onnx'\?\).*directory"):
    convert.save(model, tmp_path / "x.onx")
  with pytest.raises(PrnError, match=r"'tiny' has no weights to write. Give them with --weights"):
    convert.save(Model(tiny_detector()), tmp_path / "x.weights")
  touched = Model(tiny_detector())
  assert touched.variables  # random by now
  with pytest.raises(PrnError, match="has no weights to write"):
    touched.save(tmp_path / "x.weights")
  model.save(tmp_path / "model.weights")
  model.save(tmp_path / "model.cfg")
  with pytest.raises(WeightsError, match=r"does not exist \(did you mean 'model.weights'\?\)"):
    prn_jax.load(tmp_path / "model.cfg", weights=tmp_path / "modle.weights")


def test_damaged_safetensors(tmp_path: Path) -> None:
  path = tmp_path / "m.safetensors"
  random_model().save(path)
  data = bytearray(path.read_bytes())
  data[-3] ^= 1
  path.write_bytes(data)
  with pytest.raises(CheckpointError, match="has changed since it was saved"):
    prn_jax.load(path)
  path.write_bytes(data[:-100])
  with pytest.raises(CheckpointError, match="not a readable safetensors file"):
    prn_jax.load(path)


@pytest.mark.parametrize(
  ("extra", "said"),
  [
    ("{", r"metadata 'extra':1 is no valid JSON"),
    ("[]", r"metadata 'extra' is \[\]; expected keys with values"),
    ('{"names": [null]}', r"metadata 'extra': names\[0\] is None; expected text"),
  ],
)
def test_metadata_of_safetensors(tmp_path: Path, extra: str, said: str) -> None:
  flat, path = {"params/a/kernel": np.ones((2, 3), np.float32)}, tmp_path / "m.safetensors"
  facts = {"format": safetensors.FORMAT, "graph_cfg": "[net]\n", "sha256": safetensors.digest(flat), "extra": extra}
  path.write_bytes(safetensors.library().save(flat, facts))
  with pytest.raises(CheckpointError, match=rf"m\.safetensors', {said}.* Convert the model again\.$"):
    prn_jax.load(path)


def test_verify_names_the_first_layer_that_differs() -> None:
  a, b = random_model(seed=1), random_model(seed=1)
  assert compare(a, b).bit_identical
  b.variables["params"]["c2"]["conv"]["kernel"][0, 0, 0, 0] += 0.5
  result = compare(a, b)
  assert not result.agree
  assert result.first_difference is not None
  assert result.first_difference.layer_a == "c2"
  assert result.max_abs_diff > 0
  with pytest.raises(PrnError, match="the inputs differ"):
    compare(a, random_model(tiny_detector(64)))


@pytest.mark.parametrize("folder", shared_params("golden/*/net.weights"))
def test_onnx_of_every_golden_network(tmp_path: Path, folder: Path, shared: Path) -> None:
  """onnxruntime, an independent program, agrees with us on every kind of layer that ONNX can say."""
  if not list(folder.parent.glob("output_*.npy")):
    return  # training goldens: the same kinds
  model = prn_jax.load(folder.parent / "net.cfg", weights=folder)
  onnx.save(tmp_path / "m.onnx", model)
  scale = max(
    float(np.abs(np.asarray(y)).max()) for y in model.forward(np.ones((1, *_hwc(model)), np.float32)).values()
  )
  tolerance = max(2e-4 * max(1.0, scale), _noise(shared, folder.parent.name))
  assert max(onnx.differences(model, tmp_path / "m.onnx").values()) < tolerance


def _noise(shared: Path, folder: str) -> float:
  """Ten times the difference between two correct float32 builds of Darknet; yolov4_w8 amplifies rounding."""
  golden = json.loads((shared / "golden" / "manifest.json").read_text())[folder]
  outputs = golden.get("inputs", {}).get("input", {}).get("outputs", {})
  spp = folder.startswith("spp")  # there the second build has a bug
  return 10 * max(
    (max(o["err_vs_float64"], 0 if spp else o["err_vs_avx_ofast_build"]) for o in outputs.values()), default=0
  )


def _hwc(model: Model) -> tuple[int, int, int]:
  return model.graph.height, model.graph.width, model.graph.channels
