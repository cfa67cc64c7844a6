"""Other engines in JAX's place: the same boxes and figures; ONNX files of ours run by what they say of themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax.cli.main import main
from prn_jax.data_pipelines.images import read_image
from prn_jax.errors import PrnError
from prn_jax.examples import example_image
from prn_jax.export import backends, onnx
from prn_jax.export.onnx_boxes import OutputOptions
from prn_jax.run.detector import DetectOptions, Detector
from tests.nets import random_model

onnx_package = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

INSTALLED = [one for one in backends.BACKENDS.values() if one.is_installed]
DATA = ["--data", "synthetic:traffic:4", "--json"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(backends, "cache_folder", lambda: tmp_path / "cache")


def figures(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, float]:
  assert main(["eval", *args, *DATA]) == 0
  return json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]


def test_boxes_and_figures_are_those_of_jax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Of trained weights, by every engine that is installed, and by a file."""
  model = prn_jax.load("traffic-tiny-prn")
  options, photo = DetectOptions(conf=0.1), read_image(example_image())
  expected = Detector(model, options)([photo])[0]
  assert len(expected) > 3
  model.save(tmp_path / "m.onnx")
  opened, network = backends.open_onnx(tmp_path / "m.onnx")
  assert (opened.names, opened.resize, opened.graph) == (model.names, model.resize, model.graph)
  runs = [(opened, network)] + [(model, backends.exported(model, one)) for one in INSTALLED]
  for one, engine in runs:
    found = Detector(one, options, network=engine)([photo])[0]
    np.testing.assert_allclose(found.boxes_xyxy_px, expected.boxes_xyxy_px, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.classes, expected.classes)
  assert len(list((tmp_path / "cache" / "onnx").iterdir())) == 1
  ours = figures(capsys, "traffic-tiny-prn")
  assert ours["AP"] > 0.1
  for args in (["traffic-tiny-prn", "--backend", "auto"], [str(tmp_path / "m.onnx")]):
    assert figures(capsys, *args) == pytest.approx(ours, abs=5e-5, nan_ok=True)


def test_auto_takes_what_is_installed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
  assert backends.chosen("auto", "gpu") is None
  assert backends.chosen("jax") is None
  assert backends.chosen("auto") == INSTALLED[0]
  monkeypatch.setattr(backends, "BACKENDS", {})
  assert backends.chosen("auto") is None


def test_an_engine_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(backends, "BACKENDS", dict(backends.BACKENDS))

  @backends.register_backend("zeros", "numpy")
  def _zeros(data: bytes, outputs: object) -> backends.Batches:
    return lambda x: [np.zeros((len(x), 21, 4, 4), np.float32), np.zeros((len(x), 21, 8, 8), np.float32)]

  network = backends.exported(random_model(), backends.BACKENDS["zeros"])
  assert {name: y.shape for name, y in network(np.zeros((2, 32, 32, 3), np.uint8)).items()} == {
    "p5_yolo": (2, 4, 4, 21),
    "p4_yolo": (2, 8, 8, 21),
  }


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
  model, file = random_model(names=["a", "b"]), tmp_path / "m.onnx"
  onnx.save(file, model, options=OutputOptions(output="boxes"))
  with pytest.raises(PrnError, match=r"puts out boxes, for other programs.*prn convert MODEL x.onnx"):
    backends.open_onnx(file)
  proto = onnx.to_proto(model)
  del proto.metadata_props[:]
  file.write_bytes(proto.SerializeToString())
  with pytest.raises(PrnError, match=r"was not written by prn: its metadata has no graph_cfg, names, resize"):
    backends.open_onnx(file)
  file.write_bytes(b"no")
  with pytest.raises(PrnError, match=r"m\.onnx' is no readable ONNX file"):
    backends.open_onnx(file)
  with pytest.raises(
    PrnError, match=r"expected one of jax, onnxruntime, openvino, auto \(did you mean 'onnxruntime'\?\)"
  ):
    backends.chosen("onnxruntim")
  missing = backends.Backend("openvino", "not_there_at_all", lambda data, outputs: lambda x: [])
  monkeypatch.setitem(backends.BACKENDS, "openvino", missing)
  with pytest.raises(PrnError, match=r"--backend openvino needs .* pip install 'prn-jax\[openvino\]'"):
    backends.chosen("openvino")
  assert main(["predict", str(file), "--backend", "jax"]) == 2
  assert "is run by onnxruntime or openvino" in capsys.readouterr().err
  assert main(["predict", str(file), "--names", "x.names"]) == 2
  assert "holds its weights and names; leave --names out" in capsys.readouterr().err


@pytest.mark.skipif(not backends.BACKENDS["openvino"].is_installed, reason="OpenVINO is not installed")
def test_openvino_reports_nothing_to_its_makers() -> None:
  backends.openvino_core()
  assert "openvino_telemetry" not in sys.modules
