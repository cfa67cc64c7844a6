"""`prn predict` and `prn eval` on real photos and trained weights, and on everything that is not a photo."""

from __future__ import annotations

import csv
import http.server
import json
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prn_jax
from prn_jax.detect.detections import Detections
from tests.cli.test_cli import json_line, prn
from tests.nets import random_model


@pytest.fixture(scope="module")
def fastest(shared: Path) -> tuple[object, ...]:
  folder = shared / "data" / "weights" / "yolo-fastest-1.1-xl"
  return folder / "yolo-fastest-1.1-xl.cfg", "--weights", folder / "yolo-fastest-1.1-xl.weights"


@pytest.fixture(scope="module")
def photos(shared: Path) -> Path:
  return shared / "data" / "demo" / "darknet_photos"


def test_right_objects_in_every_format(fastest: tuple[object, ...], photos: Path, tmp_path: Path) -> None:
  model, *weights = fastest
  sources = (photos / "dog.jpg", photos / "person.jpg")
  result = prn("predict", model, *sources, *weights, "--out", tmp_path, "--save", "json,coco,txt,csv,images", "--json")
  values = json_line(result)
  dog, person = ({d["name"] for d in row["detections"]} for row in values["results"])
  assert {"dog", "bicycle"} <= dog
  assert {"person", "dog"} <= person
  best = {d["name"]: d for d in values["results"][0]["detections"][::-1]}
  by_eye = [131, 220, 310, 542]  # the dog, without its shadow
  corners = np.array([best["dog"]["box_xyxy_px"], by_eye])
  overlap = np.prod(np.clip(corners[:, 2:].min(0) - corners[:, :2].max(0), 0, None))
  assert (
    overlap / (np.prod(corners[:, 2:] - corners[:, :2], axis=1).sum() - overlap) > 0.5
  )  # found, by the usual criterion
  saved = json.loads((tmp_path / "predictions.json").read_text())
  assert saved["results"] == values["results"]
  count = sum(len(row["detections"]) for row in values["results"])
  assert {row["category_id"] for row in json.loads((tmp_path / "coco.json").read_text())} >= {18, 2, 1}  # COCO's own
  assert len(json.loads((tmp_path / "coco.json").read_text())) == count
  assert len(list(csv.DictReader((tmp_path / "predictions.csv").open()))) == count
  assert len((tmp_path / "labels" / "dog.txt").read_text().splitlines()) == len(values["results"][0]["detections"])
  with Image.open(tmp_path / "images" / "dog.jpg") as drawn, Image.open(photos / "dog.jpg") as original:
    assert drawn.size == original.size
    difference = np.abs(np.asarray(drawn, int) - np.asarray(original, int)).max(-1)
    assert (difference > 60).sum() > 2000  # boxes and labels


def test_python_call_equals_the_command_line(fastest: tuple[object, ...], photos: Path) -> None:
  cfg, _, weights = fastest
  model = prn_jax.load(cfg, weights=weights)  # type: ignore[arg-type]
  found = model(str(photos / "dog.jpg"))
  assert isinstance(found, Detections)
  assert found.labels[0] == "dog"
  with Image.open(photos / "dog.jpg") as picture:
    several = model([picture, np.asarray(picture), (photos / "dog.jpg").read_bytes()])
  for other in several:
    np.testing.assert_allclose(other.boxes_xyxy_px, found.boxes_xyxy_px, atol=0.05)
  letterboxed = model(str(photos / "dog.jpg"), resize="letterbox", conf=0.5)
  assert set(letterboxed.labels) >= {"dog", "bicycle"}
  np.testing.assert_allclose(letterboxed.boxes_xyxy_px[0], found.boxes_xyxy_px[0], atol=40)
  with pytest.raises(prn_jax.PrnError, match=r"unknown option 'cnf' \(did you mean 'conf'\?\)"):
    model(str(photos / "dog.jpg"), cnf=0.5)
  with pytest.raises(prn_jax.PrnError, match=r"conf is 3; expected a number from 0 to 1: boxes"):
    model(str(photos / "dog.jpg"), conf=3)
  with pytest.raises(prn_jax.PrnError, match=r"shape \(5, 5, 4\); expected \(height, width, 3\)"):
    model(np.zeros((5, 5, 4), np.uint8))


BAD = {
  "truncated.jpg": r"truncated",
  "empty.jpg": r"is empty \(0 bytes\)",
  "text.jpg": r"text.jpg",
}


@pytest.fixture
def odd_folder(photos: Path, tmp_path: Path) -> Path:
  """Good and bad files together: three that cannot be read, and three of unusual size."""
  folder = tmp_path / "odd"
  folder.mkdir()
  data = (photos / "dog.jpg").read_bytes()
  (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
  (folder / "empty.jpg").write_bytes(b"")
  (folder / "text.jpg").write_text("not an image")
  Image.new("RGB", (1, 1), "red").save(folder / "one_pixel.png")
  Image.new("L", (20000, 50), 128).save(folder / "wide.png")
  (folder / "dog.jpg").write_bytes(data)
  return folder


def test_a_broken_image_does_not_stop_the_rest(fastest: tuple[object, ...], odd_folder: Path, tmp_path: Path) -> None:
  model, *weights = fastest
  out = tmp_path / "out"
  result = prn("predict", model, odd_folder, *weights, "--batch", 2, "--out", out, "--json", expect=1)
  values = json_line(result)
  assert [Path(row["path"]).name for row in values["results"]] == ["dog.jpg", "one_pixel.png", "wide.png"]
  reasons = {Path(f["path"]).name: f["reason"] for f in values["failures"]}
  assert reasons.keys() == BAD.keys()
  for name, reason in reasons.items():
    assert name in reason
    assert name in result.stderr
  assert "is empty (0 bytes)" in reasons["empty.jpg"]
  assert "truncated" in reasons["truncated.jpg"]
  assert json.loads((out / "predictions.json").read_text())["failures"] == values["failures"]


def test_nothing_readable_exits_2(fastest: tuple[object, ...], odd_folder: Path) -> None:
  model, *weights = fastest
  prn("predict", model, odd_folder / "empty.jpg", odd_folder / "text.jpg", *weights, "--save", "none", expect=2)


def test_sources_that_name_no_image(fastest: tuple[object, ...], tmp_path: Path) -> None:
  model, *weights = fastest
  (tmp_path / "notes.txt").write_text("x")
  assert (
    f"folder '{tmp_path}' holds no image among its 1 files"
    in prn("predict", model, tmp_path, *weights, expect=2).stderr
  )
  assert "matches no file" in prn("predict", model, tmp_path / "*.jpg", *weights, expect=2).stderr
  assert (
    "does not exist (did you mean 'notes.txt'?)"
    in prn("predict", model, tmp_path / "note.txt", *weights, expect=2).stderr
  )


def test_wrong_names_and_options(fastest: tuple[object, ...], photos: Path, tmp_path: Path) -> None:
  model, *weights = fastest
  (tmp_path / "three.names").write_text("a\nb\nc\n\n")
  text = prn("predict", model, photos / "dog.jpg", *weights, "--names", tmp_path / "three.names", expect=2).stderr
  assert "3 class names were given, but network 'yolo-fastest-1.1-xl' has 80 classes" in text
  assert "--save pdf: unknown" in prn("predict", model, photos / "dog.jpg", *weights, "--save", "pdf", expect=2).stderr
  assert (
    "conf is 1.5; expected a number from 0 to 1: boxes that are less sure are left out."
    in prn("predict", model, photos / "dog.jpg", *weights, "--conf", 1.5, expect=2).stderr
  )


def test_nan_weights_are_named(tmp_path: Path, photos: Path) -> None:
  model = random_model()
  model.variables["params"]["p5_out"]["conv"]["bias"][:] = np.nan
  model.save(tmp_path / "nan.weights")
  model.save(tmp_path / "nan.cfg")
  text = prn(
    "predict", tmp_path / "nan.cfg", photos / "dog.jpg", "--weights", tmp_path / "nan.weights", expect=2
  ).stderr
  assert "gave NaN or infinity" in text
  assert "p5_out/conv/bias holds 21 values that are NaN or infinite" in text


def test_url(fastest: tuple[object, ...], photos: Path) -> None:
  model, *weights = fastest

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: object) -> None:
      super().__init__(*args, directory=str(photos))  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
      pass

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    result = prn("predict", model, f"{url}/dog.jpg", f"{url}/missing.jpg", *weights, "--json", expect=1)
    server.shutdown()
  values = json_line(result)
  assert values["results"][0]["detections"][0]["name"] == "dog"
  assert "cannot fetch" in values["failures"][0]["reason"]
  assert "File not found" in values["failures"][0]["reason"]


def test_classifier(shared: Path, photos: Path) -> None:
  folder = shared / "data" / "weights" / "tiny-darknet-imagenet"
  args = ("--weights", folder / "tiny.weights", "--names", folder / "imagenet.shortnames.list")
  values = json_line(prn("predict", folder / "tiny.cfg", photos / "dog.jpg", *args, "--json"))
  top = values["results"][0]["top"]
  assert len(top) == 5
  assert top[0]["probability"] > 0.1
  assert top == sorted(top, key=lambda row: -row["probability"])
  expected = np.load(folder / "reference_dog.npz")["softmax"]
  assert top[0]["class"] in np.argsort(-expected)[:5]
  refused = prn("predict", folder / "tiny.cfg", photos / "dog.jpg", *args, "--classes", "1", expect=2).stderr
  assert "--classes 1: network 'tiny' classifies; only boxes are chosen by class." in refused


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_eval_agrees_with_an_independent_program(shared: Path, name: str, tmp_path: Path) -> None:
  """AP and AP50 on 141 photos of COCO within 0.005 of what OpenCV's network and pycocotools give."""
  folder, coco = shared / "data" / "weights" / name, shared / "data" / "coco_subset"
  spec = f"coco:{coco}/annotations/instances_val2017.json:{coco}/val2017"
  args = ("--weights", folder / f"{name}.weights", "--data", spec, "--out", tmp_path)
  values = json_line(prn("eval", folder / f"{name}.cfg", *args, "--json"))
  reference = json.loads((folder / "reference.json").read_text())["coco_eval"]["dev/coco_subset/val2017"]
  assert values["images"] == 141
  assert values["protocol"] == "coco"
  assert set(values["metrics"]) == set(reference)
  for key in ("AP", "AP50"):
    assert abs(values["metrics"][key] - reference[key]) < 0.005, (key, values["metrics"][key], reference[key])
  for file in ("coco.json", "pr_curves.png", "confusion.png", "f1_curve.png", "mistakes.png", "coco_results.json"):
    assert (tmp_path / file).stat().st_size > 1000
  assert len(list((tmp_path / "examples").iterdir())) == 16
  rows = json.loads((tmp_path / "coco_results.json").read_text())
  assert len(rows) == values["detections"]


@pytest.mark.slow
def test_top1_agrees_with_an_independent_program(shared: Path) -> None:
  folder = shared / "data" / "weights" / "tiny-darknet-imagenet"
  args = ("--weights", folder / "tiny.weights", "--names", folder / "imagenet.labels.list", "--batch", 4)
  spec = f"imagefolder:{shared / 'data' / 'imagenet_sample'}"
  values = json_line(prn("eval", folder / "tiny.cfg", *args, "--data", spec, "--json"))
  assert values["images"] == 750
  assert abs(values["metrics"]["top1"] - 0.6480) < 0.01
  assert abs(values["metrics"]["top5"] - 0.8493) < 0.01


def test_eval_refusals(shared: Path, fastest: tuple[object, ...], tmp_path: Path) -> None:
  model, *weights = fastest
  vehicles = f"yolo:{shared / 'data' / 'vehicles_openimages' / 'data.yaml'}:train"
  refused = prn("eval", model, *weights, "--data", vehicles, expect=2).stderr
  assert "has objects of class" in refused
  assert "but network 'yolo-fastest-1.1-xl' has 80 other names (assumed" in refused
  assert "unknown kind 'coc'" in prn("eval", model, *weights, "--data", "coc:a:b", expect=2).stderr
  assert (
    "has no weights, so its answers would be random. Give them with --weights"
    in prn("eval", model, "--data", vehicles, expect=2).stderr
  )
  text = prn("eval", model, *weights, "--data", vehicles, "--protocol", "top1", expect=2).stderr
  assert "protocol 'top1' does not fit network 'yolo-fastest-1.1-xl', which detects" in text


def test_eval_names_unknown_image_ids(shared: Path, fastest: tuple[object, ...], tmp_path: Path) -> None:
  coco = shared / "data" / "coco_subset"
  content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
  content["images"] = content["images"][:2]
  (tmp_path / "cut.json").write_text(json.dumps(content))
  model, *weights = fastest
  spec = f"coco:{tmp_path / 'cut.json'}:{coco / 'val2017'}"
  stopped = prn("eval", model, *weights, "--data", spec, expect=2).stderr
  assert "--on-bad-data skip" in stopped
  skipped = prn("eval", model, *weights, "--data", spec, "--on-bad-data", "skip", "--json")
  assert json_line(skipped)["images"] == 2
  assert (
    len(json_line(skipped)["problems"])
    == Counter(a["image_id"] in {i["id"] for i in content["images"]} for a in content["annotations"])[False]
  )


def test_a_folder_that_cannot_be_made_fails_first(fastest: tuple[object, ...], photos: Path, tmp_path: Path) -> None:
  (tmp_path / "taken").write_text("x")
  model, *weights = fastest
  text = prn("predict", model, photos / "dog.jpg", *weights, "--out", tmp_path / "taken", expect=2).stderr
  assert "taken': it is a file. Give a folder with --out" in text


def test_values_of_another_range_are_refused() -> None:
  model = random_model()
  bytes_nhwc = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
  exact = model.forward(bytes_nhwc.astype(np.float32) / 255)
  for name, output in model.forward(bytes_nhwc).items():
    np.testing.assert_array_equal(output, exact[name])
  with pytest.raises(prn_jax.PrnError, match=r"values up to 2\d\d; expected RGB in \[0, 1\], or uint8"):
    model.forward(bytes_nhwc.astype(np.float32))
  with pytest.raises(prn_jax.PrnError, match=r"empty batch, shape \(0, 32, 32, 3\)"):
    model.forward(np.zeros((0, 32, 32, 3), np.float32))
