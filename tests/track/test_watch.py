"""A count that is watched has the totals of its log at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prn_jax.track import event_log
from prn_jax.track.event_log import EventLogError, Writer
from prn_jax.track.watch import LAST, Watch

HEADER = {"class_names": ["car", "bus"]}


def crossing(track: int, label: int = 1, **more: Any) -> dict[str, Any]:
  return {
    "kind": "line", "name": "north", "direction": "in", "track": track, "class": label, "time_sec": track / 2, **more,
  }  # fmt: skip


def written(path: Path) -> bytes:
  with Writer(path, HEADER) as log:
    for track in range(30):
      log.add(crossing(track, 1 + (track % 3 == 0)))
      log.add({"kind": "cover", "name": "zone", "direction": "", "frame": 1, "time_sec": track / 2, "share": 0.5})
    log.end(20.0)
  return path.read_bytes()


def test_totals_follow_the_log_at_every_byte(tmp_path: Path) -> None:
  whole, path = written(tmp_path / "whole.jsonl"), tmp_path / event_log.NAME
  watch = Watch(path)
  assert watch.look() == {"state": "waiting", "until_sec": 0.0, "totals": [], "last": []}
  with path.open("wb", buffering=0) as file:
    for start in range(0, len(whole), 97):
      file.write(whole[start : start + 97])
      seen = watch.look()
      counted = sum(row["count"] for row in seen["totals"])
      assert counted == whole[: start + 97].rpartition(b"\n")[0].count(b'"kind": "line"')
  assert seen["state"] == "ended"
  assert seen["until_sec"] == 20.0
  assert [(row["class_name"], row["count"]) for row in seen["totals"]] == [("car", 20), ("bus", 10)]
  assert [row["track"] for row in seen["last"]] == list(range(29, 29 - LAST, -1))
  assert seen["last"][2] == {
    "kind": "line", "name": "north", "direction": "in", "track": 27, "time_sec": 13.5, "class_name": "bus",
  }  # fmt: skip
  assert Watch(path).look() == seen  # as one that begins to look at the end


def test_another_log_in_its_place_is_read_from_its_beginning(tmp_path: Path) -> None:
  path = tmp_path / event_log.NAME
  written(path)
  watch = Watch(path)
  assert watch.look()["state"] == "ended"
  path.unlink()
  assert watch.look()["state"] == "waiting"
  with Writer(path, HEADER) as log:
    log.add(crossing(7))
  assert watch.look()["totals"][0]["count"] == 1
  path.write_bytes(path.read_bytes()[:20])
  assert watch.look()["state"] == "waiting"  # half of the first line


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b'{"a": 1}\n', ":1 is not the first line of a log of `prn count`, version 2."),
    (b'{"version": 2}\nhello\n', ":2 "),
    (b'{"version": 2}\n{"event": 1}\n', ":2 is no row of a log of `prn count`."),
    (b'{"version": 2}\n[1]\n', ":2 is no row of a log of `prn count`."),
  ],
)
def test_what_is_no_log_is_named_at_every_look(tmp_path: Path, content: bytes, said: str) -> None:
  path = tmp_path / event_log.NAME
  path.write_bytes(content)
  watch = Watch(path)
  for _ in range(2):
    with pytest.raises(EventLogError) as caught:
      watch.look()
    assert str(caught.value).startswith(f"{path}{said}")
