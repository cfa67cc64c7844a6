"""prn models --compare: figures of the graphs, published accuracies, and times only where they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from prn_jax.cli.main import main
from prn_jax.errors import GraphError, ModelNotFoundError
from prn_jax.graph.cost import cost
from prn_jax.models import build_graph, get_spec, list_models
from prn_jax.models.registry import Published
from prn_jax.run.compare import compare, measured, published_accuracy


def test_a_row_has_the_figures_of_the_graph() -> None:
  (row,) = compare(["yolov3-tiny-prn"])
  total = cost(build_graph("yolov3-tiny-prn"))
  assert (row.width, row.height, row.params, row.bflops) == (416, 416, total.params, total.bflops)
  assert row.peak_activation_bytes == total.peak_activation_bytes
  assert row.latency_ms is None
  assert row.published == get_spec("yolov3-tiny-prn").published[0]


def test_one_size_for_all() -> None:
  rows = compare(["yolov3", "yolov3-prn"], (320, 320))
  assert [(row.width, row.height) for row in rows] == [(320, 320)] * 2
  assert [f"{row.bflops:.3f}" for row in rows] == ["38.981", "25.111"]
  assert [row.published.ap for row in rows if row.published] == [28.2, 28.4]  # those at 320
  with pytest.raises(GraphError, match=r"--size 100x96: network 'yolov3' cannot have an input of 100x96\. The nearest"):
    compare(["yolov3"], (100, 96))


def test_accuracy_at_this_size_comes_first() -> None:
  graph = build_graph("yolov3")
  cost_only = Published(size=416, source="a", bflops=1.0)
  elsewhere, here = Published(size=608, source="b", ap=1.0), Published(size=416, source="c", ap50=2.0)
  assert published_accuracy((cost_only, elsewhere, here), graph) == here
  assert published_accuracy((cost_only, elsewhere), graph) == elsewhere
  assert published_accuracy((cost_only,), graph) is None


def test_times_are_measured_one_after_the_other() -> None:
  (row,) = measured(compare(["traffic-nano-prn"], (64, 64)), 3, (64, 64))
  assert row.passes == 3
  assert row.latency_ms is not None
  assert 0 < row.latency_ms < 10_000


def test_unknown_names() -> None:
  with pytest.raises(ModelNotFoundError, match=r"no model is called 'ghosnet' \(did you mean 'ghostnet'\?\)"):
    compare(["ghostnet", "ghosnet"])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
  """Most memory: 16 + 64 channels of 208x208 around MobileNetV3's second unit, 13.8 MB; 16 + 24 + 24 + 48 around
  GhostNet's, 19.4 MB."""
  assert main(["models", "--compare", "yolov3-mobilenetv3", "ghostnet-prn", "mobilenetv3-large"]) == 0
  head, *rows = capsys.readouterr().out.splitlines()
  assert head.split() == ["model", "size", "params", "BFLOPs", "peak", "MB", "AP", "AP50", "top-1"]
  first = (
    "yolov3-mobilenetv3   416x416   24,209,877    18.041     13.8  34.6  54.7         at 608: README of SpursLipu/"
  )
  assert rows[0].startswith(first)
  assert rows[1].split() == ["ghostnet-prn", "416x416", "3,781,510", "1.510", "19.4"]
  assert rows[2].split()[5:8] == ["75.2", "README", "of"]


def test_json_of_all_models(capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["models", "--compare", "--json"]) == 0
  values = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert [row["name"] for row in values["models"]] == list_models()
  assert values["device"] is None
  assert all(row["latency_ms"] is None for row in values["models"])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--measure"], "--size and --measure belong to --compare [NAME ...]."),
    (["--size", "64x64"], "--size and --measure belong to --compare [NAME ...]."),
    (["--compare", "yolov3", "--measure", "0"], "--measure 0: expected at least 1 pass."),
    (["--compare", "yolov3", "--download", "yolov3"], "--download and --compare are two commands; give one of them."),
  ],
)
def test_options_that_do_not_belong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["models", *arguments]) == 2
  assert message in capsys.readouterr().err


def test_a_measured_table_in_a_process_of_its_own() -> None:
  """And without --measure no JAX is loaded: that is what keeps it quick."""
  command = [
    sys.executable,
    "-m",
    "prn_jax",
    "models",
    "--compare",
    "traffic-nano-prn",
    "--size",
    "64x64",
    "--measure",
    "2",
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert "ms" in done.stdout.splitlines()[0].split()
  assert "ms: median of 2 passes of one image on " in done.stderr
  code = "import sys; from prn_jax.cli.main import main; main(['models', '--compare', 'yolov3']); sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
