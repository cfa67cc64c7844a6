"""Model directories: complete, safe against kills, and against flipped bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import prn_jax
from prn_jax.errors import CheckpointError
from prn_jax.formats import orbax
from prn_jax.formats.darknet_weights import Header
from prn_jax.network import flatten_variables
from tests.conftest import REPO
from tests.nets import random_model, tiny_detector


def test_directory_carries_everything(tmp_path: Path) -> None:
  model = random_model(names=["cat", "dog"], resize="letterbox", header=Header(seen=1234567))
  model.save(tmp_path / "model")
  moved = tmp_path / "elsewhere"
  (tmp_path / "model").rename(moved)  # nothing outside the directory may be needed
  back = prn_jax.load(moved)
  assert back.graph == model.graph
  assert back.graph.name == "tiny"
  assert (back.names, back.resize, back.header) == (("cat", "dog"), "letterbox", Header(seen=1234567))
  ours, theirs = flatten_variables(model.variables), flatten_variables(back.variables)
  assert ours.keys() == theirs.keys()
  for key, value in ours.items():
    np.testing.assert_array_equal(value, theirs[key], err_msg=key)
  assert back.digest() == model.digest()


def test_flipped_bit_is_found(tmp_path: Path) -> None:
  random_model().save(tmp_path / "m")
  files = sorted(
    (f for f in (tmp_path / "m").rglob("*") if f.is_file() and f.name != "model.json"), key=os.path.getsize
  )
  for victim in (files[-1], files[0]):
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    with pytest.raises(
      CheckpointError, match=rf"{victim.name}' has changed since it was saved .* convert the model again"
    ):
      prn_jax.load(tmp_path / "m")
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
  assert prn_jax.load(tmp_path / "m").has_weights


def test_missing_file_is_named(tmp_path: Path) -> None:
  random_model().save(tmp_path / "m")
  next((tmp_path / "m").glob("payload-*/graph.cfg")).unlink()
  with pytest.raises(CheckpointError, match=r"incomplete: 'graph.cfg' is missing\. Restore it from a copy"):
    prn_jax.load(tmp_path / "m")


def test_unfinished_and_foreign_directories(tmp_path: Path) -> None:
  (tmp_path / "unfinished" / "payload-12345678").mkdir(parents=True)
  with pytest.raises(CheckpointError, match=r"no finished model .*interrupted"):
    prn_jax.load(tmp_path / "unfinished")
  (tmp_path / "photos").mkdir()
  (tmp_path / "photos" / "a.jpg").write_text("x")
  with pytest.raises(CheckpointError, match=r"photos' exists and is not a saved model; it is left alone"):
    random_model().save(tmp_path / "photos")
  assert [f.name for f in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_newer_format_and_damaged_index(tmp_path: Path) -> None:
  random_model().save(tmp_path / "m")
  index = json.loads((tmp_path / "m" / "model.json").read_text())
  (tmp_path / "m" / "model.json").write_text(json.dumps(index | {"version": 99}))
  with pytest.raises(CheckpointError, match=r"version 99; this prn_jax reads .* up to 1"):
    prn_jax.load(tmp_path / "m")
  (tmp_path / "m" / "model.json").write_text("{")
  with pytest.raises(CheckpointError, match=r"model\.json:1 is no valid JSON: .*\. Convert the model again\.$"):
    prn_jax.load(tmp_path / "m")


def test_other_network_lists_missing_and_extra(tmp_path: Path) -> None:
  random_model().save(tmp_path / "m")
  cfg = tmp_path / "other.cfg"
  cfg.write_text(random_model(tiny_detector(classes=3)).cfg().replace("name = stem\n", "name = first\n"))
  with pytest.raises(CheckpointError) as error:
    prn_jax.load(cfg, weights=tmp_path / "m")
  text = str(error.value)
  assert "of another network" in text
  assert "missing: params/first/" in text
  assert "extra: " in text
  assert "params/stem/conv/kernel" in text
  assert "params/p5_out/conv/kernel (1, 1, 4, 21) instead of (1, 1, 4, 24)" in text


def test_saving_again_replaces(tmp_path: Path) -> None:
  random_model(seed=1).save(tmp_path / "m")
  second = random_model(seed=2)
  second.save(tmp_path / "m")
  assert prn_jax.load(tmp_path / "m").digest() == second.digest()
  assert len(list((tmp_path / "m").glob("payload-*"))) == 1


def test_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  first = random_model(seed=1)
  first.save(tmp_path / "m")

  def fail(path: Path, text: str) -> None:
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(orbax, "write_text", fail)
  with pytest.raises(OSError, match="No space left"):
    random_model(seed=2).save(tmp_path / "m")
  assert prn_jax.load(tmp_path / "m").digest() == first.digest()
  assert len(list((tmp_path / "m").glob("payload-*"))) == 1


SAVE_FOREVER = """
import sys
from tests.nets import random_model
models = [random_model(seed=s) for s in (1, 2)]
models[0].save(sys.argv[1])
print(*(m.digest() for m in models), flush=True)
while True:
  for model in models:
    model.save(sys.argv[1])
"""


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_model(tmp_path: Path) -> None:
  rng = np.random.default_rng(0)
  for trial in range(5):
    target = tmp_path / f"m{trial}"
    process = subprocess.Popen(
      [sys.executable, "-c", SAVE_FOREVER, str(target)], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    digests = process.stdout.readline().split()
    time.sleep(rng.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert prn_jax.load(target).digest() in digests


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"names": ["cat", 3]}, r"names\[1\] is 3; expected text"),
    ({"names": "cat"}, r"names is 'cat'; expected a list"),
    ({"resize": "crop"}, r"resize is 'crop'; expected 'stretch' or 'letterbox'"),
    ({"header": {"seen": -1}}, r"header\.seen is -1; expected a whole number from 0 to"),
    ({"header": [1]}, r"header is \[1\]; expected keys with values"),
    ({"payload": "../other"}, r"payload is '\.\./other'; expected the name of a folder, as payload-1f3a9c02"),
    ({"sha256": {"/dev/zero": "0"}}, r"sha256 has the key '/dev/zero'; expected the path of a file below the folder"),
    ({"sha256": []}, r"sha256 is \[\]; expected keys with values"),
    ({"version": "one"}, r"version is 'one'; expected a whole number"),
  ],
)
def test_edited_index(tmp_path: Path, change: dict[str, object], said: str) -> None:
  random_model().save(tmp_path / "m")
  index = json.loads((tmp_path / "m" / "model.json").read_text())
  (tmp_path / "m" / "model.json").write_text(json.dumps(index | change))
  with pytest.raises(CheckpointError, match=rf"m/model\.json: {said}.*\. Convert the model again\.$"):
    prn_jax.load(tmp_path / "m")


def test_names_that_are_no_text_are_refused_before_anything_is_written(tmp_path: Path) -> None:
  with pytest.raises(CheckpointError, match=r"the name '.*caf\\udce9' is no UTF-8 text, .* Choose another place\.$"):
    random_model().save(tmp_path / "caf\udce9")
  assert not list(tmp_path.iterdir())
