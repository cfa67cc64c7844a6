"""What is in a training batch: truths, labels, decoded pixels, bad images."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prn_jax.data_pipelines.augment import NO_DETECTION_AUGMENT, ClassificationAugment
from prn_jax.data_pipelines.augment.sample import IGNORED_CLASS, Sample
from prn_jax.data_pipelines.feed import decoding
from prn_jax.data_pipelines.feed.batching import truth_rows
from prn_jax.data_pipelines.feed.decoding import SampleMemory, make_sample, read_reduced
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig, batch_at, train_batches
from prn_jax.data_pipelines.images import ImageError, read_image
from prn_jax.data_pipelines.parallel import WorkerError, check_shared_memory
from prn_jax.data_pipelines.records import DataError, Object, RecordList, make_record
from tests.data_pipelines.pipeline_data import Noisy, jpeg, numbered, png, with_image


def config(**changes: object) -> PipelineConfig:
  values = {"seed": 3, "batch_size": 4, "sizes": ((40, 30),), "max_boxes": 4, "threads": 1}
  return PipelineConfig(**(values | changes))  # type: ignore[arg-type]


def one_image(image: bytes | Path, size: tuple[int, int] | None, objects: list[Object]) -> RecordList:
  return RecordList(("a", "b"), (0, 1), (make_record(image, "one", size, objects),))


# -- truths ------------------------------------------------------------------------------------------------------------


def test_truth_is_centre_and_size_relative_to_the_input() -> None:
  # In 40x30: a box from (10, 6) to (30, 12) has its centre at (20, 9) and is 20x6.
  data = one_image(png(40, 30, 1), (40, 30), [Object((10, 6, 30, 12), 1)])
  batch = batch_at(data, NO_DETECTION_AUGMENT, config(sizes=((80, 90),)), 0)
  expected = np.zeros((4, 5), np.float32)
  expected[0] = [20 / 40, 9 / 30, 20 / 40, 6 / 30, 1]
  for row in batch["truth"]:
    np.testing.assert_allclose(row, expected, atol=1e-6)


def test_crowds_are_ignored_regions_and_difficult_objects_stay() -> None:
  objects = [Object((0, 0, 10, 15), 0, is_crowd=True), Object((4, 4, 20, 20), 1, is_difficult=True)]
  data = one_image(png(40, 30, 1), (40, 30), objects)
  truth = batch_at(data, NO_DETECTION_AUGMENT, config(), 0)["truth"][0]
  assert truth[:, 4].tolist() == [1, IGNORED_CLASS, 0, 0]
  np.testing.assert_allclose(truth[1, :4], [5 / 40, 7.5 / 30, 10 / 40, 15 / 30])


def test_ignored_regions_move_with_the_image_and_never_take_the_row_of_an_object() -> None:
  objects = [Object((n, n, n + 5, n + 5), 0) for n in range(3)]
  record = make_record(png(40, 30, 1), "one", (40, 30), objects, ignored_xyxy_px=[(0, 0, 4, 4), (10, 6, 30, 12)])
  data = RecordList(("a", "b"), (0, 1), (record,))
  flipped = replace(NO_DETECTION_AUGMENT, flip=True)
  rows = [batch_at(data, flipped, config(), step)["truth"][0] for step in range(6)]
  assert all(truth[:, 4].tolist() == [0, 0, 0, IGNORED_CLASS] for truth in rows)  # the larger one
  assert {float(truth[3, 0]) for truth in rows} == {0.5}
  assert {round(float(truth[0, 0]), 4) for truth in rows} == {2.5 / 40, 1 - 2.5 / 40}


def test_truths_lie_inside_and_have_area() -> None:
  boxes = np.array([[-9, 2, 5, 9], [3, 3, 3, 9], [-5, 0, 0, 4], [30, 20, 99, 99]], np.float32)
  sample = Sample(np.zeros((30, 40, 3), np.uint8), boxes, np.array([1, 1, 1, 2], np.int32))
  truth, count = truth_rows(sample, 3, np.random.default_rng(0))
  assert count == 2
  np.testing.assert_allclose(truth[0], [2.5 / 40, 5.5 / 30, 5 / 40, 7 / 30, 1], atol=1e-6)
  np.testing.assert_allclose(truth[1], [35 / 40, 25 / 30, 10 / 40, 10 / 30, 2], atol=1e-6)
  assert not truth[2].any()


def test_too_many_objects_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
  objects = [Object((n, n, n + 5, n + 5), n % 2) for n in range(9)]
  data = one_image(png(40, 30, 1), (40, 30), objects)
  with caplog.at_level(logging.WARNING), train_batches(data, NO_DETECTION_AUGMENT, config(), num_steps=2) as batches:
    truths = np.concatenate([batch["truth"] for _, batch in batches])
  assert (truths[..., 2] > 0).all()
  assert (batches.report.num_overflowing, batches.report.num_boxes_lost) == (8, 8 * 5)
  assert [record.getMessage() for record in caplog.records] == [
    "record 0 has 9 objects, max_boxes is 4: a random choice of them is kept. Further images are only counted."
  ]
  assert len({row.tobytes() for row in truths}) > 1, "the choice is random"


def test_labels_instead_of_truths() -> None:
  data = numbered(11, labelled=True)
  batch = batch_at(data, ClassificationAugment(), config(batch_size=8), 1)
  assert sorted(batch) == ["image", "index", "label"]
  assert batch["label"].dtype == np.int32
  assert batch["label"].tolist() == [index % 5 for index in batch["index"]]


def test_mixed_data_is_an_error() -> None:
  records = numbered(2).records + numbered(2, labelled=True).records
  data = RecordList(("a", "b", "c", "d", "e"), (0, 1, 2, 3, 4), records)
  with pytest.raises(DataError, match="2 of 4 images of a batch have a label"):
    batch_at(data, Noisy(), config(), 0)


# -- pixels ------------------------------------------------------------------------------------------------------------


def test_large_jpegs_are_decoded_smaller_with_their_boxes() -> None:
  record = make_record(jpeg(800, 640), "one", (800, 640), [Object((80, 64, 400, 320), 0)])
  whole, half = make_sample(record, None), make_sample(record, (300, 300))
  assert whole.image.shape == (640, 800, 3)
  assert half.image.shape == (320, 400, 3), "a quarter would be below 300"
  np.testing.assert_allclose(half.boxes_xyxy_px, [[40, 32, 200, 160]])
  smaller = np.asarray(Image.fromarray(whole.image).resize((400, 320), Image.Resampling.BOX), np.int64)
  assert np.abs(smaller - half.image).mean() < 1.5
  assert make_sample(record, (401, 100)).image.shape == (640, 800, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 10}])
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (17, 251)])
def test_in_full_size_a_jpeg_is_what_read_image_gives(size: tuple[int, int], options: dict[str, object]) -> None:
  data = jpeg(*size, **options)
  for at_least in (None, size, (4000, 4000)):
    decoded = read_reduced(make_record(data, "one", None), at_least)
    np.testing.assert_array_equal(decoded.image, read_image(data))
    assert (decoded.width, decoded.height) == size


def test_a_grey_jpeg_becomes_rgb() -> None:
  buffer = io.BytesIO()
  Image.linear_gradient("L").save(buffer, "JPEG")
  decoded = read_reduced(make_record(buffer.getvalue(), "grey", None), None)
  np.testing.assert_array_equal(decoded.image, read_image(buffer.getvalue()))


def test_a_turned_jpeg_is_reduced_upright() -> None:
  exif = Image.Exif()
  exif[0x0112] = 6
  data = jpeg(800, 400, exif=exif.tobytes())
  decoded = read_reduced(make_record(data, "turned", None), (200, 400))
  assert decoded.image.shape == (400, 200, 3)
  assert (decoded.width, decoded.height) == (400, 800)
  smaller = np.asarray(Image.fromarray(read_image(data)).resize((200, 400), Image.Resampling.BOX), np.int64)
  assert np.abs(smaller - decoded.image).mean() < 2
  assert read_reduced(make_record(data, "turned", None), (400, 200)).image.shape == (800, 400, 3)


@pytest.mark.parametrize("at_least", [None, (50, 25)])
def test_boxes_of_an_image_of_another_size_are_refused(at_least: tuple[int, int] | None) -> None:
  record = make_record(jpeg(400, 200), "one", (200, 100), [Object((100, 50, 150, 80), 0)])
  with pytest.raises(DataError, match="image 'one' is 400x200, but the annotations say 200x100"):
    make_sample(record, at_least)
  assert len(make_sample(replace(record, width=None, height=None), at_least).boxes_xyxy_px) == 1


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_damaged_jpegs_are_found_when_reduced(keep: int) -> None:
  data = jpeg(1600, 1600, quality=95)
  damaged = data[:keep] + (b"" if keep else b"\xff\xd8\xff" + bytes(500))
  with pytest.raises(ImageError, match="image 'one' is truncated"):
    read_reduced(make_record(damaged, "one", None), (100, 100))


def test_an_unfinished_download_is_found_when_reduced() -> None:
  data = jpeg(1600, 1600, quality=95)
  with pytest.raises(ImageError, match="image 'one' is truncated"):
    read_reduced(make_record(data[: len(data) // 2] + bytes(len(data) // 2), "one", None), (100, 100))


def test_decoding_does_not_depend_on_the_step() -> None:
  data = one_image(jpeg(800, 640), (800, 640), [])
  small, large = (40, 30), (300, 200)
  settings = config(sizes=(small, large), resize_every=1, largest_last_steps=0, cache_mb=8)
  with train_batches(data, Noisy(), settings, num_steps=12) as batches:
    for step, batch in batches:
      again = batch_at(data, Noisy(), replace(settings, cache_mb=0), step, 12)
      assert batch["image"].tobytes() == again["image"].tobytes()


def test_memory_is_bounded_and_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
  read: list[object] = []

  def counted(record: object, at_least: object) -> Sample:
    read.append(record)
    return make_sample(record, at_least)  # type: ignore[arg-type]

  monkeypatch.setattr("prn_jax.data_pipelines.feed.batching.make_sample", counted)
  settings = config(cache_mb=1, threads=0)
  with train_batches(numbered(8), Noisy(), settings, num_steps=20) as batches:
    assert len(list(batches)) == 20
  assert len(read) == 8

  memory = SampleMemory(2 * 40 * 30 * 3)
  records = numbered(4).records
  for _ in range(2):
    for index, record in enumerate(records):
      assert isinstance(memory.get(index, lambda _, record=record: make_sample(record, None)), Sample)
  assert len(memory) == 2


def test_decoded_pixels_cannot_be_changed_by_an_augmentation() -> None:
  sample = make_sample(numbered(1).records[0], None)
  with pytest.raises(ValueError, match="read-only"):
    sample.image[0] = 0


# -- bad images --------------------------------------------------------------------------------------------------------


def test_policy_stop_names_file_and_remedy(tmp_path: Path) -> None:
  path = tmp_path / "broken.jpg"
  path.write_bytes(jpeg(200, 200)[:700])
  data = numbered(4)
  data = replace(data, records=(*data.records[:2], with_image(data.records[2], path), data.records[3]))
  message = "record 2: image '.*broken.jpg' is truncated.*Copy or download it again.*on_bad_data='skip'"
  with train_batches(data, Noisy(), config()) as batches, pytest.raises(DataError, match=message):
    next(batches)
  assert next(batches, None) is None
  with pytest.raises(DataError, match=message):
    batch_at(data, Noisy(), config(), 0)


def test_policy_skip_replaces_within_the_epoch_and_lists(caplog: pytest.LogCaptureFixture) -> None:
  data, bad = numbered(12, bad=(3, 7)), {3, 7}
  settings = config(on_bad_data="skip")
  with caplog.at_level(logging.WARNING), train_batches(data, Noisy(), settings, num_steps=6) as batches:
    seen = np.concatenate([batch["index"] for _, batch in batches]).reshape(2, 12)
  for epoch in seen:
    assert not bad & set(epoch.tolist())
    assert set(epoch.tolist()) == set(range(12)) - bad, "no good record is lost to the bad ones"
  assert {str(problem.path) for problem in batches.report.problems} == {"picture_3", "picture_7"}
  assert len(caplog.records) == 2, "each is told once"
  assert "Another image takes its place" in caplog.text
  halves = [batch_at(data, Noisy(), settings, 1, process_index=index, process_count=2) for index in range(2)]
  assert np.concatenate([half["index"] for half in halves]).tolist() == seen.ravel()[4:8].tolist()


def test_replacement_is_the_next_of_the_epoch() -> None:
  good, settings = numbered(12), config(on_bad_data="skip", batch_size=12)
  order = batch_at(good, Noisy(), settings, 0)["index"].tolist()
  bad = (order[4], order[5], order[11])
  replaced = batch_at(numbered(12, bad=bad), Noisy(), settings, 0)["index"].tolist()
  expected = order.copy()
  expected[4] = expected[5] = order[6]
  expected[11] = order[0]  # from the end of the epoch on to its start
  assert replaced == expected


def test_nothing_can_be_decoded() -> None:
  with pytest.raises(DataError, match="none of the 3 images can be used, the first because image 'picture_"):
    batch_at(numbered(3, bad=(0, 1, 2)), Noisy(), config(on_bad_data="skip"), 0)


def test_the_reduced_decoder_leaves_other_formats_alone() -> None:
  buffer = io.BytesIO()
  Image.new("CMYK", (640, 640), (0, 255, 255, 0)).save(buffer, "JPEG")
  decoded = read_reduced(make_record(buffer.getvalue(), "cmyk", None), (100, 100))
  np.testing.assert_array_equal(decoded.image, read_image(buffer.getvalue()))
  assert decoding.read_reduced(make_record(png(640, 640, 3), "png", None), (10, 10)).image.shape == (640, 640, 3)


def test_too_little_shared_memory_is_told_before_workers_die(tmp_path: Path) -> None:
  with pytest.raises(WorkerError, match=r"need 1,073,741,824 MiB of it; .* Enlarge it .*--shm-size"):
    check_shared_memory(2**50, str(tmp_path))
  check_shared_memory(1, str(tmp_path))
  check_shared_memory(2**50, str(tmp_path / "absent"))
