"""TensorFlow Datasets without TensorFlow: labels and boxes of prepared data, and what cannot be opened."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from prn_jax.data_pipelines.prepared.prepare import default_split, prepare
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.run.evaluate import detection_data, run_model
from tests.data_pipelines.test_tfrecord import write_tfrecord
from tests.nets import random_model, tiny_detector

JPEG = io.BytesIO()
Image.new("RGB", (100, 50), "grey").save(JPEG, "JPEG")
DETECTION = {
  "image": tfds.features.Image(encoding_format="jpeg"),
  "image/id": np.int64,
  "objects": tfds.features.Sequence(
    {
      "bbox": tfds.features.BBoxFeature(),
      "pose": tfds.features.ClassLabel(names=["left", "right", "front"]),
      "label": tfds.features.ClassLabel(names=["cat", "dog"]),
      "is_crowd": np.bool_,
      "is_difficult": np.bool_,
      "area": np.int64,
    }
  ),
}
CLASSIFICATION = {
  "file_name": tfds.features.Text(),
  "image": tfds.features.Image(encoding_format="jpeg"),
  "label": tfds.features.ClassLabel(names=["cat", "dog", "cow"]),
}


def prepared(
  folder: Path,
  features: dict[str, Any],
  examples: list[dict[str, Any]],
  name: str = "toy",
  file_format: str = "array_record",
  shards: int = 1,
  version: str = "1.0.0",
) -> Path:
  """Writes what tfds' own download_and_prepare writes; `name` may have a config behind a "/"."""
  place = folder / name / version
  place.mkdir(parents=True)
  name = name.split("/")[0]
  content = tfds.features.FeaturesDict(features)
  rows = [content.serialize_example(content.encode_example(example)) for example in examples]
  parts = [rows[k::shards] for k in range(shards)]
  for k, part in enumerate(parts):
    path = place / f"{name}-train.{file_format}-{k:05}-of-{shards:05}"
    if file_format == "tfrecord":
      write_tfrecord(path, part)
      continue
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for row in part:
      writer.write(row)
    writer.close()
  tfds.folder_dataset.write_metadata(
    data_dir=str(place),
    features=content,
    split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=list(map(len, parts)), num_bytes=sum(map(len, rows)))],
    filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    check_data=False,  # this would need TensorFlow
  )
  if file_format != "array_record":
    info = place / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": file_format}))
  return place


def item(box: tuple[float, ...] = (0.1, 0.2, 0.5, 0.6), **changes: Any) -> dict[str, Any]:
  y1, x1, y2, x2 = box
  values = {"bbox": tfds.features.BBox(ymin=y1, xmin=x1, ymax=y2, xmax=x2), "label": "dog", "pose": "front"}
  return values | {"is_crowd": False, "is_difficult": False, "area": 99} | changes


def detection(tmp_path: Path, *items: list[dict[str, Any]]) -> str:
  rows = [{"image": JPEG.getvalue(), "image/id": 70 + n, "objects": objects} for n, objects in enumerate(items)]
  return f"tfds:{prepared(tmp_path, DETECTION, rows)}:train"


def test_objects(tmp_path: Path) -> None:
  dataset = open_spec(detection(tmp_path, [], [item(), item(label="cat", is_crowd=True), item(is_difficult=True)]))
  assert (len(dataset), dataset.names, dataset.category_ids) == (2, ("cat", "dog"), (0, 1))
  empty, record = dataset[0], dataset[1]
  assert (empty.image_id, empty.boxes_xyxy_px.shape, empty.label) == (70, (0, 4), None)
  assert (record.image_id, record.width, record.height) == (71, 100, 50)
  assert record.image == JPEG.getvalue()  # not decoded
  # ymin .1, xmin .2, ymax .5, xmax .6 of 100 x 50
  np.testing.assert_allclose(record.boxes_xyxy_px, np.tile([20, 5, 60, 25], (3, 1)), atol=1e-5)
  assert record.classes.tolist() == [1, 0, 1]
  assert record.is_crowd.tolist() == [False, True, False]
  assert record.is_difficult.tolist() == [False, False, True]
  assert record.area_px is not None
  assert record.area_px.tolist() == [99, 99, 99]
  assert "tensorflow" not in sys.modules


def test_labels_slices_and_folders_above(tmp_path: Path) -> None:
  rows = [{"file_name": f"{n}.jpg", "image": JPEG.getvalue(), "label": n % 3} for n in range(10)]
  prepared(tmp_path, CLASSIFICATION, rows)
  dataset = open_spec(f"tfds:{tmp_path}:train[:40%]")
  assert (len(dataset), dataset.names) == (4, ("cat", "dog", "cow"))
  assert [dataset[n].label for n in (0, 1, 2, 3, -1)] == [0, 1, 2, 0, 0]
  assert dataset[3].image_id == "3.jpg"
  assert pickle.loads(pickle.dumps(dataset))[2].label == 2
  with pytest.raises(IndexError, match="record 4 of 4"):
    dataset[4]
  assert default_split(f"tfds:{tmp_path}:train[:40%]") == "train"


def test_bad_boxes_stop_or_are_left_out_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  boxes = iter([[np.float32([0.5, 0.2, 0.5, 0.6]), np.float32([0, 0, 1, 1])]] * 4)
  spec = detection(tmp_path, [item(), item()])
  for policy in ("stop", "skip"):
    dataset = open_spec(spec, policy)
    example = dataset._source[0]  # type: ignore[attr-defined]
    example["objects"]["bbox"] = next(boxes)
    monkeypatch.setattr(dataset, "_source", [example])
    if policy == "stop":
      with pytest.raises(DataError, match=r"1\.0\.0: record 0, object 1: box \[20, 25, 60, 25\] .* has size 40x0"):
        dataset[0]
      continue
    assert dataset.problems == ()
    for _ in range(2):  # read twice, listed once
      assert dataset[0].boxes_xyxy_px.tolist() == [[0, 0, 100, 50]]
    assert ["has size 40x0" in str(problem) for problem in dataset.problems] == [True]


def test_damaged_images_are_left_to_the_decoder(tmp_path: Path) -> None:
  rows = [{"file_name": f"{n}", "image": JPEG.getvalue(), "label": 1} for n in range(3)]
  rows[1]["image"] = b"no image"
  spec = f"tfds:{prepared(tmp_path, CLASSIFICATION, rows)}:train"
  assert open_spec(spec)[1].width is None
  with pytest.raises(DataError, match=r"image '1' is not an image"):
    prepare(spec, tmp_path / "out")
  done = prepare(spec, tmp_path / "out", on_bad_data="skip")
  assert (done.num_records, done.left_out) == (2, {"unreadable image": 1})
  assert [open_spec(done.spec)[n].image_id for n in range(2)] == ["0", "2"]


def test_labels_of_submission_splits(tmp_path: Path) -> None:
  rows = [{"file_name": "a", "image": JPEG.getvalue(), "label": -1}]
  dataset = open_spec(f"tfds:{prepared(tmp_path, CLASSIFICATION, rows)}:train")
  with pytest.raises(DataError, match=r"record 0 has label -1; expected 0\.\.2\. Splits without labels"):
    dataset[0]


def test_unknown_folders_and_splits(tmp_path: Path) -> None:
  place = prepared(tmp_path, CLASSIFICATION, [{"file_name": "a", "image": JPEG.getvalue(), "label": 0}])
  with pytest.raises(DataError, match=r"there is no split 'tran' \(did you mean 'train'\?\); found train"):
    open_spec(f"tfds:{place}:tran")
  with pytest.raises(DataError, match=r"cannot be opened: "):
    open_spec(f"tfds:{place}:train[:x%]")
  with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
    open_spec(f"tfds:{tmp_path / 'nowhere'}:train")
  (tmp_path / "empty").mkdir()
  with pytest.raises(DataError, match=r"empty holds no dataset_info\.json"):
    open_spec(f"tfds:{tmp_path / 'empty'}:train")
  prepared(tmp_path, CLASSIFICATION, [{"file_name": "a", "image": JPEG.getvalue(), "label": 0}], "other")
  with pytest.raises(DataError, match=r"holds several data sets; give one of\n .*other/1\.0\.0\n .*toy/1\.0\.0"):
    open_spec(f"tfds:{tmp_path}:train")
  (place / "dataset_info.json").write_text("{")
  with pytest.raises(DataError, match=r"1\.0\.0 cannot be opened"):
    open_spec(f"tfds:{place}:train")


def test_data_without_images_or_labels(tmp_path: Path) -> None:
  text = {"text": tfds.features.Text()}
  with pytest.raises(DataError, match=r"has no images; its features are text \(Text\)"):
    open_spec(f"tfds:{prepared(tmp_path, text, [{'text': 'a'}], 'words')}:train")
  alone = {"image": tfds.features.Image(encoding_format="jpeg")}
  with pytest.raises(DataError, match=r"has neither a ClassLabel nor objects with a BBoxFeature; .* image \(Image\)"):
    open_spec(f"tfds:{prepared(tmp_path, alone, [{'image': JPEG.getvalue()}], 'photos')}:train")


def test_names_of_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
  monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
  with pytest.raises(
    DataError,
    match=r"tfds:coco/2017:train' is not prepared .*give the original files, coco:ANNOTATIONS\.json:IMAGES_DIR; or",
  ):
    open_spec("tfds:coco/2017:train")
  with pytest.raises(
    DataError, match=r"imagenet2012:train' is not prepared .*give the original files, imagenet:ROOT:SPLIT"
  ):
    open_spec("tfds:imagenet2012:train")
  with pytest.raises(DataError, match=r"tfds knows no data set 'cifar11' \(did you mean 'cifar10\w*'\?\)"):
    open_spec("tfds:cifar11:train")
  with pytest.raises(DataError, match=r"(?s)is not prepared: .*tfds\.builder\('cifar10', file_format='array_record'\)"):
    open_spec("tfds:cifar10:train")
  assert "tensorflow.org" not in "".join(capfd.readouterr())


def test_files_of_another_format(tmp_path: Path) -> None:
  place = prepared(tmp_path, CLASSIFICATION, [{"file_name": "a", "image": JPEG.getvalue(), "label": 0}])
  info = place / "dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "riegeli"))
  with pytest.raises(DataError, match=r"1\.0\.0 is stored as riegeli; expected one of tfrecord, array_record, parquet"):
    open_spec(f"tfds:{place}:train")


# -- the two that everybody has, as TFRecord ---------------------------------------------------------------------------

COCO_NAMES = [f"class {n}" for n in range(80)]
COCO = {  # the features of coco/2017
  "image": tfds.features.Image(encoding_format="jpeg"),
  "image/filename": tfds.features.Text(),
  "image/id": np.int64,
  "objects": tfds.features.Sequence(
    {
      "area": np.int64,
      "bbox": tfds.features.BBoxFeature(),
      "id": np.int64,
      "is_crowd": np.bool_,
      "label": tfds.features.ClassLabel(names=COCO_NAMES),
    }
  ),
}


def coco_rows(count: int) -> list[dict[str, Any]]:
  box = tfds.features.BBox(ymin=0.1, xmin=0.2, ymax=0.5, xmax=0.6)
  objects = [{"area": 800, "bbox": box, "id": 5, "is_crowd": False, "label": "class 2"}]
  return [
    {"image": JPEG.getvalue(), "image/filename": f"{n:012}.jpg", "image/id": n, "objects": objects * (n % 3)}
    for n in range(count)
  ]


def test_coco_2017_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """TFRecord in three files, as it is found below TFDS_DATA_DIR; slices, evaluation, preparation; no TensorFlow."""
  monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
  prepared(tmp_path, COCO, coco_rows(7), "coco/2017", "tfrecord", shards=3)
  dataset = open_spec("tfds:coco/2017:train")
  assert (len(dataset), len(dataset.names)) == (7, 80)
  assert [dataset[n].image_id for n in range(7)] == [0, 3, 6, 1, 4, 2, 5]  # file by file
  record = pickle.loads(pickle.dumps(dataset))[3]
  np.testing.assert_allclose(record.boxes_xyxy_px, [[20, 5, 60, 25]], atol=1e-5)
  assert (record.classes.tolist(), record.area_px.tolist()) == ([2], [800])
  assert [open_spec("tfds:coco/2017:train[2:4]")[n].image_id for n in range(2)] == [6, 1]

  done = prepare("tfds:coco/2017:train", tmp_path / "out")
  assert done.num_records == 7
  scored = detection_data(dataset, run_model(random_model(tiny_detector(32, 80)), dataset))
  assert (len(scored.image_ids), len(scored.truth_classes)) == (7, 0 + 1 + 2 + 0 + 1 + 2 + 0)
  assert "tensorflow" not in sys.modules


def test_imagenet2012_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
  builder = tfds.builder("imagenet2012", data_dir=str(tmp_path))
  features = dict(builder.info.features.items())
  rows = [{"file_name": f"n01440764_{n}.JPEG", "image": JPEG.getvalue(), "label": n} for n in range(4)]
  prepared(tmp_path, features, rows, "imagenet2012", "tfrecord", shards=2, version=str(builder.version))
  dataset = open_spec("tfds:imagenet2012:train")
  assert (len(dataset), len(dataset.names), dataset.names[0]) == (4, 1000, "n01440764")
  assert [(dataset[n].image_id, dataset[n].label) for n in range(2)] == [
    ("n01440764_0.JPEG", 0),
    ("n01440764_2.JPEG", 2),
  ]
