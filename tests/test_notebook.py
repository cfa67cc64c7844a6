"""The notebook runs from a clean kernel, in its small form, without network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPO

FOLDER = REPO / "notebooks"


def test_both_forms_are_the_same() -> None:
  """evaluate.py is the source; regenerate with `jupytext --to ipynb notebooks/evaluate.py`."""
  source, notebook = (jupytext.read(FOLDER / name) for name in ("evaluate.py", "evaluate.ipynb"))
  assert [(c.cell_type, c.source) for c in source.cells] == [(c.cell_type, c.source) for c in notebook.cells]


@pytest.mark.parametrize("place", ["checkout", "wheel", "index"])
def test_the_first_cell_installs_from_what_is_there(
  place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  cell = next(c.source for c in jupytext.read(FOLDER / "evaluate.py").cells if "prn_jax_source" in c.source)
  (tmp_path / "notebooks").mkdir()
  expected = "prn-jax"
  if place == "checkout":
    (tmp_path / "pyproject.toml").write_bytes((REPO / "pyproject.toml").read_bytes())
    expected = str(tmp_path)
  elif place == "wheel":
    for number, name in enumerate(("prn_jax-9.9.9-py3-none-any.whl", "prn_jax-10.0.0-py3-none-any.whl")):
      (tmp_path / "notebooks" / name).touch()
      os.utime(tmp_path / "notebooks" / name, (number, number))
    expected = str(tmp_path / "notebooks" / "prn_jax-10.0.0-py3-none-any.whl")
  monkeypatch.chdir(tmp_path / "notebooks")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  installed: list[str] = []

  def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    if "freeze" in command:
      return subprocess.CompletedProcess(command, 0, "jax==0.7.2\nnumpy==2.1.0\nrequests==2.0\n", "")
    installed.append(command[-1])
    return subprocess.CompletedProcess(command, int(place == "index"))

  monkeypatch.setattr(subprocess, "run", pip)
  if place == "index":  # where nobody has published it
    with pytest.raises(SystemExit, match=r"run `pip wheel --no-deps \.` in a checkout, upload"):
      exec(cell, {})
  else:
    exec(cell, {})
  assert installed == [expected]
  assert Path("held.txt").read_text() == "jax==0.7.2\nnumpy==2.1.0"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook libraries themselves
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("TINY", "True")
  monkeypatch.setenv("PYTHONPATH", f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
  monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
  kernel = ("-m", "ipykernel", "install", "--prefix", str(tmp_path / "kernel"), "--name", "prn_test")
  subprocess.run([sys.executable, *kernel], check=True, capture_output=True)
  monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "kernel" / "share" / "jupyter"))
  notebook = nbformat.read(FOLDER / "evaluate.ipynb", as_version=4)
  NotebookClient(
    notebook, timeout=300, kernel_name="prn_test", resources={"metadata": {"path": str(tmp_path)}}
  ).execute()
  outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
  text = "".join(output.get("text", "") for output in outputs)
  assert "16 images" in text
  assert "AP50" in text
  assert "COCO AP50" in text
  pictures = [
    o for o in outputs if "image/png" in o.get("data", {}) or "<img" in o.get("data", {}).get("text/html", "")
  ]
  assert len(pictures) >= 5
  assert (tmp_path / "evaluation" / "mistakes.png").stat().st_size > 10000
