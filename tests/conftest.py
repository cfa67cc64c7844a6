"""Strict settings for every test, and the way to the reference data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
  from tests.object_store import ObjectStore

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
REPO = Path(__file__).resolve().parent.parent


def shared_folder() -> Path | None:
  """Reference data: PRN_SHARED, or ../shared beside the project; None where it is absent."""
  folder = Path(os.environ.get("PRN_SHARED", REPO.parent / "shared"))
  return folder if folder.is_dir() else None


SHARED = shared_folder()
NO_DATA = f"no reference data: set PRN_SHARED, or put it at {REPO.parent / 'shared'}"


@pytest.fixture(scope="session")
def shared() -> Path:
  """The reference data; CI must have it, elsewhere the test is skipped."""
  if SHARED is None:
    if os.environ.get("CI"):
      pytest.fail(NO_DATA)
    pytest.skip(NO_DATA)
  return SHARED


@pytest.fixture(autouse=True, scope="session")
def strict_jax() -> None:
  import jax

  jax.config.update("jax_numpy_rank_promotion", "raise")
  jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "prn_jax_tests"))
  logging.getLogger("jax").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def _store() -> Iterator[ObjectStore]:
  from tests.object_store import connect, environment, serving

  with serving() as store:  # one for the session: its clients keep the address
    connect(environment(store))
    yield store


@pytest.fixture
def store(_store: ObjectStore) -> Iterator[ObjectStore]:
  """An empty object store on this machine, which is what this process sees behind gs://bucket."""
  _store.clear()
  yield _store
  _store.clear()


def shared_params(*patterns: str) -> list[object]:
  """Files or folders of the reference data as test parameters; one skipped parameter where it is absent."""
  if SHARED is None:
    assert not os.environ.get("CI"), NO_DATA
    return [pytest.param(None, marks=pytest.mark.skip(reason=NO_DATA), id="no-reference-data")]
  found = sorted({path for pattern in patterns for path in SHARED.glob(pattern)})
  assert found, patterns
  return [pytest.param(path, id=path.stem if path.is_file() else path.name) for path in found]
