"""Preparing data: images and boxes at their new size, runs that were killed, bad data, and what is refused."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.prepared.prepare import default_split, prepare
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions
from prn_jax.data_pipelines.records import DataError, RecordList
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import PrnError
from tests.conftest import REPO
from tests.data_pipelines.pictures import write, write_image


def coco(folder: Path, num: int = 1, **options: object) -> str:
  """Images of 100 x 50 with a red box from (10, 20) to (50, 40)."""
  images, annotations = [], []
  for number in range(1, num + 1):
    picture = Image.new("RGB", (100, 50), "blue")
    picture.paste("red", (10, 20, 50, 40))
    path = folder / "images" / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path.with_suffix(options.get("suffix", ".png")))  # type: ignore[arg-type]
    images.append({"id": number, "file_name": f"{number}{options.get('suffix', '.png')}", "width": 100, "height": 50})
    box = {"bbox": [10, 20, 40, 20], "area": 700, "iscrowd": number % 2}
    annotations.append({"id": number, "image_id": number, "category_id": 18} | box)
  content = {"images": images, "annotations": annotations, "categories": [{"id": 18, "name": "dog"}]}
  path = write(folder / "a.json", json.dumps(content))
  return f"coco:{path}:{folder / 'images'}"


@pytest.mark.parametrize(
  ("options", "size"),
  [
    (ShrinkOptions(), (100, 50)),
    (ShrinkOptions(size=(60, 60)), (60, 60)),
    (ShrinkOptions(size=(200, 150)), (200, 150)),
    (ShrinkOptions(max_side=40), (40, 20)),
    (ShrinkOptions(max_side=400), (100, 50)),
    (ShrinkOptions(min_side=20), (40, 20)),
    (ShrinkOptions(max_side=33, image_format="png"), (33, 16)),
  ],
)
def test_boxes_follow_their_pixels(tmp_path: Path, options: ShrinkOptions, size: tuple[int, int]) -> None:
  done = prepare(coco(tmp_path), tmp_path / "out", options=options)
  assert (done.num_records, done.num_shards, done.spec) == (1, 1, f"arrayrecord:{tmp_path / 'out'}:train")
  dataset = open_spec(done.spec)
  record = dataset[0]
  assert (dataset.names, dataset.category_ids, record.image_id) == (("dog",), (18,), 1)
  assert (record.width, record.height) == size
  assert isinstance(record.image, bytes)
  assert Image.open(io.BytesIO(record.image)).format == options.image_format.upper()
  pixels = read_image(record.image).astype(int)
  assert pixels.shape == (size[1], size[0], 3)
  scale = np.array(size * 2) / [100, 50, 100, 50]
  np.testing.assert_allclose(record.boxes_xyxy_px, [[10, 20, 50, 40] * scale], rtol=1e-6)
  np.testing.assert_allclose(record.boxes_xywh_px, [[10, 20, 40, 20] * scale], rtol=1e-12)
  np.testing.assert_allclose(record.area_px, [700 * scale[0] * scale[1]], rtol=1e-12)
  assert record.is_crowd.tolist() == [True]
  # The red region, found in the pixels, is where the box is.
  rows, columns = np.nonzero(pixels[..., 0] > pixels[..., 2])
  found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
  np.testing.assert_allclose(found, record.boxes_xyxy_px[0], atol=1)


def test_bytes_of_small_upright_jpegs_stay(tmp_path: Path) -> None:
  exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: a quarter turn
  kept = write_image(tmp_path / "photos" / "a" / "1.jpg", 40, 30)
  grey = tmp_path / "photos" / "a" / "2.jpg"
  Image.new("L", (40, 30), 99).save(grey)
  write_image(tmp_path / "photos" / "a" / "3_large.jpg", 80, 60)
  write_image(tmp_path / "photos" / "a" / "4_turned.jpg", 40, 30, exif=exif)
  Image.new("CMYK", (40, 30)).save(tmp_path / "photos" / "a" / "5_print.jpg")
  write_image(tmp_path / "photos" / "a" / "6.png", 40, 30)
  done = prepare(f"imagefolder:{tmp_path / 'photos'}", tmp_path / "out", options=ShrinkOptions(max_side=40))
  records = [open_spec(done.spec)[i] for i in range(6)]
  assert [records[0].image, records[1].image] == [kept.read_bytes(), grey.read_bytes()]
  assert [(r.width, r.height) for r in records[2:]] == [(40, 30), (30, 40), (40, 30), (40, 30)]
  for record in records:
    assert isinstance(record.image, bytes)
    picture = Image.open(io.BytesIO(record.image))
    assert (picture.format, picture.size) == ("JPEG", (record.width, record.height))
    assert picture.mode in ("RGB", "L")


def test_a_large_jpeg_is_reduced_with_antialiasing(tmp_path: Path) -> None:
  """Stripes of one pixel become grey; picking pixels would keep them black and white."""
  stripes = np.zeros((512, 512, 3), np.uint8)
  stripes[:, ::2] = 255
  (tmp_path / "photos" / "a").mkdir(parents=True)
  Image.fromarray(stripes).save(tmp_path / "photos" / "a" / "1.jpg", quality=95)
  done = prepare(f"imagefolder:{tmp_path / 'photos'}", tmp_path / "out", options=ShrinkOptions(max_side=64))
  pixels = read_image(open_spec(done.spec)[0].image)
  assert pixels.min() > 110
  assert pixels.max() < 145


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": (10, 10), "max_side": 5}, "size and max_side are given together"),
    ({"max_side": 0}, "max_side is 0; expected 1 to 16384 pixels"),
    ({"size": (0, 10)}, "size is 0x10; expected 1 to 16384 pixels a side"),
    ({"quality": 0}, "quality is 0; expected a whole number from 1 to 100: of JPEG"),
    ({"image_format": "gif"}, "the image format is 'gif'; expected jpeg or png"),
  ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
  with pytest.raises(DataError, match=message):
    ShrinkOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
  ("spec", "split"),
  [
    ("voc:r:val", "val"),
    ("yolo:d.yaml:test", "test"),
    ("darknet:d.data:valid", "valid"),
    ("coco:a.json:d", "train"),
    ("imagefolder:d", "train"),
    ("synthetic:traffic:9", "train"),
    ("synthetic:traffic:9@valid", "valid"),
  ],
)
def test_name_of_the_split(spec: str, split: str) -> None:
  assert default_split(spec) == split


# -- again and again ---------------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
  return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def times(folder: Path) -> dict[str, int]:
  return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.array_record")}


def test_once_more_changes_nothing(tmp_path: Path) -> None:
  spec = coco(tmp_path, 7)
  first = prepare(spec, tmp_path / "out", num_shards=3)
  before, index = times(tmp_path / "out"), (tmp_path / "out" / "dataset.json").stat().st_mtime_ns
  again = prepare(spec, tmp_path / "out", num_shards=3)
  assert (first.num_kept, again.num_kept, again.num_records) == (0, 3, 7)
  assert times(tmp_path / "out") == before
  assert (tmp_path / "out" / "dataset.json").stat().st_mtime_ns == index
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", *sorted(before)]


def test_damaged_shards_are_written_anew_and_others_stay(tmp_path: Path) -> None:
  spec = coco(tmp_path, 9)
  prepare(spec, tmp_path / "out", num_shards=4)
  whole, before = digests(tmp_path / "out"), times(tmp_path / "out")
  shards = sorted((tmp_path / "out").glob("*.array_record"))
  shards[0].unlink()
  data = bytearray(shards[2].read_bytes())
  data[data.index(b"PRN1") + 9] ^= 4
  shards[2].write_bytes(data)
  assert prepare(spec, tmp_path / "out", num_shards=4).num_kept == 2
  assert digests(tmp_path / "out") == whole
  after = times(tmp_path / "out")
  assert [after[path.name] == before[path.name] for path in shards] == [False, True, False, True]


KILLED = """
import sys
import threading
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions
prepare("synthetic:traffic:48", sys.argv[1], options=ShrinkOptions(max_side=160), num_shards=6, num_threads=2)
"""


def start(out: Path) -> subprocess.Popen[bytes]:
  return subprocess.Popen(
    [sys.executable, "-c", KILLED, str(out)], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)}
  )


def test_a_killed_run_goes_on_with_the_missing_shards(tmp_path: Path) -> None:
  assert start(tmp_path / "whole").wait(120) == 0
  out = tmp_path / "out"
  kills, before = 0, {}
  for wanted in (1, 3, 5):  # killed while the next shard is being written
    process = start(out)
    while len(times(out)) < wanted and process.poll() is None:
      time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    kills += process.wait(60) == -signal.SIGKILL
    assert before.items() <= times(out).items()  # finished shards are not touched
    before = times(out)
    assert not (out / "dataset.json").exists()
    with pytest.raises(DataError, match=r"has no dataset\.json; .* Its split train is unfinished: run the `prn data"):
      open_spec(f"arrayrecord:{out}:train")
  assert kills == 3
  assert start(out).wait(120) == 0
  assert before.items() <= times(out).items()
  ours, whole = digests(out), digests(tmp_path / "whole")
  assert ours == whole  # equal to the bit, and nothing is left over


def test_other_options_are_refused(tmp_path: Path) -> None:
  spec = coco(tmp_path, 3)
  prepare(spec, tmp_path / "out", num_shards=2)
  whole = digests(tmp_path / "out")
  with pytest.raises(
    DataError, match=r"split 'train' prepared otherwise: num_shards 2, now 1; max_side none, now 30\."
  ):
    prepare(spec, tmp_path / "out", num_shards=1, options=ShrinkOptions(max_side=30))
  more = coco(tmp_path, 4)
  with pytest.raises(DataError, match=r"other annotations \(coco:.*, now coco:.*\); num_records 3, now 4\. Give the"):
    prepare(more, tmp_path / "out", num_shards=2)
  assert digests(tmp_path / "out") == whole


def test_other_options_are_refused_in_the_middle_too(tmp_path: Path) -> None:
  spec = coco(tmp_path, 4)
  (tmp_path / "images" / "4.png").write_bytes(b"no image")
  with pytest.raises(DataError, match=r"4\.png"):
    prepare(spec, tmp_path / "out", num_shards=4)
  assert len(times(tmp_path / "out")) == 3
  with pytest.raises(DataError, match=r"quality 95, now 80"):
    prepare(spec, tmp_path / "out", num_shards=4, options=ShrinkOptions(quality=80))
  done = prepare(spec, tmp_path / "out", num_shards=4, on_bad_data="skip")
  assert (done.num_kept, done.num_records, done.left_out) == (3, 3, {"unreadable image": 1})


def test_two_processes_do_not_write_the_same(tmp_path: Path) -> None:
  (tmp_path / "out").mkdir()
  handle = os.open(tmp_path / "out", os.O_RDONLY)
  fcntl.flock(handle, fcntl.LOCK_EX)
  with pytest.raises(PrnError, match=r"another process is preparing data in .*out'\. Wait for it to end"):
    prepare(coco(tmp_path), tmp_path / "out")
  os.close(handle)
  assert prepare(coco(tmp_path), tmp_path / "out").num_records == 1


# -- several splits ----------------------------------------------------------------------------------------------------


def test_several_splits_share_their_classes(tmp_path: Path) -> None:
  for name in ("train/ant/1", "train/bee/1", "train/cat/1", "valid/cat/2", "other/dog/3"):
    write_image(tmp_path / f"{name}.jpg")
  prepare(f"imagefolder:{tmp_path / 'train'}", tmp_path / "out")
  prepare(f"imagefolder:{tmp_path / 'valid'}", tmp_path / "out", split="valid")
  valid = open_spec(f"arrayrecord:{tmp_path / 'out'}:valid")
  assert valid.names == ("ant", "bee", "cat")
  assert valid[0].label == 2  # the split alone would say 0
  assert len(open_spec(f"arrayrecord:{tmp_path / 'out'}:train")) == 3
  with pytest.raises(DataError, match="objects of class 'dog', not among the 3 given names"):
    prepare(f"imagefolder:{tmp_path / 'other'}", tmp_path / "out", split="test")


# -- bad data ----------------------------------------------------------------------------------------------------------


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
  spec = coco(tmp_path, 6, suffix=".jpg")
  images = tmp_path / "images"
  (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:-200])
  (images / "3.jpg").write_bytes(b"")
  write_image(images / "5.jpg", 64, 48)
  with pytest.raises(DataError, match=r"1\.jpg' is truncated.*\n.*--on-bad-data skip\) the image is left out"):
    prepare(spec, tmp_path / "out")
  done = prepare(spec, tmp_path / "out", on_bad_data="skip", num_shards=2)
  assert done.num_records == 3
  assert done.left_out == {"unreadable image": 2, "malformed": 1}
  assert "is empty (0 bytes)" in done.problems[1]
  assert "5.jpg' is 64x48, but the annotations say 100x50" in done.problems[2]
  dataset = open_spec(done.spec)
  assert [dataset[i].image_id for i in range(3)] == [2, 4, 6]


def test_no_image_left(tmp_path: Path) -> None:
  spec = coco(tmp_path, 2)
  for path in (tmp_path / "images").iterdir():
    path.write_bytes(b"no image")
  with pytest.raises(DataError, match=r"no image is left; the first was left out because of .*1\.png' is not an image"):
    prepare(spec, tmp_path / "out", on_bad_data="skip")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
  spec = coco(tmp_path)
  with pytest.raises(PrnError, match=r"cannot write to '.*file': it is a file\. Give another OUT"):
    prepare(spec, write(tmp_path / "file", ""))
  with pytest.raises(DataError, match=r"'a/b' is no name for a split"):
    prepare(spec, tmp_path / "out", split="a/b")
  with pytest.raises(DataError, match=r"the number of shards is 0"):
    prepare(spec, tmp_path / "out", num_shards=0)
  with pytest.raises(DataError, match=r"there is no folder"):
    prepare("imagefolder:nowhere", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_real_coco(shared: Path, tmp_path: Path) -> None:
  root = shared / "data" / "coco_subset"
  spec = f"coco:{root / 'annotations' / 'instances_val2017.json'}:{root / 'val2017'}"
  done = prepare(spec, tmp_path / "out", options=ShrinkOptions(max_side=128), num_shards=2)
  before, after = open_spec(spec), open_spec(done.spec)
  assert isinstance(before, RecordList)
  assert (after.names, after.category_ids, len(after)) == (before.names, before.category_ids, 141)
  for index in range(0, 141, 10):
    old, new = before[index], after[index]
    assert max(new.width or 0, new.height or 0) == 128
    assert old.image_id == new.image_id
    np.testing.assert_array_equal(old.classes, new.classes)
    np.testing.assert_allclose(
      old.boxes_xyxy_px / np.array([old.width, old.height] * 2, float),
      new.boxes_xyxy_px / np.array([new.width, new.height] * 2, float),
      atol=1e-6,
    )


def test_an_interrupt_leaves_whole_shards_alone(tmp_path: Path) -> None:
  spec = coco(tmp_path, 9)

  def interrupted(items: Iterable[object], total: int) -> Iterator[object]:
    assert total == 9
    for number, item in enumerate(items):
      if number == 5:  # in the second of three shards
        raise KeyboardInterrupt
      yield item

  with pytest.raises(KeyboardInterrupt):
    prepare(spec, tmp_path / "out", num_shards=3, num_threads=3, progress=interrupted)
  assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".train", "train-00000-of-00003.array_record"]
  assert prepare(spec, tmp_path / "out", num_shards=3).num_kept == 1


def test_no_thread_outlives_its_work(tmp_path: Path) -> None:
  """A generator that is dropped halfway must not be left to end its threads when it is collected, perhaps in one."""
  spec = coco(tmp_path, 40)
  for number in (3, 5):
    (tmp_path / "images" / f"{number}.png").write_bytes(b"no image")
  before = threading.active_count()
  for _ in range(5):
    with pytest.raises(DataError, match=r"3\.png"):
      prepare(spec, tmp_path / "out", num_threads=8)
    assert threading.active_count() == before
