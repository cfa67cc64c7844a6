"""The device is named, an idle one too; a compilation is said, with the time that it took last time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from prn_jax import compiling as compilations
from prn_jax.cli import devices
from prn_jax.compiling import compiling, first_is_compiled


def test_the_device_is_named(capsys: pytest.CaptureFixture[str]) -> None:
  devices.announce_device("predict")
  assert capsys.readouterr().err.startswith("prn predict: on the CPU, ")


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  program = tmp_path / "nvidia-smi"
  program.write_text("#!/bin/sh\necho 'NVIDIA T9'\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  return program


def test_a_gpu_that_jax_cannot_use_is_named_with_what_to_install(nvidia_smi: Path) -> None:
  text = 'there is a GPU (NVIDIA T9), but this JAX has no working CUDA support: pip install "jax[cuda12]"'
  assert devices.idle_accelerator() == text


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\n", "no program"])
def test_a_driver_without_a_gpu_is_none(nvidia_smi: Path, script: str) -> None:
  nvidia_smi.write_text(script)
  assert devices.idle_accelerator() == ""


def test_who_chose_the_cpu_hears_nothing(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert devices.idle_accelerator() == ""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(compilations, "PATIENCE_SEC", 0.05)
  return tmp_path / "prn_jax" / compilations.RECORD


def test_a_long_compilation_is_said_and_foretold(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
  cache.parent.mkdir()
  cache.write_text(json.dumps({"net": 34.2, "other": 5.0}))
  with compiling("net"):
    time.sleep(0.2)
  said = capsys.readouterr().err.splitlines()
  assert said == ["prn: compiling net (it took 34 s last time) ...", "prn: compiled in 0 s"]
  assert json.loads(cache.read_text()) == {"other": 5.0, "net": 34.2}  # this time it came from the cache


def test_a_short_one_is_not(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert list(first_is_compiled(iter("ab"), "net")) == ["a", "b"]
  assert capsys.readouterr().err == ""
  assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[1]", '{"net": "x"}', "\x00"])
def test_a_damaged_record_is_none(cache: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
  cache.parent.mkdir()
  cache.write_text(content)
  with compiling("net"):
    time.sleep(0.2)
  assert capsys.readouterr().err.startswith("prn: compiling net ...")
  assert list(json.loads(cache.read_text())) == ["net"]


def test_what_ends_a_compilation_ends_the_notice(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(KeyError), compiling("net"):
    raise KeyError
  time.sleep(0.1)
  assert capsys.readouterr().err == ""
