"""The page of a count: what the log holds, with nothing from elsewhere, as a browser shows it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from prn_jax.track import event_log, report
from prn_jax.track.clock import Clock
from prn_jax.track.count import Given, said_of, write
from prn_jax.track.ground import ground_of
from prn_jax.track.scene import Line, Movement, Scene, Zone
from tests.browser import browsing
from tests.track.test_counting import joined, straight, track

ROAD = ground_of(np.array([[0, 0], [100, 0], [100, 100], [0, 100.0]]), np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]]))
VIEW = Scene(
  (Line("upper <b>", (0, 0), (100, 0), ("down", "up")), Line("lower", (0, 100), (100, 100), ("down", "up"))),
  (
    Movement("through", ("upper <b>", "down"), ("lower", "down")),
    Movement("back", ("lower", "up"), ("upper <b>", None)),
  ),
  ground=ROAD,
  zones=(Zone("between", ((0, 0), (100, 0), (100, 100), (0, 100))),),
)


def counted(view: Scene, out: Path) -> event_log.Log:
  ways = [straight(-60, 160), straight(160, -60), straight(-60, 160, 4)]
  tracks = joined(*[track(way, n, [10 * n + i for i in range(len(way))]) for n, way in enumerate(ways, start=1)])
  write(
    Given(tracks, view, ("person", "bicycle", "car"), Clock(10), said_of(view, ("person", "bicycle", "car"))), out, 2
  )
  return event_log.read(out / event_log.NAME)


def test_the_page_shows_what_the_log_holds(tmp_path: Path) -> None:
  log = counted(VIEW, tmp_path)
  page = (tmp_path / report.FILE).read_text()
  assert page == report.page(log, 2)
  assert "through: 2" in page
  assert "back: 1" in page
  assert "<b>" not in page.replace("&lt;b&gt;", "")
  assert "median 18.0" in page  # two of 5 pixels in a tenth of a second, 18 km/h, at both lines, and one of 4
  assert not re.search(r"(src|href)=|https?:|@import|url\(", page)
  assert "has not ended" not in page
  assert "has not ended" in report.page(log._replace(is_whole=False), 2)


def test_pages_of_little(tmp_path: Path) -> None:
  """No movements: arrows of directions. No lines, or no tracks at all: the page says so by what it leaves out."""
  plain = counted(dataclasses.replace(VIEW, movements=(), ground=None), tmp_path)
  page = report.page(plain, 900)
  assert "down: 2" in page
  assert "Speeds" not in page
  empty = event_log.Log({"version": 2} | said_of(VIEW, ()), [], 0.0, True)
  assert "0 tracks" in report.page(empty, 900)
  assert "Over time" not in report.page(empty, 900)


def test_a_browser_shows_it(tmp_path: Path) -> None:
  (tmp_path / "out").mkdir()
  counted(VIEW, tmp_path / "out")
  with browsing(tmp_path / "profile") as page:
    page.open((tmp_path / "out" / report.FILE).as_uri())
    assert page.run("document.title") == "Traffic count"
    assert (
      page.run("[...document.querySelectorAll('h2')].map(e => e.textContent).join()")
      == "Totals,Over time,Ways,Speeds,Zones"
    )
    assert page.run("[...document.querySelectorAll('svg')].every(e => e.getBoundingClientRect().width > 400)")
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.errors == []


def test_bars_have_round_widths_and_times() -> None:
  assert [report._round_width(least) for least in (0.03, 1.569, 5.0, 37.6, 4000.0)] == [0.1, 2, 5, 60, 7200]
  assert [report._clock(sec, 2) for sec in (0, 58, 62, 3725)] == ["0:00", "0:58", "1:02", "1:02:05"]
  assert report._clock(1.5, 0.5) == "1.5"
