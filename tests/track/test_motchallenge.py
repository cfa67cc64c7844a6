"""Files of boxes: what is read, written, and refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from prn_jax.track import motchallenge
from prn_jax.track.motchallenge import TrackFileError


def test_lines_of_every_kind() -> None:
  """Commas or blanks, ids as other programs write them, missing ends, empty lines, marks of Windows."""
  found = motchallenge.parse("1,3.0,10,20,30,40,0.5,2,-1\r\n\r\n 2 -1 1.5 2 3 4 \n7,1,0,0,1,1,9\n")
  assert found.frames.tolist() == [1, 2, 7]
  assert found.ids.tolist() == [3, -1, 1]
  assert found.boxes_xyxy_px.tolist() == [[10, 20, 40, 60], [1.5, 2, 4.5, 6], [0, 0, 1, 1]]
  assert found.scores.tolist() == [0.5, 1, 9]
  assert found.classes.tolist() == [2, -1, -1]
  assert found.where(2) == "boxes:4"


def test_frames_come_in_order_with_those_that_are_empty() -> None:
  found = motchallenge.parse("3,1,0,0,1,1\n1,2,0,0,1,1\n3,4,0,0,1,1\n")
  assert [frame.ids.tolist() for frame in found.by_frame()] == [[2], [], [1, 4]]
  assert [len(frame) for frame in found.by_frame(5)] == [1, 0, 2, 0, 0]
  assert list(motchallenge.parse("").by_frame()) == []


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
def test_what_is_written_reads_back(tmp_path: Path, name: str) -> None:
  lines = [motchallenge.line_of(1, 4, (1.25, 2, 11.25, 22), 0.125, 3), motchallenge.line_of(2, 4, (0, 0, 1, 1), 1, -1)]
  motchallenge.write(tmp_path / name, lines)
  found = motchallenge.read(tmp_path / name)
  assert lines[0] == "1,4,1.25,2.00,10.00,20.00,0.125,3,-1,-1\n"
  assert found.boxes_xyxy_px.tolist() == [[1.25, 2, 11.25, 22], [0, 0, 1, 1]]
  assert (found.frames.tolist(), found.classes.tolist(), found.scores.tolist()) == ([1, 2], [3, -1], [0.125, 1])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("1,1,0,0,1,1\n1,2,0,zero,1,1", "a:2: top is 'zero'; expected a number."),
    ("1,1,0,0,1", "a:1 has 5 fields: '1,1,0,0,1'. Expected at least frame, id, left, top, width, height."),
    ("0,1,0,0,1,1", "a:1: frame is 0; expected a whole number from 1 to 10,000,000."),
    ("1,1.5,0,0,1,1", "a:1: id is 1.5; expected a whole number."),
    ("\n1,1,0,0,nan,1", "a:2: width is nan; expected a finite number."),
    ("1,1,0,0,1,inf", "a:1: height is inf; expected a finite number."),
    ("1e12,1,0,0,1,1", "a:1: frame is 1e+12; expected a whole number from 1 to 10,000,000."),
  ],
)
def test_what_is_refused(text: str, message: str) -> None:
  with pytest.raises(TrackFileError) as error:
    motchallenge.parse(text, "a")
  assert str(error.value) == message


def test_a_cut_off_gzip_file_is_named(tmp_path: Path) -> None:
  (tmp_path / "a.gz").write_bytes(gzip.compress(b"1,1,0,0,1,1\n" * 100)[:-12])
  with pytest.raises(TrackFileError, match=r"a\.gz is no whole gzip file: "):
    motchallenge.read(tmp_path / "a.gz")
  with pytest.raises(TrackFileError, match=r"missing\.txt cannot be read: No such file or directory"):
    motchallenge.read(tmp_path / "missing.txt")
