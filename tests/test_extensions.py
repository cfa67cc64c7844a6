"""A kind of layer, a model, a source of data and a configuration of a package outside of ours, in the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prn_jax import extensions
from prn_jax.errors import PrnError
from tests.conftest import REPO

# docs/extending.md shows this text
MODULE = (REPO / "docs" / "extending.md").read_text().split("```python\n")[1].split("```")[0]


def prn(folder: Path, *args: str, expect: int = 0, path: str = "") -> subprocess.CompletedProcess[str]:
  env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), path)))}
  done = subprocess.run(
    [sys.executable, "-m", "prn_jax.cli.main", *args], capture_output=True, text=True, env=env, check=False, cwd=folder
  )
  assert done.returncode == expect, done.stderr
  return done


@pytest.fixture
def mine(tmp_path: Path) -> Path:
  """A folder with the extension."""
  (tmp_path / "mine.py").write_text(MODULE)
  (tmp_path / "mine_configs").mkdir()
  (tmp_path / "mine_configs" / "mine_small.py").write_text(
    '"""Two steps on six squares."""\nfrom prn_jax.train.config import default_config\n\n\ndef get_config():\n'
    '  config = default_config("detect")\n  config.model, config.data.train = "mine-tiny", "squares:6"\n'
    '  config.data.valid, config.eval.protocol = "squares:5", "counts"\n'
    "  config.batch_size, config.total.steps = 8, 2\n  return config\n"
  )
  return tmp_path


@pytest.mark.parametrize("name", ["mine", "mine.py"])
def test_import_makes_model_kind_and_source_known(mine: Path, name: str) -> None:
  table = prn(mine, "summary", "mine-tiny", "--import", name).stdout
  assert "gain" in table
  prn(mine, "convert", "mine-tiny", "mine.cfg", "--import", name)
  assert "[gain]" in (mine / "mine.cfg").read_text()
  assert prn(mine, "summary", "mine.cfg", "--json", f"--import={name}").stdout
  assert "is not a section" in prn(mine, "summary", "mine.cfg", expect=2).stderr
  assert "images          6" in prn(mine, "data", "inspect", "squares:6", "--import", name).stdout
  assert "mine_small" in prn(mine, "train", "--list", "--import", name).stdout


def test_an_installed_package_is_known_by_itself(mine: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
  info = mine / "mine_package-1.0.dist-info"
  info.mkdir()
  (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-package\nVersion: 1.0\n")
  (info / "entry_points.txt").write_text("[prn_jax.extensions]\nmine = mine\n")
  elsewhere = tmp_path_factory.mktemp("elsewhere")
  models = json.loads(prn(elsewhere, "models", "--json", path=str(mine)).stdout)["models"]
  assert "mine-tiny" in [row["name"] for row in models]
  (mine / "mine.py").write_text("raise RuntimeError('no licence')\n")
  text = prn(elsewhere, "models", path=str(mine), expect=2).stderr
  assert "the extension 'mine' of the installed package 'mine-package' (mine) fails: RuntimeError: no licence" in text


@pytest.mark.slow
def test_a_training_by_all_of_it(mine: Path) -> None:
  done = prn(mine, "train", "--config=mine_small", "--workdir=run", "--import", "mine", "--json")
  assert json.loads(done.stdout.splitlines()[-1])["step"] == 2
  last = json.loads((mine / "run" / "metrics.jsonl").read_text().splitlines()[-1])
  again = prn(mine, "eval", "run", "--data=squares:5", "--protocol=counts", "--import=mine", "--json", "--out=figures")
  found = json.loads(again.stdout.splitlines()[-1])
  assert found["protocol"] == "counts"
  assert found["metrics"] == {"right": last["eval/right"]}
  assert (mine / "figures" / "coco_results.json").exists()
  unknown = prn(mine, "eval", "run", "--data=squares:5", "--protocol=count", "--import=mine", expect=2).stderr
  assert (
    "protocol 'count' is unknown (did you mean 'counts'?); expected one of coco, voc07, voc, darknet, visdrone, counts"
    in unknown
  )


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("nosuch_module", "--import nosuch_module: there is no module 'nosuch_module'. Run the command in the folder"),
    ("nosuch.py", "--import nosuch.py: there is no such file."),
  ],
)
def test_what_cannot_be_imported_is_named(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(sys, "path", [*sys.path])
  with pytest.raises(PrnError, match=message.replace(".", r"\.")):
    extensions.load([name])
