"""What a run is compared with when it is taken up again: what took effect, whatever files it came from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from prn_jax.cli.main import main
from prn_jax.cli.train import read_config
from prn_jax.formats.checkpoints import FOLDER, META, Rating, write_manifest
from prn_jax.hosts import exit_codes
from prn_jax.train.config import ConfigError, typed
from prn_jax.train.experiment import Experiment, open_experiment
from prn_jax.train.rundir import prepare, record, run_metadata

NET = """[net]
width=32
height=32
channels=3
batch=8
max_batches=4
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=8
size=1
activation=leaky
[shortcut]
from=-2
activation=linear
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,6, 10,12
classes=2
num=2
ignore_thresh=.7
"""


def write_data(folder: Path, names: str = "car\nbus\n", labels: tuple[str, ...] = ("0 .5 .5 .4 .4",) * 4) -> str:
  """A Darknet data set; its SPEC. A path in it is relative to the folder, so that the folder can be moved."""
  (folder / "images").mkdir(parents=True, exist_ok=True)
  for i, label in enumerate(labels):
    Image.new("RGB", (32, 32), (40 * i, 90, 90)).save(folder / "images" / f"{i}.png")
    (folder / "images" / f"{i}.txt").write_text(f"{label}\n")
  (folder / "list.txt").write_text("".join(f"{folder}/images/{i}.png\n" for i in range(len(labels))))
  (folder / "some.names").write_text(names)
  (folder / "some.data").write_text(
    f"classes={len(names.split())}\ntrain={folder}/list.txt\nnames={folder}/some.names\n"
  )
  return f"darknet:{folder}/some.data:train"


def opened(cfg: Path, data: str, *more: str) -> Experiment:
  return open_experiment(typed(read_config(str(cfg), [f"--config.data.train={data}", *more])), is_resumed=True)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path, str]:
  """A run directory with a checkpoint of step 3, its cfg, and the SPEC of its data."""
  cfg, workdir, data = tmp_path / "net.cfg", tmp_path / "run", write_data(tmp_path / "data")
  cfg.write_text(NET)
  prepare(opened(cfg, data), workdir)
  (workdir / FOLDER / "3").mkdir(parents=True)
  write_manifest(workdir / FOLDER / "3", 3, Rating(), {})
  return workdir, cfg, data


def refusal(workdir: Path, experiment: Experiment) -> list[str]:
  """The lines that a refusal lists."""
  before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
  with pytest.raises(ConfigError, match="holds a run of another configuration") as error:
    prepare(experiment, workdir)
  assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before, "nothing is overwritten"
  first, *listed, advice = str(error.value).splitlines()
  assert first == f"'{workdir}' holds a run of another configuration:"
  assert advice == (
    "Take the old values to go on with it; give --allow-changes to go on with the new ones; or begin another run: a new "
    f"--workdir, with --config.weights={workdir} from the weights of this one."
  )
  return [line.strip() for line in listed]


@pytest.mark.parametrize(
  ("old", "new", "expected"),
  [
    (
      "anchors=4,6, 10,12",
      "anchors=5,7, 10,12",
      ["[yolo] yolo_4: anchors: [[4, 6], [10, 12]], now [[5, 7], [10, 12]]"],
    ),
    ("ignore_thresh=.7", "ignore_thresh=.5", ["[yolo] yolo_4: ignore_thresh: 0.7, now 0.5"]),
    ("num=2", "num=2\niou_loss=ciou\nscale_x_y=1.1", [
      "[yolo] yolo_4: scale_x_y: 1, now 1.1", '[yolo] yolo_4: iou_loss: "mse", now "ciou"',
    ]),
    ("size=1\nactivation=leaky", "size=1\nactivation=mish", ['[conv] conv_1: activation: "leaky", now "mish"']),
    ("size=1\nactivation=leaky", "size=1\nactivation=leaky\nstopbackward=1", [
      "[conv] conv_1: stopbackward: 0, now 1",
    ]),
    ("[shortcut]\nfrom=-2\nactivation=linear", "[route]\nlayers=-1", ["layer shortcut_2 is gone"]),
    ("width=32", "width=64", ["input: [32, 32, 3], now [64, 32, 3]"]),
  ],
)  # fmt: skip
def test_an_edited_cfg_is_named(place: tuple[Path, Path, str], old: str, new: str, expected: list[str]) -> None:
  workdir, cfg, data = place
  assert old in NET
  cfg.write_text(NET.replace(old, new, 1))
  found = refusal(workdir, opened(cfg, data))
  if expected == ["layer shortcut_2 is gone"]:
    expected = ["layers that are new: [route] route_2", "layers that are gone: [shortcut] shortcut_2"]
    expected += ['[conv] conv_3: inputs: ["shortcut_2"], now ["route_2"]']
  assert found == [f"{cfg}: {line}" for line in expected]


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    ("bus\ncar\n", ['the same classes in another order: ["car", "bus"], now ["bus", "car"]']),
    ("car\ntruck\n", ["class 1: 'bus', now 'truck'"]),
    ("cat\ndog\n", ["class 0: 'car', now 'cat'", "class 1: 'bus', now 'dog'"]),
  ],
)
def test_other_classes_are_named(place: tuple[Path, Path, str], names: str, expected: list[str]) -> None:
  workdir, cfg, data = place
  write_data(workdir.parent / "data", names)
  assert refusal(workdir, opened(cfg, data)) == [f"{data}: {line}" for line in expected]


def test_another_number_of_classes_is_named_with_what_follows_from_it(place: tuple[Path, Path, str]) -> None:
  workdir, cfg, data = place
  write_data(workdir.parent / "data", "car\nbus\nvan\n")
  found = refusal(workdir, opened(cfg, data))
  assert f'{data}: 2 classes, now 3: ["car", "bus"], now ["car", "bus", "van"]' in found
  assert f"{cfg}: [conv] conv_3: filters: 14, now 16" in found


@pytest.mark.parametrize(
  ("labels", "expected"),
  [
    (("0 .5 .5 .4 .4",) * 5, "4 images, now 5"),
    (("0 .5 .5 .4 .4",) * 3 + ("0 .5 .5 .2 .4",), "the same images with other boxes or classes"),
    (("0 .5 .5 .4 .4",) * 3 + ("1 .5 .5 .4 .4",), "the same images with other boxes or classes"),
  ],
)
def test_other_data_is_named(place: tuple[Path, Path, str], labels: tuple[str, ...], expected: str) -> None:
  workdir, cfg, data = place
  write_data(workdir.parent / "data", labels=labels)
  assert refusal(workdir, opened(cfg, data)) == [f"{data}: {expected}"]


def test_keys_of_the_configuration_are_named_beside_what_follows_from_them(place: tuple[Path, Path, str]) -> None:
  workdir, cfg, data = place
  found = refusal(workdir, opened(cfg, data, "--config.weights=other.weights", "--config.loss.head.ignore_thresh=0.6"))
  assert found == [
    "loss.head.ignore_thresh: None, now 0.6",
    "weights: '', now 'other.weights'",
    f"{cfg}: [yolo] yolo_4: ignore_thresh: 0.7, now 0.6",
  ]


def test_another_model_of_the_same_shapes_is_named(place: tuple[Path, Path, str]) -> None:
  workdir, cfg, data = place
  other = cfg.with_name("other.cfg")
  other.write_text(NET.replace("activation=leaky", "activation=relu"))
  found = refusal(workdir, opened(other, data))
  assert found == [
    f"model: '{cfg}', now '{other}'",
    f'{other}: [conv] conv_0: activation: "leaky", now "relu"',
    f'{other}: [conv] conv_1: activation: "leaky", now "relu"',
  ]


def test_what_says_the_same_is_the_same(place: tuple[Path, Path, str], tmp_path: Path) -> None:
  """Comments, order of keys, a default that is written out, a key without effect; cfg and data in other places."""
  workdir, cfg, _ = place
  moved = cfg.with_name("moved.cfg")
  moved.write_text(
    "# mine\n" + NET.replace("filters=8\nsize=3", "size=3\nfilters=8 # wide enough").replace(".7", "0.70\nmax=90")
    .replace("anchors=4,6, 10,12", "anchors = 4,6,10,12\ntruth_thresh=1")
  )  # fmt: skip
  elsewhere = write_data(tmp_path / "elsewhere")
  again = prepare(opened(moved, elsewhere, "--config.data.max_boxes=200"), workdir)
  assert again.changed == ()


def test_many_changes_are_counted(place: tuple[Path, Path, str]) -> None:
  workdir, cfg, data = place
  names = "".join(f"c{i}\n" for i in range(2))
  write_data(workdir.parent / "data", names)
  head = [
    "iou_thresh",
    "iou_normalizer",
    "obj_normalizer",
    "cls_normalizer",
    "delta_normalizer",
    "uc_normalizer",
    "max_delta",
  ]
  keys = "".join(f"{key}=.3\n" for key in [*head, "label_smooth_eps"]) + "focal_loss=1\nobjectness_smooth=1\n"
  text = (
    NET.replace("num=2\n", f"num=2\n{keys}").replace("leaky", "mish").replace("[net]", "[net]\nhue=.1\nexposure=1.5")
  )
  text = text.replace("batch=8", "batch=16\nsaturation=1.5\nlearning_rate=.01\nmomentum=.8\ndecay=.1\nflip=0")
  cfg.write_text(text)
  listed = refusal(workdir, opened(cfg, data))
  assert len(listed) == 21
  assert listed[-1].startswith("and ")
  assert listed[-1].endswith(" more")


def test_allowed_changes_are_recorded_beside_what_they_replace(place: tuple[Path, Path, str]) -> None:
  workdir, cfg, data = place
  before = {name: (workdir / name).read_text() for name in ("config.json", "effective.json", "graph.cfg")}
  cfg.write_text(NET.replace("4,6, 10,12", "5,7, 10,12"))
  experiment = opened(cfg, data)
  prepared = prepare(experiment, workdir, allow_changes=True)
  assert {name: (workdir / name).read_text() for name in before} == before, "before the state has been read"
  record(experiment, workdir, prepared, 3)
  assert "5,7" in (workdir / "graph.cfg").read_text().replace(" ", "")
  kept = workdir / "before_step_3"
  assert {name: (kept / name).read_text() for name in before} == before
  assert (kept / "changes.txt").read_text() == (
    f"{cfg}: [yolo] yolo_4: anchors: [[4, 6], [10, 12]], now [[5, 7], [10, 12]]\n"
  )
  assert prepare(opened(cfg, data), workdir).changed == ()
  cfg.write_text(NET.replace("4,6, 10,12", "6,8, 10,12"))
  record(opened(cfg, data), workdir, prepare(opened(cfg, data), workdir, allow_changes=True), 3)
  assert (kept / "graph.cfg").read_text() == before["graph.cfg"], "what the three steps were trained with"


@pytest.mark.parametrize("damage", [None, "{", '{"network": []}', "[" * 5000])
def test_without_its_record_the_checkpoint_tells(place: tuple[Path, Path, str], damage: str | None) -> None:
  """Runs of versions without effective.json, and damaged files."""
  workdir, cfg, data = place
  meta = {"step": 3, "arrays": {}, "versions": {}, "meta": run_metadata(opened(cfg, data))}
  (workdir / FOLDER / "3" / META).write_text(json.dumps(meta))
  if damage is None:
    (workdir / "effective.json").unlink()
  else:
    (workdir / "effective.json").write_text(damage)
  assert prepare(opened(cfg, data), workdir).changed == ()
  cfg.write_text(NET.replace("4,6, 10,12", "5,7, 10,12").replace(".7", ".6"))
  write_data(workdir.parent / "data", "bus\ncar\n")
  assert refusal(workdir, opened(cfg, data)) == [
    f"{cfg}: [yolo] yolo_4: anchors: [[4, 6], [10, 12]], now [[5, 7], [10, 12]]",
    f"{cfg}: [yolo] yolo_4: ignore_thresh: 0.7, now 0.6",
    f'{data}: the same classes in another order: ["car", "bus"], now ["bus", "car"]',
  ]


def test_a_state_that_does_not_fit_leaves_the_run_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  cfg, data = tmp_path / "net.cfg", write_data(tmp_path / "data")
  cfg.write_text(NET)
  command = ["train", f"--config={cfg}", f"--config.data.train={data}", f"--workdir={tmp_path / 'run'}"]
  assert main([*command, "--config.total.steps=1"]) == exit_codes.DONE
  files = [tmp_path / "run" / name for name in ("config.json", "effective.json", "graph.cfg")]
  before = [file.read_text() for file in files]
  assert json.loads(before[1])["start"] == "start: random weights in all 3 layers"
  write_data(tmp_path / "data", "car\nbus\nvan\n")
  assert main([*command, "--config.total.steps=2"]) == exit_codes.BAD_INPUT
  assert "2 classes, now 3" in capsys.readouterr().err
  assert main([*command, "--config.total.steps=2", "--allow-changes"]) == exit_codes.BAD_INPUT
  assert "params/conv_3" in capsys.readouterr().err
  assert [file.read_text() for file in files] == before
  assert not list((tmp_path / "run").glob("before_step_*"))
  shutil.rmtree(tmp_path / "data")
  write_data(tmp_path / "data")
  assert main([*command, "--config.total.steps=2", "--allow-changes"]) == exit_codes.DONE
  assert (tmp_path / "run" / "before_step_1" / "changes.txt").read_text() == "total.steps: 1, now 2\n"


def test_a_number_that_was_left_open_is_the_same_where_it_is_chosen_the_same(tmp_path: Path) -> None:
  cfg, workdir, data = tmp_path / "net.cfg", tmp_path / "run", write_data(tmp_path / "data")
  cfg.write_text(NET)
  left_open = ("--config.batch_size=0", "--config.bn_momentum=0.")
  prepare(opened(cfg, data, *left_open), workdir)
  assert json.loads((workdir / "config.json").read_text())["batch_size"] == 0, "what was asked"
  assert json.loads((workdir / "effective.json").read_text())["batch_size"] == 8, "what took effect"
  (workdir / FOLDER / "3").mkdir(parents=True)
  write_manifest(workdir / FOLDER / "3", 3, Rating(), {})
  same = opened(cfg, data, "--config.batch_size=8", "--config.bn_momentum=0.5")
  assert prepare(same, workdir).changed == ()
  more = dataclasses.replace(opened(cfg, data, *left_open), config=dataclasses.replace(same.config, batch_size=16))
  assert refusal(workdir, more) == [
    "batch_size: 8, now 16 (chosen by number of images, devices and steps); --config.batch_size=8 keeps it"
  ]
