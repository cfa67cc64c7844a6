"""A count that is watched in a browser while it runs."""

from __future__ import annotations

from pathlib import Path

from prn_jax.api import Model
from prn_jax.network import init_variables
from prn_jax.serve.settings import ServeSettings
from prn_jax.track import event_log
from prn_jax.track.event_log import Writer
from tests.browser import browsing
from tests.nets import tiny_detector
from tests.serve.running import serving
from tests.track.test_watch import crossing

SAID = "document.getElementById('said').textContent"
ROWS = "[...document.querySelectorAll('#%s tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"


def test_a_running_count_is_watched(tmp_path: Path) -> None:
  graph = tiny_detector()
  out = tmp_path / "junction <b>"
  with (
    serving(Model(graph, init_variables(graph)), ServeSettings(batch=1, count=out)) as server,
    browsing(tmp_path / "browser") as page,
  ):
    page.open(f"http://127.0.0.1:{server.port}/count")
    page.until(f"{SAID} === 'Nothing is counted yet.'")
    assert page.run("document.querySelector('h1').textContent") == out.name
    out.mkdir()
    with Writer(out / event_log.NAME, {"class_names": ["<i>car</i>"]}) as log:
      log.add(crossing(8, speed_kmh=51.6))
      page.until(f"{SAID} === 'Counting, at 0:00:04 of the video.'")
      log.add(crossing(9))
      log.add(crossing(10, label=2))
      page.until(f"{SAID} === 'Counting, at 0:00:05 of the video.'")
      assert page.run(ROWS % "totals") == [
        ["line", "north", "in", "<i>car</i>", "2"],
        ["line", "north", "in", "class 2", "1"],
      ]
      assert page.run(ROWS % "last")[-1] == ["0:00:04", "line", "north", "in", "<i>car</i>", "8", "52"]
      log.end(3700.0)
      page.until(f"{SAID} === 'Counted to the end, 1:01:40 of the video.'")
    (out / event_log.NAME).write_text("hello\n")
    page.until(f"{SAID}.includes('events.jsonl:1 ')")
    assert page.run("document.getElementById('said').className") == "error"
    assert [text for text in page.errors if "500" not in text] == []


def test_without_a_count_nothing_is_there() -> None:
  graph = tiny_detector()
  with serving(Model(graph, init_variables(graph)), ServeSettings(batch=1)) as server:
    for path in ("/count", "/count/totals"):
      answer = server.ask("GET", path)
      assert (answer.status, answer.error) == (404, "nothing is here; there are /, /predict, /healthz, /metrics.")
