"""Evaluation sees every record exactly once, whatever the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax.data_pipelines import images
from prn_jax.data_pipelines.feed.evaluation_batches import (
  eval_batches,
  indices_of_process,
  num_eval_batches,
  placement_of,
)
from prn_jax.data_pipelines.records import DataError
from tests.data_pipelines.pipeline_data import numbered


@pytest.mark.parametrize("num_records", [1, 7, 8, 9])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_every_record_once(num_records: int, count: int, rows: int) -> None:
  data = numbered(num_records)
  seen: list[int] = []
  shapes, lengths = set(), set()
  for process in range(count):
    options = {"batch_size": rows * count, "process_index": process, "process_count": count, "threads": 1}
    with eval_batches(data, (20, 10), **options) as batches:  # type: ignore[arg-type]
      found = list(batches)
      assert len(batches) == len(found)
    lengths.add(len(found))
    for batch in found:
      shapes.add(batch["image"].shape)
      np.testing.assert_array_equal(batch["mask"], batch["index"] >= 0)
      assert not batch["image"][~batch["mask"]].any()
      seen += batch["index"][batch["mask"]].tolist()
  assert sorted(seen) == list(range(num_records))
  assert shapes == {(rows, 10, 20, 3)}
  assert lengths == {num_eval_batches(num_records, rows * count)}


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 9), st.integers(1, 9))
def test_rows_of_all_processes_are_all_records(num_records: int, count: int, rows: int) -> None:
  parts = [indices_of_process(num_records, rows * count, process, count) for process in range(count)]
  assert len({part.shape for part in parts}) == 1
  together = np.concatenate(parts, axis=1).ravel()
  assert together[:num_records].tolist() == list(range(num_records))
  assert (together[num_records:] == -1).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
def test_images_are_those_of_prediction(resize: str) -> None:
  data = numbered(3)
  function = {
    "stretch": images.stretch,
    "letterbox": images.letterbox,
    "center_crop": images.resize_min_center_crop,
  }[resize]
  with eval_batches(data, (24, 24), batch_size=4, resize=resize, threads=2) as batches:
    (batch,) = batches
  assert batch["image"].dtype == np.float32
  for row in range(3):
    expected, placement = function(images.read_image(data[row].image), 24, 24)
    np.testing.assert_array_equal(batch["image"][row], expected)
    read = placement_of(batch["placement"][row], (24, 24))
    box = np.array([0.4, 0.5, 0.2, 0.1], np.float32)
    np.testing.assert_array_equal(read.to_image_xyxy_px(box), placement.to_image_xyxy_px(box))
  assert "label" not in batch


def test_labels() -> None:
  with eval_batches(numbered(7, labelled=True), (8, 8), batch_size=4, threads=1) as batches:
    labels = np.concatenate([batch["label"] for batch in batches])
  assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1, -1]


def test_policy_stop_names_the_image(tmp_path: Path) -> None:
  with eval_batches(numbered(5, bad=(3,)), (8, 8), batch_size=2, threads=1) as batches:
    next(batches)
    with pytest.raises(DataError, match=r"record 3: image 'picture_3' is not an image.*on_bad_data='skip'"):
      next(batches)


def test_policy_skip_masks_and_lists() -> None:
  with eval_batches(numbered(5, bad=(3,)), (8, 8), batch_size=2, threads=1, on_bad_data="skip") as batches:
    rows = [(int(i), bool(m)) for batch in batches for i, m in zip(batch["index"], batch["mask"], strict=True)]
  assert rows == [(0, True), (1, True), (2, True), (3, False), (4, True), (-1, False)]
  assert [str(problem.path) for problem in batches.problems] == ["picture_3"]


def test_a_record_that_is_lost_is_noticed() -> None:
  batches = eval_batches(numbered(5), (8, 8), batch_size=2, threads=1)
  batches._rows.__next__()  # somebody else takes a row
  with batches, pytest.raises(RuntimeError, match="gave 4 records, expected 5; record 0 came 0 times, expected 1"):
    list(batches)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"batch_size": 5, "process_count": 2}, "batch_size 5 cannot be split over 2 processes; .* such as 4"),
    ({"batch_size": 0}, "batch_size 0 cannot be split"),
    ({"batch_size": 4, "resize": "squeeze"}, "resize is 'squeeze'; expected one of stretch, letterbox, center_crop"),
  ],
)
def test_messages(options: dict[str, object], message: str) -> None:
  with pytest.raises(DataError, match=message):
    eval_batches(numbered(3), (8, 8), **options)  # type: ignore[arg-type]


def test_no_data() -> None:
  with pytest.raises(DataError, match="the data set is empty"):
    eval_batches(numbered(0), (8, 8), batch_size=1)
