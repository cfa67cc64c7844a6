"""Modules are found by the names that they had before."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from prn_jax.moved import MOVED
from tests.conftest import REPO


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_same_module(old: str) -> None:
  new = importlib.import_module(f"prn_jax.{MOVED[old]}")
  sys.modules.pop(f"prn_jax.{old}", None)
  try:
    with pytest.warns(DeprecationWarning, match=rf"prn_jax\.{old} has moved to prn_jax\.{MOVED[old]};"):
      found = importlib.import_module(f"prn_jax.{old}")
  finally:
    sys.modules.pop(f"prn_jax.{old}", None)
  assert found is new
  assert new.__spec__ is not None
  assert new.__spec__.name == f"prn_jax.{MOVED[old]}"


def test_names_of_a_moved_module_import_in_a_process_of_their_own() -> None:
  code = (
    "from prn_jax.formats.structured import read_json; from prn_jax.formats import convert; import prn_jax.predict;"
    "assert read_json.__module__ == 'prn_jax.files.structured'; assert convert.__name__ == 'prn_jax.export.convert'"
  )
  done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=REPO)
  assert (done.returncode, done.stderr) == (0, "")


def test_a_module_that_never_was_is_not_found() -> None:
  with pytest.raises(ModuleNotFoundError, match=r"No module named 'prn_jax\.formats\.nothing'"):
    importlib.import_module("prn_jax.formats.nothing")


@pytest.mark.parametrize(
  ("name", "new"),
  [
    ("load", "prn_jax.api.load"),
    ("build", "prn_jax.api.build"),
    ("with_weights", "prn_jax.loading.with_weights"),
    ("check_variables", "prn_jax.loading.check_variables"),
  ],
)
def test_a_name_that_left_its_module_is_found(name: str, new: str) -> None:
  module, _, attribute = new.rpartition(".")
  with pytest.warns(DeprecationWarning, match=rf"prn_jax\.model\.{name} has moved to {new};"):
    found = getattr(importlib.import_module("prn_jax.model"), name)
  assert found is getattr(importlib.import_module(module), attribute)
  with pytest.raises(AttributeError, match=r"module 'prn_jax\.model' has no attribute 'nothing'"):
    _ = importlib.import_module("prn_jax.model").nothing
