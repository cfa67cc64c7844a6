"""`prn data` as users meet it: in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.cli.train import _noted
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.loading import load
from prn_jax.transforms.num_classes import anchors_of
from tests.cli.test_cli import json_line, prn
from tests.data_pipelines.pictures import write, write_image


@pytest.fixture
def spec(tmp_path: Path) -> str:
  """A YOLO data set of four images; one is damaged, one has a box outside."""
  for number in range(4):
    write_image(tmp_path / "images" / "train" / f"{number}.jpg", 200, 100)
    write(tmp_path / "labels" / "train" / f"{number}.txt", f"0 .5 .5 .{number + 1} .2\n1 .5 .5 .1 .{number + 3}\n")
  path = tmp_path / "images" / "train" / "1.jpg"
  path.write_bytes(path.read_bytes()[:-60])
  write(tmp_path / "labels" / "train" / "2.txt", "0 .5 .5 .3 .2\n1 .9 .5 .4 .1\n")
  return f"yolo:{write(tmp_path / 'data.yaml', 'names: [cat, dog]')}:train"


def test_prepare_inspect_and_anchors(tmp_path: Path, spec: str) -> None:
  out = tmp_path / "out"
  assert "2.txt:2: x y w h = 0.9" in prn("data", "prepare", spec, out, expect=2).stderr
  assert not out.exists()
  result = prn("data", "prepare", spec, out, "--size", "64x48", "--shards", 2, "--on-bad-data", "skip", "--json")
  values = json_line(result)
  assert values["spec"] == f"arrayrecord:{out}:train"
  assert (values["images"], values["shards"], values["shards_kept"]) == (3, 2, 0)
  assert values["left_out"] == {"outside the image": 1, "unreadable image": 1}
  assert "left out: 1 outside the image, 1 unreadable image\n" in result.stderr
  again = prn("data", "prepare", spec, out, "--size", "64x48", "--shards", 2, "--on-bad-data", "skip")
  assert "3 images in 2 shards" in again.stdout
  assert "2 of them from an earlier run" in again.stdout
  assert "size 64x48, now none" in prn(
    "data", "prepare", spec, out, "--shards", 2, "--on-bad-data", "skip", expect=2
  ).stderr  # fmt: skip

  prepared = values["spec"]
  look = prn("data", "inspect", prepared, "--out", tmp_path / "look", "--json")
  figures = json_line(look)
  assert (figures["images"], figures["objects"], figures["problems"]) == (3, 6, [])
  assert figures["image_sizes"] == [[64, 48, 3]]
  assert json.loads((tmp_path / "look" / "summary.json").read_text())["objects"] == 6
  assert Image.open(tmp_path / "look" / "samples.png").size[0] > 1000
  assert (tmp_path / "look" / "charts.png").stat().st_size > 10_000

  file = tmp_path / "anchors.json"
  found = json_line(prn("data", "anchors", prepared, "--num", 3, "--size", "416x416", "--out", file, "--json"))
  assert json.loads(file.read_text()) == found
  assert (found["size"], len(found["anchors"]), found["num_boxes"]) == ([416, 416], 3, 6)
  assert 0 < found["mean_iou"] <= 1
  assert set(found["recall"]) == {"0.25", "0.5", "0.75"}
  cells = json_line(prn("data", "anchors", prepared, "--num", 3, "--size", "416x416", "--cells", 32, "--json"))
  assert cells["anchors"] == found["anchors"]
  np.testing.assert_allclose(np.array(cells["anchors_cells"]) * 32, found["anchors"], atol=32e-4)
  shown = prn("data", "anchors", prepared, "--num", 3, "--size", "416x416").stdout
  assert shown.splitlines()[-1] == "anchors = " + ",  ".join(f"{w:g},{h:g}" for w, h in found["anchors"])


def test_convert(tmp_path: Path, spec: str) -> None:
  out = tmp_path / "out"
  assert "2.txt:2: x y w h = 0.9" in prn("data", "convert", spec, out, "--to", "coco", expect=2).stderr
  assert not out.exists()
  values = json_line(prn("data", "convert", spec, out, "--to", "coco", "--link", "--on-bad-data", "skip", "--json"))
  assert values["spec"] == f"coco:{out}/annotations/instances_train.json:{out}/images/train"
  assert (values["images"], values["objects"], values["image_files"]) == (4, 8, {"linked": 4})
  assert (values["lost"], values["kept"], values["max_difference_px"]) == ({"image_id": 4}, False, 0)
  assert values["left_out"] == {"outside the image": 1}
  again = prn("data", "convert", spec, out, "--to", "coco", "--link", "--on-bad-data", "skip").stdout
  assert "split train (was there already, whole and unchanged): images 4 (4 linked), objects 8" in again
  back = json_line(prn("data", "convert", values["spec"], tmp_path / "voc", "--to", "voc", "--split", "all", "--json"))
  assert open_spec(back["spec"]).names == ("cat", "dog")


def test_convert_of_several_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  for split, index in (("train", 1), ("val", 0)):
    write_image(tmp_path / "images" / split / "1.jpg", 200, 100)
    write(tmp_path / "labels" / split / "1.txt", f"{index} .5 .5 .25 .5\n")
  spec = f"yolo:{write(tmp_path / 'data.yaml', 'names: [cat, dog]')}:train,val"
  assert main(["data", "convert", spec, str(tmp_path / "out"), "--to", "darknet", "--json"]) == 0
  splits = json.loads(capsys.readouterr().out.splitlines()[-1])["splits"]
  assert [one["split"] for one in splits] == ["train", "valid"]
  assert (tmp_path / "out" / "obj.data").read_text().splitlines()[1:3] == ["train = train.txt", "valid = valid.txt"]
  assert [open_spec(one["spec"])[0].classes.tolist() for one in splits] == [[1], [0]]
  assert main(["data", "convert", spec, str(tmp_path / "more"), "--to", "coco", "--split", "x"]) == 2
  assert "--split x names one split, but" in capsys.readouterr().err


def test_anchors_of_a_network_are_written_into_its_cfg(
  spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  out = tmp_path / "mine.cfg"
  args = ["data", "anchors", spec, "--model", "traffic-tiny-prn", "--size", "320x192", "--metric", "whitened-l2"]
  assert main([*args, "--num", "6", "--out", str(out), "--json"]) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  written = load(out).graph
  assert (written.width, written.height) == (320, 192)
  np.testing.assert_allclose(anchors_of(written), found["anchors"])
  assert found["before"]["anchors"] == [list(one) for one in anchors_of(load("traffic-tiny-prn").graph)]
  assert found["mean_iou"] > found["before"]["mean_iou"]


def test_inspect_skips_and_lists_by_default(spec: str) -> None:
  text = prn("data", "inspect", spec).stdout
  assert "2 problems, left out here: 1 outside the image, 1 unreadable image" in text
  assert "1.jpg" in text
  assert "the box is clipped to the image" in prn("data", "inspect", spec, "--on-bad-data", "stop", expect=2).stderr
  assert "No problems" not in text
  quick = json_line(prn("data", "inspect", spec, "--quick", "--json"))
  assert (quick["images"], quick["problem_counts"]) == (4, {"outside the image": 1})


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("prepare", "{spec}", "{out}", "--size", "big"), "--size big: expected WIDTHxHEIGHT in pixels"),
    (("prepare", "{spec}", "{out}", "--workers", "0"), "--workers 0: expected at least 1"),
    (
      ("prepare", "{spec}", "{out}", "--quality", "101"),
      "quality is 101; expected a whole number from 1 to 100: of JPEG",
    ),
    (("prepare", "{spec}", "{out}", "--max-side", "3", "--size", "3x3"), "not allowed with argument --max-side"),
    (("anchors", "{spec}", "--num", "99", "--size", "416x416"), "99 anchors cannot be found: the 8 boxes have"),
    (
      ("anchors", "{spec}", "--size", "416x416"),
      "--num is missing. Give it, or the network that the anchors are for: --model",
    ),
    (
      ("anchors", "{spec}", "--num", "2", "--size", "64x64", "--out", "a.cfg"),
      "--out a.cfg: a .cfg holds a network; give the one",
    ),
    (("anchors", "{spec}", "--num", "2", "--size", "416"), "--size 416: expected WIDTHxHEIGHT"),
    (("anchors", "{spec}", "--num", "2", "--size", "64x64", "--cells", "0"), "--cells 0: expected the side of a cell"),
    (("inspect", "coko:a:b"), "unknown kind 'coko' (did you mean 'coco'?)"),
    (("inspect", "{spec}", "--out", "{file}"), "it is a file"),
    (("look", "{spec}"), "invalid choice: 'look'"),
  ],
)
def test_mistakes(tmp_path: Path, spec: str, arguments: tuple[str, ...], message: str) -> None:
  file = write(tmp_path / "file", "")
  filled = [text.format(spec=spec, out=tmp_path / "out", file=file) for text in arguments]
  assert message in prn("data", *filled, expect=2).stderr
  assert not (tmp_path / "out").exists()


def test_what_was_understood_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  """Polygons, names of another machine: by inspect in its summary, by prepare, anchors and train at their start."""
  write_image(tmp_path / "images" / "a.jpg")
  write(tmp_path / "labels" / "a.txt", "0 .1 .1 .5 .1 .3 .9\n")
  write(tmp_path / "list.txt", "images\\a.jpg\n")
  spec = f"yolo:{write(tmp_path / 'data.yaml', 'names: [cat]' + chr(10) + 'train: list.txt')}:train"
  polygons = "1 of 1 labels are polygons; their bounding boxes are used"
  names = (
    f"a name in {tmp_path}/list.txt taken for files of this machine, e.g. 'images\\a.jpg' for {tmp_path}/images/a.jpg"
  )
  assert main(["data", "inspect", spec]) == 0
  shown = capsys.readouterr().out
  assert f"Worth a look\n  {names} [paths.forgiven]\n  {polygons} [labels.polygons]\n" in shown
  assert "No problems found" in shown
  assert main(["data", "prepare", spec, str(tmp_path / "out")]) == 0
  assert f"worth a look: {names}\nworth a look: {polygons}\n" in capsys.readouterr().err
  assert main(["data", "anchors", spec, "--num", "1", "--size", "64x64"]) == 0
  assert f"worth a look: {polygons}\n" in capsys.readouterr().err
  dataset = open_spec(spec)
  experiment = SimpleNamespace(dataset=dataset, evaluator=SimpleNamespace(dataset=dataset))
  assert _noted(experiment) == [
    f"{part} data: {note}" for part in ("training", "validation") for note in (names, polygons)
  ]


def test_doctor_says_what_is_wrong_and_answers_no(tmp_path: Path, spec: str) -> None:
  other = spec.removesuffix("train") + "val"
  for number in range(2):
    write_image(tmp_path / "images" / "val" / f"v{number}.png", 200, 100 + number)
    write(tmp_path / "labels" / "val" / f"v{number}.txt", "0 .5 .5 .3 .2\n1 .2 .2 .1 .1\n")
  shown = prn("data", "doctor", spec, "--size", "416x416", "--out", tmp_path / "look", expect=1)
  assert (
    "! [images.unreadable] serious, 1: a file that is empty, truncated, damaged, or no image at all\n" in shown.stdout
  )
  assert f"{tmp_path / 'images' / 'train' / '1.jpg'}: image '" in shown.stdout
  assert "not run, for no other split was given (--against): classes.one_split, classes.other_list\n" in shown.stdout
  page = (tmp_path / "look" / "report.html").read_text()
  assert "data:image/jpeg;base64," in page
  assert json.loads((tmp_path / "look" / "findings.json").read_text())["is_serious"] is True
  found = json_line(prn("data", "doctor", spec, "--against", other, "--quick", "--json", expect=1))
  assert found["against"] == [other]
  assert {one["id"] for one in found["findings"]} == {"labels.outside_image", "classes.few_examples"}
  outside = next(one for one in found["findings"] if one["id"] == "labels.outside_image")
  assert outside["places"][0]["place"] == f"{tmp_path / 'labels' / 'train' / '2.txt'}:2"
  assert (outside["severity"], outside["count"]) == ("serious", 1)
  assert found["not_run"]["images.near_copies"] == "pixels were not looked at (--quick)"
