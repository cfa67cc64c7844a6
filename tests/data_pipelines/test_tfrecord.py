"""TFRecord files: against a file of another program, and every way in which one can be damaged."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest

from prn_jax.data_pipelines.reading.tfrecord import FilePart, TfRecords, masked_crc32c
from prn_jax.data_pipelines.records import DataError


def write_tfrecord(path: Path, rows: list[bytes]) -> Path:
  """As TensorFlow writes it."""
  with path.open("wb") as file:
    for row in rows:
      length = struct.pack("<Q", len(row))
      file.write(length + struct.pack("<I", masked_crc32c(length)) + row + struct.pack("<I", masked_crc32c(row)))
  return path


def test_checksum_of_the_standard() -> None:
  crc = 0xE3069283  # CRC32C of "123456789" (RFC 3720)
  assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_file_that_tensorboardx_wrote(tmp_path: Path) -> None:
  from tensorboardX import SummaryWriter
  from tensorboardX.proto.event_pb2 import Event

  with SummaryWriter(str(tmp_path)) as writer:
    for step in range(3):
      writer.add_scalar("loss", step / 2, step)
  (path,) = tmp_path.iterdir()
  with pytest.raises(DataError, match=r"holds 4 records; its dataset_info\.json says 5\."):
    TfRecords([FilePart(path, 0, 5, 5)])[0]
  events = [Event.FromString(data) for data in TfRecords([FilePart(path, 0, 4, 4)])]
  assert [event.step for event in events[1:]] == [0, 1, 2]
  assert [event.summary.value[0].simple_value for event in events[1:]] == [0, 0.5, 1]


def test_parts_of_files(tmp_path: Path) -> None:
  rows = [bytes([n]) * n for n in range(9)]  # the first is empty
  parts = [
    FilePart(write_tfrecord(tmp_path / "a", rows[:5]), 2, 3, 5),
    FilePart(write_tfrecord(tmp_path / "b", rows[5:6]), 0, 0, 1),
    FilePart(write_tfrecord(tmp_path / "c", rows[6:]), 0, 2, 3),
  ]
  records = TfRecords(parts)
  assert len(records) == 5
  assert list(records) == [*rows[2:5], *rows[6:8]]
  assert pickle.loads(pickle.dumps(records))[3] == rows[6]
  for index in (-1, 5):
    with pytest.raises(IndexError, match=f"record {index} of 5"):
      records[index]
  assert len(TfRecords([])) == 0


def test_damage(tmp_path: Path) -> None:
  path = write_tfrecord(tmp_path / "a", [b"first", b"second", b"third"])
  whole = path.read_bytes()
  record = 16 + len(b"first")

  def read(data: bytes, index: int) -> bytes:
    path.write_bytes(data)
    return TfRecords([FilePart(path, 0, 3, 3)])[index]

  def flipped(place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]

  with pytest.raises(DataError, match=r"a: record 1 is damaged \(its checksum is another\)\. Copy or prepare"):
    read(flipped(record + 13), 1)
  assert read(flipped(record + 13), 2) == b"third"  # the others stay
  for broken in (flipped(record + 3), whole[: record + 5], whole[: record + 20], whole[:record] + b"\xff" * 40):
    with pytest.raises(DataError, match=rf"damaged or cut off after 1 of 3 records \(byte {record} of {len(broken)}\)"):
      read(broken, 0)
  path.unlink()
  with pytest.raises(DataError, match=r"a cannot be read \(No such file or directory\); it should hold 3 records"):
    TfRecords([FilePart(path, 0, 3, 3)])[0]
