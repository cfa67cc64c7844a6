"""Models, weights, names and results in a bucket, in Python and on the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from prn_jax import Model, load
from prn_jax.cli.main import main
from prn_jax.data_pipelines.images import read_image
from prn_jax.errors import BucketError, CheckpointError, WeightsError
from prn_jax.export import convert
from prn_jax.formats import darknet_cfg, orbax
from prn_jax.train.start import start_variables
from tests.data_pipelines.pictures import write, write_image
from tests.data_pipelines.test_in_bucket import write_coco
from tests.files.test_places import impatient  # noqa: F401  (a fixture)
from tests.nets import random_model
from tests.object_store import Faults, ObjectStore


@pytest.fixture(scope="module")
def model() -> Model:
  return random_model(names=("car", "tram"))


@pytest.mark.parametrize("name", ["model", "model/", "m.safetensors", "m.weights"])
def test_written_and_read_back(store: ObjectStore, model: Model, name: str) -> None:
  dst = f"gs://bucket/out/{name}"
  convert.save(model, dst)
  back = load(dst) if name != "m.weights" else load_with_cfg(store, model, dst)
  assert back.graph == model.graph
  assert back.digest() == model.digest()
  convert.save(model, dst)  # over itself
  if name.startswith("model"):
    assert len({part.split("/")[2] for part in store.names("out/model/payload-")}) == 1


def load_with_cfg(store: ObjectStore, model: Model, weights: str) -> Model:
  store.put("tiny.cfg", darknet_cfg.dump(model.graph).encode())
  store.put("tiny.names", b"car\ntram\n")
  back = load("gs://bucket/tiny.cfg", weights, "gs://bucket/tiny.names")
  assert back.names == ("car", "tram")
  return dataclasses.replace(back, graph=model.graph)  # a cfg has numbers for names


def test_a_saved_model_is_committed_last_and_guarded(store: ObjectStore, model: Model) -> None:
  convert.save(model, "gs://bucket/m")
  assert max(store.objects, key=lambda name: store.objects[name].generation) == f"m/{orbax.INDEX}"
  name = max((name for name in store.names() if "/variables/" in name), key=lambda name: len(store.read(name)))
  data = bytearray(store.read(name))
  data[100] ^= 1
  store.put(name, bytes(data))
  with pytest.raises(CheckpointError, match=f"'gs://bucket/{name}' has changed since it was saved"):
    load("gs://bucket/m")
  del store.objects[name]
  with pytest.raises(CheckpointError, match=r"'gs://bucket/m/payload-\w+' is incomplete: '.*' is missing\. Restore it"):
    load("gs://bucket/m")
  del store.objects[f"m/{orbax.INDEX}"]
  with pytest.raises(CheckpointError, match=r"'gs://bucket/m' holds no finished model \(there is no model.json\)"):
    load("gs://bucket/m")


@pytest.mark.usefixtures("impatient")
def test_an_outage_is_not_a_damaged_model(store: ObjectStore, model: Model) -> None:
  convert.save(model, "gs://bucket/m")
  store.faults = Faults(refused=1)
  with pytest.raises(BucketError, match=r"'gs://bucket/m.*could not be reached"):
    load("gs://bucket/m")


def test_weights_that_are_not_there(store: ObjectStore, model: Model) -> None:
  with pytest.raises(WeightsError, match=r"weights file 'gs://bucket/none\.weights' does not exist"):
    load_with_cfg(store, model, "gs://bucket/none.weights")


def test_a_training_starts_from_a_bucket(store: ObjectStore, model: Model) -> None:
  convert.save(model, "gs://bucket/start/m.weights")
  convert.save(model, "gs://bucket/start/m")
  for weights in ("gs://bucket/start/m.weights", "gs://bucket/start/m"):
    _, report = start_variables(model.graph, weights)
    assert str(report).startswith("start: 6 of 6 layers from 'gs://bucket/start/m")


def test_predict_and_eval_on_the_command_line(
  store: ObjectStore, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  convert.save(model, "gs://bucket/m")
  spec = write_coco(tmp_path)
  store.fill(tmp_path, "data")
  photo = write_image(tmp_path / "one.jpg")
  store.put("photos/one.jpg", photo.read_bytes())
  command = ["predict", "gs://bucket/m", "gs://bucket/photos", "--conf", "0.01", "--json"]
  assert main([*command, "--out", "gs://bucket/found"]) == 0
  theirs = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert main([*command[:2], str(photo), *command[3:], "--out", str(tmp_path / "found")]) == 0
  ours = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert theirs["out"] == "gs://bucket/found"
  assert theirs["results"][0]["detections" if "detections" in theirs["results"][0] else "boxes"]
  drop = ("path", "image")
  assert [{k: v for k, v in row.items() if k not in drop} for row in theirs["results"]] == [
    {k: v for k, v in row.items() if k not in drop} for row in ours["results"]
  ]
  assert store.names("found/") == ["found/images/one.jpg", "found/predictions.json"]
  assert read_image(store.read("found/images/one.jpg")).shape == (50, 100, 3)

  code = main(
    ["eval", "gs://bucket/m", "--data", spec.format(root="gs://bucket/data"), "--out", "gs://bucket/eval", "--json"]
  )
  assert code == 0
  assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 2
  assert {"eval/coco.json", "eval/coco_results.json", "eval/pr_curves.png"} <= set(store.names("eval/"))
  assert [name for name in store.names("eval/examples/") if name.endswith(".jpg")]


@pytest.mark.parametrize(
  "command",
  [
    ["train", "--config=demo", "--workdir=s3://bucket/run"],
    ["predict", "s3://bucket/model", "photo.jpg"],
    ["predict", "yolov3-tiny-prn", "s3://bucket/photo.jpg"],
    ["eval", "yolov3-tiny-prn", "--data", "coco:s3://b/a.json:s3://b/images", "--out", "s3://bucket/out"],
    ["convert", "yolov3-tiny-prn", "s3://bucket/x.cfg"],
    ["summary", "s3://bucket/x.cfg"],
  ],
)
def test_other_schemes_end_with_a_sentence(
  command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  monkeypatch.chdir(tmp_path)
  write(tmp_path / "photo.jpg", "")
  assert main(command) == 2
  *_, said = capsys.readouterr().err.splitlines()
  assert "s3:// is not supported; expected a path of this machine or gs://BUCKET/NAME" in said
  assert not list(tmp_path.glob("s3*")), "no folder of that name was made"


def test_a_cfg_in_a_bucket_is_a_configuration(
  store: ObjectStore, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
  store.put("nets/tiny.cfg", darknet_cfg.dump(model.graph).encode())
  assert main(["train", "--config=gs://bucket/nets/tiny.cfg", "--print-config"]) == 0
  assert "gs://bucket/nets/tiny.cfg" in capsys.readouterr().out
  assert main(["train", "--config=gs://bucket/nets/mine.py", "--print-config"]) == 2
  assert (
    "'gs://bucket/nets/mine.py': Python is run from this machine alone; copy the file here" in capsys.readouterr().err
  )
