"""`prn quantize` as users meet it: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from prn_jax.cli.main import main
from prn_jax.quantize.noise import LayerNoise
from prn_jax.quantize.report import Report
from prn_jax.quantize.runtime import Fusion

DATA = "synthetic:traffic:6"


@pytest.mark.slow
def test_a_detector_in_eight_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  out = tmp_path / "q"
  args = ["quantize", "traffic-tiny-prn", str(out), "--calibrate", DATA, "--images", "3", "--data", DATA, "--json"]
  code = main(args)
  report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
  assert code == (0 if report["holds"] else 1)
  assert report["loss"] == pytest.approx(report["figures"]["float"]["AP50"] - report["figures"]["quantized"]["AP50"])
  assert report["loss"] < 0.05
  assert report["bytes_float"] > 3 * report["bytes_int"]
  assert report["num_images"] == 3
  assert not report["in_float"]
  assert {path.name.split("-")[0] for path in out.iterdir()} == {
    "model.json",
    "payload",
    "quantized.onnx",
    "quantization.json",
  }
  assert json.loads((out / "quantization.json").read_text()) == report
  assert main(["quantize", str(out), str(tmp_path / "again"), "--calibrate", DATA]) == 2
  assert "is quantised already" in capsys.readouterr().err
  assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "--calibrate is missing: without images the range of no feature map is known"),
    (["--calibrate", DATA, "--bits", "16"], "16 bits; expected 8, 4 or 2"),
    (["--calibrate", DATA, "--images", "0"], "--images 0: expected at least 1"),
    (["--calibrate", DATA, "--preset", "ptq"], "there is no preset 'ptq'"),
    (["--calibrate", DATA, "--float", "stemm"], "has no convolution 'stemm' to stay float (did you mean 'stem'?)"),
  ],
)
def test_what_is_refused(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["quantize", "traffic-tiny-prn", str(tmp_path / "q"), *options]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "q").exists()


def report_of(**fields: object) -> Report:
  rows = [LayerNoise(f"{name}_q", name, 8, snr, -1.0, 1.0, 0.25) for name, snr in (("stem", 30.0), ("neck", 4.5))]
  usual = Report(
    preset="ptq-mse",
    bits=8,
    num_images=4,
    in_float={"attend": "se"},
    bytes_float=4_000_000,
    bytes_int=1_000_000,
    milliseconds={"onnxruntime": {"float": 10.0, "int8": 5.0}},
    fusion=Fusion({"QLinearConv": 3, "DequantizeLinear": 2}, 3, ("out/conv_7",)),
    noise=rows,
  )
  return dataclasses.replace(usual, **fields)  # type: ignore[arg-type]


def test_a_loss_above_the_bound_ends_with_1(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  """With what lost it: a line for each of the noisiest layers."""
  for lost, code in ((0.0111, 1), (0.0109, 0)):
    report = report_of(figures={"float": {"AP50": 0.5}, "quantized": {"AP50": 0.5 - lost}})
    monkeypatch.setattr("prn_jax.quantize.command.quantize_to", lambda dst, model, request, report=report: report)
    assert main(["quantize", "traffic-tiny-prn", "q", "--calibrate", DATA]) == code
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (["neck", "8", "4.5", "-1", "1", "25.00%"] in rows) == bool(code)


def test_a_report_says_what_is_wrong() -> None:
  good = report_of(figures={"float": {"AP50": 0.5}, "quantized": {"AP50": 0.495}})
  assert good.holds
  assert "2.00x as fast" in good.text()
  assert "1 layers of kinds that are not quantised: se" in good.text()
  assert "did not fuse" not in good.text()
  bad = report_of(
    figures={"float": {"AP50": 0.5}, "quantized": {"AP50": 0.48}},
    milliseconds={"onnxruntime": {"float": 10.0, "int8": 9.0}},
  )
  assert not bad.holds
  text = bad.text()
  assert "did not fuse: out/conv_7" in text
  assert "2 DequantizeLinear" in text
  assert "the loss of 0.0200 is more than 0.011" in text
  assert "neck" in text
