"""What users of this field's tools reported, as small folders of the reference data: `make cases` runs them all.

Each `run.sh` ends with 0 where the command does what its `expected.txt` says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO, shared_params


@pytest.mark.slow
@pytest.mark.parametrize("case", shared_params("cases/*/"))
def test_case_is_as_a_user_expects(case: Path, tmp_path: Path) -> None:
  folder = tmp_path / case.name
  shutil.copytree(case, folder, copy_function=shutil.copyfile)
  for path in (folder, *folder.rglob("*")):
    path.chmod(0o755)  # the reference data may be read-only
  commands = tmp_path / "bin"
  commands.mkdir()
  for name, start in (("prn", f'"{sys.executable}" -m prn_jax.cli.main'), ("python", f'"{sys.executable}"')):
    (commands / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    (commands / name).chmod(0o755)
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}  # one device, as on a laptop
  env |= {"PATH": f"{commands}{os.pathsep}{env['PATH']}", "PYTHONPATH": str(REPO)}
  done = subprocess.run(["sh", "run.sh"], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)
  assert done.returncode == 0, f"{(folder / 'expected.txt').read_text()}\n{done.stdout}{done.stderr}"
