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
from typing import Any

import pytest

from prn_jax.analyze import analyze
from prn_jax.analyze.figures import plot_sources, plot_timestamps
from prn_jax.analyze.report import write_report
from prn_jax.cli.main import main
from prn_jax.formats import darknet_cfg
from prn_jax.models.registry import build_graph
from tests.conftest import REPO, STRICT
from tests.nets import tiny_detector
from tests.timing import least_seconds

COMBINATIONS = ("timestamp_combinations", "source_combinations")


def run(capsys: pytest.CaptureFixture[str], *args: object, expect: int = 0) -> str:
  """Text on stdout, or, of a failure, on stderr."""
  assert main(["analyze", *map(str, args)]) == expect
  captured = capsys.readouterr()
  if expect:
    assert captured.out == ""
    return captured.err
  return captured.out


def layer_of(values: dict[str, Any], name: str) -> dict[str, Any]:
  return next(x for x in values["layers"] if x["name"] == name)


def recounted(layers: list[dict[str, Any]]) -> dict[str, int]:
  """The totals out of nothing but the channel ranges."""
  ranges = [x["ranges"] for x in layers]
  return {
    "timestamps": sum(len({t for r in found for t in r["timestamps"]}) for found in ranges),
    "sources": sum(len({s for r in found for s in r["sources"]}) for found in ranges),
    "timestamp_combinations": sum(
      len({(*r["timestamps"], *r["paths"]) for r in found if r["timestamps"]}) for found in ranges
    ),
    "source_combinations": sum(len({frozenset(r["parts"]) for r in found if r["parts"]}) for found in ranges),
  }


def test_two_large_models_in_seconds_without_jax() -> None:
  code = (
    "import sys; from prn_jax.cli.main import main; code = main(['analyze', 'yolov3-prn', '--vs', 'yolov3', '--json']);"
    "assert not {'jax', 'jaxlib', 'flax', 'orbax', 'matplotlib'} & set(sys.modules), 'imported'; sys.exit(code)"
  )
  env = os.environ | {"PYTHONWARNINGS": STRICT}
  said = []

  def analyze() -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True, env=env)
    said.append(done.stdout)

  assert least_seconds(analyze, 10, time.perf_counter) < 10  # 0.6 s measured
  values = json.loads(said[0].splitlines()[-1])
  prn, residual = values, values["vs"]
  assert (prn["name"], residual["name"]) == ("yolov3-prn", "yolov3")
  assert [prn["totals"][key] for key in COMBINATIONS] == [161, 161]
  assert [residual["totals"][key] for key in COMBINATIONS] == [75, 75]
  assert prn["memory"]["kept_bytes"] < residual["memory"]["kept_bytes"] == 58_146_816


def test_json_holds_every_channel_range(capsys: pytest.CaptureFixture[str]) -> None:
  values = json.loads(run(capsys, "yolov3-tiny-prn", "--json"))
  assert values["vs"] is None
  assert values["files"] == []
  layer = layer_of(values, "stage5_conv")
  # p4_skip_a adds the first 128 of its 256 channels, and p4_skip_b does so once more
  assert [(r["start"], r["end"]) for r in layer["ranges"]] == [(0, 128), (128, 256)]
  assert layer["ranges"][1]["sources"] == ["stage6_conv"]
  assert layer["ranges"][0]["timestamps"][0] == 2
  assert [s["name"] for s in values["stages"]][-2:] == ["13x13", "26x26 #2"]
  assert sum(len(s["layers"]) for s in values["stages"]) == len(values["layers"]) == 13
  assert len(values["memory"]["live_bytes"]) == 28
  assert max(values["memory"]["live_bytes"]) == values["memory"]["peak_bytes"]


RECOUNTED = (
  "yolov3-prn", "darknet53-prn-expand", "darknet53-prn-bottleneck", "yolov3-fprn", "resnext50", "sparsenet-40-24",
)  # fmt: skip


@pytest.mark.parametrize("name", RECOUNTED)
def test_every_total_can_be_recounted(capsys: pytest.CaptureFixture[str], name: str) -> None:
  values = json.loads(run(capsys, name, "--json"))
  assert recounted(values["layers"]) == values["totals"]
  for stage in values["stages"]:
    assert recounted([layer_of(values, x) for x in stage["layers"]]) == stage["totals"], stage["name"]
  for layer in values["layers"]:
    assert recounted([layer]) == {"timestamps": len(layer["timestamps"]), "sources": len(layer["sources"])} | {
      key: layer[key] for key in COMBINATIONS
    }
    assert all(len(r["paths"]) == len(r["timestamps"]) for r in layer["ranges"])


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
  text = run(capsys, "yolov3-fprn", "--vs", "yolov3", "--size", "320x320")
  assert "yolov3-fprn 320x320 | yolov3 320x320" in text
  assert re.search(r"^all +75 \| 75 .* 98 \| 75 +103 \| 75$", text, re.MULTILINE)
  assert re.search(r"kept share +50\.0% +100\.0%", text)
  assert re.search(r"^stage3_unit8_conv2 +40x40x256 +2 +8-32 34 36 38 40 42 44 46 +2 +1 +2$", text, re.MULTILINE)
  by_name = run(capsys, "yolov3", "--stages", "name")
  assert re.search(r"^stage3 +17 +672 +62 +17 +17$", by_name, re.MULTILINE)


DOCS_TABLE = re.compile(r"^\| ([a-z0-9-]+)(?: \(.*\))? \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def test_the_page_has_the_programs_figures() -> None:
  rows = DOCS_TABLE.findall((REPO / "docs" / "analysis.md").read_text(encoding="utf-8"))
  assert len(rows) == 14
  for name, *figures in rows:
    found = analyze(build_graph(name))
    totals = found.totals
    assert [len(found.layers), totals.timestamp_combinations, totals.source_combinations] == list(map(int, figures)), (
      name
    )


def test_ranges_of_one_layer(capsys: pytest.CaptureFixture[str]) -> None:
  text = run(capsys, "yolov3-prn", "--layer", "stage3_unit7_conv2")
  assert "yolov3-prn, stage3_unit7_conv2 (conv, 52x52x144)" in text
  # of the two parts of p3_conv1's gradient the first goes to p3_reduce, through the concatenation
  assert re.search(r"^0-127 .* p3_conv1#2, stage4_down, stage3_unit8_conv1$", text, re.MULTILINE)
  assert re.search(r"^128-143 .* stage3_unit8_conv1$", text, re.MULTILINE)


def test_ranges_that_differ_only_in_parts_or_paths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
  """No two rows are the same: an expanding block's ranges get different parts of the same sources, a shrinking one's
  different numbers of paths."""
  text = run(capsys, "darknet53-prn-expand", "--layer", "stage3_unit8_conv2")
  rows = re.findall(r"^(\d+-\d+) +(4 6 8[ \d]*?)  ([ \d]+?)  (stage4_down#\d)$", text, re.MULTILINE)
  assert [row[0] for row in rows] == ["0-127", *(f"{c}-{c + 15}" for c in range(128, 256, 16))]
  assert len({row[1:3] for row in rows}) == 1
  assert [row[3] for row in rows] == [f"stage4_down#{i}" for i in range(1, 10)]
  write_report([analyze(build_graph("yolov3-prn"))], tmp_path)
  page = (tmp_path / "report.html").read_text()
  rows = re.findall(r"<tr><td class=left>(?:stage3_unit5_conv2)?</td>.*?</tr>", page)
  (start,) = (i for i, row in enumerate(rows) if "stage3_unit5_conv2" in row)
  cells = [re.findall(r"<td class=left>(.*?)</td>", row)[2:] for row in rows[start : start + 4]]
  assert [cell[0] for cell in cells] == ["0-127", "128-143", "144-159", "160-175"]
  assert cells[1][1] == cells[2][1] == cells[3][1]  # timestamps
  assert len({cell[2] for cell in cells}) == 4  # paths at each
  assert cells[0][3].startswith("p3_conv1#2, stage4_down, ")


@pytest.mark.parametrize(
  ("name", "kept", "whole", "share"),
  [
    ("yolov3-prn", "38.25", "48.97", "78.1%"),  # each shortcut adds the first channels of a wider map
    ("darknet53-prn-expand", "14.48", "14.48", "100.0%"),  # each adds all of a narrower map
  ],
)
def test_kept_share(capsys: pytest.CaptureFixture[str], name: str, kept: str, whole: str, share: str) -> None:
  text = run(capsys, name)
  assert re.search(rf"^  bytes kept for them, summed +{kept} MB$", text, re.MULTILINE)
  assert re.search(rf"^  if shortcuts added their whole maps +{whole} MB$", text, re.MULTILINE)
  assert re.search(rf"^  kept share +{share}$", text, re.MULTILINE)


def test_figures_name_layers_and_count_combinations() -> None:
  """Where names of all layers do not fit, those that begin a stage are named; bars add up to the totals."""
  models = [analyze(build_graph(name)) for name in ("yolov3-prn", "yolov3")]
  starts = ["stem", "stage1_down", "stage2_down", "stage3_down", "stage4_down", "stage5_down", "p4_conv1", "p3_conv1"]
  for draw, key in ((plot_timestamps, COMBINATIONS[0]), (plot_sources, COMBINATIONS[1])):
    axes = draw(models).axes
    for bars, cells, model in zip(axes[0:4:2], axes[1:4:2], models, strict=True):
      assert [round(bar.get_height()) for bar in bars.patches] == [getattr(layer, key) for layer in model.layers]
      assert [label.get_text() for label in cells.get_xticklabels()] == starts
      assert bars.get_title("right") == f"{getattr(model.totals, key)} combinations in 75 layers"
  labels = [label.get_text() for label in axes[1].get_yticklabels()]
  assert labels == ["3 losses", "head_p3_conv", *reversed(starts[1:])]
  grids = [cells.images[0].get_array().filled(0) for cells in plot_timestamps(models).axes[1:4:2]]
  assert [grid.max() for grid in grids] == [9, 1]  # combinations in which one timestamp stands


def test_tables_of_a_layer_without_gradients(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
  cfg = tmp_path / "dead.cfg"
  conv = "[convolutional]\nfilters=4\nsize=1\nstride=1\nactivation=linear\n"
  cfg.write_text(f"[net]\nwidth=8\nheight=8\nchannels=3\n{conv}[route]\nlayers=-1\ngroups=2\ngroup_id=0\n{conv}")
  text = run(capsys, cfg, "--layer", "conv_0")
  assert re.search(r"^0-1 +2 +1 +conv_2$", text, re.MULTILINE)
  assert re.search(r"^2-3 +none +none +none$", text, re.MULTILINE)


@pytest.mark.slow
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
    (
      ("yolov3", "--size", "5x5"),
      "network 'yolov3' cannot have an input of 5x5. The nearest that fits: width 32 (multiples of 32)",
    ),
    (("yolov3", "--layer", "stage3_unit7_conv"), "has no layer 'stage3_unit7_conv' (did you mean 'stage3_unit7_conv"),
    (
      ("yolov3-prn", "--layer", "stage1_unit1_ad"),
      "has no layer 'stage1_unit1_ad' (did you mean 'stage1_unit1_add'?). Layer 'stage1_unit1_add' is a shortcut: it has "
      "no kernel, so it passes gradients on at once. Name one of the 75 layers with weights, for example "
      "'stage1_unit1_conv2'.\n",
    ),
    (("yolov3", "--layer", "nothing_like_it"), "network 'yolov3' has no layer 'nothing_like_it'.\n"),
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
