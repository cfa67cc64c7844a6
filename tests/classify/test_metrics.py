"""Top-1 and top-5 accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prn_jax.classify.metrics import (
  ClassificationError,
  classification_metrics,
  top_classes,
)
from prn_jax.run.classification_report import write_classification_report

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]


def test_by_hand() -> None:
  # The label's place is 1, 2, 6 (of six) and 1.
  scores = np.array([[9, 5, 4, 3, 2, 1], [9, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [0, 0, 0, 9, 0, 0]], np.float32)
  result = classification_metrics(top_classes(scores), [0, 1, 0, 3], NAMES)
  assert (result.top1, result.top5, result.images) == (0.5, 0.75, 4)
  assert result.counts[0].tolist() == [1, 0, 0, 0, 0, 1]
  assert result.per_class[0] == {"name": "ant", "images": 2, "top1": 0.5, "top5": 0.5, "taken for": "fox"}
  assert result.per_class[1] == {"name": "bee", "images": 1, "top1": 0.0, "top5": 1.0, "taken for": "ant"}
  assert result.per_class[2] == {"name": "cat", "images": 0, "top1": None, "top5": None, "taken for": None}
  assert json.loads(json.dumps(result.to_json())) == {
    "metrics": {"top1": 0.5, "top5": 0.75}, "images": 4, "detections": 0, "protocol": "top1",
  }  # fmt: skip


def test_equal_scores_go_to_the_lower_class() -> None:
  assert top_classes(np.zeros((1, 6))).tolist() == [[0, 1, 2, 3, 4]]


def test_fewer_than_five_classes() -> None:
  result = classification_metrics(top_classes([[0.1, 0.9], [0.3, 0.2]]), [0, 0], ["a", "b"])
  assert (result.top1, result.top5) == (0.5, 1.0)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_top5_is_the_rank_below_five(seed: int, num_classes: int) -> None:
  rng = np.random.default_rng(seed)
  scores, labels = rng.integers(0, 4, (20, num_classes)), rng.integers(0, num_classes, 20)
  result = classification_metrics(top_classes(scores), labels, [str(index) for index in range(num_classes)])
  own = scores[np.arange(20), labels]
  earlier = (scores == own[:, None]) & (np.arange(num_classes) < labels[:, None])
  rank = (scores > own[:, None]).sum(axis=1) + earlier.sum(axis=1)
  assert result.top1 == np.mean(rank < 1)
  assert result.top5 == np.mean(rank < 5)
  assert result.counts.sum() == 20


@pytest.mark.parametrize(
  ("scores", "message"),
  [
    ([[1, 2], [np.nan, 1]], r"1 of 2 images have a score that is NaN, the first is image number 1 \(class 0\)"),
    ([1, 2], r"the scores have shape \(2,\); expected \(images, classes\)"),
  ],
)
def test_bad_scores(scores: list[object], message: str) -> None:
  with pytest.raises(ClassificationError, match=message):
    top_classes(scores)


@pytest.mark.parametrize(
  ("top", "labels", "message"),
  [
    ([], [], r"the labels have shape \(0,\); expected \(images,\) with at least one image"),
    ([[0, 1, 2, 3, 4]], [0, 1], r"the best classes have shape \(1, 5\); expected \(2, 5\) for 2 labels and 6 classes"),
    ([[0, 1, 2, 3]], [0], r"the best classes have shape \(1, 4\); expected \(1, 5\)"),
    ([[0, 1, 2, 3, 4]], [6], r"image number 0 has label \[6\], but there are 6 classes, 0\.\.5\. Do the names"),
    ([[0, 1, 2, 3, 9]], [1], r"image number 0 has predicted class \[0, 1, 2, 3, 9\], but there are 6 classes"),
  ],
)
def test_bad_labels(top: list[list[int]], labels: list[int], message: str) -> None:
  with pytest.raises(ClassificationError, match=message):
    classification_metrics(np.array(top), np.array(labels), NAMES)


def test_the_folder(tmp_path: Path) -> None:
  result = classification_metrics(top_classes(np.eye(6)), [0, 1, 2, 3, 4, 4], NAMES)
  files = write_classification_report(tmp_path / "out", result)
  assert {path.name for path in (tmp_path / "out").iterdir()} == set(files)
  content = json.loads(files["top1.json"].read_text())
  assert content["metrics"]["top1"] == pytest.approx(5 / 6)
  assert content["per_class"][5] == {"name": "fox", "images": 0, "top1": None, "top5": None, "taken for": None}
  assert files["per_class.txt"].read_text().splitlines()[5].split() == ["eel", "2", "0.5000", "0.5000", "fox"]
  assert files["confusion.png"].stat().st_size > 1000
