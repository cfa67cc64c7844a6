"""A user's own files do not meet ours: nothing but `prn_jax` is a name of ours in an installation.

Scripts and commands run in a folder that holds modules called `configs` and `data_pipelines` of the user's own, which
Python finds first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

from tests.conftest import REPO, STRICT

FOREIGN = 'raise RuntimeError("the user\'s own module was taken for one of prn_jax")\n'
WITHOUT_COMPILING = "--hardware=v5e:4"
DETECT = "import prn_jax; model = prn_jax.load('traffic-tiny-prn'); print(len(model(prn_jax.example_image())) > 5)"


@pytest.fixture(params=["folders", "files"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
  """A folder of a user who has modules of these names: packages, or single files."""
  for name in ("configs", "data_pipelines"):
    file = tmp_path / name / "__init__.py" if request.param == "folders" else tmp_path / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(FOREIGN)
  return tmp_path


def run(project: Path, *args: str) -> str:
  path = os.pathsep.join([str(project), str(REPO)])  # the user's folder first, as with `python script.py`
  env = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": STRICT}
  done = subprocess.run([sys.executable, *args], cwd=project, env=env, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_a_script_beside_modules_of_our_names_detects(project: Path) -> None:
  (project / "script.py").write_text(DETECT)
  assert run(project, "script.py") == "True\n"


def test_commands_find_our_configurations_and_readers(project: Path) -> None:
  summary = run(project, "-m", "prn_jax.cli.main", "plan", "--config=demo", WITHOUT_COMPILING)
  assert "traffic-nano-prn" in summary or "3,200 steps" in summary
  assert "car" in run(project, "-m", "prn_jax.cli.main", "data", "inspect", "synthetic:traffic:2")


def test_a_configuration_may_import_the_users_own_modules(tmp_path: Path) -> None:
  (tmp_path / "configs.py").write_text("MODEL = 'traffic-nano-prn'\n")
  own = tmp_path / "mine.py"
  own.write_text(
    '"""A configuration."""\nimport configs\nfrom prn_jax.configs import demo\n\n\ndef get_config():\n'
    "  config = demo.get_config()\n  config.model = configs.MODEL\n  return config\n"
  )
  assert "traffic-nano-prn" in run(tmp_path, "-m", "prn_jax.cli.main", "plan", f"--config={own}", WITHOUT_COMPILING)


def test_an_installation_has_one_top_level_package() -> None:
  settings = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
  packages = find_packages(str(REPO), **settings)
  assert {name.split(".")[0] for name in packages} == {"prn_jax"}
  assert {"prn_jax.configs", "prn_jax.data_pipelines.sources"} <= set(packages)


def ours() -> Iterator[Path]:
  for folder in ("prn_jax", "data_pipelines", "configs", "benchmarks", "notebooks", "tests", "docs", "launch"):
    yield from (p for p in (REPO / folder).rglob("*") if p.suffix in (".py", ".md", ".ipynb"))


def test_nothing_of_ours_uses_the_bare_names() -> None:
  bare = [
    f"{path.relative_to(REPO)}: {line.strip()}"
    for path in ours()
    if path != Path(__file__)
    for line in path.read_text().splitlines()
    if line.strip().startswith(("from configs", "import configs", "from data_pipelines", "import data_pipelines"))
  ]
  assert bare == []
