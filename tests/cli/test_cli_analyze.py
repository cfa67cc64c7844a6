"""`prn analyze` as users meet it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prn_jax.analyze import analyze
from prn_jax.analyze.report import write_report
from prn_jax.cli.main import main
from prn_jax.formats import darknet_cfg
from tests.conftest import REPO
from tests.nets import tiny_detector

COMBINATIONS = ("timestamp_combinations", "source_combinations")


def run(capsys: pytest.CaptureFixture[str], *args: object, expect: int = 0) -> str:
  """Text on stdout, or, of a failure, on stderr."""
  assert main(["analyze", *map(str, args)]) == expect
  captured = capsys.readouterr()
  if expect:
    assert captured.out == ""
    return captured.err
  return captured.out


def test_two_large_models_in_seconds_without_jax() -> None:
  code = (
    "import sys; from prn_jax.cli.main import main; code = main(['analyze', 'yolov3-prn', '--vs', 'yolov3', '--json']);"
    "assert not {'jax', 'jaxlib', 'flax', 'orbax', 'matplotlib'} & set(sys.modules), 'imported'; sys.exit(code)"
  )
  start = time.perf_counter()
  env = os.environ | {"PYTHONWARNINGS": "error"}
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True, env=env)
  assert time.perf_counter() - start < 10  # 0.6 s measured; CI machines are busy
  values = json.loads(done.stdout.splitlines()[-1])
  prn, residual = values, values["vs"]
  assert (prn["name"], residual["name"]) == ("yolov3-prn", "yolov3")
  assert [prn["totals"][key] for key in COMBINATIONS] == [161, 161]
  assert [residual["totals"][key] for key in COMBINATIONS] == [75, 75]
  assert prn["memory"]["kept_bytes"] < residual["memory"]["kept_bytes"] == 58_146_816


def test_json_holds_every_channel_range(capsys: pytest.CaptureFixture[str]) -> None:
  values = json.loads(run(capsys, "yolov3-tiny-prn", "--json"))
  assert values["vs"] is None
  assert values["files"] == []
  layer = next(x for x in values["layers"] if x["name"] == "stage5_conv")
  # p4_skip_a adds the first 128 of its 256 channels, and p4_skip_b does so once more
  assert [(r["start"], r["end"]) for r in layer["ranges"]] == [(0, 128), (128, 256)]
  assert layer["ranges"][1]["sources"] == ["stage6_conv"]
  assert layer["ranges"][0]["timestamps"][0] == 2
  assert [s["name"] for s in values["stages"]][-2:] == ["13x13", "26x26 #2"]
  assert sum(len(s["layers"]) for s in values["stages"]) == len(values["layers"]) == 13
  assert len(values["memory"]["live_bytes"]) == 28
  assert max(values["memory"]["live_bytes"]) == values["memory"]["peak_bytes"]


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
  text = run(capsys, "yolov3-fprn", "--vs", "yolov3", "--size", "320x320")
  assert "yolov3-fprn 320x320 | yolov3 320x320" in text
  assert re.search(r"^all +75 \| 75 .* 98 \| 75 +103 \| 75$", text, re.MULTILINE)
  assert re.search(r"kept share +50\.0% +100\.0%", text)
  assert re.search(r"^stage3_unit8_conv2 +40x40x256 +2 +8-32 34 36 38 40 42 44 46 +2 +1 +2$", text, re.MULTILINE)
  by_name = run(capsys, "yolov3", "--stages", "name")
  assert re.search(r"^stage3 +17 +672 +62 +17 +17$", by_name, re.MULTILINE)


def test_ranges_of_one_layer(capsys: pytest.CaptureFixture[str]) -> None:
  text = run(capsys, "yolov3-prn", "--layer", "stage3_unit7_conv2")
  assert "yolov3-prn, stage3_unit7_conv2 (conv, 52x52x144)" in text
  assert re.search(r"^0-127 .* p3_conv1, stage4_down, stage3_unit8_conv1$", text, re.MULTILINE)
  assert re.search(r"^128-143 .* stage3_unit8_conv1$", text, re.MULTILINE)


def test_figures_and_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
  cfg = tmp_path / "small.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_detector()))
  out = tmp_path / "new" / "folder"
  values = json.loads(run(capsys, cfg, "--vs", "yolov3-tiny", "--out", out, "--json").splitlines()[-1])
  names = {f"{name}.{kind}" for name in ("timestamps", "sources", "ranges", "memory") for kind in ("png", "svg")}
  assert {path.name for path in out.iterdir()} == names | {"report.html"}
  assert {Path(path) for path in values["files"]} == set(out.iterdir())
  for name in names:
    data = (out / name).read_bytes()
    assert data.startswith(b"\x89PNG\r\n" if name.endswith("png") else b"<?xml"), name
    assert len(data) > 5000
  page = (out / "report.html").read_text()
  assert page.count('src="data:image/svg+xml;base64,') == page.count("src=") == 4
  assert not re.search(r"href=|url\(|@import|<script|<link", page)  # nothing is loaded from elsewhere
  first = {path.name: path.read_bytes() for path in out.iterdir()}
  run(capsys, cfg, "--vs", "yolov3-tiny", "--out", out)
  assert {path.name: path.read_bytes() for path in out.iterdir()} == first  # the same input gives the same files


def test_names_of_networks_are_escaped(tmp_path: Path) -> None:
  graph = dataclasses.replace(tiny_detector(), name="a <b> $x$")
  write_report([analyze(graph)], tmp_path)
  page = (tmp_path / "report.html").read_text()
  assert "a &lt;b&gt; $x$" in page
  assert "<b>" not in page


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (("yolov3-pnr",), "did you mean 'yolov3-prn'?"),
    (("yolov3", "--vs", "nothing.cfg"), "cannot read cfg 'nothing.cfg': No such file or directory"),
    (("yolov3", "--size", "416"), "--size 416: expected WIDTHxHEIGHT in pixels"),
    (("yolov3", "--size", "5x5"), "layer 'p4_concat'"),
    (("yolov3", "--layer", "stage3_unit7_conv"), "has no layer 'stage3_unit7_conv' (did you mean 'stage3_unit7_conv"),
    (("yolov3", "--layer", "stage3_unit7_add"), "is a shortcut: it has no kernel, so it passes gradients on at once"),
    (
      ("yolov3-prn", "--vs", "yolov3-tiny", "--layer", "stage3_down"),
      "network 'yolov3-tiny' has no layer 'stage3_down'",
    ),
    (("yolov3", "--out", "pyproject.toml"), "cannot write results to 'pyproject.toml': it is a file"),
  ],
)
def test_wrong_input(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str) -> None:
  assert message in run(capsys, *args, expect=2)


def test_a_network_without_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
  cfg = tmp_path / "pool.cfg"
  cfg.write_text("[net]\nwidth=32\nheight=32\nchannels=3\n[maxpool]\nsize=2\nstride=2\n")
  text = run(capsys, cfg, "--out", tmp_path / "out", expect=2)
  assert "has no convolution and no connected layer" in text
  assert not (tmp_path / "out").exists()
