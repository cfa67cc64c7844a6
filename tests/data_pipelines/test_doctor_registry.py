"""The registry of the doctor's checks: ids that stay, words that help, checks from outside, results as JSON and text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prn_jax.cli.main import main
from prn_jax.data_pipelines.doctor import checkup
from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, checks, register_check
from prn_jax.data_pipelines.doctor.page import MOST_PICTURES, MOST_ROWS, page
from prn_jax.data_pipelines.doctor.told import text
from prn_jax.data_pipelines.findings import Check
from tests.data_pipelines.little_sets import make_set
from tests.data_pipelines.test_doctor import diagnose, places

# Programs know these ids: a new one is added here, none goes and none is spelt anew.
PUBLISHED = [
  "anchors.poor_fit",
  "boxes.below_2_px",
  "boxes.below_cell",
  "boxes.mostly_ignored",
  "boxes.near_duplicate",
  "boxes.nested",
  "boxes.outside_file",
  "boxes.thin",
  "boxes.two_classes",
  "boxes.unrotated_frame",
  "boxes.whole_image",
  "classes.imbalance",
  "classes.off_by_one",
  "classes.one_split",
  "classes.other_list",
  "classes.similar_names",
  "classes.untidy_name",
  "images.16_bit",
  "images.animated",
  "images.case_differs",
  "images.cmyk",
  "images.exif_rotated",
  "images.grey_among_colour",
  "images.mostly_empty",
  "images.near_copies",
  "images.one_colour",
  "images.stretched",
  "images.too_many_objects",
  "images.very_large",
  "images.wrong_ending",
  "labels.copies_differ",
  "labels.counted_from_0",
  "labels.counted_from_1",
  "labels.empty_file",
  "labels.no_file",
  "labels.other_layout",
  "labels.scene_without_labels",
  "labels.tight_and_loose",
  "labels.two_tools",
  "paths.outside_folder",
  "splits.copies",
  "splits.near_copies",
  "splits.same_scene",
]


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
  """A test's checks go with it."""
  checks()  # the package's own are there before
  monkeypatch.setattr(checkup, "_CHECKS", dict(checkup._CHECKS))


def test_ids_stay() -> None:
  assert [one.id for one in checks()] == sorted({*PUBLISHED, *map(str, Check)})


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_a_check_says_what_to_do(check: checkup.DoctorCheck) -> None:
  assert re.fullmatch(r"[a-z]+\.[a-z_0-9]+", check.id)
  assert check.meaning[0].islower()
  assert not check.meaning.endswith(".")
  assert re.fullmatch(r"[A-Z].{15,}\.", check.fix)


@pytest.mark.usefixtures("own_registry")
def test_a_check_from_outside_takes_part(tmp_path: Path) -> None:
  @register_check("mine.odd_number", Severity.SERIOUS, "an odd number of images", "Take one away again.", Needs.BOXES)
  def odd_number(exam: Exam) -> Iterator[Spot]:
    if len(exam.split) % 2 == 0:
      yield Spot(f"{len(exam.split)} images, <b>even</b>", image=3)

  one = make_set("coco", tmp_path)
  diagnosis = diagnose(one.spec)
  assert places(diagnosis) == {"mine.odd_number": [str(one.image(3))]}
  assert diagnosis.is_serious
  values = diagnosis.to_json()
  assert values["findings"] == [
    {
      "id": "mine.odd_number", "severity": "serious", "meaning": "an odd number of images",
      "fix": "Take one away again.", "count": 1,
      "places": [{"place": str(one.image(3)), "text": "12 images, <b>even</b>"}],
    }
  ]  # fmt: skip
  assert values["counts"] == {"serious": 1, "worth a look": 0, "note": 0}
  assert "! [mine.odd_number] serious, 1: an odd number of images\n    " in text(diagnosis)
  assert "12 images, &lt;b&gt;even&lt;/b&gt;" in page(diagnosis)


@pytest.mark.usefixtures("own_registry")
def test_ids_are_given_once() -> None:
  with pytest.raises(ValueError, match=r"the check 'boxes\.thin' is registered twice, or says no meaning and fix"):
    register_check("boxes.thin", Severity.NOTE, "a", "b")(lambda exam: [])
  with pytest.raises(ValueError, match=r"'mine\.mute' is registered twice, or says no meaning and fix"):
    register_check("mine.mute", Severity.NOTE)(lambda exam: [])


@pytest.mark.usefixtures("own_registry")
def test_ten_thousand_findings_stay_readable(tmp_path: Path) -> None:
  @register_check("mine.many", Severity.NOTE, "one of many", "Nothing, they are many.")
  def many(exam: Exam) -> Iterator[Spot]:
    yield from (Spot(f"number {number}", image=number % 12) for number in range(10_000))

  diagnosis = diagnose(make_set("coco", tmp_path).spec)
  assert len(diagnosis.to_json()["findings"][0]["places"]) == 10_000
  html = page(diagnosis)
  assert f"The first {MOST_ROWS} of 10,000 are listed; --json lists all." in html
  assert f"The first {MOST_PICTURES} of 10,000 are shown." in html
  assert html.count("data:image/jpeg;base64,") == MOST_PICTURES
  assert len(html) < 300_000
  shown = text(diagnosis)
  assert "... and 9,995 more (--json lists all)" in shown
  assert len(shown.splitlines()) < 20
  assert not diagnosis.is_serious


# -- odd input and the command -----------------------------------------------------------------------------------------

ODD = [None, "x", "1", -1, 1e300, 10**400, 10**30, float("nan"), True, [], [1], {"a": 1}]


@pytest.mark.parametrize("key", ["bbox", "category_id", "image_id", "id", "iscrowd", "area", "segmentation"])
def test_odd_values_are_reported_and_break_nothing(tmp_path: Path, key: str) -> None:
  one = make_set("coco", tmp_path)
  with one.coco() as content:
    for number, value in enumerate(ODD):
      entry = {"id": 500 + number, "image_id": 3, "category_id": 1, "bbox": [2, 60 + number, 30, 9]}
      content["annotations"].append(entry | {key: [3, 4, 20, value] if key == "bbox" and number % 2 else value})
  assert diagnose(one.spec).to_json()["objects"] >= 24


@pytest.mark.parametrize(
  "line", ["1e30 .5 .5 .1 .1", "9" * 400 + " .5 .5 .1 .1", "0 nan .5 .1 .1", "0", "é .5 .5 .1 .1"]
)
def test_odd_lines_are_reported_at_their_place(tmp_path: Path, line: str) -> None:
  one = make_set("yolo", tmp_path)
  one.change(one.label(3), lambda text: text + line + "\n")
  found = places(diagnose(one.spec))
  assert [place for ends in found.values() for place in ends] == [f"{one.label(3)}:3"]


def test_quick_reads_headers_of_what_is_there(tmp_path: Path) -> None:
  one = make_set("coco", tmp_path)
  one.image(4).write_bytes(b"no image")
  one.image(5).write_bytes(one.image(5).read_bytes()[:-300])  # seen in the pixels alone
  diagnosis = diagnose(one.spec, decode=False)
  assert places(diagnosis) == {"images.unreadable": [str(one.image(4))]}
  assert set(diagnosis.not_run.values()) == {
    Needs.PIXELS.value, Needs.AGAINST.value, Needs.AGAINST_PIXELS.value
  }  # fmt: skip


def test_the_command_writes_a_corrected_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  one = make_set("yolo", tmp_path / "set")
  one.change(one.label(7), lambda text: text + text.splitlines()[0] + "\n7 0.5 0.5 0.2 0.2\n")
  out = tmp_path / "out"
  assert main(["data", "doctor", one.spec, "--fix", str(out)]) == 1
  shown = capsys.readouterr().out
  spec = f"coco:{out}/annotations/instances_fixed.json:{out}/images/fixed"
  assert f"wrote 12 images and 24 objects; use them as {spec}\n  1 repeated boxes left out\n" in shown
  assert "not in the copy, for you to decide (listed in its doctor.json): 1 labels.unknown_class\n" in shown
  assert main(["data", "doctor", spec, "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["findings"] == []


def test_options_that_contradict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  spec = make_set("yolo", tmp_path).spec
  for options, said in (
    (["--fix", "out", "--quick"], "--fix looks at pixels, which --quick does not. Leave one of the two out."),
    (["--max-boxes", "0"], "--max-boxes 0: expected at least 1."),
    (["--workers", "0"], "--workers 0: expected at least 1."),
  ):
    assert main(["data", "doctor", spec, *options]) == 2
    assert said in capsys.readouterr().err
