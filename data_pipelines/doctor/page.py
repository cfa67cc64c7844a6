"""A diagnosis as one HTML file that needs no other: findings with pictures of their places."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from prn_jax.data_pipelines.doctor.checkup import Diagnosis, Exam, Found, Spot
from prn_jax.data_pipelines.images import ImageError, read_image
from prn_jax.data_pipelines.records import DataError
from prn_jax.errors import printable
from prn_jax.files.disk import write_text

FILE = "report.html"
MOST_ROWS = 50  # of one check
MOST_PICTURES = 8  # of one check
MOST_OF_ALL = 240  # pictures on the page
PICTURE_PX = 260
_SMALL = 0.12  # of a side of the image; smaller boxes are shown enlarged too
_LINE = (230, 30, 30)
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2329; background: #f4f5f7; margin: 0 auto; max-width: 1180px;
  padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0; } p { margin: 4px 0; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
section, .all { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 14px 18px; margin: 14px 0; }
.badge { border-radius: 10px; padding: 1px 9px; font-size: 13px; color: #fff; margin-right: 8px; white-space: nowrap; }
.serious { background: #c0392b; } .look { background: #b9770e; } .note { background: #5d6d7e; }
table { border-collapse: collapse; width: 100%; margin-top: 8px; font-size: 13.5px; }
td, th { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-top: 1px solid #eceff2; }
td.number, th.number { text-align: right; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 10px; }
figure { margin: 0; } figcaption { font-size: 12px; color: #55606b; max-width: 540px; overflow-wrap: anywhere; }
img { border: 1px solid #dfe3e8; margin-right: 4px; vertical-align: top; } .more { color: #55606b; font-size: 13px; }
a { color: #1f5fa8; }
"""
_BADGES = {"serious": "serious", "worth a look": "look", "note": "note"}


def write_page(diagnosis: Diagnosis, folder: Path) -> Path:
  """Writes report.html; returns the file."""
  file = folder / FILE
  write_text(file, page(diagnosis))
  return file


def page(diagnosis: Diagnosis) -> str:
  """The page; of every check the first places are listed and the first pictures shown, and the page says how many."""
  exam = diagnosis.exam
  split = exam.split
  left = MOST_OF_ALL
  sections = []
  for found in diagnosis.found:
    pictures = _pictures(exam, found, min(left, MOST_PICTURES))
    left -= len(pictures)
    sections.append(_section(found, pictures))
  against = "".join(
    f"<p>compared with <code>{_safe(other.spec)}</code>, {len(other):,} images</p>" for _, other in exam.others
  )
  counts = ", ".join(f"{number:,} {severity}" for severity, number in diagnosis.counts.items() if number) or "nothing"
  not_run = "".join(f"<li><code>{_safe(one)}</code>: {_safe(why)}</li>" for one, why in diagnosis.not_run.items())
  skipped = f"<section><h2>Not run</h2><ul>{not_run}</ul></section>" if not_run else ""
  return (
    f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    f"<title>Data doctor</title><style>{STYLE}</style></head><body>"
    f"<h1>Data doctor</h1><p><code>{_safe(split.spec)}</code></p>"
    f"<p>{len(split):,} images, {len(split.names):,} classes, {len(split.classes):,} objects</p>{against}"
    f'<div class="all"><p><b>Found: {counts}</b></p>{_overview(diagnosis)}</div>{"".join(sections)}{skipped}</body></html>\n'
  )


def _overview(diagnosis: Diagnosis) -> str:
  rows = "".join(
    f'<tr><td>{_badge(found)}</td><td class="number">{len(found.spots):,}</td>'
    f'<td><a href="#{_safe(found.check.id)}"><code>{_safe(found.check.id)}</code></a></td>'
    f"<td>{_safe(found.check.meaning)}</td></tr>"
    for found in diagnosis.found
  )
  head = '<tr><th></th><th class="number">count</th><th>id</th><th>what</th></tr>'
  return f"<table>{head}{rows}</table>" if rows else ""


def _badge(found: Found) -> str:
  severity = str(found.check.severity)
  return f'<span class="badge {_BADGES[severity]}">{severity}</span>'


def _section(found: Found, pictures: list[str]) -> str:
  check, number = found.check, len(found.spots)
  rows = "".join(
    f"<tr><td><code>{_safe(place)}</code></td><td>{_safe(spot.text)}</td></tr>"
    for place, spot in list(zip(found.places, found.spots, strict=True))[:MOST_ROWS]
  )
  more = (
    f'<p class="more">The first {MOST_ROWS} of {number:,} are listed; --json lists all.</p>'
    if number > MOST_ROWS
    else ""
  )
  shown = f'<div class="pictures">{"".join(pictures)}</div>' if pictures else ""
  can_show = sum(spot.image is not None for spot in found.spots)
  if pictures and can_show > len(pictures):
    shown += f'<p class="more">The first {len(pictures)} of {can_show:,} are shown.</p>'
  return (
    f'<section id="{_safe(check.id)}"><h2>{_badge(found)}<code>{_safe(check.id)}</code> {_safe(check.meaning)}: '
    f"{number:,}</h2><p>What to do: {_safe(check.fix)}</p>{shown}<table>{rows}</table>{more}</section>"
  )


def _safe(text: str) -> str:
  return html.escape(printable(text))


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(exam: Exam, found: Found, most: int) -> list[str]:
  figures: list[str] = []
  for place, spot in zip(found.places, found.spots, strict=True):
    if len(figures) >= most:
      break
    pictures = _views(exam, spot)
    if pictures:
      images = "".join(f'<img src="{_data_uri(picture)}" alt="">' for picture in pictures)
      figures.append(f"<figure>{images}<figcaption>{_safe(place)}</figcaption></figure>")
  return figures


def _views(exam: Exam, spot: Spot) -> list[Image.Image]:
  """The picture of a spot with its box, the box enlarged where it is small, and the picture it is compared with."""
  if spot.image is None:
    return []
  views = [_view(exam, 0, spot.image, spot.box)]
  if spot.box is not None and (part := _enlarged(exam, spot.image, spot.box)) is not None:
    views.append(part)
  if spot.partner is not None:
    views.append(_view(exam, *spot.partner, None))
  return [view for view in views if view is not None]


def _pixels(exam: Exam, number: int, image: int) -> Image.Image | None:
  split = exam.splits[number]
  try:
    return Image.fromarray(read_image(split.dataset[int(split.indices[image])].image))
  except (ImageError, DataError, OSError):
    return None


def _view(exam: Exam, number: int, image: int, box: int | None) -> Image.Image | None:
  picture = _pixels(exam, number, image)
  if picture is None:
    return None
  scale = PICTURE_PX / max(picture.size)
  size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
  small = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
  if box is not None:
    _frame(small, exam.split.boxes_xyxy_px[box] * scale)
  return small


def _enlarged(exam: Exam, image: int, box: int) -> Image.Image | None:
  picture = _pixels(exam, 0, image)
  x1, y1, x2, y2 = exam.split.boxes_xyxy_px[box]
  if picture is None or max((x2 - x1) / picture.width, (y2 - y1) / picture.height) > _SMALL:
    return None
  side = max(x2 - x1, y2 - y1, 8.0) * 3
  left, top = (x1 + x2 - side) / 2, (y1 + y2 - side) / 2
  part = picture.crop((round(left), round(top), round(left + side), round(top + side)))
  scale = PICTURE_PX / max(part.size) * 0.75
  part = part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale))), Image.Resampling.NEAREST)
  _frame(part, (np.array([x1, y1, x2, y2]) - np.array([round(left), round(top)] * 2)) * scale)
  return part


def _frame(picture: Image.Image, box_xyxy_px: np.ndarray) -> None:
  x1, y1, x2, y2 = (round(float(value)) for value in box_xyxy_px)
  ImageDraw.Draw(picture).rectangle((x1 - 1, y1 - 1, max(x2, x1 + 1), max(y2, y1 + 1)), outline=_LINE, width=2)


def _data_uri(picture: Image.Image) -> str:
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG", quality=82)
  return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
