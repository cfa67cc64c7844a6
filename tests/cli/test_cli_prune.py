"""`prn prune`: what it writes can be used, its figures are those of `prn eval`, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import prn_jax
from prn_jax.cli.main import main
from prn_jax.export.convert import save
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.model import Model
from prn_jax.network import init_variables
from prn_jax.prune.method_names import DEFAULT_METHOD, METHOD_NAMES
from prn_jax.prune.methods import METHODS

DATA = "synthetic:traffic:12@valid"


def answer(capsys: pytest.CaptureFixture[str]) -> dict:
  return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_trained_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """A tenth of the channels costs little, the report adds up, and the smaller model predicts."""
  out = tmp_path / "small"
  command = ["prune", "traffic-tiny-prn", str(out), "--percent", "10", "--data", DATA, "--recalibrate", "8"]
  assert main([*command, "--report", str(tmp_path / "report"), "--json"]) == 0
  found = answer(capsys)
  assert found["AP50_before"] > 0.8
  assert found["AP50_after"] > 0.3
  assert found["units_removed"] == int(found["units"] * 0.1)
  smaller = prn_jax.load(str(out))
  assert (cost(smaller.graph).params, smaller.names) == (found["params_left"], prn_jax.load("traffic-tiny-prn").names)
  assert sum(row["params"] for row in found["layers"]) == found["params"]
  assert sum(row["params_left"] for row in found["layers"]) == found["params_left"]
  assert json.loads((tmp_path / "report" / "report.json").read_text())["units"] == found["units"]
  page = (tmp_path / "report" / "report.html").read_text()
  assert f"{found['params_left']:,}" in page
  assert f"<td>AP50, not fine-tuned</td><td>{found['AP50_before']:.4f}</td>" in page
  assert cv2.imread(str(tmp_path / "report" / "layers.png")).shape[0] > 200
  assert found["latency"]["before_ms"] > 0 < found["latency"]["after_ms"]
  assert f"the least of many passes of both networks in turn, on {found['latency']['machine']}" in page
  assert main(["eval", str(out), "--data", DATA, "--json"]) == 0
  assert answer(capsys)["metrics"]["AP50"] == pytest.approx(found["AP50_after"], abs=1e-6)
  check_tuned(out, tmp_path / "report", found, capsys)


def check_tuned(tuned: Path, report: Path, found: dict, capsys: pytest.CaptureFixture[str]) -> None:
  """The figure of another network of the same widths goes into the report, beside the others; of other widths it does not."""
  assert main(["prune", str(tuned), "--tuned", "--report", str(report)]) == 0
  figures = [f"{value:.4f}" for value in (found["AP50_before"], found["AP50_after"], found["AP50_after"])]
  assert "AP50        {} -> {} -> {} (fine-tuned)".format(*figures) in capsys.readouterr().out
  kept = json.loads((report / "report.json").read_text())
  assert kept["tuned"] == str(tuned)
  assert {key: value for key, value in kept.items() if not key.endswith("tuned")} == {
    key: value for key, value in found.items() if key != "dst"
  }
  assert f"<td>AP50, fine-tuned</td><td>{figures[0]}</td><td>{figures[2]}</td>" in (report / "report.html").read_text()
  assert main(["prune", "traffic-tiny-prn", "--tuned", "--report", str(report)]) == 2
  assert "has 40 channels, and the report says that 35 are left. Give the network that was" in capsys.readouterr().err
  (report / "report.json").write_text(json.dumps({"layers": []}))
  assert main(["prune", str(tuned), "--tuned", "--report", str(report)]) == 2
  assert "has no figures to compare with, since the pruning had no data. Prune again with" in capsys.readouterr().err


def test_by_gradients_and_by_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """The whole commands; that the scores are right: tests/prune."""
  common = ["--calibrate", "synthetic:traffic:8", "--images", "4", "--target-params", "0.9", "--json"]
  assert main(["prune", "traffic-tiny-prn", str(tmp_path / "a.weights"), "--method", "group-taylor", *common]) == 0
  assert 0.85 < answer(capsys)["params_share"] <= 0.9
  how = ["--method", "eagle-eye", "--candidates", "2", "--recalibrate", "8", "--seed", "3"]
  assert main(["prune", "traffic-tiny-prn", str(tmp_path / "b.weights"), *how, *common]) == 0
  found = answer(capsys)
  assert [one["seed"] for one in found["candidates"]] == [3, 4]
  assert found["params_share"] == found["candidates"][found["candidate"]]["reached"]


def test_darknets_files_are_read_by_opencv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  model = prn_jax.load("traffic-tiny-prn")
  for name in ("small.cfg", "small.weights"):
    how = ["--target-flops", "0.5", "--method", "l1", "--round-to", "8"]
    assert main(["prune", "traffic-tiny-prn", str(tmp_path / name), *how, "--json"]) == 0
  assert answer(capsys)["bflops_share"] <= 0.5
  smaller = prn_jax.load(str(tmp_path / "small.cfg"), weights=str(tmp_path / "small.weights"))
  x = np.random.default_rng(0).random((1, model.graph.height, model.graph.width, 3), np.float32)
  net = cv2.dnn.readNetFromDarknet(str(tmp_path / "small.cfg"), str(tmp_path / "small.weights"))
  net.setInput(x.transpose(0, 3, 1, 2))
  names = net.getUnconnectedOutLayersNames()
  assert len(net.forward(names)) == len(smaller.graph.heads)
  assert all(
    shape.channels % 8 == 0
    for layer in smaller.graph
    if layer.has_batchnorm
    for shape in [smaller.graph.shapes[layer.name]]
  )


def test_a_table_of_what_percentages_cost(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
  assert main(["prune", "traffic-tiny-prn", "--sweep", "5,60", "--data", DATA, "--json"]) == 0
  rows = answer(capsys)["rows"]
  assert [row["share"] for row in rows] == [0, 0.05, 0.6]
  assert rows[0]["AP50"] > rows[2]["AP50"]
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["OUT", "--percent", "120"], "--percent 120: expected more than 0 and less than 100."),
    (
      ["OUT"],
      "nothing to remove: give --percent P, --target-flops R, --target-params R, --target-latency MS or --block",
    ),
    (
      ["OUT", "--percent", "5", "--target-flops", "0.5"],
      "--percent and --target-flops both say how much goes; give one",
    ),
    (
      ["OUT", "--target-params", "1.5"],
      "--target-params 1.5: expected the share that stays, more than 0 and less than 1.",
    ),
    (["OUT", "--target-latency", "0"], "--target-latency 0: expected milliseconds, more than 0."),
    (
      ["OUT", "--percent", "5", "--method", "taylor"],
      "the method 'taylor' judges by gradients of the training loss, for which it needs annotated images: give those of",
    ),
    (
      ["OUT", "--percent", "5", "--method", "eagle-eye"],
      "judges by the figures of candidates, for which it needs annot",
    ),
    (["OUT", "--percent", "5", "--candidates", "0"], "--candidates 0: expected at least 1."),
    (["OUT", "--percent", "5", "--images", "0"], "--images 0: expected at least 1."),
    (
      ["OUT", "--percent", "5", "--candidates", "9"],
      "--candidates 9 has no effect on the method 'variance'; eagle-eye",
    ),
    (
      ["OUT", "--percent", "5", "--images", "9"],
      "--images 9 has no effect on the method 'variance'; taylor, group-tay",
    ),
    (["OUT", "--percent", "5", "--seed", "-1"], "--seed -1: expected at least 0."),
    (
      ["OUT", "--target-latency", "5", "--method", "eagle-eye", "--data", DATA],
      "with a time as the target every candidate would have to be timed: give the method eagle-eye a share",
    ),
    (["--tuned"], "--tuned needs the report of the pruning: give its folder with --report DIR."),
    (["--tuned", "--report", "OUT", "--percent", "5"], "by the data that the report names: leave --percent out."),
    (["OUT", "--tuned", "--report", "OUT2"], "by the data that the report names: leave OUT out."),
    (["--tuned", "--report", "OUT"], "--report names the folder that prn prune --report DIR has written."),
    (
      ["OUT", "--percent", "5", "--recalibrate", "8"],
      "--recalibrate needs images: give --calibrate SPEC or --data SPEC.",
    ),
    (["--sweep", "5"], "--sweep needs images: give --data SPEC."),
    (["--percent", "5"], "OUT is missing: name a folder"),
    (["OUT", "--percent", "40", "--method", "slim"], "or go on all the same with --force."),
    (["OUT", "--percent", "40", "--method", "slimm"], "pruning method 'slimm' (did you mean 'slim'?)"),
    (["OUT", "--blocks", "3"], "3 residual blocks to remove; network 'traffic-tiny-prn' has 1 whose branch ends in"),
    (["OUT.jpg", "--percent", "5"], "OUT.jpg"),
  ],
)
def test_words(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Exit code 2, a message, and nothing written."""
  given = [str(tmp_path / word) if word.startswith("OUT") else word for word in options]
  assert main(["prune", "traffic-tiny-prn", *given]) == 2
  assert message in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["prune", "yolov3-tiny-prn", str(tmp_path / "x"), "--percent", "5"]) == 2
  assert "'yolov3-tiny-prn' has no weights" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      ["--method", "slim"],
      "has no batch norm in what may go, so that there are no gammas to judge by. Take the method",
    ),
    (
      ["--recalibrate", "2", "--data", "synthetic:traffic:2"],
      "has no batch norm, which is what is estimated again from images: leave --recalibrate out.",
    ),
  ],
)
def test_a_network_without_batch_norm(
  options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  g = Builder(32, 32, name="plain")
  g.conv(4, 3, stride=2, activation="leaky")
  g.conv(27)
  g.yolo(classes=4, anchors=((8.0, 8.0), (16.0, 16.0), (32.0, 32.0)))
  save(Model(g.graph(), init_variables(g.graph())), f"{tmp_path / 'plain'}/")
  assert main(["prune", str(tmp_path / "plain"), str(tmp_path / "x"), "--percent", "30", *options]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "x").exists()


def test_the_command_names_the_methods_that_there_are() -> None:
  assert tuple(METHODS) == METHOD_NAMES
  assert DEFAULT_METHOD in METHODS


@pytest.mark.slow
def test_a_quantised_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  calibrate = ["--calibrate", "synthetic:traffic:4", "--images", "2", "--preset", "ptq-minmax"]
  main(["quantize", "traffic-tiny-prn", str(tmp_path / "small"), *calibrate])
  capsys.readouterr()
  assert main(["prune", str(tmp_path / "small"), str(tmp_path / "x"), "--percent", "5"]) == 2
  assert "is quantised, and its ranges hold for the channels that it has" in capsys.readouterr().err
  assert not (tmp_path / "x").exists()
