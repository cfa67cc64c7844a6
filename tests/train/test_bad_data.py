"""The policy "skip" of bad data in a training: counted, said, and listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prn_jax.cli.main import main
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.records import Problem
from prn_jax.files.structured import parse_json
from prn_jax.train import bad_data
from prn_jax.train.bad_data import FILE, BadData
from tests.train.test_train_cli import arguments, classifier_files, detector_cfg

pytestmark = pytest.mark.usefixtures("blank_pictures")

__all__ = ["detector_cfg"]
SPECS = {"train": "coco:a.json:images", "valid": "coco:b.json:images"}


def entry(path: str, what: str = bad_data.IMAGE, line: int | None = None) -> dict[str, Any]:
  (found,) = bad_data._entries([Problem(Path(path), line, "is bad", Check.LABEL_MALFORMED)], what)
  return found


def bad(
  train: list[dict[str, Any]], images: int = 0, boxes: int = 0, valid: Any = (), spec: str = SPECS["train"]
) -> BadData:
  return BadData(SPECS | {"train": spec}, {"train": train, "valid": valid}, images, boxes)


def test_parts_are_merged_with_every_entry_once() -> None:
  first, second = bad([entry("a"), entry("b")], 1, 5, [entry("v")]), bad([entry("b"), entry("c", line=3)], 2, 7)
  both = first.merged(second)
  assert [one["path"] for one in both.entries["train"]] == ["b", "c", "a"]
  assert [one["path"] for one in both.entries["valid"]] == ["v"]
  assert (both.num_overflowing, both.num_boxes_lost) == (3, 12)
  assert BadData.from_json(parse_json(json.dumps(both.to_json()), FILE)).to_json() == both.to_json()
  other = first.merged(bad([entry("z")], 4, 4, [entry("w")], spec="coco:z.json:images"))
  assert [one["path"] for one in other.entries["train"]] == ["a", "b"], "of other data"
  assert [one["path"] for one in other.entries["valid"]] == ["w", "v"]
  assert other.num_boxes_lost == 5


def test_all_counts_are_said() -> None:
  found = bad([entry("a"), entry("t.json", bad_data.ANNOTATION), entry("u.json", bad_data.ANNOTATION)], 1, 1200)
  assert found.text(Path("run") / FILE, 30) == (
    "bad data: left out or clipped were 2 annotations of the training data, 1 image of the training data; 1,200 boxes were "
    "beyond data.max_boxes=30 (images drawn with more: 1). All is listed in run/bad_data.json."
  )


@pytest.mark.parametrize("damage", ["{", "[]", '{"data": {}, "over_max_boxes": {"images": 1}}', "\udcff"])
def test_a_damaged_list_is_told_and_set_aside(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
  (tmp_path / FILE).write_text(damage, errors="surrogateescape")
  assert bad_data.write(bad([entry("a")]), tmp_path, is_resumed=True).entries["train"] == [entry("a")]
  assert json.loads((tmp_path / FILE).read_text())["train"] == [entry("a")]
  assert (tmp_path / f"{FILE}.damaged").read_text(errors="surrogateescape") == damage
  assert "bad_data.json.damaged'; what this part of the run has met is written anew." in caplog.text
  assert not bad_data.write(bad([]), tmp_path, is_resumed=False)
  assert not (tmp_path / FILE).exists()


def test_a_training_lists_what_it_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  cfg, images = classifier_files(tmp_path)
  held_out = tmp_path / "held_out"
  images.rename(held_out)
  (tmp_path / "again").mkdir()
  classifier_files(tmp_path / "again")
  images = tmp_path / "again" / "images"
  for path in (images / "red" / "0.png", images / "red" / "1.png", held_out / "blue" / "7.png"):
    path.write_bytes(path.read_bytes()[:-60])  # the header is whole: only a decoder sees it
  (images / "blue" / "3.png").write_bytes(b"nothing")
  command = [
    "train", "--config=default:classify", f"--config.model={cfg}", f"--config.data.train=imagefolder:{images}",
    f"--config.data.valid=imagefolder:{held_out}", "--config.batch_size=8", "--config.total.epochs=1.",
    "--config.data.on_bad_data=skip", f"--workdir={tmp_path / 'run'}",
  ]  # fmt: skip
  assert main(command) == 0
  said = capsys.readouterr().err
  assert (
    "bad data: left out or clipped were 1 annotation of the training data, 2 images of the training data, 1 image of the "
    "validation data. All is listed in"
  ) in said
  found = json.loads((tmp_path / "run" / FILE).read_text())
  assert {(one["what"], Path(one["path"]).name) for one in found["train"]} == {
    ("annotation", "3.png"), ("image", "0.png"), ("image", "1.png"),
  }  # fmt: skip
  assert [Path(one["path"]) for one in found["valid"]] == [held_out / "blue" / "7.png"]
  assert all(one.keys() == {"what", "id", "path", "line", "kind", "reason"} for one in found["train"] + found["valid"])
  assert main(command) == 0, "a finished run has read no image again"
  assert json.loads((tmp_path / "run" / FILE).read_text()) == found


@pytest.mark.slow
def test_boxes_that_do_not_fit_are_counted_over_all_parts_of_a_run(
  detector_cfg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  command = arguments(detector_cfg, tmp_path / "run", "--config.data.max_boxes=1", "--config.data.valid=")
  assert main([*command, "--config.total.steps=1"]) == 0
  first = json.loads((tmp_path / "run" / FILE).read_text())["over_max_boxes"]
  assert 0 < first["images"] <= 8
  assert first["boxes"] >= first["images"]
  assert main([*command, "--config.total.steps=2", "--allow-changes"]) == 0
  both = json.loads((tmp_path / "run" / FILE).read_text())["over_max_boxes"]
  assert both["boxes"] > first["boxes"]
  expected = f"bad data: {both['boxes']} boxes were beyond data.max_boxes=1 (images drawn with more: {both['images']})"
  assert expected in capsys.readouterr().err
