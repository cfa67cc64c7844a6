"""Detections given on: to pandas and supervision, into files, onto the screen."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageShow

from prn_jax.errors import PrnError
from tests.detect.test_draw import GREY, two


class Frame:
  """Stands for pandas.DataFrame: takes columns of equal length."""

  def __init__(self, columns: dict[str, Any]) -> None:
    assert len({len(column) for column in columns.values()}) == 1
    self.columns = columns

  def __getitem__(self, name: str) -> Any:
    return self.columns[name]


class Supervised:
  """Stands for supervision.Detections."""

  def __init__(self, **values: Any) -> None:
    assert values.keys() == {"xyxy", "confidence", "class_id", "data"}
    vars(self).update(values)


def real_or(package: str, name: str, stand_in: type, monkeypatch: pytest.MonkeyPatch) -> None:
  """The package where it is installed, else a stand-in; neither is required."""
  if importlib.util.find_spec(package) is None:
    monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(**{name: stand_in}))  # type: ignore[arg-type]


def test_a_table_for_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
  real_or("pandas", "DataFrame", Frame, monkeypatch)
  found = two()
  table = found.to_pandas()
  assert list(table["name"]) == found.labels
  assert list(table["class"]) == found.classes.tolist()
  corners = np.stack([np.asarray(table[name]) for name in ("x1", "y1", "x2", "y2")], 1)
  np.testing.assert_array_equal(corners, found.boxes_xyxy_px)
  np.testing.assert_array_equal(np.asarray(table["score"]), found.scores)
  assert len(two()[:0].to_pandas()["name"]) == 0


def test_detections_for_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
  real_or("supervision", "Detections", Supervised, monkeypatch)
  found = two()
  other = found.to_supervision()
  np.testing.assert_array_equal(other.xyxy, found.boxes_xyxy_px)
  np.testing.assert_array_equal(other.confidence, found.scores)
  np.testing.assert_array_equal(other.class_id, found.classes)
  assert other.data["class_name"].tolist() == found.labels
  assert two()[:0].to_supervision().xyxy.shape == (0, 4)


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_pandas"), ("supervision", "to_supervision")])
def test_a_package_that_is_missing_is_named(package: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(
    PrnError, match=rf"{method} needs the package '{package}', which is not installed: pip install {package}"
  ):
    getattr(two(), method)()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.bmp"])
def test_a_saved_picture_is_the_drawn_one(name: str, tmp_path: Path) -> None:
  found = two(image=GREY)
  assert found.save(tmp_path / "new" / name) == tmp_path / "new" / name
  with Image.open(tmp_path / "new" / name) as saved:
    difference = np.abs(np.asarray(saved.convert("RGB"), int) - np.asarray(found.draw(), int))
  assert difference.mean() < 8


def test_saved_numbers(tmp_path: Path) -> None:
  found = two()
  assert json.loads(found.save(str(tmp_path / "a.json")).read_text()) == found.to_dict()
  assert found.save(tmp_path / "a.txt").read_text() == found.to_yolo_txt()
  rows = list(csv.DictReader(found.save(tmp_path / "a.csv").open()))
  assert [row["name"] for row in rows] == found.labels
  assert [float(row["x2"]) for row in rows] == found.boxes_xyxy_px[:, 2].tolist()
  with pytest.raises(
    PrnError, match=r"cannot save detections as .*a.gif': the type '\.gif' is unknown; expected one of \.jpg"
  ):
    found.save(tmp_path / "a.gif")
  with pytest.raises(PrnError, match=r"hold no image to draw on"):
    two(path=None).save(tmp_path / "b.jpg")
  assert not (tmp_path / "b.jpg").exists()


def test_show_asks_the_notebook_or_a_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
  found = two(image=GREY)
  shown: list[Image.Image] = []
  monkeypatch.setattr(ImageShow, "show", lambda image, title=None: bool(shown.append(image)) or True)
  found.show()
  monkeypatch.setattr(ImageShow, "show", lambda image, title=None: False)
  with pytest.raises(PrnError, match=r"no program that shows pictures was found.*found\.save\('boxes\.jpg'\)"):
    found.show()
  kernel = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=1))
  monkeypatch.setitem(sys.modules, "IPython", kernel)  # type: ignore[arg-type]
  monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=shown.append))  # type: ignore[arg-type]
  found.show()
  assert [picture.size for picture in shown] == [(100, 60)] * 2
