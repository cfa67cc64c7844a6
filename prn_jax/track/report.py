"""A count as one HTML file that needs no other, made from its log alone."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from prn_jax.data_pipelines.doctor.page import STYLE
from prn_jax.errors import printable
from prn_jax.track import event_log, tables
from prn_jax.track.event_log import Log

FILE = "report.html"
_COLORS = ("#1f5fa8", "#c0392b", "#2e8b57", "#b9770e", "#6c3483", "#148f9a", "#8d6e63", "#5d6d7e")
_INK, _MUTED, _RULE = "#1d2329", "#55606b", "#dfe3e8"
_WIDTH, _HEIGHT, _EDGE = 1080, 240, 36  # of charts, in pixels of the page
_BINS, _LEAST_BINS = 24, 4
_WIDTHS_SEC = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_LETTER = 9  # width of one in the labels of a chart, in its pixels
_CELLS = 64  # of the heat map, along the longer side
_SPEED_STEP_KMH = 5.0
_PICTURE = 'font-family="system-ui, sans-serif" font-size="12"'


def page(log: Log, interval_sec: float) -> str:
  """Totals, counts over time, movements, places, speeds and zones.

  Args:
    log: see `event_log.read`.
    interval_sec: width of the bars over time; where the video has fewer than four, a round number that makes 24 at most.
  """
  lines = [row for row in log.events if row["kind"] == "line"]
  speeds = [row["speed_kmh"] for row in lines if row.get("speed_kmh") is not None]
  tracks = [row for row in log.events if row["kind"] == "track"]
  parts = [
    ("Totals", _totals(log)),
    ("Over time", _over_time(log, lines, interval_sec)),
    ("Ways", _ways(log, tracks)),
    ("Speeds", _speeds(speeds)),
    ("Zones", _zones(log)),
  ]
  sections = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in parts if content)
  ended = "" if log.is_whole else " The count has not ended: this is what the log holds so far."
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    f"<title>Traffic count</title><style>{STYLE} svg {{ max-width: 100%; height: auto; }}</style></head><body>"
    f"<h1>Traffic count</h1><p>{len(tracks):,} tracks in {log.until_sec:,.1f} seconds.{ended}</p>{sections}</body></html>\n"
  )


def _totals(log: Log) -> str:
  names = tables.names_of(log)
  rows = [
    (kind, name, direction, tables.shown_class(tables.class_name(names, label), label), number)
    for (kind, name, direction, label), number in sorted(event_log.totals(log.events).items())
  ]
  return _table(("what", "name", "direction", "class", "count"), rows)


def _over_time(log: Log, lines: list[dict[str, Any]], interval_sec: float) -> str:
  """A stack of bars for each interval: lines and directions."""
  if not lines or log.until_sec <= 0:
    return ""
  width = interval_sec if log.until_sec >= _LEAST_BINS * interval_sec else _round_width(log.until_sec / _BINS)
  series = sorted({(row["name"], row["direction"]) for row in lines})
  bins = Counter(
    (min(int(row["time_sec"] // width), math.ceil(log.until_sec / width) - 1), row["name"], row["direction"])
    for row in lines
  )
  stacks = [[bins[number, *one] for one in series] for number in range(math.ceil(log.until_sec / width))]
  bars = _bars(stacks, [_clock(number * width, width) for number in range(len(stacks))])
  return (
    f"<p>Vehicles over lines in every {width:.4g} seconds.</p>{_legend(f'{name} {way}' for name, way in series)}{bars}"
  )


def _round_width(least_sec: float) -> float:
  """The smallest usual number of seconds that is not below `least_sec`."""
  return next((width for width in _WIDTHS_SEC if width >= least_sec), math.ceil(least_sec / 3600) * 3600.0)


def _clock(seconds: float, width_sec: float) -> str:
  """m:ss, or h:mm:ss; with tenths where bars are narrower than a second."""
  if width_sec < 1:
    return f"{seconds:.1f}"
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _speeds(speeds: list[float]) -> str:
  if not speeds:
    return ""
  counted = Counter(int(speed // _SPEED_STEP_KMH) for speed in speeds)
  stacks = [[counted[number]] for number in range(max(counted) + 1)]
  labels = [f"{number * _SPEED_STEP_KMH:g}" for number in range(len(stacks))]
  middle, low, high = np.percentile(speeds, [50, 15, 85])
  return (
    f"<p>At lines, in km/h: median {middle:.1f}; 15% are below {low:.1f}, 15% above {high:.1f} ({len(speeds):,} crossings).</p>"
    f"{_bars(stacks, labels)}"
  )


def _bars(stacks: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
  """Bars of stacked colours, with the greatest height written beside the axis."""
  most = max(1, *(sum(stack) for stack in stacks))
  step, room = (_WIDTH - _EDGE) / len(stacks), _HEIGHT - _EDGE
  every = max(1, math.ceil(_LETTER * (1 + max(map(len, labels))) / step))
  parts = []
  for index, stack in enumerate(stacks):
    top = float(room)
    for color, number in zip(_endless(), stack, strict=False):
      height = number / most * (room - 16)
      top -= height
      if number:
        parts.append(
          f'<rect x="{_EDGE + index * step:.1f}" y="{top:.1f}" width="{0.85 * step:.1f}" height="{height:.1f}" fill="{color}"><title>{number}</title></rect>'
        )
    if index % every == 0:
      parts.append(f'<text x="{_EDGE + index * step:.1f}" y="{room + 18}" fill="{_MUTED}">{labels[index]}</text>')
  parts.append(f'<line x1="{_EDGE}" y1="{room}" x2="{_WIDTH}" y2="{room}" stroke="{_RULE}"/>')
  parts.append(f'<text x="{_EDGE - 8}" y="26" text-anchor="end" fill="{_MUTED}">{most}</text>')
  parts.append(f'<text x="{_EDGE - 8}" y="{room}" text-anchor="end" fill="{_MUTED}">0</text>')
  return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" {_PICTURE}>{"".join(parts)}</svg>'


def _ways(log: Log, tracks: list[dict[str, Any]]) -> str:
  """The view from the camera: where tracks were, lines and zones, and an arrow for each movement or direction, as thick as its count."""
  scene = log.header["scene"]
  points = np.array([place for row in tracks for place in row["path_px"]], float).reshape(-1, 2)
  marks = [place for line in scene["lines"] for place in (line["from"], line["to"])]
  marks += [corner for zone in scene["zones"] for corner in zone["corners"]]
  every = np.concatenate((points, np.array(marks, float).reshape(-1, 2)))
  low, high = every.min(axis=0), every.max(axis=0)
  side = max(float((high - low).max()), 1.0)
  cell = side / _CELLS
  low, high = low - 2 * cell, high + 2 * cell
  thick = side / 300
  parts = [_heat(points, low, cell)]
  for zone in scene["zones"]:
    corners = " ".join(f"{x:g},{y:g}" for x, y in zone["corners"])
    parts.append(
      f'<polygon points="{corners}" fill="none" stroke="{_MUTED}" stroke-width="{thick:.2f}" stroke-dasharray="{4 * thick:.2f}"/>'
    )
  for line in scene["lines"]:
    (x1, y1), (x2, y2) = line["from"], line["to"]
    parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{_INK}" stroke-width="{thick:.2f}"/>')
    parts.append(_label(x1, y1, line["name"], _INK, side))
  arrows = _arrows(log, side)
  most = max(1, *(number for *_, number in arrows)) if arrows else 1
  for color, (start, end, name, number) in zip(_endless(), arrows, strict=False):
    parts.append(_arrow(start, end, f"{name}: {number}", color, side * (0.004 + 0.012 * number / most), side))
  width = high - low
  return (
    "<p>Seen by the camera, in pixels. Blue: where vehicles were, by time. Arrows: vehicles of each movement (or direction), as thick as "
    f'their number.</p><svg viewBox="{low[0]:.1f} {low[1]:.1f} {width[0]:.1f} {width[1]:.1f}" width="{min(_WIDTH, 900)}" '
    f'font-family="system-ui, sans-serif" font-size="{side / 45:.2f}">{"".join(parts)}</svg>'
  )


def _heat(points: np.ndarray, low: np.ndarray, cell: float) -> str:
  counted = Counter(map(tuple, ((points - low) // cell).astype(int).tolist()))
  most = max(counted.values(), default=1)
  return "".join(
    f'<rect x="{low[0] + x * cell:.2f}" y="{low[1] + y * cell:.2f}" width="{cell:.2f}" height="{cell:.2f}" fill="#1f5fa8" '
    f'fill-opacity="{0.08 + 0.72 * (number / most) ** 0.5:.2f}"/>'
    for (x, y), number in sorted(counted.items())
  )


def _arrows(log: Log, side: float) -> list[tuple[np.ndarray, np.ndarray, str, int]]:
  """From where, to where, name and number: of movements, or of directions of lines where there are none."""
  scene = log.header["scene"]
  ends = {line["name"]: np.array((line["from"], line["to"]), float) for line in scene["lines"]}
  counted = Counter((row["kind"], row["name"], row["direction"]) for row in log.events)
  if scene["movements"]:
    found = []
    for one in scene["movements"]:
      start, end = (ends[one[key][0]].mean(axis=0) for key in ("from", "to"))
      way = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
      aside = side / 30 * np.array((-way[1], way[0]))  # keep to the right: there and back must not lie on each other
      found.append((start + aside, end + aside, one["name"], counted["movement", one["name"], ""]))
    return found
  found = []
  for line in scene["lines"]:
    start, end = ends[line["name"]]
    way = (end - start) / np.hypot(*(end - start))
    right = np.array((-way[1], way[0]))
    for sign, share, direction in ((1, 0.35, line["directions"][0]), (-1, 0.65, line["directions"][1])):
      place = start + share * (end - start)
      arrow = sign * side / 12 * right
      found.append((place - arrow, place + arrow, direction, counted["line", line["name"], direction]))
  return found


def _arrow(start: np.ndarray, end: np.ndarray, text: str, color: str, thick: float, side: float) -> str:
  """Straight; from a place to itself (a movement over one line twice) a ring."""
  length = float(np.hypot(*(end - start)))
  if length < 1e-6:
    ring = f'<circle cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="{side / 20:.1f}" fill="none" stroke="{color}" stroke-width="{thick:.2f}"/>'
    return ring + _label(start[0], start[1] - side / 18, text, color, side)
  way = (end - start) / length
  across, head = np.array((-way[1], way[0])), side / 40 + thick
  tip = " ".join(
    f"{x:.1f},{y:.1f}" for x, y in (end, end - head * way + 0.6 * head * across, end - head * way - 0.6 * head * across)
  )
  stop, beside = end - head * way, (start + end) / 2 + side / 22 * across
  return (
    f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{stop[0]:.1f}" y2="{stop[1]:.1f}" stroke="{color}" stroke-width="{thick:.2f}"/>'
    f'<polygon points="{tip}" fill="{color}"/>' + _label(beside[0], beside[1], text, color, side)
  )


def _label(x: float, y: float, text: str, color: str, side: float) -> str:
  """With a white border, so that it can be read on anything."""
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" stroke="#fff" stroke-width="{side / 250:.2f}" paint-order="stroke" '
    f'font-weight="600">{_safe(text)}</text>'
  )


def _zones(log: Log) -> str:
  rows = tables.zones(log, math.inf)
  shown = [key for key in tables.ZONES if key not in ("from_sec", "to_sec")]
  return _table([key.replace("_", " ") for key in shown], [[row[key] for key in shown] for row in rows]) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  def cell(tag: str, value: Any) -> str:
    is_number = isinstance(value, int | float)
    return f"<{tag}{' class=number' if is_number else ''}>{'' if value is None else _safe(str(value))}</{tag}>"

  rows = list(rows)
  first = rows[0] if rows else head
  names = "".join(
    cell("th", one).replace("<th", "<th class=number" if isinstance(value, int | float) else "<th")
    for one, value in zip(head, first, strict=True)
  )
  body = "".join(f"<tr>{''.join(cell('td', value) for value in row)}</tr>" for row in rows)
  return f'<div style="overflow-x: auto"><table><tr>{names}</tr>{body}</table></div>'


def _legend(names: Iterable[str]) -> str:
  return (
    "<p>"
    + " ".join(
      f'<span style="color:{color}">&#9632;</span> {_safe(name)}&emsp;'
      for color, name in zip(_endless(), names, strict=False)
    )
    + "</p>"
  )


def _endless() -> Iterable[str]:
  while True:
    yield from _COLORS


def _safe(text: str) -> str:
  return html.escape(printable(text))
