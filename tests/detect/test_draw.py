"""Results of one image: formats and messages; pictures whose labels stay inside and can be read."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prn_jax.data_pipelines.images import ImageError
from prn_jax.detect import draw
from prn_jax.detect.detections import Detections
from prn_jax.detect.draw import class_color, draw_boxes, text_color
from prn_jax.errors import PrnError

NAMES = ("person", "traffic light", "<dog>")
GREY = np.full((60, 100, 3), 90, np.uint8)


def two(**changes: object) -> Detections:
  fields = {
    "boxes_xyxy_px": [[10, 5, 30, 45], [-20, 30, 120, 90]],
    "scores": [0.75, 0.5],
    "classes": [1, 2],
    "names": NAMES,
    "image_width": 100,
    "image_height": 60,
    "path": "street.jpg",
  }
  return Detections(**fields | changes)


# -- formats -----------------------------------------------------------------------------------------------------------


def test_arrays_and_selection() -> None:
  found = two()
  assert (found.boxes_xyxy_px.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int32)
  assert len(found) == 2
  assert found.labels == ["traffic light", "<dog>"]
  assert found[found.scores > 0.6].labels == ["traffic light"]
  assert [one.labels for one in found] == [["traffic light"], ["<dog>"]]
  assert found[-1].boxes_xyxy_px.tolist() == [[-20, 30, 120, 90]]
  assert two(uncertainty=np.arange(8).reshape(2, 4))[1].uncertainty.tolist() == [[4, 5, 6, 7]]
  assert len(Detections([], [], [], image_width=5, image_height=5)) == 0


def test_clipped_keeps_the_original() -> None:
  found = two()
  assert found.clipped().boxes_xyxy_px.tolist() == [[10, 5, 30, 45], [0, 30, 100, 60]]
  assert found.boxes_xyxy_px[1].tolist() == [-20, 30, 120, 90]


def test_coco_rows_are_clipped_and_mapped() -> None:
  assert two().to_coco(7) == [
    {"image_id": 7, "category_id": 1, "bbox": [10.0, 5.0, 20.0, 40.0], "score": 0.75},
    {"image_id": 7, "category_id": 2, "bbox": [0.0, 30.0, 100.0, 30.0], "score": 0.5},
  ]
  assert [row["category_id"] for row in two().to_coco(7, (1, 10, 90))] == [10, 90]
  with pytest.raises(PrnError, match="class 2 was detected, but there are only 2 category ids"):
    two().to_coco(7, (1, 10))


def test_yolo_txt_is_relative_and_clipped() -> None:
  assert two().to_yolo_txt() == "1 0.200000 0.416667 0.200000 0.666667\n2 0.500000 0.750000 1.000000 0.500000\n"
  assert two().to_yolo_txt(with_scores=True).splitlines()[0] == "1 0.200000 0.416667 0.200000 0.666667 0.750000"
  assert Detections([], [], [], image_width=5, image_height=5).to_yolo_txt() == ""


def test_dict_has_plain_values() -> None:
  plain = two(uncertainty=np.full((2, 4), 0.25)).to_dict()
  assert (plain["path"], plain["width"], plain["height"]) == ("street.jpg", 100, 60)
  assert plain["detections"][1] == {
    "class": 2, "name": "<dog>", "score": 0.5, "box_xyxy_px": [-20.0, 30.0, 120.0, 90.0], "uncertainty_xywh": [0.25] * 4,
  }  # fmt: skip
  assert "uncertainty_xywh" not in two().to_dict()["detections"][0]
  assert two(names=()).to_dict()["detections"][0]["name"] == "class 1"


def test_table() -> None:
  assert str(two()).splitlines() == [
    "2 detections in street.jpg (100x60)",
    "  class          score       x1       y1       x2       y2",
    "  traffic light  0.750     10.0      5.0     30.0     45.0",
    "  <dog>          0.500    -20.0     30.0    120.0     90.0",
  ]
  many = Detections(np.zeros((25, 4)), np.zeros(25), np.zeros(25), image_width=4, image_height=4)
  assert str(many).splitlines()[-1] == "  ... and 5 more"
  assert str(many[[]]) == "0 detections in an image (4x4)"


def test_wrong_arrays() -> None:
  with pytest.raises(PrnError, match="2 boxes, 1 scores and 2 classes; expected equal"):
    two(scores=[0.5])
  with pytest.raises(PrnError, match=r"class ids from 1 to 3, but 3 names; the names do not belong to the network"):
    two(classes=[1, 3])


def test_notebook_display() -> None:
  assert two()._repr_png_() is None
  assert two()._repr_html_().startswith("<pre>2 detections")
  shown = two(image=GREY)
  assert Image.open(io.BytesIO(shown._repr_png_())).size == (100, 60)
  assert shown._repr_html_().startswith('<img src="data:image/jpeg;base64,')
  assert "&lt;dog&gt;" in shown._repr_html_()


def test_draw_finds_its_image(tmp_path: Path) -> None:
  Image.fromarray(GREY).save(tmp_path / "street.png")
  drawn = two(path=str(tmp_path / "street.png")).draw()
  np.testing.assert_array_equal(drawn, two(image=GREY).draw())
  np.testing.assert_array_equal(drawn, two().draw(GREY))
  with pytest.raises(PrnError, match=r"hold no image to draw on; pass one: draw\(image_u8\)"):
    two(path=None).draw()
  with pytest.raises(PrnError, match="hold no image"):
    two(path="https://example.org/street.jpg").draw()
  with pytest.raises(ImageError, match=r"street\.jpg' does not exist"):
    two().draw()
  with pytest.raises(PrnError, match="cannot draw on an image of 60x100 pixels: the boxes belong to one of 100x60"):
    two().draw(GREY.transpose(1, 0, 2))


def test_results_need_no_jax() -> None:
  code = "import sys, prn_jax.detect.detections, prn_jax.detect.draw, prn_jax.data_pipelines.images; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


# -- pictures ----------------------------------------------------------------------------------------------------------


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
  def luminance(color: tuple[int, int, int]) -> float:
    linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))

  low, high = sorted((luminance(a), luminance(b)))
  return (high + 0.05) / (low + 0.05)


def test_colours_are_stable_distinct_and_readable() -> None:
  colors = [class_color(i) for i in range(80)]
  assert colors == [class_color(i) for i in range(80)]
  assert len(set(colors)) == 80
  assert min(contrast(color, text_color(color)) for color in colors) >= 4.5  # WCAG's level for text
  steps = [np.abs(np.subtract(colors[i], colors[i + 1])).max() for i in range(79)]
  assert min(steps) > 60


def test_lines_are_where_the_box_is() -> None:
  image = np.full((200, 200, 3), 90, np.uint8)
  drawn = np.asarray(draw_boxes(image, np.array([[50, 60, 150, 160]]), [""], [0], line_px=2))
  changed = (drawn != 90).any(2)
  rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
  assert (columns[0], rows[0], columns[-1], rows[-1]) == (50, 60, 149, 159)
  assert not changed[70:150, 60:140].any()
  assert tuple(drawn[60, 100]) == class_color(0)


def test_the_input_is_not_changed() -> None:
  image = GREY.copy()
  two().draw(image)
  np.testing.assert_array_equal(image, GREY)


def test_text_and_lines_grow_with_the_picture() -> None:
  sizes = []
  for factor in (1, 6, 24):
    image = np.zeros((100 * factor, 160 * factor, 3), np.uint8)
    box = np.array([[40, 40, 120, 90]]) * factor
    plain, labelled = (np.asarray(draw_boxes(image, box, [text], [3])).any(2) for text in ("", "dog 0.93"))
    rows = np.flatnonzero((plain != labelled).any(1))
    sizes.append((len(rows), int(plain[:, 80 * factor].sum())))
  heights, lines = zip(*sizes, strict=True)
  assert 10 <= heights[0] < heights[1] < heights[2]
  assert heights[2] / heights[1] == pytest.approx(4, abs=1)
  assert 2 <= lines[0] <= lines[1] < lines[2]


@settings(max_examples=60, deadline=None)
@given(
  st.integers(1, 300),
  st.integers(1, 300),
  st.lists(st.tuples(*[st.floats(-400, 700)] * 4), max_size=8),
  st.sampled_from(["dog 0.93", "traffic light 0.87", "", "a-very-long-name-without-any-space", "x"]),
)
def test_any_box_in_any_picture(width: int, height: int, boxes: list[tuple[float, ...]], label: str) -> None:
  picture = np.full((height, width, 3), 90, np.uint8)
  corners = np.array(boxes, np.float32).reshape(-1, 4)
  drawn = draw_boxes(picture, corners, [label] * len(corners), range(len(corners)))
  assert drawn.size == (width, height)
  assert drawn.mode == "RGB"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_stay_inside_and_apart(data: st.DataObject) -> None:
  width, height = data.draw(st.integers(60, 400)), data.draw(st.integers(40, 400))
  taken: list[draw.Rect] = []
  for _ in range(6):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    place = draw._free_place(box, (50, 15), 2, (width, height), taken)
    if place is None:
      continue
    assert 0 <= place[0] < place[2] <= width
    assert 0 <= place[1] < place[3] <= height
    assert (place[2] - place[0], place[3] - place[1]) == (50, 15)
    assert sum(draw._overlap(place, other) for other in taken) <= draw.MAX_HIDDEN * 50 * 15
    taken.append(place)


def test_a_label_goes_above_or_else_below() -> None:
  assert draw._free_place((30, 40, 60, 80), (50, 12), 2, (200, 100), []) == (30, 28, 80, 40)
  assert draw._free_place((30, 5, 60, 25), (50, 12), 2, (200, 100), []) == (30, 25, 80, 37)  # no room above
  assert draw._free_place((0, 0, 200, 100), (50, 12), 2, (200, 100), []) == (0, 0, 50, 12)  # a box as large as all
  assert draw._free_place((30, 40, 60, 80), (50, 12), 2, (40, 100), []) is None
  assert draw._free_place((10, 10, 40, 20), (50, 12), 2, (52, 30), [(0, 0, 52, 30)]) is None


def test_long_names_are_shortened_before_the_score() -> None:
  font = draw.letters(10)
  whole = draw._label_size("traffic light 0.87", font)[0]
  assert draw._fitted("traffic light 0.87", font, whole) == "traffic light 0.87"
  short = draw._fitted("traffic light 0.87", font, whole - 1)
  assert short.startswith("traffic li")
  assert short.endswith(".. 0.87")
  assert draw._label_size(short, font)[0] <= whole - 1
  assert draw._fitted("traffic light 0.87", font, 30) == "0.87"
  assert draw._fitted("traffic light 0.87", font, 3) == ""


def test_better_boxes_lie_on_top_and_broken_ones_are_left_out() -> None:
  image = np.zeros((80, 80, 3), np.uint8)
  same = np.array([[20, 20, 60, 60], [20, 20, 60, 60], [np.nan, 0, 1, np.inf]])
  drawn = np.asarray(draw_boxes(image, same, ["", "", "broken 0.99"], [4, 5, 6]))
  assert tuple(drawn[20, 40]) == class_color(4)
  assert not (drawn == class_color(6)).all(2).any()


def test_a_full_picture_leaves_labels_out() -> None:
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 80, (50, 2))
  corners = np.concatenate([low, low + rng.uniform(5, 20, (50, 2))], 1)
  image = np.zeros((100, 100, 3), np.uint8)
  plain, labelled = (np.asarray(draw_boxes(image, corners, [text] * 50, range(50))) for text in ("", "dog 0.9"))
  covered = (plain != labelled).any(2).mean()
  assert 0.1 < covered <= draw.MAX_COVERED


def test_unequal_lengths() -> None:
  with pytest.raises(ValueError, match="1 boxes, 2 labels and 1 classes; expected equal"):
    draw_boxes(GREY, np.zeros((1, 4)), ["a", "b"], [0])
