"""The registry of what is looked for in data: ids that stay, words that help, a table in the docs that is the registry.

`python -m tests.data_pipelines.test_findings` writes the tables into docs/data.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.data_pipelines import spec
from prn_jax.data_pipelines.doctor import checkup
from prn_jax.data_pipelines.doctor.summary import FEW, TINY_SIDE_PX
from prn_jax.data_pipelines.findings import Check, Finding, ProblemKind, table
from prn_jax.data_pipelines.records import Problem
from prn_jax.files.marked import filled
from tests.data_pipelines.pictures import write

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "data.md"

# Programs know these ids: a new one is added here, none goes and none is spelt anew.
PUBLISHED = [
  "archives.duplicate_member",
  "archives.refused_member",
  "boxes.repeated",
  "boxes.tiny",
  "classes.duplicate",
  "classes.few_examples",
  "classes.malformed",
  "classes.no_images",
  "classes.unknown",
  "classes.unused",
  "images.copies",
  "images.duplicate",
  "images.malformed",
  "images.missing",
  "images.other_ending",
  "images.other_size",
  "images.repeated_id",
  "images.unreadable",
  "images.without_objects",
  "labels.duplicate",
  "labels.left_over",
  "labels.malformed",
  "labels.missing",
  "labels.no_size",
  "labels.not_finite",
  "labels.outside_image",
  "labels.polygons",
  "labels.respelt",
  "labels.shared_id",
  "labels.unknown_class",
  "labels.unknown_image",
  "labels.wrong_unit",
  "paths.forgiven",
  "records.unreadable",
  "shards.damaged",
]


def test_ids_stay() -> None:
  assert sorted(Check) == PUBLISHED


@pytest.mark.parametrize("check", Check)
def test_a_check_is_used_and_says_what_to_do(check: Check) -> None:
  assert re.fullmatch(r"[a-z]+\.[a-z_]+", check)
  assert check.meaning[0].islower()
  assert not check.meaning.endswith(".")
  assert re.fullmatch(r"[A-Z].{15,}\.", check.fix)
  used = [file for file in (REPO / "data_pipelines").rglob("*.py") if f"Check.{check.name}" in file.read_text()]
  assert used, "nothing finds it"


def test_every_kind_of_problem_has_a_check() -> None:
  assert {check.kind for check in Check} == {*ProblemKind, None}


def test_limits_are_those_of_the_doctor() -> None:
  assert f"fewer than {FEW} " in Check.CLASS_FEW.meaning
  assert f"below {TINY_SIDE_PX} pixels" in Check.BOX_TINY.meaning


def tables() -> dict[str, str]:
  """Those of the page: the sources, what they find, and what the doctor adds."""
  return {"sources": spec.table(), "checks": table(), "doctor": checkup.table()}


def test_the_page_has_the_tables() -> None:
  page = PAGE.read_text()
  assert "<!-- checks -->" in page
  assert "<!-- doctor -->" in page
  assert "<!-- sources -->" in page
  assert filled(page, tables()) == page, "python -m tests.data_pipelines.test_findings writes it"


def test_a_problem_is_a_finding() -> None:
  problem = Problem(Path("a.txt"), 3, "w is 7", Check.LABEL_UNIT)
  assert problem.finding == Finding(Check.LABEL_UNIT, "a.txt:3", "w is 7")
  assert problem.kind is ProblemKind.MALFORMED
  assert problem.to_json() == {
    "id": "labels.wrong_unit", "path": "a.txt", "line": 3, "kind": "malformed", "reason": "w is 7"
  }  # fmt: skip


def test_inspect_lists_findings_with_their_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  images = tmp_path / "images"
  images.mkdir()
  for number in range(2):
    Image.new("RGB", (100, 50), (number, 0, 0)).save(images / f"{number}.png")
  (images / "1.png").write_bytes((images / "1.png").read_bytes()[:-20])
  boxes = [[90, 5, 30, 9], [10, 10, 2, 20]]
  content: dict[str, Any] = {
    "images": [{"id": k, "file_name": f"{k}.png", "width": 100, "height": 50} for k in range(2)],
    "annotations": [{"id": k, "image_id": 0, "category_id": 1, "bbox": box} for k, box in enumerate(boxes)],
    "categories": [{"id": 1, "name": "dog"}],
  }
  file = write(tmp_path / "a.json", json.dumps(content))
  spec = f"coco:{file}:{images}"
  assert main(["data", "inspect", spec, "--json"]) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  places = {one["id"]: one["place"] for one in found["findings"]}
  assert places == {
    "labels.outside_image": str(file),
    "images.unreadable": str(images / "1.png"),
    "classes.few_examples": spec,
    "boxes.tiny": spec,
  }
  outside, unreadable, few, tiny = found["findings"]
  assert outside["text"].startswith("annotation 0: box [90, 5, 120, 14]")
  assert outside["text"].endswith("reaches 20 px outside its 100x50 image; the box is clipped to the image")
  assert unreadable["fix"] == "Copy or download the file again, or take the image from the list."
  assert [few["text"], tiny["text"]] == found["notes"]
  assert found["problems"] == [f"{one['place']}: {one['text']}" for one in (outside, unreadable)]
  assert found["problem_counts"] == {"outside the image": 1, "unreadable image": 1}

  assert main(["data", "inspect", spec]) == 0
  shown = capsys.readouterr().out
  assert "1 class with fewer than 10 objects: dog (2) [classes.few_examples]\n" in shown
  assert "the box is clipped to the image [labels.outside_image]\n" in shown
  assert f"What to do\n  boxes.tiny: {tiny['fix']}\n  classes.few_examples: {few['fix']}\n" in shown


if __name__ == "__main__":
  PAGE.write_text(filled(PAGE.read_text(), tables()))
