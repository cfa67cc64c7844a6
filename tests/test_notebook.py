"""The notebook runs from a clean kernel, in its small form, without network."""

from __future__ import annotations

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
