"""ImageNet in archives of the official layout: labels of both splits, preparation by one command, what can be wrong."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from prn_jax.cli.main import main
from prn_jax.data_pipelines.records import DataError
from prn_jax.data_pipelines.sources.imagenet import DEVKIT, TRAIN, VAL
from prn_jax.data_pipelines.spec import open_spec
from tests.data_pipelines.test_archives import jpeg, pack

# The devkit numbers classes in an order of its own, and lists groups of classes behind them.
SYNSETS = ((1, "n03333333", 0), (2, "n01111111", 0), (3, "n02222222", 0), (4, "n00000001", 3))
TRUTHS = (2, 3, 1, 2)


def tar_bytes(files: dict[str, bytes]) -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


def meta_mat(synsets: tuple[tuple[Any, Any, Any], ...] = SYNSETS) -> bytes:
  rows = np.zeros(
    (len(synsets), 1),
    [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("num_children", object)],
  )
  for row, (number, wnid, children) in zip(rows, synsets, strict=True):
    row[0] = (number, wnid, f"words of {wnid}", "", children)
  buffer = io.BytesIO()
  savemat(buffer, {"synsets": rows})
  return buffer.getvalue()


def other_mat() -> bytes:
  buffer = io.BytesIO()
  savemat(buffer, {"others": np.zeros(3)})
  return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
  folder = tmp_path / "official"
  folder.mkdir()
  classes = {
    wnid: tar_bytes({f"{wnid}_{n}.JPEG": jpeg(10 * k + n) for n in (2, 1)})
    for k, wnid in enumerate(("n02222222", "n01111111", "n03333333"))
  }
  pack(folder / TRAIN, {f"{wnid}.tar": data for wnid, data in classes.items()})
  pack(folder / VAL, {f"ILSVRC2012_val_{n:08}.JPEG": jpeg(40 + n) for n in (4, 1, 2, 3)})
  truths = "".join(f"{n}\n" for n in TRUTHS).encode()
  inside = "ILSVRC2012_devkit_t12/data/"
  pack(folder / DEVKIT, {f"{inside}ILSVRC2012_validation_ground_truth.txt": truths, f"{inside}meta.mat": meta_mat()})
  return folder


def test_training_images(root: Path) -> None:
  dataset = open_spec(f"imagenet:{root}:train")
  assert dataset.names == ("n01111111", "n02222222", "n03333333")
  records = [pickle.loads(pickle.dumps(dataset))[n] for n in range(len(dataset))]
  assert [record.image_id for record in records[:3]] == [
    "n01111111/n01111111_1.JPEG", "n01111111/n01111111_2.JPEG", "n02222222/n02222222_1.JPEG",
  ]  # fmt: skip
  assert [record.label for record in records] == [0, 0, 1, 1, 2, 2]
  assert [record.image for record in records] == [jpeg(n) for n in (11, 12, 1, 2, 21, 22)]
  assert (records[0].width, records[0].height) == (51, 30)
  (root / DEVKIT).unlink()
  assert open_spec(f"imagenet:{root}:train").names == dataset.names


def test_validation_labels_come_from_the_devkit(root: Path) -> None:
  dataset = open_spec(f"imagenet:{root}:val")
  assert dataset.names == ("n01111111", "n02222222", "n03333333")
  assert [(dataset[n].image_id, dataset[n].label) for n in range(4)] == [
    ("ILSVRC2012_val_00000001.JPEG", 0), ("ILSVRC2012_val_00000002.JPEG", 1), ("ILSVRC2012_val_00000003.JPEG", 2),
    ("ILSVRC2012_val_00000004.JPEG", 0),
  ]  # fmt: skip
  assert dataset[3].image == jpeg(44)


def test_one_command_prepares_both_splits(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  out = tmp_path / "prepared"
  assert main(["data", "prepare", f"imagenet:{root}:train,val", str(out), "--min-side", "20", "--json"]) == 0
  splits = json.loads(capsys.readouterr().out.splitlines()[-1])["splits"]
  assert [(one["spec"], one["images"]) for one in splits] == [
    (f"arrayrecord:{out}:train", 6), (f"arrayrecord:{out}:val", 4),
  ]  # fmt: skip
  train, val = (open_spec(one["spec"]) for one in splits)
  assert train.names == val.names == ("n01111111", "n02222222", "n03333333")
  assert [val[n].label for n in range(4)] == [0, 1, 2, 0]
  assert (train[0].width, train[0].height) == (34, 20)
  command = ["data", "prepare", f"imagenet:{root}:train,val", str(out), "--split", "x"]
  assert main(command) == 2
  assert "--split x names one split, but" in capsys.readouterr().err


def test_what_is_missing_or_unknown(root: Path) -> None:
  with pytest.raises(DataError, match=r"there is no split 'valid' \(did you mean 'val'\?\); expected train or val"):
    open_spec(f"imagenet:{root}:valid")
  (root / DEVKIT).rename(root / "devkit")
  with pytest.raises(
    DataError, match=r"there is no .*devkit_t12\.tar\.gz \(it says which class each validation image is\)"
  ):
    open_spec(f"imagenet:{root}:val")
  (root / TRAIN).unlink()
  with pytest.raises(
    DataError, match=r"there is no .*ILSVRC2012_img_train\.tar\. Put the archives of ILSVRC2012 there"
  ):
    open_spec(f"imagenet:{root}:train")


def test_other_classes_and_images(root: Path) -> None:
  pack(root / TRAIN, {"n01111111.tar": tar_bytes({"n01111111_1.JPEG": jpeg()}), "n09999999.tar": tar_bytes({})})
  with pytest.raises(DataError, match=r"class 'n09999999' is not among the 3 classes of ILSVRC2012_devkit"):
    open_spec(f"imagenet:{root}:train")
  kept = open_spec(f"imagenet:{root}:train", "skip")
  assert (len(kept), len(kept.problems)) == (1, 3)  # and two classes without images
  pack(root / VAL, {"ILSVRC2012_val_00000005.JPEG": jpeg(), "ILSVRC2012_val_00000001.JPEG": jpeg()})
  with pytest.raises(
    DataError, match=r"member 'ILSVRC2012_val_00000005\.JPEG' is none of the 4 images of ILSVRC2012_val"
  ):
    open_spec(f"imagenet:{root}:val")
  pack(root / VAL, {"ILSVRC2012_test_00000005.JPEG": jpeg()})
  with pytest.raises(DataError, match=r"ILSVRC2012_img_val\.tar holds no images of ILSVRC2012"):
    open_spec(f"imagenet:{root}:val", "skip")
  pack(root / TRAIN, {"cat/1.jpg": jpeg()})
  with pytest.raises(DataError, match=r"holds no tars of classes \(n01440764\.tar, \.\.\.\); expected ILSVRC2012's"):
    open_spec(f"imagenet:{root}:train")


def test_damage(root: Path) -> None:
  whole = (root / TRAIN).read_bytes()
  dataset = open_spec(f"imagenet:{root}:train")
  (root / TRAIN).write_bytes(whole[:2000])
  with pytest.raises(DataError, match=r"'n01111111/n01111111_1\.JPEG' has 0 of its [\d,]+ bytes\. Copy it again"):
    dataset[0]
  with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar.* is truncated, damaged or no tar"):
    open_spec(f"imagenet:{root}:train")
  for name, data, message in (
    ("meta.mat", b"no", r"meta\.mat is no MATLAB file of version 5 to 7\. Download it again"),
    ("meta.mat", meta_mat()[:-40], r"meta\.mat is a damaged MATLAB file: it ends too early\. Download it again"),
    ("meta.mat", other_mat(), r"meta\.mat has no struct 'synsets'"),
    ("meta.mat", meta_mat(((1, "n03333333", "many"),)), r"meta\.mat has a synset whose num_children is no number"),
    ("meta.mat", meta_mat(((1, 7, 0),)), r"meta\.mat is .*7.*; expected text"),
    ("ILSVRC2012_validation_ground_truth.txt", b"1\nx\n", r"ground_truth\.txt is 'x'; expected a whole number"),
    (
      "ILSVRC2012_validation_ground_truth.txt",
      b"1\n9\n",
      r"ground_truth\.txt has class 9, which meta\.mat does not know",
    ),
    ("ILSVRC2012_validation_ground_truth.txt", b"", r"holds no data/ILSVRC2012_validation_ground_truth\.txt"),
  ):
    files = {"d/ILSVRC2012_validation_ground_truth.txt": b"1\n", "d/meta.mat": meta_mat()} | {f"d/{name}": data}
    pack(root / DEVKIT, files)
    with pytest.raises(DataError, match=message):
      open_spec(f"imagenet:{root}:val")
