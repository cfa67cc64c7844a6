"""`prn eval RUN` repeats the last evaluation of a run, to the last digit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prn_jax.cli.main import main
from tests.data_pipelines.pipeline_data import jpeg
from tests.nets import random_model
from tests.train.test_evaluation import classifier

pytestmark = pytest.mark.usefixtures("blank_pictures")

ASSETS = Path(__file__).parents[2] / "prn_jax" / "assets"


def trained(run: Path, config: str, **settings: Any) -> dict[str, Any]:
  """A run of two steps by the real command; gives the figures of its last line in metrics.jsonl."""
  common = {"batch_size": 8, "total.steps": 2, "optim.learning_rate": 1e-6, "eval.num_pictures": 0}
  given = [f"--config.{key}={value}" for key, value in (common | settings).items()]
  assert main(["train", f"--config={config}", *given, f"--workdir={run}"]) == 0
  last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
  return {key.removeprefix("eval/"): value for key, value in last.items() if key.startswith("eval/")}


def evaluated(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
  capsys.readouterr()
  assert main(["eval", *map(str, args), "--json"]) == 0
  found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
  return found


@pytest.mark.slow
def test_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Eleven images in batches of eight on eight devices: nothing may depend on padding."""
  settings = {
    "model": "traffic-tiny-prn", "weights": ASSETS / "traffic-tiny-prn.weights", "dtype": "bfloat16",
    "data.train": "synthetic:traffic:16", "data.valid": "synthetic:traffic:11@valid",
  }  # fmt: skip
  last = trained(tmp_path / "run", "default:detect", **settings)
  assert last["AP"] > 0.3, "nothing found says nothing"
  found = evaluated(capsys, tmp_path / "run")
  assert found["metrics"] == last
  assert (found["images"], found["protocol"]) == (11, "coco")
  by_hand = evaluated(capsys, tmp_path / "run", "--data", "synthetic:traffic:11@valid", "--conf", 0.005, "--batch", 8)
  assert by_hand["metrics"] == last
  voc = evaluated(capsys, tmp_path / "run", "--protocol", "voc")
  assert voc["metrics"].keys() == {"mAP"}


@pytest.mark.slow
def test_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  for number in range(10):
    folder = tmp_path / "images" / "abcd"[number % 4]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.jpg").write_bytes(jpeg(40, 30, number))
  cfg = tmp_path / "small.cfg"
  cfg.write_text(random_model(classifier()).cfg())
  spec = f"imagefolder:{tmp_path / 'images'}"
  last = trained(tmp_path / "run", "default:classify", **{"model": cfg, "data.train": spec, "data.valid": spec})
  found = evaluated(capsys, tmp_path / "run", "--out", tmp_path / "out")
  assert found["metrics"] == {key: last[key] for key in ("top1", "top5")} == last
  assert found["protocol"] == "top1"
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["confusion.png", "per_class.txt", "top1.json"]


@pytest.mark.parametrize(
  ("files", "args", "message"),
  [
    (
      {},
      (),
      r"'\S+' is no run directory, whose validation data could be taken\. Name annotated data with --data SPEC\.",
    ),
    ({"config.json": "{}"}, (), r"config\.json.* Name annotated data with --data SPEC"),
    (
      {"config.json": '{"eval": {}, "data": {"valid": ""}}'},
      (),
      r"has no validation data \(config\.data\.valid is empty\)\. Name some with --data SPEC",
    ),
    ({}, ("--data", "synthetic:traffic:3", "--batch", "0"), r"prn eval: --batch 0: expected at least 1\."),
  ],
)
def test_what_is_said_where_no_evaluation_can_be_repeated(
  tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], args: tuple[str, ...], message: str
) -> None:
  (tmp_path / "checkpoints").mkdir()
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  assert main(["eval", str(tmp_path), *args]) == 2
  assert re.search(message, capsys.readouterr().err)
