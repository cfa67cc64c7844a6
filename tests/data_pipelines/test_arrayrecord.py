"""Prepared data: records as bytes, the folder of shards, and every way in which it can be damaged."""

from __future__ import annotations

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.prepared.record_bytes import decode_record, encode_record
from prn_jax.data_pipelines.records import DataError, ProblemLog, Record
from prn_jax.data_pipelines.sources.arrayrecord import ArrayRecordDataset
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.pictures import write, write_image


def assert_equal(a: Record, b: Record) -> None:
  for field in ("image", "image_id", "width", "height", "label"):
    assert getattr(a, field) == getattr(b, field), field
  for field in ("boxes_xyxy_px", "classes", "is_crowd", "is_difficult", "area_px", "boxes_xywh_px"):
    x, y = getattr(a, field), getattr(b, field)
    assert (x is None) == (y is None), field
    if x is not None:
      assert x.dtype == y.dtype, field
      np.testing.assert_array_equal(x, y)


@st.composite
def records(draw: st.DrawFn) -> Record:
  n = draw(st.integers(0, 4))
  arrays = lambda dtype, *shape: draw(st_numpy.arrays(dtype, shape))  # noqa: E731
  return Record(
    image=draw(st.binary(max_size=30)),
    image_id=draw(st.integers(0, 2**40) | st.text(max_size=8)),
    width=draw(st.none() | st.integers(1, 5000)),
    height=draw(st.none() | st.integers(1, 5000)),
    boxes_xyxy_px=arrays(np.float32, n, 4),
    classes=arrays(np.int32, n),
    is_crowd=arrays(np.bool_, n),
    is_difficult=arrays(np.bool_, n),
    area_px=draw(st.none() | st_numpy.arrays(np.float64, (n,))),
    boxes_xywh_px=draw(st.none() | st_numpy.arrays(np.float64, (n, 4))),
    label=draw(st.none() | st.integers(0, 1000)),
  )


@settings(deadline=None)
@given(records())
def test_records_come_back_as_they_were(record: Record) -> None:
  assert isinstance(record.image, bytes)
  assert_equal(decode_record(encode_record(record, record.image)), record)


def test_bytes_of_one_record() -> None:
  """The layout is a contract: data prepared today must be readable later."""
  record = Record(
    image=b"",
    image_id=7,
    width=10,
    height=8,
    boxes_xyxy_px=np.array([[1, 2, 3, 4]], np.float32),
    classes=np.array([5], np.int32),
    is_crowd=np.array([True]),
    is_difficult=np.array([True]),
    area_px=np.array([2.0]),
  )
  header = b'{"image_id":7,"width":10,"height":8,"label":null,"objects":1,"area":true,"xywh":false}'
  assert encode_record(record, b"image") == (
    b"PRN1"
    + len(header).to_bytes(4, "little")
    + header
    + b"\0\0\x80?\0\0\0@\0\0@@\0\0\x80@"  # 1, 2, 3, 4 as float32
    + b"\5\0\0\0"
    + b"\3"
    + b"\0\0\0\0\0\0\0@"  # 2 as float64
    + b"image"
  )


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "no record of prn_jax: it starts with b''"),
    (b"\x0a\x05image", "no record of prn_jax"),
    (b"PRN1\x05\0\0\0{1234", r"the header of the record:1 is no valid JSON: Expecting property name"),
    (b"PRN1\x02\0\0\0{}", "the header of the record has no 'image_id'; it has nothing"),
    (
      b'PRN1\x56\0\0\0{"image_id":7,"width":10,"height":8,"label":null,"objects":1,"area":true,"xywh":false}123',
      r"the record ends after 97 bytes; its arrays need 110",
    ),
  ],
)
def test_bytes_that_are_no_record(data: bytes, message: str) -> None:
  with pytest.raises(DataError, match=message):
    decode_record(data)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
  """Ten images in three shards."""
  for number in range(10):
    write_image(tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number}.png", 20 + number, 10)
  prepare(f"imagefolder:{tmp_path / 'photos'}", tmp_path / "out", split="train", num_shards=3)
  return tmp_path / "out"


def test_records_by_index(prepared: Path) -> None:
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  assert (len(dataset), dataset.names, dataset.category_ids, dataset.problems) == (10, ("cat", "dog"), (0, 1), ())
  ids = [f"{'cat' if n % 2 else 'dog'}/{n}.png" for n in (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)]  # the order of the source
  assert [dataset[i].image_id for i in range(10)] == ids
  assert [dataset[i].label for i in (0, 4, 5, -1)] == [0, 0, 1, 1]
  assert dataset[9].width == 28
  for index in (10, -11):
    with pytest.raises(IndexError, match=rf"record {index} of 10"):
      dataset[index]


def test_a_copy_in_another_process_opens_its_own_files(prepared: Path) -> None:
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  before = dataset[3].image_id
  assert len(pickle.dumps(dataset)) < 3000  # no records
  assert pickle.loads(pickle.dumps(dataset))[3].image_id == before


def test_threads_read_what_one_reads(prepared: Path) -> None:
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  order = np.random.default_rng(0).integers(0, 10, 400).tolist()
  with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda i: dataset[i].image_id, order))
  once = [dataset[i].image_id for i in range(10)]
  assert found == [once[i] for i in order]


def test_nothing_is_opened_before_it_is_read(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  assert isinstance(dataset, ArrayRecordDataset)
  assert dataset._readers == [None] * 3
  assert dataset[9].image_id == "dog/8.png"
  assert [reader is not None for reader in dataset._readers] == [False, False, True]
  assert "tensorflow" not in sys.modules


REPAIR = "run the `prn data prepare` command that made it again"


def shard(prepared: Path, number: int = 1) -> Path:
  return prepared / f"train-{number:05d}-of-00003.array_record"


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda p: p.unlink(), r"00001-of-00003\.array_record: the shard is missing"),
    (lambda p: p.write_bytes(p.read_bytes()[:70000]), r"the shard is truncated: it has 70,000 bytes, expected 131,072"),
    (lambda p: p.write_bytes(b""), r"the shard is truncated: it has 0 bytes"),
    (lambda p: p.write_bytes(p.read_bytes() + b"x"), r"the shard is not the one that was prepared: it has 131,073"),
  ],
)
def test_missing_and_truncated_shards(prepared: Path, damage: object, message: str) -> None:
  damage(shard(prepared))  # type: ignore[operator]
  with pytest.raises(DataError, match=rf"(?s){message}.*{REPAIR}"):
    open_spec(f"arrayrecord:{prepared}:train")
  dataset = open_spec(f"arrayrecord:{prepared}:train", "skip")
  assert len(dataset) == 7
  assert "its 3 records are left out" in str(dataset.problems[0])
  assert dataset[3].image_id == "dog/2.png"


def test_a_flipped_bit_is_found_when_it_is_read(prepared: Path) -> None:
  path = shard(prepared)
  data = bytearray(path.read_bytes())
  data[data.index(b"PRN1") + 20] ^= 1
  path.write_bytes(data)
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  with pytest.raises(DataError, match=rf"00001-of-00003\.array_record: record 0 cannot be read \(.*\). To .*{REPAIR}"):
    dataset[3]
  assert dataset[0].image_id == "cat/1.png"
  log = ProblemLog("skip")
  assert isinstance(dataset, ArrayRecordDataset)
  dataset.check_shards(log)
  assert ["sha256 differs" in str(problem) for problem in log.problems] == [True]


def test_another_file_of_the_same_size(prepared: Path) -> None:
  shard(prepared).write_bytes(bytes(shard(prepared).stat().st_size))
  dataset = open_spec(f"arrayrecord:{prepared}:train")
  with pytest.raises(DataError, match=r"record 0 cannot be read \(it holds 0 records, expected 3; it is damaged\)"):
    dataset[3]


def test_all_shards_gone(prepared: Path) -> None:
  for number in range(3):
    shard(prepared, number).unlink()
  with pytest.raises(DataError, match=rf"split 'train', holds no images. To repair it, {REPAIR}"):
    open_spec(f"arrayrecord:{prepared}:train", "skip")


def test_unknown_split_and_folder(prepared: Path, tmp_path: Path) -> None:
  with pytest.raises(DataError, match=r"has no split 'trian' \(did you mean 'train'\?\); it has train"):
    open_spec(f"arrayrecord:{prepared}:trian")
  with pytest.raises(DataError, match=r"nowhere' does not exist; expected a folder that `prn data prepare SPEC"):
    open_spec(f"arrayrecord:{tmp_path / 'nowhere'}:train")
  with pytest.raises(DataError, match=r"photos' has no dataset\.json"):
    open_spec(f"arrayrecord:{tmp_path / 'photos'}:train")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("{", r"dataset\.json:1 is no valid JSON: .*\. To repair it, delete it and run"),
    ("[]", r"does not describe prepared data"),
    ({"format": "other"}, r"does not describe prepared data"),
    ({"version": 2}, r"has version 2, this program reads version 1\. Prepare the data again"),
    (
      {"splits": {"train": {}}},
      r"dataset\.json: splits\.train has no 'shards'; it has nothing\. To repair it, delete it and run",
    ),
    ({"names": ["cat", 3]}, r"dataset\.json: names\[1\] is 3; expected text\. To repair it"),
    ({"category_ids": [0]}, r"dataset\.json: names holds 2 names for 1 category_ids; expected as many, each once"),
  ],
)
def test_damaged_index(prepared: Path, change: str | dict[str, object], message: str) -> None:
  path = prepared / "dataset.json"
  text = change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change)
  write(path, text)
  with pytest.raises(DataError, match=message):
    open_spec(f"arrayrecord:{prepared}:train")
