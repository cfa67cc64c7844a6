"""Where the doctor says a box stands: file and line of every format that has lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prn_jax.data_pipelines.doctor.split import open_split
from prn_jax.data_pipelines.reading.lines import json_line
from tests.data_pipelines.test_source_oxfordhand import mat
from tests.fuzz.labels import photo  # 12 x 8

XYXY = ((1, 1, 4, 3), (2, 2, 6, 7))
HANDS = [[(y, x) for y, x in ((y1, x1), (y2, x1), (y2, x2), (y1, x2))] for x1, y1, x2, y2 in XYXY]
LINES = [f"{x1},{y1},{x2 - x1},{y2 - y1},1,4,0,0" for x1, y1, x2, y2 in XYXY]


def visdrone(folder: Path) -> tuple[str, str]:
  photo(folder / "images" / "a.jpg")
  (folder / "annotations").mkdir()
  (folder / "annotations" / "a.txt").write_text(f"{LINES[0]}\n0,0,5,5,0,0,0,0\n{LINES[1]}\n")
  return f"visdrone:{folder}", f"{folder}/annotations/a.txt:3"


def frame(**more: Any) -> dict[str, Any]:
  boxes = [{"category": "car", "box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))} for box in XYXY]
  return {"name": "a.jpg", "labels": [{"category": "lane"}, *boxes], **more}


def bdd100k(folder: Path) -> tuple[str, str]:
  photo(folder / "a.jpg")
  text = json.dumps([frame()], indent=1)
  (folder / "a.json").write_text(text)
  return f"bdd100k:{folder / 'a.json'}:{folder}", f"{folder}/a.json:{text[: text.rindex('category')].count(chr(10))}"


def bdd100k_in_one_line(folder: Path) -> tuple[str, str]:
  photo(folder / "a.jpg")
  (folder / "a.json").write_text(json.dumps({"frames": [frame()]}))
  return f"bdd100k:{folder / 'a.json'}:{folder}", f"{folder}/a.json: image a.jpg, label 3"


def dior(folder: Path) -> tuple[str, str]:
  photo(folder / "JPEGImages-trainval" / "a.jpg")
  (folder / "Main").mkdir()
  (folder / "Main" / "val.txt").write_text("a\n")
  (folder / "Annotations").mkdir()
  boxes = "".join(
    f"<object><name>ship</name>\n<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>\n"
    for a, b, c, d in XYXY
  )
  (folder / "Annotations" / "a.xml").write_text(f"<annotation>\n{boxes}</annotation>")
  return f"dior:{folder}:val", f"{folder}/Annotations/a.xml:4"


def oxfordhand(folder: Path) -> tuple[str, str]:
  place = folder / "test_dataset" / "test_data"
  photo(place / "images" / "a.jpg")
  (place / "annotations").mkdir()
  (place / "annotations" / "a.mat").write_bytes(mat(*HANDS))
  return f"oxfordhand:{folder}:test", f"{place}/annotations/a.mat: hand 2"


def openimages(folder: Path) -> tuple[str, str]:
  photo(folder / "images" / "a.jpg")
  (folder / "c.csv").write_text("/m/1,Car\n/m/2,Cat\n")
  rows = [f"a,/m/1,{x1 / 12},{x2 / 12},{y1 / 8},{y2 / 8},0" for x1, y1, x2, y2 in XYXY]
  text = "\n".join(["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf", *rows])
  (folder / "b.csv").write_text(text)
  return f"openimages:{folder / 'b.csv'}:{folder / 'c.csv'}:{folder / 'images'}", f"{folder}/b.csv:3"


def labelstudio(folder: Path) -> tuple[str, str]:
  photo(folder / "a.jpg")
  regions = [
    {
      "original_width": 12, "original_height": 8,
      "value": {
        "x": 100 * x1 / 12, "y": 100 * y1 / 8, "width": 100 * (x2 - x1) / 12, "height": 100 * (y2 - y1) / 8,
        "rotation": 0, "rectanglelabels": ["car"],
      },
    }
    for x1, y1, x2, y2 in XYXY
  ]  # fmt: skip
  task = {"id": 7, "data": {"image": "a.jpg"}, "annotations": [{"result": regions}]}
  (folder / "a.json").write_text(json.dumps([task]))
  return f"labelstudio:{folder / 'a.json'}:{folder}", f"{folder}/a.json: task 7: region 2"


def labelme(folder: Path) -> tuple[str, str]:
  photo(folder / "a.jpg")
  shapes = [{"label": "car", "shape_type": "rectangle", "points": [[a, b], [c, d]]} for a, b, c, d in XYXY]
  text = json.dumps({"imagePath": "a.jpg", "imageWidth": 12, "imageHeight": 8, "shapes": shapes}, indent=2)
  (folder / "a.json").write_text(text)
  return f"labelme:{folder}", f"{folder}/a.json:{text[: text.rindex('label')].count(chr(10))}"


def cvat(folder: Path) -> tuple[str, str]:
  photo(folder / "a.jpg")
  boxes = "\n".join(f'<box label="car" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for a, b, c, d in XYXY)
  image = f'<image name="a.jpg" width="12" height="8">\n{boxes}\n</image>'
  (folder / "a.xml").write_text(f"<annotations>\n{image}\n</annotations>")
  return f"cvat:{folder / 'a.xml'}:{folder}", f"{folder}/a.xml:4"


@pytest.mark.parametrize(
  "make",
  [visdrone, bdd100k, bdd100k_in_one_line, dior, oxfordhand, openimages, labelstudio, labelme, cvat],
)
def test_the_place_of_a_box(make: Callable[[Path], tuple[str, str]], tmp_path: Path) -> None:
  spec, place = make(tmp_path)
  split = open_split(spec, decode=False)
  assert not split.problems
  assert split.place_of_box(1) == place
  (tmp_path / "sets.yaml").write_text(f'sets:\n- spec: "{spec}"\n')
  joined = open_split(f"sets:{tmp_path / 'sets.yaml'}", decode=False)
  assert joined.place_of_box(1) == place


JSON = st.recursive(
  st.integers() | st.text('a{}[],:\\"\n', max_size=5),
  lambda inner: (
    st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text('a"{', max_size=2), inner, min_size=1)
  ),
  max_leaves=8,
)


@given(JSON, st.data())
def test_lines_of_json(value: Any, data: st.DataObject) -> None:
  way: list[str | int] = []
  inner = value
  while isinstance(inner, list | dict) and data.draw(st.booleans()):
    way.append(data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))))
    inner = inner[way[-1]]
  marked = mark(value, way)
  text = json.dumps(marked, indent=1)
  assert json_line(text, way) == text[: text.index("unmistakable")].count("\n") + 1


def mark(value: Any, way: list[str | int]) -> Any:
  """The value with a word that nothing else holds at the end of the way."""
  if not way:
    return "unmistakable"
  items = value.items() if isinstance(value, dict) else enumerate(value)
  changed = {key: mark(inner, way[1:]) if key == way[0] else inner for key, inner in items}
  return changed if isinstance(value, dict) else list(changed.values())


def test_of_repeated_keys_the_last_counts() -> None:
  assert json_line('{"a": 1,\n"a": 2}', ["a"]) == 2
  with pytest.raises(LookupError, match="there is no 'b'"):
    json_line('{"a": 1}', ["b"])
