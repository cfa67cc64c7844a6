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
# Every process that a test starts compiles fifty small programs; the first one keeps them for the others.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
REPO = Path(__file__).resolve().parent.parent
# PYTHONWARNINGS of processes that tests start: as pyproject.toml has it for the tests themselves.
STRICT = "error," + ",".join(
  f"ignore::DeprecationWarning:{module}"  # older matplotlib's use of newer pyparsing
  for module in ("matplotlib._fontconfig_pattern", "matplotlib._mathtext", "pyparsing.util")
)


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

  from prn_jax import compilation_cache

  jax.config.update("jax_numpy_rank_promotion", "raise")
  # The folder that `prn` chooses in the processes of tests, spelt otherwise: a program is compiled once for all, while
  # traced programs, which are kept beside that folder alone, stay out of this process.
  jax.config.update("jax_compilation_cache_dir", f"{compilation_cache.folder()}/")
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  logging.getLogger("jax").setLevel(logging.ERROR)


# Tests of these compile programs that run for a second: the compiler need not try hard. What compares with figures of
# another program runs as users have it.
COMPILED_FAST = (
  "tests.train.", "tests.detect.", "tests.experiments.", "tests.test_cases", "tests.test_extensions", "tests.cli.test_process",
  "tests.cli.test_cli_train",
)  # fmt: skip
AS_USERS_HAVE_IT = ("tests.train.test_train_goldens", "tests.detect.test_decode", "tests.detect.metrics.test_golden")


@pytest.fixture(autouse=True, scope="module")
def compiled_fast(request: pytest.FixtureRequest) -> Iterator[None]:
  """Without LLVM's expensive passes, here and in the processes of a test: a third less time for all of it."""
  name = request.module.__name__
  if not name.startswith(COMPILED_FAST) or name in AS_USERS_HAVE_IT:
    yield
    return
  import jax

  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
