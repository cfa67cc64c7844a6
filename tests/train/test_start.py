"""Where a training starts: what is loaded, what stays random, and what the report says of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from prn_jax import Model
from prn_jax.errors import PrnError, WeightsError
from prn_jax.export import convert
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.formats.darknet_training import LayerTraining
from prn_jax.formats.darknet_weights import Header
from prn_jax.graph.graph import Graph
from prn_jax.models.registry import build_graph
from prn_jax.network import Network, expected_variables, flatten_variables, init_variables
from prn_jax.train.checkpoint import Checkpoints
from prn_jax.train.optim import OptimConfig, ScheduleConfig, make_optimizer
from prn_jax.train.start import start_variables
from prn_jax.train.step import Recipe, init_state
from prn_jax.transforms import partial_residual
from prn_jax.transforms.num_classes import with_num_classes
from prn_jax.transforms.warm_start import warm_start
from tests.nets import random_model, tiny_detector

HEADS = ("p5_out", "p4_out")


def with_weights(graph: Graph) -> list[str]:
  return [layer.name for layer in graph if graph.arrays(layer)]


def check_layers(variables: Any, graph: Graph, source: Any, loaded: tuple[str, ...], seed: int = 0) -> None:
  """Every array of a loaded layer is the source's, every other one that of the initialisation."""
  mine, theirs, random = (flatten_variables(v) for v in (variables, source, init_variables(graph, seed)))
  assert {key: np.shape(value) for key, value in mine.items()} == expected_variables(graph)
  for key, value in mine.items():
    origin = theirs if key.split("/")[1] in loaded else random
    np.testing.assert_array_equal(value, origin[key], err_msg=key)


def test_without_weights_all_is_random() -> None:
  graph = tiny_detector()
  variables, report = start_variables(graph, None, seed=3)
  check_layers(variables, graph, {}, (), seed=3)
  assert (report.loaded, list(report.random)) == ((), with_weights(graph))
  assert str(report) == "start: random weights in all 6 layers"


@pytest.mark.parametrize("kind", ["x.weights", "model", "x.safetensors"])
def test_whole_network(kind: str, tmp_path: Path) -> None:
  model = random_model()
  model.save(tmp_path / kind)
  variables, report = start_variables(model.graph, tmp_path / kind)
  check_layers(variables, model.graph, model.variables, report.loaded)
  assert list(report.loaded) == with_weights(model.graph)
  assert not report.random
  assert not report.unused
  assert str(report) == f"start: 6 of 6 layers from '{tmp_path / kind}'"


@pytest.mark.parametrize("kind", ["x.weights", "model", "x.safetensors"])
def test_other_number_of_classes(kind: str, tmp_path: Path) -> None:
  model, graph = random_model(tiny_detector(classes=7)), tiny_detector(classes=2)
  model.save(tmp_path / kind)
  variables, report = start_variables(graph, tmp_path / kind, seed=5)
  check_layers(variables, graph, model.variables, report.loaded, seed=5)
  assert tuple(report.random) == report.unused == HEADS
  lines = str(report).splitlines()
  assert lines[0].startswith("start: 4 of 6 layers from ")
  assert lines[0].endswith(", which has 7 classes") == (kind == "x.weights")
  assert lines[1:] == ["  random, of another shape in the weights: p5_out, p4_out", "  not used: p5_out, p4_out"]


def test_another_run(tmp_path: Path) -> None:
  """A run directory gives its averaged weights, and fits another number of classes."""
  model, graph = random_model(tiny_detector(classes=7)), tiny_detector(classes=2)
  tx, _ = make_optimizer(OptimConfig(schedule=ScheduleConfig(policy="constant")), model.graph, 10)
  recipe = Recipe(Network(model.graph), tx, lambda outputs, batch: (jnp.zeros(()), {}), (), ema_decay=0.9)
  state = init_state(model.variables, recipe)
  state = state._replace(params=init_state(init_variables(model.graph, 9), recipe).params)
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  meta = {"graph_cfg": darknet_cfg.dump(model.graph), "name": "tiny", "names": [], "resize": "stretch"}
  checkpoints.save(1, state, meta, wait=True)
  checkpoints.close()
  variables, report = start_variables(graph, tmp_path)
  check_layers(variables, graph, model.variables, report.loaded)
  assert tuple(report.random) == HEADS


def test_partial_backbone(tmp_path: Path) -> None:
  """A file that ends after some layers, as darknet53.conv.74 does."""
  model = random_model()
  whole = tmp_path / "tiny.weights"
  model.save(whole)
  values = sum(
    array.size for layer in model.graph for array in model.graph.arrays(layer) if layer.name in ("stem", "c1", "c2")
  )
  part = tmp_path / "tiny.conv.5"
  part.write_bytes(whole.read_bytes()[: 20 + 4 * values])
  variables, report = start_variables(tiny_detector(classes=9), part)
  check_layers(variables, tiny_detector(classes=9), model.variables, report.loaded)
  assert report.loaded == ("stem", "c1", "c2")
  assert str(report).splitlines()[1:] == ["  random, not among the weights: p5, p5_out, p4_out"]
  renamed = part.rename(tmp_path / "backbone")
  assert start_variables(model.graph, renamed, partial=True)[1].loaded == ("stem", "c1", "c2")
  with pytest.raises(WeightsError, match=r"ends exactly before layer .* 'p5' .*weights_model"):
    start_variables(model.graph, renamed, partial=False)


def test_layers_that_the_file_lacks(tmp_path: Path) -> None:
  model = random_model()
  model.save(tmp_path / "x.weights")
  content = (tmp_path / "x.weights").read_bytes()
  last = sum(array.size for array in model.graph.arrays(model.graph["p4_out"]))
  (tmp_path / "x.weights").write_bytes(content[: -4 * last])
  layers = {"p4_out": LayerTraining(dontload=True)}
  variables, report = start_variables(model.graph, tmp_path / "x.weights", layers=layers)
  check_layers(variables, model.graph, model.variables, report.loaded)
  assert report.random == {"p4_out": "not among the weights"}


def test_a_numbered_cfg_for_a_named_network(tmp_path: Path) -> None:
  """weights_model may be a cfg without names; the order of the layers tells which is which."""
  graph = build_graph("yolov3-tiny-prn", width=32, height=32, num_classes=4)
  source = random_model(with_num_classes(graph, 6).canonical())
  source.save(tmp_path / "x.weights")
  (tmp_path / "x.cfg").write_text(source.cfg())
  variables, report = start_variables(graph, tmp_path / "x.weights", 0, tmp_path / "x.cfg")
  assert tuple(report.random) == ("head_p5_conv", "head_p4_conv")
  assert "matched by position" in str(report)
  names = dict(zip((x.name for x in graph), (x.name for x in source.graph), strict=True))
  theirs, mine = flatten_variables(source.variables), flatten_variables(variables)
  for name in report.loaded:
    for array in graph.arrays(graph[name]):
      ours, other = (f"{array.collection}/{n}/{array.path}" for n in (name, names[name]))
      np.testing.assert_array_equal(mine[ours], theirs[other])


@pytest.mark.parametrize("how", ["recognised", "cfg"])
def test_coco_weights_for_five_classes(how: str, shared: Path) -> None:
  folder = shared / "data/weights/yolo-fastest-1.1"
  cfg, weights = folder / "yolo-fastest-1.1.cfg", folder / "yolo-fastest-1.1.weights"
  source = darknet_cfg.read(cfg).graph
  graph = with_num_classes(source, 5)
  variables, report = start_variables(graph, weights, 1, cfg if how == "cfg" else None)
  check_layers(variables, graph, darknet_weights.load(weights, source).variables, report.loaded, seed=1)
  heads = tuple(head.inputs[0] for head in graph.heads)
  assert tuple(report.random) == report.unused == heads
  assert set(report.random.values()) == {"of another shape in the weights"}
  assert len(report.loaded) == len(with_weights(graph)) - 2
  assert str(report).startswith(f"start: 82 of 84 layers from '{weights}'")


def test_imagenet_weights_for_ten_classes(shared: Path) -> None:
  weights = shared / "data/weights/tiny-darknet-imagenet/tiny.weights"
  _, report = start_variables(build_graph("tiny-darknet", num_classes=10), weights)
  assert tuple(report.random) == ("head_conv",)
  assert "which has 1000 classes" in str(report)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_no_layer_matches(tmp_path: Path) -> None:
  names = {layer.name: f"other_{layer.name}" for layer in tiny_detector()}
  other = random_model(dataclasses.replace(tiny_detector(), width=64, height=64).renamed(names))
  other.save(tmp_path / "model")
  with pytest.raises(
    PrnError, match=r"fit none of the 16 layers of network 'tiny-darknet'; .*other_stem.*weights_model"
  ) as info:
    start_variables(build_graph("tiny-darknet", num_classes=2).resized(64, 64), tmp_path / "model")
  assert "weights of the same family" in str(info.value)


def test_weights_of_another_network(tmp_path: Path) -> None:
  random_model().save(tmp_path / "x.weights")
  with pytest.raises(WeightsError, match=r"needs 4,\d+,\d+ .*name it: weights_model"):
    start_variables(build_graph("yolov3-tiny-prn"), tmp_path / "x.weights")


def test_weights_that_diverged(tmp_path: Path) -> None:
  model = random_model()
  model.variables["params"]["c1"]["bn"]["bias"][[1, 3]] = np.nan, np.inf
  Model(model.graph, model.variables).save(tmp_path / "x.weights")
  with pytest.raises(WeightsError, match="params/c1/bn/bias holds 2 values that are NaN or infinite"):
    start_variables(model.graph, tmp_path / "x.weights")


def test_missing_file_and_needless_model(tmp_path: Path) -> None:
  with pytest.raises(WeightsError, match=r"cannot read weights '.*x.weights': No such file or directory\.$"):
    start_variables(tiny_detector(), tmp_path / "x.weights")
  random_model().save(tmp_path / "model")
  with pytest.raises(PrnError, match=r"carries its own network; leave weights_model .* empty"):
    start_variables(tiny_detector(), tmp_path / "model", 0, "yolov3")


# -- transforms --------------------------------------------------------------------------------------------------------


def cifar(num_classes: int = 10) -> Model:
  graph = build_graph("darknet-cifar", num_classes=num_classes, width_multiplier=0.25)
  return Model(graph, init_variables(graph, seed=5))


@pytest.mark.parametrize("kind", ["x.weights", "model"])
@pytest.mark.parametrize("transform", ["fprn:0.5", "shrink:0.5", "expand:0.75", "bottleneck:0.5"])
def test_weights_of_the_network_before_its_transforms(kind: str, transform: str, tmp_path: Path) -> None:
  """The figures are those of `warm_start`, which has proofs of its own; layers that fit are not called cut."""
  model = cifar()
  model.save(tmp_path / kind)
  graph = partial_residual.apply(model.graph, transform)
  variables, report = start_variables(graph, tmp_path / kind, original=model.graph)
  expected = flatten_variables(warm_start(model.graph, model.variables, graph))
  mine = flatten_variables(variables)
  assert mine.keys() == expected.keys()
  for key, value in mine.items():
    np.testing.assert_array_equal(value, expected[key], err_msg=key)
  assert list(report.loaded) == with_weights(graph)
  cut = "" if transform == "fprn:0.5" else ", cut to the channels of the transformed network"
  assert str(report).endswith(f"layers from '{tmp_path / kind}'{cut}")


@pytest.mark.parametrize("kind", ["x.weights", "model"])
def test_weights_of_the_transformed_network_itself(kind: str, tmp_path: Path) -> None:
  original = cifar().graph
  graph = partial_residual.apply(original, "shrink:0.5")
  model = Model(graph, init_variables(graph, seed=6))
  model.save(tmp_path / kind)
  variables, report = start_variables(graph, tmp_path / kind, original=original)
  check_layers(variables, graph, model.variables, report.loaded)
  assert (
    str(report) == f"start: {len(with_weights(graph))} of {len(with_weights(graph))} layers from '{tmp_path / kind}'"
  )


@pytest.mark.parametrize("kind", ["x.weights", "model"])
def test_cut_weights_with_other_classes_leave_the_last_layer_random(kind: str, tmp_path: Path) -> None:
  cifar(num_classes=7).save(tmp_path / kind)
  original = cifar().graph
  graph = partial_residual.apply(original, "shrink:0.5")
  variables, report = start_variables(graph, tmp_path / kind, seed=1, original=original)
  assert list(report.random) == [with_weights(graph)[-1]]
  check_layers(variables, graph, variables, report.loaded, seed=1)
  assert "cut to the channels" in str(report)


def test_weights_that_fit_neither_network_say_so_of_the_original(tmp_path: Path) -> None:
  random_model().save(tmp_path / "x.weights")
  original = cifar().graph
  with pytest.raises(WeightsError, match=r"x\.weights.*weights_model"):
    start_variables(partial_residual.apply(original, "shrink:0.5"), tmp_path / "x.weights", original=original)


@pytest.mark.parametrize("name", ["backbone_hp.3.conv", "backbone.bin", "net.weights"])
def test_a_backbone_of_any_name_starts_a_training(tmp_path: Path, name: str) -> None:
  model = random_model()
  convert.convert(model, tmp_path / "net.conv.5")
  file = (tmp_path / "net.conv.5").rename(tmp_path / name)
  variables, report = start_variables(model.graph, file)
  assert report.loaded == ("stem", "c1", "c2")
  assert str(report).startswith(
    f"start: 3 of {len(report.loaded) + len(report.random)} layers from '{file}', a part of"
  )
  check_layers(variables, model.graph, model.variables, report.loaded)
  file.write_bytes(file.read_bytes()[:-4])
  with pytest.raises(WeightsError, match="It ends inside layer"):
    start_variables(model.graph, file)


def test_an_empty_file_is_no_backbone(tmp_path: Path) -> None:
  (tmp_path / "net.weights").write_bytes(Header().pack())
  with pytest.raises(WeightsError, match="It ends exactly before layer 0 'stem'"):
    start_variables(tiny_detector(), tmp_path / "net.weights")


def test_heads_keep_what_other_classes_do_not_change(tmp_path: Path) -> None:
  """Boxes and objects come out as before, the class of the same name too; only the new class is random."""
  model = dataclasses.replace(random_model(tiny_detector(classes=7)), names=tuple("abcdefg"))
  model.save(tmp_path / "model")
  graph = tiny_detector(classes=2)
  variables, report = start_variables(graph, tmp_path / "model", keep_head=("zebra", "C"))
  assert (report.kept, report.classes, report.random, report.unused) == (HEADS, ("C",), {}, ())
  assert str(report).splitlines()[1:] == [
    "  keep boxes and objects of other classes, and the classes C by name: p5_out, p4_out"
  ]
  x = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
  before, after = (one.forward(x) for one in (model, Model(graph, variables)))
  random = Model(graph, start_variables(graph, tmp_path / "model")[0]).forward(x)
  for head, value in after.items():
    old, new, other = (np.asarray(v[head]).reshape(*value.shape[:3], 3, -1) for v in (before, after, random))
    np.testing.assert_allclose(new[..., :5], old[..., :5], rtol=1e-5)
    np.testing.assert_allclose(new[..., 6], old[..., 5 + 2], rtol=1e-5)
    np.testing.assert_allclose(new[..., 5], other[..., 5], rtol=1e-5)
    assert np.abs(new[..., :5] - other[..., :5]).max() > 1e-3


def test_heads_without_names_or_of_another_form(tmp_path: Path) -> None:
  random_model(tiny_detector(classes=7)).save(tmp_path / "x.weights")
  report = start_variables(tiny_detector(classes=2), tmp_path / "x.weights", keep_head=("zebra", "fox"))[1]
  assert "  keep boxes and objects of other classes, and no class (none has a known name): p5_out, p4_out" in str(
    report
  )
  g = tiny_detector(classes=2)
  fewer = {
    name: dataclasses.replace(g[name], **fields)
    for name, fields in (("p5_out", {"filters": 14}), ("p5_yolo", {"mask": (0, 1)}))
  }
  other = dataclasses.replace(g, layers=tuple(fewer.get(layer.name, layer) for layer in g))
  random_model(tiny_detector(classes=7)).save(tmp_path / "model")
  report = start_variables(other, tmp_path / "model", keep_head=("zebra", "fox"))[1]
  assert report.kept == ("p4_out",)
  assert list(report.random) == ["p5_out"]
