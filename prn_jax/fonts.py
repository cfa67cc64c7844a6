"""Text on pictures in every script: the first font that has a letter draws it.

Pillow's own font draws Latin; DejaVu Sans, which comes with matplotlib, Greek, Cyrillic, Hebrew, Arabic, Armenian and
Georgian; the carried `assets/cjk.ttf` Chinese, Japanese and Korean; a font of the system whatever it has. What no font
has is told by `lacking`, and must be written otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont, features

if TYPE_CHECKING:
  from matplotlib.figure import Figure

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

CJK = Path(__file__).parent / "assets" / "cjk.ttf"
_PROBE_PX = 24  # large enough that glyphs differ
_ABSENT = "\uffff"  # no character, so that every font draws its sign for a missing one


class Letters:
  """Draws text of one size.

  Args:
    size_px: height of the letters in pixels.
  """

  def __init__(self, size_px: int) -> None:
    self.size = size_px
    self._base = _opened(None, size_px)

  def lacking(self, text: str) -> str:
    """The characters of a text that no font has, each once."""
    return "".join(char for char in dict.fromkeys(text) if _font_of(char) is _NONE)

  def length(self, text: str) -> float:
    """Width in pixels."""
    return sum(_opened(path, self.size).getlength(_shaped(run)) for path, run in _runs(text))

  def extent(self, text: str) -> tuple[float, float]:
    """Top and bottom in pixels below the corner that `draw` takes; the same for all text of the base font."""
    _, top, _, bottom = self._base.getbbox("Ag")
    for path, run in _runs(text):
      if path is not None:
        box = self._placed(path).getbbox(_shaped(run), anchor="ls")
        top, bottom = min(top, self._ascent + box[1]), max(bottom, self._ascent + box[3])
    return top, bottom

  def draw(
    self, canvas: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, fill: tuple[int, int, int] | str
  ) -> None:
    """Writes one line with its upper left corner at `xy`."""
    x, y = xy
    for path, run in _runs(text):
      shaped = _shaped(run)
      if path is None:
        canvas.text((x, y), shaped, fill=fill, font=self._base)
      else:
        canvas.text((x, y + self._ascent), shaped, fill=fill, font=self._placed(path), anchor="ls")
      x += _opened(path, self.size).getlength(shaped)

  @property
  def _ascent(self) -> int:
    return self._base.getmetrics()[0] if isinstance(self._base, ImageFont.FreeTypeFont) else 0

  def _placed(self, path: Path) -> ImageFont.FreeTypeFont:
    font = _opened(path, self.size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@functools.lru_cache(maxsize=64)
def letters(size_px: int) -> Letters:
  """The `Letters` of a size."""
  return Letters(size_px)


@contextlib.contextmanager
def fitted(figure: Figure) -> Iterator[None]:
  """Gives every text of a matplotlib figure the fonts that its letters need; the figure is saved inside.

  A letter that no font has becomes a box, and nothing is said: a warning for each would not help.
  """
  from matplotlib import font_manager
  from matplotlib.text import Text

  texts = [item for item in figure.findobj(Text) if isinstance(item, Text)]
  chars = dict.fromkeys("".join(item.get_text() for item in texts))
  needed = [path for path in dict.fromkeys(map(_font_of, chars)) if path not in (None, _NONE, _dejavu())]
  families = ["DejaVu Sans"]
  for path in needed:
    font_manager.fontManager.addfont(str(path))
    families.append(font_manager.FontProperties(fname=str(path)).get_name())
  for item in texts if needed else ():
    item.set_fontfamily(families)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    yield


# -- which font draws what ---------------------------------------------------------------------------------------------

_NONE = Path("no font")


def _runs(text: str) -> Iterator[tuple[Path | None, str]]:
  """Pieces of the text with the file of their font (None: Pillow's own). As few as possible: a word is not cut."""
  chars = [char for char in text if _font_of(char) is not _NONE]
  if not chars:
    return
  for path in dict.fromkeys(_font_of(char) for char in chars):
    if all(_has(path, char) for char in chars):
      yield path, "".join(chars)
      return
  run, current = "", _font_of(chars[0])
  for char in chars:
    path = current if _has(current, char) else _font_of(char)
    if path != current and run:
      yield current, run
      run = ""
    run, current = run + char, path
  yield current, run


@functools.lru_cache(maxsize=4096)
def _font_of(char: str) -> Path | None:
  """The first font that has a character; `_NONE` where none does."""
  if unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn"):
    return _NONE
  for path in (None, _dejavu(), CJK, *_system_fonts()):
    if path is not _NONE and _has(path, char):
      return path
  return _NONE


@functools.lru_cache(maxsize=16384)
def _has(path: Path | None, char: str) -> bool:
  """Whether a font has a character: it draws something else than for one that no font has."""
  if char.isspace() or unicodedata.category(char) == "Cf":  # nothing to see
    return True
  try:
    drawn = _glyph(path, char)
    return drawn[0] != (0, 0) and drawn != _glyph(path, _ABSENT)
  except (OSError, ValueError):  # a bitmap font of other sizes
    return False


@functools.lru_cache(maxsize=4096)
def _glyph(path: Path | None, char: str) -> tuple[tuple[int, int], bytes]:
  """Size and pixels of one character by itself: Raqm would put a sign for the missing letter below an accent."""
  font = _opened(path, _PROBE_PX)
  if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType: a few letters of Latin
    return ((1, 1), char.encode()) if char.isascii() else ((0, 0), b"")
  mask = font.font_variant(layout_engine=ImageFont.Layout.BASIC).getmask(char)
  return mask.size, bytes(mask)


@functools.lru_cache(maxsize=128)
def _opened(path: Path | None, size_px: int) -> Font:
  return ImageFont.load_default(size=size_px) if path is None else ImageFont.truetype(str(path), size_px)


@functools.cache
def _dejavu() -> Path:
  spec = importlib.util.find_spec("matplotlib")
  path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if spec and spec.origin else _NONE
  return path if path.is_file() else _NONE


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
  """Fonts of the system that can be opened; upright ones of normal weight first, Noto before others."""
  home = Path.home()
  folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"]
  if sys.platform == "darwin":
    folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
  elif sys.platform == "win32":
    folders = [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"]
  found: list[Path] = []
  for folder in folders:
    for place, _, files in os.walk(folder):
      found += [Path(place, name) for name in files if name.lower().endswith((".ttf", ".otf", ".ttc"))]
  return tuple(path for path in sorted(found, key=_preference) if _opens(path))


def _preference(path: Path) -> tuple[bool, bool, str]:
  name = path.stem.lower()
  odd = any(word in name for word in ("bold", "italic", "oblique", "light", "mono", "serif", "thin", "condensed"))
  return odd, "noto" not in name, str(path)


def _opens(path: Path) -> bool:
  try:
    ImageFont.truetype(str(path), _PROBE_PX)
  except OSError:
    return False
  return True


# -- Arabic without Raqm -----------------------------------------------------------------------------------------------


def _shaped(text: str) -> str:
  """The text as a font without Raqm must be given it: letters of Arabic joined, right-to-left words reversed."""
  if text.isascii() or features.check_feature("raqm") or not any(map(_is_right_to_left, text)):
    return text
  words = [_joined(word)[::-1] if any(map(_is_right_to_left, word)) else word for word in text.split(" ")]
  order: list[str] = []
  run: list[str] = []
  for word in [*words, ""]:
    if any(map(_is_right_to_left, word)):
      run.append(word)
      continue
    order += [*reversed(run), word]
    run = []
  return " ".join(order[:-1])


def _is_right_to_left(char: str) -> bool:
  return unicodedata.bidirectional(char) in ("R", "AL")


@functools.cache
def _forms() -> dict[str, dict[str, str]]:
  """Letter (or lam and alef) -> {"isolated": form, "final": ..., "initial": ..., "medial": ...}, by Unicode's tables."""
  forms: dict[str, dict[str, str]] = {}
  for code in (*range(0xFB50, 0xFBB2), *range(0xFBD3, 0xFC00), *range(0xFE80, 0xFEFD)):
    kind, *letters = unicodedata.decomposition(chr(code)).split()
    forms.setdefault("".join(chr(int(letter, 16)) for letter in letters), {})[kind.strip("<>")] = chr(code)
  return forms


def _joined(word: str) -> str:
  """Letters replaced by the forms that they take beside each other."""
  forms = _forms()
  units: list[str] = []
  for char in word:
    if units and units[-1] + char in forms and char in "\u0622\u0623\u0625\u0627":
      units[-1] += char
    else:
      units.append(char)
  joins_next = [("initial" in forms.get(unit, {})) for unit in units]
  joins_last = [("final" in forms.get(unit, {})) for unit in units]
  result = []
  for i, unit in enumerate(units):
    after = i + 1 < len(units) and joins_next[i] and joins_last[i + 1]
    before = i > 0 and joins_next[i - 1] and joins_last[i]
    form = ("isolated", "initial", "final", "medial")[after + 2 * before]
    result.append(forms.get(unit, {}).get(form, unit))
  return "".join(result)
