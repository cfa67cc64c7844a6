"""Names in every script on pictures and figures."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ImageFont, features

from prn_jax import fonts
from prn_jax.detect import draw
from prn_jax.detect.draw import draw_boxes

GREY = np.full((60, 200, 3), 128, np.uint8)
BOX = np.array([[10, 25, 190, 55]], np.float32)
PAIRS = {  # two words of equal length, so that the plates are alike and only the letters differ
  "Chinese": ("猫狗", "车灯"),
  "traditional Chinese": ("貓車", "燈鳥"),
  "Japanese": ("ネコ", "イヌ"),
  "Korean": ("고양", "자동"),
  "a rare syllable of Korean": ("뷁뷁", "뾳뾳"),
  "Cyrillic": ("кошка", "собак"),
  "Greek": ("γάτα", "ίππο"),
  "Hebrew": ("חתול", "סוסה"),
  "Arabic": ("قطة", "كلب"),
  "Vietnamese": ("mèo", "ngừ"),
}


def drawn(name: str, class_id: int = 0) -> bytes:
  return draw_boxes(GREY, BOX, [f"{name} 0.87"], [class_id], font_px=18).tobytes()


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """No fonts but those that come with the packages."""
  caches = (fonts._font_of, draw._tell_lacking)
  monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
  for cache in caches:
    cache.cache_clear()
  yield
  for cache in caches:
    cache.cache_clear()


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("script", PAIRS)
def test_names_are_drawn_with_letters(script: str, caplog: pytest.LogCaptureFixture) -> None:
  one, other = PAIRS[script]
  assert fonts.letters(18).lacking(one + other) == ""
  assert drawn(one) != drawn(other)
  assert not caplog.records


@pytest.mark.usefixtures("bare_machine")
def test_names_without_a_font_become_their_number_and_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
  with caplog.at_level(logging.WARNING):
    first, second = drawn("แมว", 3), drawn("หมา", 4)
    drawn("แมว", 3)
  assert first == drawn("class 3", 3)
  assert second == drawn("class 4", 4)
  assert [record.getMessage() for record in caplog.records] == [
    f"no font of this machine has all letters of the class name '{name}'; it is drawn as 'class {number}'. Install a "
    "font for its script, such as Noto (Debian and Ubuntu: apt install fonts-noto), and draw again."
    for name, number in (("แมว", 3), ("หมา", 4))
  ]


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("name", ["\udcc3t", "a\x07b", "\ue000"])
def test_names_that_are_no_text_are_no_crash(name: str, caplog: pytest.LogCaptureFixture) -> None:
  assert drawn(name, 7) == drawn("class 7", 7)
  caplog.records[0].getMessage().encode()  # can be printed


def test_plain_names_look_as_with_pillow_alone() -> None:
  assert list(fonts._runs("person 0.98")) == [(None, "person 0.98")]
  assert fonts.letters(20).length("person") == ImageFont.load_default(20).getlength("person")


def test_scripts_may_be_mixed_in_one_name() -> None:
  runs = list(fonts._runs("car 猫 кот"))
  assert [text for _, text in runs] == ["car ", "猫 ", "кот"]
  assert runs[1][0] == fonts.CJK


def test_letters_stay_on_their_plate() -> None:
  top, bottom = fonts.letters(30).extent("猫 0.9")
  plain_top, plain_bottom = fonts.letters(30).extent("cat 0.9")
  assert top < plain_top
  assert bottom >= plain_bottom  # the plate grows with the letters


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("قطة", "\ufe94\ufec4\ufed7"),  # from left to right: final teh marbuta, medial tah, initial qaf
    ("سلام", "\ufee1\ufefc\ufeb3"),  # lam and alef are one sign
    ("دار", "\ufead\ufe8d\ufea9"),  # letters that do not join the next one
    ("قطة سوداء 0.98", "\ufe80\ufe8d\ufea9\ufeee\ufeb3 \ufe94\ufec4\ufed7 0.98"),
    ("חתול 1", "לותח 1"),
    ("cat", "cat"),
  ],
)
def test_arabic_is_joined_and_turned_where_raqm_is_missing(
  text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(features, "check_feature", lambda name: False)
  assert fonts._shaped(text) == shown


def test_figures_take_the_fonts_of_their_letters() -> None:
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  def figure(name: str) -> bytes:
    shown = Figure(figsize=(2, 1))
    FigureCanvasAgg(shown)
    shown.add_subplot().set_yticks([0.0, 1.0], [name, "b"])
    buffer = io.BytesIO()
    with fonts.fitted(shown):
      shown.savefig(buffer, format="png")
    return buffer.getvalue()

  assert figure("猫") != figure("狗")
  assert figure("고") != figure("양")


def test_the_carried_font_is_small_and_says_where_it_is_from() -> None:
  assert fonts.CJK.stat().st_size < 2_300_000
  notice = fonts.CJK.with_name("cjk.ttf.NOTICE.txt").read_text(encoding="utf-8")
  assert "Apache License" in notice
