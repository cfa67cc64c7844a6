"""Words of Darknet and of other tools, misspelt commands: the line that was meant, with the user's own arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from prn_jax.cli.main import COMMANDS, main
from prn_jax.cli.words import command_instead

DARKNET = [
  ("detector test c.data n.cfg n.weights a.jpg -thresh 0.3", "prn predict n.cfg a.jpg --weights n.weights --names c.names --conf 0.3"),
  ("detector test c.data n.cfg n.weights -letter_box", "prn predict n.cfg PHOTO.jpg --weights n.weights --names c.names --resize letterbox"),
  ("detector map c.data n.cfg n.weights", "prn eval n.cfg --weights n.weights --data darknet:c.data:valid --protocol darknet"),
  ("detector valid c.data n.cfg n.weights", "prn eval n.cfg --weights n.weights --data darknet:c.data:valid --out results"),
  (
    "detector train c.data n.cfg b.conv.74 -clear -map",
    "prn train --model n.cfg --data darknet:c.data:train --valid darknet:c.data:valid --weights b.conv.74 --workdir runs/n",
  ),
  (
    "detector calc_anchors c.data -num_of_clusters 6 -width 320 -height 256",
    "prn data anchors darknet:c.data:train --num 6 --size 320x256",
  ),
  ("detector demo c.data n.cfg n.weights", "prn predict n.cfg 0 --weights n.weights --names c.names"),
  ("detector demo c.data n.cfg n.weights a.mp4", "prn predict n.cfg a.mp4 --weights n.weights --names c.names"),
  ("detector demo c.data n.cfg n.weights -c 1", "prn predict n.cfg 1 --weights n.weights --names c.names"),
  ("detect n.cfg n.weights a.jpg", "prn predict n.cfg a.jpg --weights n.weights"),
  ("classifier predict c.data n.cfg n.weights a.jpg", "prn predict n.cfg a.jpg --weights n.weights --names c.names"),
  ("classifier train c.data n.cfg", "prn train --model n.cfg --data imagefolder:TRAIN_DIR --valid imagefolder:VALID_DIR --workdir runs/n"),
  ("partial n.cfg n.weights n.conv.15 15", "prn convert n.cfg n.conv.15 --weights n.weights"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "line"), DARKNET)
def test_darknets_commands(given: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  Path("c.data").write_text("classes = 2\nnames = c.names\n")
  first, shown, *_ = command_instead(given.split(), COMMANDS).split("\n")
  assert shown == f"  {line}"
  assert "is here:" in first


def test_names_that_no_data_file_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  text = command_instead(["detector", "test", "no.data", "n.cfg", "n.weights", "a.jpg"], COMMANDS)
  assert "prn predict n.cfg a.jpg --weights n.weights --names FILE.names" in text


def test_options_without_an_equivalent_say_why(tmp_path: Path) -> None:
  text = command_instead(
    ["detector", "test", "x.data", "n.cfg", "n.weights", "a.jpg", "-i", "1", "-dont_show"], COMMANDS
  )
  assert "(-i: the environment chooses devices: CUDA_VISIBLE_DEVICES=1 before the command" in text
  assert "(-dont_show: nothing is shown on a screen; pictures are saved)" in text


@pytest.mark.parametrize(
  ("given", "line"),
  [
    ("pedict n.cfg a.jpg", "prn predict n.cfg a.jpg"),
    ("sumary yolov4", "prn summary yolov4"),
    ("help predict", "prn predict --help"),
    ("help", "prn --help"),
    ("export n.cfg n.onnx", "prn convert n.cfg n.onnx"),
    ("val n.cfg --data S --conf-thres 0.01", "prn eval n.cfg --data S --conf 0.01"),
    ("download yolov4", "prn models --download yolov4"),
    ("anchors SPEC --num 9", "prn data anchors SPEC --num 9"),
  ],
)
def test_other_commands(given: str, line: str) -> None:
  assert command_instead(given.split(), COMMANDS).split("\n")[1] == f"  {line}"


def test_a_word_near_nothing_lists_the_commands() -> None:
  assert command_instead(["xyzzy"], COMMANDS).startswith("prn has no command 'xyzzy'. It has models, summary,")


@pytest.mark.parametrize(
  ("given", "line"),
  [
    ("predict n.cfg a.jpg -thresh 0.3", "prn predict n.cfg a.jpg --conf 0.3"),
    ("predict n.cfg a.jpg --confidence=0.3", "prn predict n.cfg a.jpg --conf 0.3"),
    ("predict n.cfg --source a.jpg --iou 0.5 --save-txt", "prn predict n.cfg a.jpg --nms 0.5 --save txt"),
    ("predict n.cfg n.weights a.jpg", "prn predict n.cfg --weights n.weights a.jpg"),
    ("predict --model n.cfg a.jpg", "prn predict n.cfg a.jpg"),
    ("train --model n.cfg --data S --batch-size 8 --lr 0.01", "prn train --model n.cfg --data S --batch 8 --config.optim.learning_rate 0.01"),
  ],
)  # fmt: skip
def test_options_of_other_tools(given: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
  assert main(given.split()) == 2
  assert capsys.readouterr().err.split("\n")[1] == f"  {line}"


def test_an_option_that_is_misspelt(capsys: pytest.CaptureFixture[str]) -> None:
  with pytest.raises(SystemExit) as ended:
    main(["predict", "n.cfg", "a.jpg", "--cnf", "0.3"])
  assert ended.value.code == 2
  assert "unrecognized arguments: --cnf 0.3 (did you mean '--conf'?)" in capsys.readouterr().err


def test_options_that_exist_are_left_alone() -> None:
  """Every word of the tables that one of our commands has itself means that command's own there."""
  from prn_jax.cli.words import options_instead

  assert options_instead("train", ["--model", "n.cfg"], ["--model"]) == ""
  assert options_instead("predict", ["n.cfg", "a.jpg", "--weights", "n.weights"], ["--weights"]) == ""
