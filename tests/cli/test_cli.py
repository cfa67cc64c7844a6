"""The command line as users meet it: in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prn_jax.cli.main import COMMANDS, main
from tests.conftest import REPO, STRICT
from tests.nets import random_model
from tests.timing import least_seconds


def prn(*args: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
  env = os.environ | {"PYTHONPATH": str(REPO), "PYTHONWARNINGS": STRICT}
  result = subprocess.run(
    [sys.executable, "-m", "prn_jax.cli.main", *map(str, args)], capture_output=True, text=True, env=env, check=False
  )
  assert result.returncode == expect, (result.returncode, result.stdout, result.stderr)
  assert "Traceback" not in result.stderr or expect == 3
  return result


def json_line(result: subprocess.CompletedProcess[str]) -> dict:
  return json.loads(result.stdout.strip().splitlines()[-1])


def test_help_is_quick_and_lists_every_command() -> None:
  text = prn("--help").stdout  # fills the byte-code cache
  assert least_seconds(lambda: prn("--help"), 2, time.perf_counter) < 2  # 0.3 s measured
  for command in COMMANDS:
    assert command in text
    assert "--json" in prn(command, "--help").stdout or command == "train"


def test_summary_needs_no_jax() -> None:
  code = (
    "import sys; from prn_jax.cli.main import main; code = main(['summary', 'yolov4', '--json']);"
    "assert not {'jax', 'flax', 'orbax'} & set(sys.modules), 'imported'; sys.exit(code)"
  )
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
  values = json_line(result)
  assert f"{values['bflops']:.3f}" == "128.459"
  assert values["params"] == 64363101
  assert values["weight_file_floats"] == 64429405
  assert (values["width"], values["height"], values["layers"]) == (608, 608, 162)
  assert values["macs"] > 0
  assert values["peak_activation_bytes"] > 0


def test_summary_table_and_size() -> None:
  text = prn("summary", "yolov3-tiny-prn", "--size", "320x352").stdout
  assert "yolov3-tiny-prn 320x352: 28 layers, 4,935,182 parameters" in text
  assert "p4_skip_a" in text
  assert "expected WIDTHxHEIGHT" in prn("summary", "yolov3-tiny-prn", "--size", "big", expect=2).stderr


def test_models() -> None:
  models = json_line(prn("models", "--json"))["models"]
  tiny = next(row for row in models if row["name"] == "yolov3-tiny-prn")
  assert (tiny["params"], tiny["bflops"], tiny["status"]) == (4935182, 3.467, "exact")
  assert "yolov3-tiny-prn" in prn("models").stdout


@pytest.mark.slow
def test_first_conversion_of_a_darknet_owner(shared: Path, tmp_path: Path) -> None:
  """cfg + weights -> directory -> weights: the same bytes, and verify says yes, no, and where."""
  folder = shared / "data" / "weights" / "yoloface-50k"
  cfg, weights = folder / "yoloface-50k.cfg", folder / "yoloface-50k.weights"
  result = prn("convert", cfg, "--weights", weights, f"{tmp_path}/face/", "--json")
  values = json_line(result)
  assert values["identical"] is True
  assert set(values["outputs"].values()) == {0.0}
  prn("convert", tmp_path / "face", tmp_path / "face.weights")
  digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: E731
  assert digest(tmp_path / "face.weights") == digest(weights)
  agreement = json_line(prn("verify", tmp_path / "face", cfg, "--weights-b", weights, "--json"))
  assert agreement["agree"] is True
  assert agreement["max_abs_diff"] == 0
  assert agreement["first_difference"] is None

  data = bytearray((tmp_path / "face.weights").read_bytes())
  data[2000:2004] = b"\x00\x00\x80\x42"  # one weight becomes 64
  (tmp_path / "face.weights").write_bytes(data)
  answer = json_line(
    prn("verify", cfg, cfg, "--weights-a", weights, "--weights-b", tmp_path / "face.weights", "--json", expect=1)
  )
  assert answer["agree"] is False
  assert answer["first_difference"].startswith("conv_")


def test_verify_a_registered_model_against_its_cfg(shared: Path) -> None:
  answer = json_line(prn("verify", "yolov3-tiny-prn", shared / "cfg" / "yolov3-tiny-prn.cfg", "--json"))
  assert answer["agree"] is True
  text = prn("verify", "yolov3-tiny-prn", shared / "cfg" / "yolov3-tiny.cfg", expect=2).stderr
  assert "cannot share weights" in text
  assert "different networks" in text


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (("summary", "yolov3-tiny-pnr"), "did you mean 'yolov3-tiny-prn'?"),
    (("summary", "missing/net.cfg"), "cannot read cfg 'missing/net.cfg': No such file or directory"),
    (("convert", "yolov3-tiny-prn", "out/"), "has no weights to write. Give them with --weights"),
    (("convert", "yolov3-tiny-prn", "x.pt"), "type '.pt' is unknown"),
    (("convert", "yolov3-tiny-prn", "--weights", "none.weights", "out/"), "'none.weights' does not exist"),
    (("summary", "pyproject.toml"), "is not a network: expected a registered name"),
  ],
)
def test_bad_input_exits_2_with_a_message(args: tuple[str, ...], message: str) -> None:
  assert message in prn(*args, expect=2).stderr


def test_unknown_key_names_file_and_line(tmp_path: Path) -> None:
  cfg = tmp_path / "net.cfg"
  cfg.write_text(random_model().cfg().replace("filters=4", "fliters=4", 1))
  text = prn("summary", cfg, expect=2).stderr
  assert "cfg net.cfg:" in text
  assert "has unknown key 'fliters' (did you mean 'filters'?). Use strict=False" in text


def test_json_of_a_failure_goes_to_stderr_only(tmp_path: Path) -> None:
  result = prn("summary", tmp_path / "no.cfg", "--json", expect=2)
  assert result.stdout == ""


@pytest.mark.slow
def test_partial_weights_are_reported(tmp_path: Path, shared: Path) -> None:
  folder = shared / "data" / "weights" / "yoloface-50k"
  whole = (folder / "yoloface-50k.weights").read_bytes()
  # header, then layer 0: 8 filters 3x3x3 with batch norm
  (tmp_path / "face.conv.1").write_bytes(whole[: 20 + 4 * (4 * 8 + 8 * 27)])
  (tmp_path / "face.bin").write_bytes(whole[: 20 + 4 * (4 * 8 + 8 * 27)])
  cfg = folder / "yoloface-50k.cfg"
  result = prn("convert", cfg, "--weights", tmp_path / "face.conv.1", tmp_path / "out", "--json")
  assert "left at random initialisation: conv_1, " in result.stderr
  assert "conv_0" not in json_line(result)["missing"]
  refused = prn("convert", cfg, "--weights", tmp_path / "face.bin", tmp_path / "out", expect=2).stderr
  assert "say so: --partial" in refused
  prn("convert", cfg, "--weights", tmp_path / "face.bin", "--partial", tmp_path / "out")


@pytest.mark.parametrize("arguments", [["summary", "a.cfg", ""], [""], ["", ""], ["summary", ""], ["data", ""]])
def test_empty_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
  """As a script gives for a variable that is not set."""
  try:
    code = main(arguments)
  except SystemExit as end:
    code = int(end.code or 0)
  assert code == 2
  assert "Traceback" not in capsys.readouterr().err
