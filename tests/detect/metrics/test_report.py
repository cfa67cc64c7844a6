"""Tables, plots, the contact sheet and the folder that holds them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from prn_jax.data_pipelines.records import Object
from prn_jax.detect.metrics import (
  FIGURES,
  Settings,
  assign,
  compute_curves,
  confusion_matrix,
  contact_sheet,
  evaluate,
  explain,
  format_table,
  with_confidence,
  write_report,
)
from prn_jax.detect.metrics import plots as plots_module
from prn_jax.detect.metrics.data import ImageId
from prn_jax.errors import PrnError
from tests.detect.metrics.scenes import one_image, random_data

BOX = (0.0, 0.0, 10.0, 10.0)
GREY = np.full((200, 200, 3), 128, np.uint8)


def read_grey(image_id: ImageId) -> np.ndarray:
  return GREY


def test_the_contract_of_the_command() -> None:
  data = random_data(1)
  for protocol, keys in (
    ("coco", set(FIGURES)),
    ("voc07", {"mAP"}),
    ("voc", {"mAP"}),
    ("darknet", {"mAP", "precision", "recall", "F1", "avg_iou", "TP", "FP", "FN"}),
  ):
    content = evaluate(data, protocol).to_json()
    assert set(content) == {"metrics", "images", "detections", "protocol"}
    assert set(content["metrics"]) == keys
    assert (content["images"], content["detections"]) == (data.num_images, data.num_detections)
    json.dumps(content, allow_nan=False)


def test_settings_reach_the_protocols() -> None:
  data = one_image([Object(BOX, 0)], [((0.0, 0.0, 10.0, 5.0), 0.9, 0)], num_classes=1)
  assert evaluate(data, "voc", Settings(iou_threshold=0.6)).metrics == {"mAP": 0.0}
  assert evaluate(data, "darknet", Settings(iou_threshold=0.4, conf_threshold=0.95)).metrics["TP"] == 0
  assert evaluate(data, "coco", Settings(backend="pycocotools")).backend == "pycocotools"
  assert evaluate(data, "coco", Settings(pixels="inclusive")).metrics["AP50"] == pytest.approx(1)
  assert evaluate(data, "darknet", Settings(points=11, iou_threshold=0.4)).metrics["mAP"] == pytest.approx(1)


def test_tables() -> None:
  data = one_image([Object(BOX, 0)], [(BOX, 0.9, 0), (BOX, 0.5, 1)])
  result = evaluate(data)
  text = result.text()
  assert text.startswith("1 images, 2 detections, protocol coco\n  AP     1.0000\n")
  rows = with_confidence(result.per_class, compute_curves(data), 0.25)
  assert rows[0] | {"name": "x"} == {
    "name": "x", "truths": 1, "detections": 1, "AP": pytest.approx(1), "AP50": pytest.approx(1),
    "AP75": pytest.approx(1), "APs": pytest.approx(1), "APm": None, "APl": None, "AR100": pytest.approx(1),
    "precision": 1.0, "recall": 1.0, "F1": 1.0, "best F1": 1.0, "at": 0.0,
  }  # fmt: skip
  assert rows[1]["best F1"] is None
  lines = format_table(rows).splitlines()
  assert lines[0].split() == ["name", *list(rows[0])[1:-2], "best", "F1", "at"]
  assert lines[2].split()[:5] == ["class", "1", "0", "1", "-"]
  assert len({len(line) for line in lines}) <= 2
  assert format_table([]) == ""


@pytest.mark.parametrize(("num_classes", "protocol"), [(1, "voc07"), (3, "darknet"), (30, "coco")])
def test_the_folder(tmp_path: Path, num_classes: int, protocol: str) -> None:
  data = random_data(3, num_images=20, num_classes=num_classes)
  out = tmp_path / "new"
  for _ in range(2 if num_classes == 1 else 1):  # a second run replaces the first
    report = write_report(out, data, evaluate(data, protocol), read_image=read_grey, explanation=explain(data))
    names = {path.name for path in out.iterdir()}
    assert names == set(report.files) == {
      f"{protocol}.json", "per_class.txt", "curves.json", "confusion.json", "pr_curves.png", "f1_curve.png",
      "class_ap.png", "confusion.png", "mistakes.png", "mistakes.json", "explain.json", "explain.txt",
    }  # fmt: skip
    for path in out.glob("*.json"):
      json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    for path in out.glob("*.png"):
      with Image.open(path) as image:
        assert min(image.size) > 200
    summary = json.loads((out / f"{protocol}.json").read_text())
    assert summary["protocol"] == protocol
    assert len(summary["per_class"]) == num_classes


def test_the_folder_of_nothing(tmp_path: Path) -> None:
  data = one_image([], [])
  report = write_report(tmp_path, data, evaluate(data))
  assert report.sheet is None
  assert "mistakes.png" not in report.files
  assert json.loads((tmp_path / "coco.json").read_text())["metrics"]["AP"] == -1


def test_many_classes_and_odd_names(tmp_path: Path) -> None:
  names = [f"a rather long class name, number {index} $x_{index}$" for index in range(130)]
  counts = np.eye(131, dtype=np.int64) * 20_000 + np.eye(131, k=1, dtype=np.int64)
  figure = plots_module.plot_confusion_counts([*names, "background"], counts)
  axes = figure.axes[0]
  assert 58 <= len(axes.get_yticklabels()) <= 61
  assert axes.get_yticklabels()[-1].get_text() == "background"
  assert "most confused of 131 classes" in "".join(text.get_text() for text in axes.texts)
  path = plots_module.save_png(figure, tmp_path / "confusion.png")
  with Image.open(path) as image:
    assert image.width < 3000


def test_labels_do_not_overlap() -> None:
  """The tick labels of 80 classes keep clear of each other, and the subtitle of the title."""
  data = random_data(5, num_images=30, num_classes=80)
  rows = with_confidence(evaluate(data).per_class, compute_curves(data), 0.25)
  rows = [row | {"AP": 0.5, "truths": 3} for row in rows]
  for figure in (plots_module.plot_confusion(confusion_matrix(assign(data))), plots_module.plot_class_ap(rows)):
    figure.canvas.draw()
    axes = figure.axes[0]
    labels = sorted((box.y0, box.y1) for box in (label.get_window_extent() for label in axes.get_yticklabels()))
    assert len(labels) >= 80
    assert all(below[1] <= above[0] + 1 for below, above in itertools.pairwise(labels))
    texts = {text.get_text(): text.get_window_extent() for text in axes.findobj(Text) if text.get_text()}
    subtitle = next(box for text, box in texts.items() if "confidence above" in text or "80 classes" in text)
    assert subtitle.y1 <= texts[axes.get_title(loc="left")].y0 + 1
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_names_in_other_scripts(tmp_path: Path) -> None:
  data = dataclasses.replace(one_image([Object(BOX, 0)], [(BOX, 0.9, 0)]), names=("_\u72ac$", "\u732b^{"))
  for number, figure in enumerate(
    (plots_module.plot_pr_curves(compute_curves(data)), plots_module.plot_confusion(confusion_matrix(assign(data))))
  ):
    assert plots_module.save_png(figure, tmp_path / f"{number}.png").stat().st_size > 1000
  legend = plots_module.plot_pr_curves(compute_curves(data)).axes[0].get_legend()
  assert legend.get_texts()[0].get_text().startswith(" _\u72ac$")


def test_the_sheet_shows_the_worst_images() -> None:
  objects = [Object((10, 10, 60, 60), 0)]
  data = one_image(objects, [((70.0, 70.0, 90.0, 90.0), 0.9, 1)])
  picture, sheet = contact_sheet(assign(data), lambda image_id: np.full((100, 100, 3), 128, np.uint8))
  assert [entry.image_id for entry in sheet.wrong] == [1]
  assert [entry.image_id for entry in sheet.missed] == [1]
  assert sheet.wrong[0].mistakes[0].name == "class 1"
  assert not sheet.unreadable
  # The photo of 100x100 fills the tile's height of 270, in its middle, below a heading of 64 pixels.
  scale, left, top = 2.7, 14 + 45, 64
  at_wrong = picture.getpixel((int(left + 80 * scale), int(top + 90 * scale)))
  at_truth = picture.getpixel((int(left + 35 * scale), int(top + 60 * scale)))
  assert at_wrong == (0xE4, 0x00, 0x2B)
  assert at_truth == (0x12, 0xB7, 0x6A)


def test_unreadable_images_leave_an_empty_tile() -> None:
  def broken(image_id: ImageId) -> np.ndarray:
    raise PrnError("the JPEG data is cut")

  data = one_image([Object(BOX, 0)], [])
  picture, sheet = contact_sheet(assign(data), broken)
  assert sheet.unreadable == {1: "the JPEG data is cut"}
  assert sheet.to_json()["unreadable"] == {"1": "the JPEG data is cut"}
  assert picture.width > 1000


def test_extreme_images_fit_their_tiles() -> None:
  data = one_image([Object((0, 0, 20000, 50), 0)], [((-50.0, -50.0, 40000.0, 400.0), 0.9, 1)])
  for shape in ((50, 20000, 3), (1, 1, 3), (4000, 10, 3)):
    picture, _ = contact_sheet(assign(data), lambda image_id, shape=shape: np.zeros(shape, np.uint8))
    assert picture.size == (4 * 374 + 14, 2 * (64 + 324) + 14)


def test_matplotlib_comes_late() -> None:
  code = "import sys, prn_jax.detect.metrics; sys.exit('matplotlib' in sys.modules or 'jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
