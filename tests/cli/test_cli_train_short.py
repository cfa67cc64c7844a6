"""`prn train --data SPEC --model NAME --epochs N`: the same keys as the long form; the list; completion."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest

from prn_jax.cli import completion, train
from prn_jax.cli.main import COMMANDS, main
from prn_jax.cli.train import open_config, read_config, shipped_configs
from prn_jax.errors import PrnError
from prn_jax.train.config import to_dict, typed
from tests.nets import random_model


def parsed(*words: str, keys: tuple[str, ...] = ()) -> argparse.Namespace:
  parser = argparse.ArgumentParser()
  train.add_arguments(parser)
  args = parser.parse_args(words)
  args.config_keys = list(keys)
  return args


def test_the_short_form_is_the_long_one() -> None:
  short = parsed(
    "--data", "synthetic:traffic:64", "--valid", "synthetic:traffic:8@valid", "--model", "yolov3-tiny-prn",
    "--epochs", "3", "--batch", "16", "--weights", "w.weights", "--on-bad-data", "skip", keys=("--config.seed=5",),
  )  # fmt: skip
  keys = (
    "data.train=synthetic:traffic:64", "data.valid=synthetic:traffic:8@valid", "model=yolov3-tiny-prn", "total.epochs=3.0",
    "batch_size=16", "weights=w.weights", "data.on_bad_data=skip", "seed=5",
  )  # fmt: skip
  long = typed(read_config("default", [f"--config.{key}" for key in keys]))
  assert to_dict(open_config(short)) == to_dict(long)


def test_the_model_decides_about_the_task() -> None:
  config = open_config(parsed("--data", "imagefolder:x", "--model", "darknet53", "--epochs", "1"))
  assert config.task == "classify"


def test_epochs_take_the_place_of_the_length_that_a_cfg_gives(tmp_path, monkeypatch, caplog) -> None:  # type: ignore[no-untyped-def]
  monkeypatch.chdir(tmp_path)
  text = random_model().cfg().replace("[net]\n", "[net]\nmax_batches=900\nbatch=1\nbatch=8\n", 1)
  (tmp_path / "NET.CFG").write_text(text)
  config = open_config(parsed("--data", "synthetic:traffic:64", "--model", "NET.CFG", "--epochs", "2"))
  assert (config.total.steps, config.total.epochs, config.model) == (0, 2.0, "NET.CFG")
  unused, one = caplog.messages
  assert unused.startswith("cfg NET.CFG:")
  assert "[net] batch=8 is not used: the first counts, as in Darknet" in unused
  assert one.startswith("config.batch_size is 1 (batch=1 of cfg NET.CFG): every update learns from a single image")
  caplog.clear()
  open_config(parsed("--data", "synthetic:traffic:64", "--model", "NET.CFG", "--batch", "16"))
  assert not caplog.messages  # given otherwise


@pytest.mark.parametrize(
  ("keys", "total"), [(("total.steps=20",), (20, 0.0, 0)), (("total.examples=64",), (0, 0.0, 64)), ((), (0, 12.0, 0))]
)
def test_a_length_takes_the_place_of_that_of_the_configuration_in_any_unit(
  keys: tuple[str, ...], total: tuple[int, float, int]
) -> None:
  config = read_config("fine_tune", [f"--config.{key}" for key in (*keys, "optim.schedule.steps=(5.0,)")]).total
  assert (config.steps, config.epochs, config.examples) == total


def test_two_lengths_are_refused() -> None:
  with pytest.raises(PrnError, match=r"total.steps=20, .*total.epochs=2.0: expected one unit"):
    typed(read_config("fine_tune", ["--config.total.steps=20", "--config.total.epochs=2"]))


def test_unknown_keys_of_a_cfg_need_lenient_which_is_recorded(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
  monkeypatch.chdir(tmp_path)
  (tmp_path / "n.cfg").write_text(random_model().cfg().replace("[yolo]\n", "[yolo]\nnames=coco.names\n", 1))
  words = ("--config=n.cfg", "--data", "synthetic:traffic:64", "--epochs", "1")
  with pytest.raises(PrnError, match="has unknown key 'names'"):
    open_config(parsed(*words))
  assert open_config(parsed(*words, "--lenient")).lenient
  assert open_config(parsed(*words, keys=("--config.lenient=True",))).lenient


def test_neither_config_nor_model() -> None:
  with pytest.raises(PrnError, match=r"give a configuration, --config=CONFIG \('prn train --list'"):
    open_config(parsed("--data", "synthetic:traffic:64"))


def test_the_list_has_every_configuration_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["train", "--list", "--json"]) == 0
  found = json.loads(capsys.readouterr().out)["configs"]
  assert set(found) == set(shipped_configs()) >= {"demo", "default", "coco_yolov4"}
  assert all(found.values())
  assert found["demo"].startswith("Drawn road scenes")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["completion", shell]) == 0
  script = capsys.readouterr().out
  assert all(command in script for command in COMMANDS)
  assert "max-detections" in script  # an option of predict
  assert "max-side" in script  # of an action of data
  assert "openimages: " in script  # a kind of data
  assert completion.EPILOG


@pytest.mark.parametrize("words", [["data", "inspect"], ["train", "--data"]])
def test_bash_completes_kinds_of_data(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["completion", "bash"]) == 0
  (tmp_path / "prn.sh").write_text(capsys.readouterr().out)
  line = ["prn", *words, "label"]
  ask = f"COMP_WORDS=({' '.join(line)}); COMP_CWORD={len(line) - 1}; _shtab_prn; echo ${{COMPREPLY[*]}}"
  done = subprocess.run(["bash", "-c", f". ./prn.sh; {ask}"], cwd=tmp_path, capture_output=True, text=True, check=True)
  assert done.stdout.split() == ["labelme:", "labelstudio:"], done.stderr
