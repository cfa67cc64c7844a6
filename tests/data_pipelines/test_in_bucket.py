"""Every kind of data is read from a bucket as from a folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches
from prn_jax.data_pipelines.images.inputs import InputError, expand
from prn_jax.data_pipelines.prepared import shard_cache
from prn_jax.data_pipelines.prepared.prepare import prepare
from prn_jax.data_pipelines.records import DataError, Dataset
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.errors import BucketError, PrnError
from tests.data_pipelines.pictures import write, write_image
from tests.files.test_places import impatient  # noqa: F401  (a fixture)
from tests.object_store import Faults, ObjectStore

VOC = """<annotation><size><width>100</width><height>50</height></size><object><name>{name}</name>
<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>50</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def write_coco(root: Path) -> str:
  images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 50} for n in (1, 2)]
  boxes = [{"id": n, "image_id": n, "category_id": 7, "bbox": [10 * n, 5, 30, 20]} for n in (1, 2)]
  content = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "car"}]}
  write(root / "annotations/some.json", json.dumps(content))
  for n in (1, 2):
    write_image(root / f"images/{n}.png")
  return "coco:{root}/annotations/some.json:{root}/images"


def write_voc(root: Path) -> str:
  write(root / "ImageSets/Main/train.txt", "a\nb\n")
  for name in "ab":
    write(root / f"Annotations/{name}.xml", VOC.format(name="tram"))
    write_image(root / f"JPEGImages/{name}.jpg")
  return "voc:{root}:train"


def write_yolo(root: Path) -> str:
  write(root / "data.yaml", "path: .\nnames: [cat, dog]\ntrain: images/train\n")
  for name in "ab":
    write_image(root / f"images/train/{name}.jpg")
    write(root / f"labels/train/{name}.txt", "1 0.5 0.5 0.2 0.4\n")
  return "yolo:{root}/data.yaml:train"


def write_darknet(root: Path) -> str:
  write(root / "obj.data", "classes = 2\ntrain = train.txt\nvalid = train.txt\nnames = obj.names\n")
  write(root / "obj.names", "cat\ndog\n")
  write(root / "train.txt", "obj/a.jpg\nobj/b.jpg\n")
  for name in "ab":
    write_image(root / f"obj/{name}.jpg")
    write(root / f"obj/{name}.txt", "0 0.5 0.5 0.2 0.4\n")
  return "darknet:{root}/obj.data:train"


def write_imagefolder(root: Path) -> str:
  for label in ("cat", "dog"):
    write_image(root / f"train/{label}/1.png")
  return "imagefolder:{root}/train"


def write_arrayrecord(root: Path) -> str:
  spec = write_coco(root / "coco")
  prepare(spec.format(root=root / "coco"), root / "prepared", num_shards=2)
  return "arrayrecord:{root}/prepared:train"


WRITERS = {
  "coco": write_coco, "voc": write_voc, "yolo": write_yolo, "darknet": write_darknet, "imagefolder": write_imagefolder,
  "arrayrecord": write_arrayrecord,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setenv("PRN_SHARD_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


def contents(dataset: Dataset) -> list[object]:
  """All that a data set says, with the bytes of its images in place of their paths."""
  records = [dataset[index] for index in range(len(dataset))]
  return [
    list(dataset.names),
    [
      (str(r.image_id), r.width, r.height, r.label, r.boxes_xyxy_px.tolist(), r.classes.tolist(), r.image if isinstance(r.image, bytes) else r.image.read_bytes())
      for r in records
    ],
  ]  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_data_set_in_a_bucket_is_the_one_of_a_folder(store: ObjectStore, tmp_path: Path, kind: str) -> None:
  root = tmp_path / "data"
  spec = WRITERS[kind](root)
  store.fill(root, "some/data")
  expected = contents(open_spec(spec.format(root=root)))
  found = contents(open_spec(spec.format(root="gs://bucket/some/data")))
  assert found == expected
  assert len(found[1]) == 2  # type: ignore[arg-type]


def test_batches_of_a_bucket(store: ObjectStore, tmp_path: Path) -> None:
  spec = write_coco(tmp_path)
  store.fill(tmp_path, "d")
  batches = []
  for root in (tmp_path, "gs://bucket/d"):
    with eval_batches(open_spec(spec.format(root=root)), (32, 32), resize="stretch", batch_size=2) as made:
      batches += list(made)
  np.testing.assert_array_equal(batches[0]["image"], batches[1]["image"])


def test_a_missing_image_is_named_as_elsewhere(store: ObjectStore, tmp_path: Path) -> None:
  spec = write_coco(tmp_path)
  store.fill(tmp_path, "d")
  del store.objects["d/images/2.png"]
  with pytest.raises(
    DataError, match=r"gs://bucket/d/images/2\.png: the image of id 2 in gs://bucket/d/.* does not exist"
  ):
    open_spec(spec.format(root="gs://bucket/d"))


@pytest.mark.usefixtures("impatient")
def test_an_outage_leaves_no_image_out(store: ObjectStore, tmp_path: Path) -> None:
  """Under the policy skip an image that cannot be read is left out; one that nobody could ask for is not."""
  spec = write_coco(tmp_path)
  store.fill(tmp_path, "d")
  dataset = open_spec(spec.format(root="gs://bucket/d"))
  store.faults = Faults(refused=1)
  with (
    eval_batches(dataset, (32, 32), resize="stretch", batch_size=2, on_bad_data="skip") as batches,
    pytest.raises(BucketError, match="could not be reached"),
  ):
    next(iter(batches))
  with pytest.raises(BucketError, match="could not be reached"):
    open_spec(spec.format(root="gs://bucket/d"), "skip")


# -- prepared data -----------------------------------------------------------------------------------------------------


def test_shards_are_copied_once_and_checked(store: ObjectStore, tmp_path: Path, cache: Path) -> None:
  spec = write_arrayrecord(tmp_path)
  store.fill(tmp_path, "d")
  remote = spec.format(root="gs://bucket/d")
  assert len(contents(open_spec(remote))[1]) == 2  # type: ignore[arg-type]
  assert len(list(cache.iterdir())) == 2
  shards = [name for name in store.names() if name.endswith(".array_record")]
  for name in shards:
    store.put(name, b"x" * len(store.read(name)))
  assert len(contents(open_spec(remote))[1]) == 2, "from the copies, which have the checksums of the list"  # type: ignore[arg-type]
  for copy in cache.iterdir():
    copy.unlink()
  with pytest.raises(
    DataError, match=r"gs://bucket/d/prepared/.*its sha256 differs from the one in the list of shards"
  ):
    contents(open_spec(remote))
  assert list(cache.iterdir()) == []


def test_a_disk_without_room_is_told_before_the_start(
  store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  spec = write_arrayrecord(tmp_path)
  store.fill(tmp_path, "d")
  usage = shard_cache.shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shard_cache.shutil, "disk_usage", lambda folder: usage._replace(free=10))
  with pytest.raises(
    DataError, match=r"that takes 0\.0 GB, and 0\.0 GB are free\. Set PRN_SHARD_CACHE to a folder on a larger"
  ):
    open_spec(spec.format(root="gs://bucket/d"))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "spec", ["coco:s3://b/a.json:s3://b/images", "voc:hdfs://b/VOC:train", "imagefolder:az://b/train"]
)
def test_other_schemes(spec: str) -> None:
  with pytest.raises(PrnError, match="is not supported; expected a path of this machine or gs://BUCKET/NAME"):
    open_spec(spec)


def test_what_only_this_machine_reads(store: ObjectStore) -> None:
  store.put("d/train.zip", b"PK")
  with pytest.raises(DataError, match="an archive is read on this machine only; copy it here first"):
    open_spec("imagefolder:gs://bucket/d/train.zip")
  with pytest.raises(DataError, match="what tfds has prepared is read on this machine only"):
    open_spec("tfds:gs://bucket/tfds/mnist:train")
  with pytest.raises(PrnError, match=re.escape("cannot write to 'gs://bucket/out': data is prepared on this machine")):
    prepare("synthetic:traffic:2", "gs://bucket/out")


# -- photos ------------------------------------------------------------------------------------------------------------


def test_photos(store: ObjectStore) -> None:
  for name in ("a.jpg", "b.png", "notes.txt", "deep/c.jpg"):
    store.put(f"photos/{name}", b"x")
  below = [f"gs://bucket/photos/{name}" for name in ("a.jpg", "b.png", "deep/c.jpg")]
  assert expand(["gs://bucket/photos"]) == below
  assert expand(["gs://bucket/photos/*.jpg"]) == below[:1]
  store.put("photos/list.txt", b"a.jpg\ngs://bucket/photos/deep/c.jpg\n")
  listed = ["gs://bucket/photos/a.jpg", "gs://bucket/photos/deep/c.jpg"]
  assert expand(["gs://bucket/photos/list.txt"]) == listed
  with pytest.raises(InputError, match=r"list 'gs://bucket/photos/notes\.txt': "):
    expand(["gs://bucket/photos/notes.txt"])
  with pytest.raises(InputError, match="'gs://bucket/nothing' names no image"):
    expand(["gs://bucket/nothing"])
  with pytest.raises(PrnError, match="s3:// is not supported"):
    expand(["s3://bucket/photos"])
