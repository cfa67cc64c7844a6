"""The word that names data, its registry, the policy for bad data, and renumbering classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines import spec as spec_module
from prn_jax.data_pipelines.findings import Check
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  Object,
  Problem,
  ProblemLog,
  RecordList,
  box_fault,
  count_problems,
  finish,
  image_ids_of,
  make_record,
  with_names,
)
from prn_jax.data_pipelines.spec import listing, open_spec, parse_spec, register_source, sources, table


def records(*classes: int) -> RecordList:
  record = make_record(Path("a.jpg"), "a", (100, 50), [Object((0, 0, 10, 10), index) for index in classes])
  return RecordList(("cat", "dog", "cow"), (17, 18, 21), (record,))


def test_parts_may_hold_urls() -> None:
  source, parts = parse_spec("coco:gs://bucket/a.json:gs://bucket/images")
  assert source.kind == "coco"
  assert parts == ("gs://bucket/a.json", "gs://bucket/images")


def test_every_form_names_its_kind_first() -> None:
  forms = [source.form for source in sources()]
  assert {"coco", "voc", "darknet", "yolo", "imagefolder"} <= {form.split(":")[0] for form in forms}


def test_every_kind_says_what_it_reads() -> None:
  listed = listing()
  for source in sources():
    assert source.says, source.form
    assert f"\n  {source.form}" in listed
    assert f"| `{source.form}` | {source.says} |".replace("train|valid", "train\\|valid") in table()
  assert max(map(len, listed.splitlines())) <= 120


def test_unknown_kind_names_the_nearest() -> None:
  with pytest.raises(DataError, match=r"data 'coko:a:b': unknown kind 'coko' \(did you mean 'coco'\?\)") as error:
    open_spec("coko:a:b")
  assert "yolo:DATA.yaml:SPLIT" in str(error.value)


@pytest.mark.parametrize(("spec", "given"), [("coco:a.json", 1), ("coco:a.json:", 1), ("coco:a:b:c", 3), ("coco", 0)])
def test_wrong_number_of_parts_shows_the_form(spec: str, given: int) -> None:
  with pytest.raises(DataError, match=f"has {given} parts after 'coco', expected 2: coco:ANNOTATIONS.json:IMAGES_DIR"):
    open_spec(spec)


def test_a_kind_registers_itself_once(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(spec_module, "_SOURCES", dict(spec_module._SOURCES))

  @register_source("memory:NAME")
  def open_memory(parts: tuple[str, ...], log: ProblemLog) -> Dataset:
    return records(0)

  assert len(open_spec("memory:anything")) == 1
  with pytest.raises(ValueError, match="'memory' is registered twice"):
    register_source("memory:OTHER")(open_memory)


def test_policy_must_be_stop_or_skip() -> None:
  with pytest.raises(DataError, match="on_bad_data is 'ignore'; expected 'stop' or 'skip'"):
    ProblemLog("ignore")


def test_stop_raises_and_skip_lists() -> None:
  with pytest.raises(DataError, match=r"a\.txt:3: w is 7\.\n.*--on-bad-data skip\) the line is left out, counted"):
    ProblemLog("stop").report(Path("a.txt"), 3, "w is 7", Check.LABEL_MALFORMED, "the line is left out")
  log = ProblemLog("skip")
  for line in (3, 5):
    log.report(Path("a.txt"), line, "w is 7", Check.LABEL_MALFORMED, "the line is left out")
  log.report(Path("a.jpg"), None, "empty", Check.IMAGE_UNREADABLE, "the image is left out")
  assert [str(problem) for problem in log.problems] == [
    "a.txt:3: w is 7; the line is left out",
    "a.txt:5: w is 7; the line is left out",
    "a.jpg: empty; the image is left out",
  ]
  assert count_problems(log.problems) == {"malformed": 2, "unreadable image": 1}


@pytest.mark.parametrize(
  ("box", "check", "text"),
  [
    ((0, 0, 10, float("nan")), Check.LABEL_NOT_FINITE, "is not finite"),
    ((5, 5, 5, 9), Check.LABEL_NO_SIZE, "has size 0x4"),
    ((9, 5, 5, 9), Check.LABEL_NO_SIZE, "has size -4x4"),
    ((-1.5, 0, 10, 10), Check.LABEL_OUTSIDE, r"reaches 1.5 px outside its 100x50 image"),
    ((90, 40, 103, 50), Check.LABEL_OUTSIDE, r"reaches 3 px outside"),
  ],
)
def test_faults_of_boxes(box: tuple[float, float, float, float], check: Check, text: str) -> None:
  fault = box_fault(box, (100, 50))
  assert fault is not None
  assert fault.check is check
  assert text in fault.reason


def test_a_box_is_clipped_to_what_is_inside() -> None:
  fault = box_fault((90, 40, 103, 60), (100, 50))
  assert fault is not None
  assert fault.clipped == (90, 40, 100, 50)
  outside = box_fault((200, 0, 210, 10), (100, 50))
  assert outside is not None
  assert outside.clipped is None


@pytest.mark.parametrize("box", [(0, 0, 100, 50), (-1, -1, 101, 51), (0, 0, 1e-3, 1e-3)])
def test_good_boxes_have_no_fault(box: tuple[float, float, float, float]) -> None:
  assert box_fault(box, (100, 50)) is None


def test_without_size_only_the_box_is_judged() -> None:
  assert box_fault((-500, 0, 10, 10), None) is None


def test_classes_follow_given_names() -> None:
  # The network knows cow first; "fox" is a class that the data set has never seen.
  renamed = with_names(records(0, 2, 2), ["cow", "fox", "cat"])
  assert renamed.names == ("cow", "fox", "cat")
  assert renamed[0].classes.tolist() == [2, 0, 0]
  assert renamed.category_ids[0] == 21
  assert renamed.category_ids[2] == 17
  assert len(set(renamed.category_ids)) == 3
  assert len(renamed) == 1


def test_unused_names_may_be_missing_but_used_ones_not() -> None:
  assert with_names(records(0), ["cat"])[0].classes.tolist() == [0]
  with pytest.raises(DataError, match=r"class 'dog', not among the 2 given names \(did you mean 'dogs'\?\)"):
    with_names(records(1), ["cat", "dogs"])
  with pytest.raises(DataError, match="the class name 'cat' occurs twice among the 3 names"):
    with_names(records(0), ["cat", "dog", "cat"])


def test_an_empty_data_set_is_an_error_that_tells_the_first_problem() -> None:
  with pytest.raises(DataError, match=r"x\.yaml holds no images. Expected at least one"):
    finish(["a"], [0], [], ProblemLog(), "x.yaml")
  log = ProblemLog("skip")
  log.problems.append(Problem(Path("a.jpg"), None, "empty"))
  with pytest.raises(DataError, match=r"all entries were left out, the first because of a\.jpg: empty"):
    finish(["a"], [0], [], log, "x.yaml")


def test_ids_are_stems_and_paths_where_stems_repeat() -> None:
  assert image_ids_of([Path("x/1.jpg"), Path("x/2.jpg"), Path("y/2.jpg")]) == ["1", "x/2.jpg", "y/2.jpg"]


def test_records_without_objects_have_columns() -> None:
  record = make_record(b"...", 7, None)
  assert record.boxes_xyxy_px.shape == (0, 4)
  assert record.boxes_xyxy_px.dtype == np.float32
  assert record.classes.dtype == np.int32
  assert record.width is None
