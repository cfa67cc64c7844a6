"""A teacher in a training: what is paired, where gradients go, what the program holds, and a run that goes on exactly."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prn_jax.cli.main import main
from prn_jax.distill.lesson import DISTILLATIONS, Lesson, Needs, register_distillation
from prn_jax.errors import PrnError
from prn_jax.export import convert
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import make_mesh, put_batch, put_state
from prn_jax.train import loop
from prn_jax.train.config import ConfigError, TrainConfig, typed
from prn_jax.train.experiment import open_experiment
from prn_jax.train.losses import FROM_CONFIG, LossConfig
from prn_jax.train.pairing import paired_boxes
from prn_jax.train.sharding import compile_step, put_constants
from prn_jax.train.step import Recipe, init_state, mean
from prn_jax.train.teacher import ADAPTER, DistillConfig, Lessons, _Taught, open_lessons
from tests.conftest import REPO
from tests.nets import random_model
from tests.train.test_step import classifier

NAMES = ("car", "truck", "bus", "person")  # of synthetic:traffic
ANCHORS = ((8.0, 8.0), (16.0, 12.0))


def detector(
  width: int = 6, classes: int = 4, anchors: tuple[tuple[float, float], ...] = ANCHORS, *, name: str = "net",
  strides: tuple[int, ...] = (8, 4), size: int = 32, batch_normalize: bool = True, channels: int = 3,
) -> Graph:  # fmt: skip
  """Heads at the given strides, each on a convolution of its own ("f8", "f4")."""
  g = Builder(size, size, channels, name=name)
  conv: dict[str, Any] = {"size": 3, "padding": 1, "batch_normalize": batch_normalize, "activation": "leaky"}
  stages = {2: g.conv(width, stride=2, name="stem", **conv)}
  for stride in (4, 8, 16):
    stages[stride] = g.conv(width, stride=2, name=f"c{stride}", **conv)
  for stride in strides:
    g.route(stages[stride], name=f"from{stride}")
    g.conv(width, name=f"f{stride}", **conv)
    g.conv(len(anchors) * (5 + classes), name=f"out{stride}")
    g.yolo(classes, anchors, name=f"yolo{stride}")
  return g.graph()


@pytest.fixture
def teacher(tmp_path: Path) -> str:
  """A wider network with its classes in another order, and heads in another order."""
  return saved(detector(10, strides=(4, 8), name="big"), tmp_path / "teacher", NAMES[::-1])


def saved(graph: Graph, folder: Path, names: tuple[str, ...] = NAMES, seed: int = 3) -> str:
  convert.save(random_model(graph, seed, names=names), folder)
  return str(folder)


def lessons_of(teacher: str, graph: Graph | None = None, names: tuple[str, ...] = NAMES, **settings: Any) -> Lessons:
  found = open_lessons(DistillConfig(teacher=teacher, **settings), graph or detector(), names)
  assert found is not None
  return found


def batch_of(n: int = 8, size: int = 32) -> dict[str, Any]:
  rng = np.random.default_rng(0)
  truth = np.zeros((n, 3, 5), np.float32)
  truth[..., 4] = -1
  truth[:, 0] = [0.4, 0.6, 0.3, 0.25, 2]
  return {"image": rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8), "truth": truth}


ALL_OF_DETECTORS = ("objectness", "bckd", "cwd", "fgd")


# -- the step ----------------------------------------------------------------------------------------------------------


def recipe_of(lessons: Lessons, graph: Graph, **options: Any) -> tuple[Recipe, Any]:
  """The recipe of a taught student, and its constants."""
  objective, student = lessons.objective(FROM_CONFIG), lessons.student(graph)
  layers, loss_fn = objective.make_loss(student, LossConfig(), None)
  return Recipe(Network(student), optax.sgd(1e-3), loss_fn, layers, **options), objective


def test_gradients_lead_to_the_student_and_its_adapters_alone(teacher: str) -> None:
  graph = detector(strides=(8,))
  lessons = lessons_of(teacher, graph, losses=ALL_OF_DETECTORS)
  assert lessons.adapters == {"f8": 10}
  recipe, objective = recipe_of(lessons, graph)
  variables = lessons.with_adapters(init_variables(graph, 1), graph)
  batch = jax.tree.map(jnp.asarray, batch_of(2))

  def loss(params: Any, constants: Any) -> Any:
    image = jnp.asarray(batch["image"], jnp.float32) / 255
    outputs = recipe.network.apply(
      {"params": params, "batch_stats": variables["batch_stats"]}, image, layers=recipe.layers
    )
    value, metrics = recipe.loss_fn(outputs, batch, constants)
    return value, metrics

  (own, theirs), metrics = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], objective.constants)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(theirs))
  assert all(np.any(leaf) for name in (f"{ADAPTER}f8", "stem") for leaf in jax.tree.leaves(own[name]))
  assert {f"distill/{name}" for name in ALL_OF_DETECTORS} <= metrics.keys()
  assert all(float(metrics[f"distill/{name}"][0]) > 0 for name in ALL_OF_DETECTORS)


def test_the_teacher_is_no_part_of_the_program(tmp_path: Path) -> None:
  """Eighty times as many weights are a few digits more in the text of the program; it sees images as at inference."""
  graph, texts = detector(), []
  for width in (4, 36):
    one = lessons_of(saved(detector(width, name="big"), tmp_path / f"t{width}"), graph, losses=("objectness", "cwd"))
    recipe, objective = recipe_of(one, graph, accumulate=2)
    mesh = make_mesh(jax.devices()[:2])
    state = put_state(jax.device_get(init_state(one.with_adapters(init_variables(graph, 1), graph), recipe)), mesh)
    step: Any = compile_step(recipe, mesh)
    constants = put_constants(objective.constants, mesh, objective.specs)
    texts.append(step.lower(state, put_batch(batch_of(), mesh), constants).as_text())
    values = sum(leaf.size for leaf in jax.tree.leaves(objective.constants))
  assert values > 35_000
  assert abs(len(texts[1]) - len(texts[0])) < 3_000
  longest = max(len(found) for found in re.findall(r"dense<([^>]*)>", texts[1]))
  assert longest < 2_000  # no table of numbers


def test_a_teacher_that_is_the_student_teaches_nothing(tmp_path: Path) -> None:
  """Without batch norm both say the same, class by class although the teacher has them in another order."""
  graph = detector(batch_normalize=False, strides=(8,))
  model = random_model(graph, 3, names=NAMES)
  order = np.array([3, 2, 1, 0])
  params = jax.tree.map(np.array, model.variables["params"])
  for key, value in params["out8"]["conv"].items():
    boxes = value.reshape(*value.shape[:-1], 2, 9)
    params["out8"]["conv"][key] = np.concatenate([boxes[..., :5], boxes[..., 5 + order]], -1).reshape(value.shape)
  convert.save(Model(graph, {"params": params}, names=NAMES[::-1]), tmp_path / "teacher")
  one = lessons_of(str(tmp_path / "teacher"), graph, losses=("objectness", "bckd", "cwd"))
  assert one.classes == (3, 2, 1, 0)
  assert one.adapters == {}
  recipe, objective = recipe_of(one, graph, accumulate=2)
  mesh = make_mesh(jax.devices()[:2])
  state = put_state(jax.device_get(init_state(model.variables, recipe)), mesh)
  constants = put_constants(objective.constants, mesh, objective.specs)
  _, metrics = compile_step(recipe, mesh, "per_device")(state, put_batch(batch_of(), mesh), constants)
  found = mean(jax.device_get(metrics))
  for name in ("objectness", "bckd", "cwd"):
    assert found[f"distill/{name}"] == pytest.approx(0, abs=2e-4), name
  assert found["loss"] > 1


def test_it_sees_as_at_inference(teacher: str) -> None:
  """Rolling statistics and folded batch norm: an image among others gives what it gives alone."""
  taught = _Taught(lessons_of(teacher), detector())
  assert set(taught.teacher_layers) == {"out8", "out4"}
  images = batch_of(4)["image"]
  run = jax.jit(lambda variables, x: taught.network.apply(variables, x, layers=taught.teacher_layers))
  found: Any = run(taught.lessons.variables, images / np.float32(255))
  alone = load(teacher).forward(images[:1], ["out8", "out4"])
  for name, expected in alone.items():
    np.testing.assert_allclose(found[name][:1], expected, atol=1e-4)


def test_boxes_are_paired_by_the_shapes_of_their_anchors() -> None:
  student = detector(anchors=((8.0, 8.0), (16.0, 12.0), (4.0, 20.0)))
  teacher = detector(anchors=((17.0, 12.0), (5.0, 18.0), (9.0, 8.0), (2.0, 2.0)))
  assert paired_boxes("", student, teacher, "yolo8", "yolo8") == (2, 0, 1)


def test_heads_of_other_strides_are_left_alone_and_said_so(tmp_path: Path) -> None:
  one = lessons_of(saved(detector(strides=(16, 8)), tmp_path / "t"), names=NAMES)
  assert [(pair.student, pair.teacher) for pair in one.heads] == [("yolo8", "yolo8")]
  assert one.notes[-1] == "the teacher has no head on the grid of yolo4: they learn without it"


def test_a_classifier_learns_from_a_classifier_of_more_classes(tmp_path: Path) -> None:
  g = Builder(16, 16, name="wise")
  g.conv(4, 3, padding=1, stride=2, batch_normalize=True, activation="leaky", name="a")
  g.avgpool(name="pool")
  g.conv(5, 1, name="fc")
  g.softmax(name="p")
  teacher = saved(g.graph(), tmp_path / "t", ("owl", "Dog", "cat", "fox", "cow"))
  one = lessons_of(teacher, classifier(), ("cat", "dog", "cow"))
  assert one.classes == (2, 1, 4)
  recipe, objective = recipe_of(one, classifier())
  image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
  outputs = {"scores": jnp.zeros((2, 1, 1, 3))}
  _, metrics = recipe.loss_fn(outputs, {"image": jnp.asarray(image), "label": jnp.asarray([0, 1])}, objective.constants)
  logits = np.asarray(load(teacher).forward(image, ["fc"])["fc"]).reshape(2, 5)[:, [2, 1, 4]] / 4
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  expected = 16 * np.mean(np.sum(p * np.log(3 * p), 1))
  assert float(metrics["distill/hinton"][0]) == pytest.approx(expected, rel=1e-3)


def test_losses_from_outside(teacher: str) -> None:
  @register_distillation("outside", Needs.FEATURES, weight=2.0)
  def outside(lesson: Lesson) -> jax.Array:
    return jnp.float32(sum(student.shape[-1] for student, _ in lesson.features))

  try:
    one = lessons_of(teacher, losses=("outside", "cwd:3"), features=("f8=c8",))
    assert one.notes[0].endswith("outside x 2, cwd x 3")
    recipe, objective = recipe_of(one, detector())
    batch = batch_of(1)
    sizes = {"out8": (4, 18), "out4": (8, 18), f"{ADAPTER}f8": (4, 10)}  # the heads, for the loss of the boxes
    outputs = {name: jnp.zeros((1, side, side, channels)) for name, (side, channels) in sizes.items()}
    assert set(recipe.layers) == set(outputs)
    _, metrics = jax.jit(recipe.loss_fn)(outputs, batch, objective.constants)
    assert float(metrics["distill/outside"][0]) == 20
  finally:
    del DISTILLATIONS["outside"]


# -- runs --------------------------------------------------------------------------------------------------------------


def run_config(folder: Path, teacher: str, steps: int = 4) -> TrainConfig:
  """Everything at once: sparse, averages, micro-batches, two sizes, adapters, eight devices."""
  (folder / "student.cfg").write_text(darknet_cfg.dump(detector(strides=(8,))))
  values: dict[str, Any] = {
    "model": str(folder / "student.cfg"),
    "data": {"train": "synthetic:traffic:16", "cache_mb": 50},
    "batch_size": 16,
    "sizes": ((64, 32),),
    "resize_every_steps": 1,
    "total": {"steps": steps},
    "checkpoint_every": {"steps": 2},
    "log_every": {"steps": 1},
    "optim": {"accumulate": 2, "ema_decay": 0.5, "learning_rate": 1e-3, "schedule": {"policy": "constant"}},
    "sparse": {"strength": 0.5},
    "distill": {"teacher": teacher, "losses": ("objectness", "cwd")},
  }
  return typed(values)


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_its_adapters_stay_behind(tmp_path: Path, teacher: str) -> None:
  config, whole = run_config(tmp_path, teacher), tmp_path / "whole"
  experiment = open_experiment(config)
  assert experiment.chosen[-1].startswith("taught by big (")
  assert list(experiment.recipes) == [(32, 32), (64, 32)]
  done = loop.train(experiment, whole)
  rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
  assert all(row["distill/objectness"] > 0 and row["distill/cwd"] > 0 for row in rows)
  assert rows[-1]["sparse/mean"] < 1
  model = load(whole)
  assert not [layer for layer in model.variables["params"] if layer.startswith(ADAPTER)]
  assert ADAPTER not in (whole / "graph.cfg").read_text()
  assert (whole / "best.weights").exists()

  parts = tmp_path / "parts"
  shutil.copytree(whole, parts)
  shutil.rmtree(parts / "checkpoints" / "4")
  assert loop.train(open_experiment(config, is_resumed=True), parts).digest == done.digest

  saved(detector(10, strides=(4, 8), name="big"), tmp_path / "other", NAMES[::-1], seed=9)
  shutil.rmtree(teacher)
  shutil.copytree(tmp_path / "other", teacher)
  with pytest.raises(
    ConfigError, match=r"constants of the loss, such as the weights of a teacher: arrays with the digest \w+, now"
  ):
    loop.train(open_experiment(config, is_resumed=True), parts)


@pytest.mark.slow
def test_the_command(tmp_path: Path, teacher: str) -> None:
  """`prn train` in a process of its own, with a run directory as the teacher of the next."""
  (tmp_path / "student.cfg").write_text(darknet_cfg.dump(detector(strides=(8,))))
  command = [
    sys.executable, "-m", "prn_jax", "train", "--config=default", f"--config.model={tmp_path / 'student.cfg'}",
    "--config.data.train=synthetic:traffic:8", "--config.batch_size=8", "--config.total.steps=2",
    f"--config.distill.teacher={teacher}", "--config.distill.losses=('bckd', 'fgd:2')", f"--workdir={tmp_path / 'run'}", "--json",
  ]  # fmt: skip
  done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  assert "bckd x 1, fgd x 2" in done.stderr
  assert json.loads(done.stdout.splitlines()[-1])["step"] == 2
  again = lessons_of(str(tmp_path / "run"), detector(strides=(8,)))  # its names are in its checkpoint
  assert again.classes == (0, 1, 2, 3)


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("graph", "names", "settings", "message"),
  [
    (detector(classes=3), NAMES[:3], {}, r"knows nothing of class 'person' of the data; its 3 classes are car, truck, bus"),
    (detector(classes=3), (), {}, r"has 3 classes without names, and the data has 4: .* Give config.distill.names"),
    (detector(strides=(16,)), NAMES, {}, r"has heads of stride 16, and 'net' of stride 8, 4: none of them look at the same"),
    (detector(channels=1), NAMES, {}, r"takes images of 1 channels, but 'net' takes 3"),
    (classifier(), NAMES[:3], {}, r"' classifies, but 'net' detects. Take a teacher that detects"),
    (detector(), NAMES, {"losses": ("hinton",)}, r"'hinton' teaches classifiers, but 'net' detects. Expected some of kd1, .*bckd\."),
    (detector(), NAMES[::-1], {"losses": ("kd3",)}, r"kd3 compare heads value by value, but .* other strides, anchors or classes"),
    (detector(strides=(8,)), NAMES, {"losses": ("kd1",)}, r"kd1 compare heads value by value"),
    (detector(strides=(8, 4, 16)), NAMES, {"losses": ("cwd",), "features": ("f8=f88",)},
     r"config.distill.features: the teacher 'net' has no layer 'f88' \(did you mean 'f8'\?\)"),
    (detector(), NAMES, {"losses": ("cwd",), "features": ("f8=f4",)}, r"'f8' of the student is 4x4x6, but 'f4' of the teacher is 8x8x6"),
    (detector(), NAMES, {"losses": ("cwd",), "features": ("f8=f8", "f8=c8")}, r"name a layer of the student twice"),
  ],
)  # fmt: skip
def test_teachers_that_do_not_fit(
  graph: Graph, names: tuple[str, ...], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
  place = saved(graph, tmp_path / "t", names)
  with pytest.raises(PrnError, match=message) as error:
    lessons_of(place, **settings)
  assert str(error.value).startswith("config.distill")


def test_nothing_is_written_where_the_teacher_does_not_know_the_classes(
  tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / "student.cfg").write_text(darknet_cfg.dump(detector(strides=(8,))))
  teacher = saved(detector(classes=3), tmp_path / "t", NAMES[:3])
  given = {"model": tmp_path / "student.cfg", "data.train": "synthetic:traffic:8", "batch_size": 8, "total.steps": 2}
  keys = [f"--config.{key}={value}" for key, value in {**given, "distill.teacher": teacher}.items()]
  assert main(["train", "--config=default", *keys, f"--workdir={tmp_path / 'run'}"]) == 2
  assert "knows nothing of class 'person' of the data; its 3 classes are car, truck, bus" in capsys.readouterr().err
  assert not list((tmp_path / "run").iterdir())


def test_strategies_4_and_5_compare_all_maps_of_pruned_forms(tmp_path: Path) -> None:
  one = lessons_of(saved(detector(12), tmp_path / "wide"), losses=("kd4",))
  assert [pair[0] for pair in one.maps] == ["stem", "c4", "c8", "c16", "f8", "f4"]
  other = detector(strides=(8, 4))
  cut = dataclasses.replace(other, layers=tuple(layer for layer in other if layer.name != "c16"))
  message = (
    r"those of 'net' and of the teacher do not belong to each other \('c16' and 'f8' differ in size\). They are for"
  )
  with pytest.raises(PrnError, match=message):
    lessons_of(saved(cut, tmp_path / "cut"), losses=("kd5",))


def test_a_teacher_without_weights_or_that_is_not_there(tmp_path: Path) -> None:
  with pytest.raises(PrnError, match=r"config.distill.teacher: 'yolov3-tiny' has no weights, and would teach noise. Give config.distill.weights"):  # fmt: skip
    lessons_of("yolov3-tiny")
  with pytest.raises(PrnError, match=r"config.distill.teacher: no model is called 'yolov33'"):
    lessons_of("yolov33")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"losses": ("cwd",)}, r"config.distill: distill.losses is given, but distill.teacher is empty"),
    ({"teacher": "t", "losses": ("cwdd",)}, r"there is no distillation 'cwdd' \(did you mean 'cwd'\?\)"),
    ({"teacher": "t", "losses": ("cwd:-1",)}, r"distill.losses has 'cwd:-1'; expected NAME:WEIGHT with a weight above 0, as in cwd:10"),
    ({"teacher": "t", "losses": ("cwd:much",)}, r"distill.losses has 'cwd:much'"),
    ({"teacher": "t", "features": ("f8",)}, r"distill.features has 'f8'; expected STUDENT_LAYER=TEACHER_LAYER"),
    ({"teacher": "t", "confidence": 2.0}, r"distill.confidence is 2.0"),
  ],
)  # fmt: skip
def test_settings_without_a_meaning(settings: dict[str, Any], message: str) -> None:
  with pytest.raises(ConfigError, match=message):
    typed({"task": "detect", "distill": settings}, is_complete=False)
