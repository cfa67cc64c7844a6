"""Warm start of changed networks, their training, and `prn convert --transform`."""

from __future__ import annotations

import functools
import itertools
import json

import jax
import numpy as np
import pytest

from prn_jax import Model, load
from prn_jax.cli import main as cli
from prn_jax.errors import GraphError, PrnError
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.models import build_graph
from prn_jax.network import Network, expected_variables, flatten_variables, init_variables, unflatten_variables
from prn_jax.transforms.partial_residual import apply, fprn, multi_source, shrink
from prn_jax.transforms.warm_start import warm_start
from tests.nets import random_model

CHANGES = ("fprn:0.5", "shrink:0.5", "expand:0.5", "bottleneck:0.5")


def detector(size: int = 32) -> Graph:
  """Two residual stages of every structure that matters: depthwise convolutions, squeezing, pyramid pooling, a
  pyramid with concatenation, and two heads."""
  g = Builder(size, size, name="small", defaults={"activation": "leaky"})
  conv = {"batch_normalize": True}
  g.conv(8, 3, stride=2, padding=1, name="stem", **conv)
  ends = []
  for stage, channels in ((1, 8), (2, 16)):
    g.conv(channels, 3, stride=2, padding=1, name=f"stage{stage}_down", **conv)
    for unit in (1, 2):
      place, x = f"stage{stage}_unit{unit}", g.last
      g.conv(2 * channels, 1, name=f"{place}_expand", **conv)
      wide = g.conv(2 * channels, 3, padding=1, groups=2 * channels, name=f"{place}_depthwise", **conv)
      g.avgpool(name=f"{place}_pool")
      g.conv(4, 1, name=f"{place}_squeeze")
      g.conv(2 * channels, 1, activation="logistic", name=f"{place}_excite")
      g.scale_channels(wide, activation="linear", name=f"{place}_scale")
      g.conv(channels, 1, activation="linear", name=f"{place}_project", **conv)
      g.shortcut(x, activation="linear", name=f"{place}_add")
    ends.append(g.last)
  pool = g.maxpool(5, 1, name="spp_pool")
  g.route(pool, ends[1], name="spp_concat")
  p5 = g.conv(8, 1, name="p5_conv", **conv)
  anchors = ((10.0, 14.0), (23.0, 27.0))
  g.conv(14, 1, activation="linear", name="p5_out")
  g.yolo(2, anchors, name="p5_yolo")
  g.route(p5, name="p4_from")
  up = g.upsample(2, name="p4_up")
  g.route(up, ends[0], name="p4_concat")
  g.conv(12, 3, padding=1, name="p4_conv", **conv)
  g.conv(14, 1, activation="linear", name="p4_out")
  g.yolo(2, anchors, name="p4_yolo")
  return g.graph()


def embedded(original: Graph, changed: Graph, small: dict[str, object]) -> dict[str, object]:
  """Variables of `original` that hold those of `changed` where a warm start looks for them, and zeros elsewhere, so
  that both networks compute the same."""
  sizes = {path: np.prod(shape, dtype=int) for path, shape in expected_variables(original).items()}
  ids = {p: np.arange(n, dtype=np.float32).reshape(expected_variables(original)[p]) for p, n in sizes.items()}
  chosen = flatten_variables(warm_start(original, unflatten_variables(ids), changed))
  flat = flatten_variables(small)
  result = {}
  for path, shape in expected_variables(original).items():
    values = np.full(shape, path.endswith("var"), np.float32)
    values.reshape(-1)[chosen[path].astype(int).reshape(-1)] = np.asarray(flat[path]).reshape(-1)
    result[path] = values
  return unflatten_variables(result)


def outputs_of(graph: Graph, variables: dict[str, object]) -> dict[str, np.ndarray]:
  x = np.random.default_rng(1).random((2, graph.height, graph.width, 3), np.float32)
  return {name: np.asarray(y) for name, y in Model(graph, variables).forward(x).items()}


@pytest.mark.parametrize("text", ["fprn:0", "shrink:1", "expand:1", "bottleneck:1"])
def test_a_neutral_transform_gives_equal_outputs(text):
  model = random_model(detector())
  changed = apply(model.graph, text)
  variables = warm_start(model.graph, model.variables, changed)
  for name, y in outputs_of(changed, variables).items():
    np.testing.assert_array_equal(y, outputs_of(model.graph, model.variables)[name])


def test_fprn_keeps_every_variable_and_changes_the_outputs():
  model = random_model(detector())
  changed = fprn(model.graph, 0.5)
  variables = warm_start(model.graph, model.variables, changed)
  before, after = flatten_variables(model.variables), flatten_variables(variables)
  assert all(np.array_equal(after[path], before[path]) for path in before)
  assert after.keys() == before.keys()
  assert not np.allclose(outputs_of(changed, variables)["p5_yolo"], outputs_of(model.graph, model.variables)["p5_yolo"])


@pytest.mark.parametrize("text", ["shrink:0.5", "expand:0.5"])
def test_sliced_weights_compute_the_same_where_the_rest_is_zero(text):
  """Not for bottleneck: the wide shortcuts carry channels past the middle that the narrow ones drop."""
  graph = detector()
  changed = apply(graph, text)
  small = random_model(changed, seed=2).variables
  large = embedded(graph, changed, small)
  np.testing.assert_equal(flatten_variables(warm_start(graph, large, changed)), flatten_variables(small))
  expected = outputs_of(changed, small)
  for name, y in outputs_of(graph, large).items():
    np.testing.assert_allclose(y, expected[name], atol=1e-5)


@pytest.mark.parametrize(
  ("name", "text"), [("yolov3", "multi-source"), *itertools.product(("yolov3", "enet-b0-prn", "resnet50"), CHANGES)]
)
def test_every_variable_of_a_large_model_gets_its_shape(name, text):
  graph = build_graph(name)
  changed = apply(graph, text)
  cheap = unflatten_variables({p: np.broadcast_to(np.float32(0), s) for p, s in expected_variables(graph).items()})
  found = {path: value.shape for path, value in flatten_variables(warm_start(graph, cheap, changed)).items()}
  assert found == expected_variables(changed)


def test_multi_source_takes_the_rows_of_the_upsampled_channels():
  graph = build_graph("yolov3-tiny")
  variables = init_variables(graph)
  changed = warm_start(graph, variables, multi_source(graph))
  before, after = (v["params"]["p4_conv"]["conv"]["kernel"] for v in (variables, changed))
  assert (before.shape, after.shape) == ((3, 3, 384, 256), (3, 3, 128, 256))
  np.testing.assert_array_equal(after, before[:, :, :128])


def test_rows_follow_a_concatenation_whose_first_part_shrank():
  """The pooled map comes first and lost half its 16 channels, so the second part's rows start at 16, not at 8."""
  graph = detector()
  changed = shrink(graph, 0.5)
  variables = init_variables(graph)
  before = variables["params"]["p5_conv"]["conv"]["kernel"]
  after = warm_start(graph, variables, changed)["params"]["p5_conv"]["conv"]["kernel"]
  np.testing.assert_array_equal(after, before[:, :, [*range(8), *range(16, 24)]])


def test_a_network_with_a_new_layer():
  graph = detector()
  g = Builder(32, 32)
  g.conv(4, 3, padding=1, name="other")
  with pytest.raises(GraphError, match=r"layer 'other' \(conv\) is new; the network 'small' has no weights for it\."):
    warm_start(graph, init_variables(graph), g.graph())


def test_a_network_that_reads_other_channels():
  graph = detector()
  g = Builder(32, 32)
  g.conv(8, 3, stride=2, padding=1, batch_normalize=True, activation="leaky", name="stem")
  g.conv(8, 3, padding=1, name="p5_out")
  with pytest.raises(GraphError, match=r"layer 'p5_out' \(conv\) reads 8 channels that it does not read in 'small'"):
    warm_start(graph, init_variables(graph), g.graph())


@pytest.mark.parametrize("text", [*CHANGES, "multi-source"])
def test_a_step_of_training_reaches_every_parameter(text):
  graph = apply(detector(), text)
  variables = init_variables(graph, 1)
  x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)

  @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
  def gradients(params):
    def loss(params):
      outputs, _ = Network(graph).apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
      return sum((y**2).sum() for y in outputs.values())

    return jax.grad(loss)(params)

  for path, gradient in flatten_variables(gradients(variables["params"])).items():
    assert np.isfinite(gradient).all(), path
    assert np.abs(gradient).max() > 0, path


# -- prn convert --transform ----------------------------------------------------------------------------


def test_convert_with_transforms(tmp_path, capsys):
  source, dst = tmp_path / "small", tmp_path / "changed.safetensors"
  model = random_model(detector())
  model.save(str(source) + "/")
  status = cli.main(
    ["convert", str(source), str(dst), "--transform", "shrink:0.5", "--transform", "fprn:0.5", "--json"]
  )
  answer = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert (status, answer["identical"]) == (0, True)
  changed = fprn(shrink(model.graph, 0.5), 0.5)
  back = load(dst)
  assert back.graph == changed
  expected = flatten_variables(warm_start(model.graph, model.variables, changed))
  np.testing.assert_equal(flatten_variables(back.variables), expected)


def test_convert_a_registered_model_to_a_cfg(tmp_path, capsys):
  dst = tmp_path / "prn.cfg"
  assert cli.main(["convert", "yolov3", str(dst), "--transform", "shrink:0.5"]) == 0
  assert load(dst).graph.canonical() == build_graph("yolov3-prn", head="yolov3").canonical()
  assert "the cfg reads back as the same network" in capsys.readouterr().out


def test_a_model_saved_with_other_widths_loads_as_it_is(tmp_path, capsys):
  """A saved model carries its graph. Here the registered name, with the widths that it had before figure 7 was known:
  1x1 convolutions half as wide as their unit."""
  g = Builder(32, 32, name="darknet53-prn-shrink")
  conv = functools.partial(g.conv, batch_normalize=True, activation="leaky")
  conv(16, 3, stride=2, padding=1, name="stage1_down")
  for unit, width in ((1, 12), (2, 8)):
    x = g.last
    conv(width // 2, 1, name=f"stage1_unit{unit}_conv1")
    conv(width, 3, padding=1, name=f"stage1_unit{unit}_conv2")
    g.shortcut(x, name=f"stage1_unit{unit}_add")
  g.avgpool(name="head_pool")
  g.conv(4, 1, name="head_conv")
  g.softmax(name="head_softmax")
  old = random_model(g.graph())
  saved, exported, cfg = str(tmp_path / "old") + "/", tmp_path / "old.safetensors", tmp_path / "old.cfg"
  old.save(saved)
  for dst in (exported, cfg):
    assert cli.main(["convert", saved, str(dst)]) == 0
  for place in (saved, exported):
    back = load(place)
    assert (back.graph, back.graph.name) == (old.graph, "darknet53-prn-shrink")
    np.testing.assert_equal(flatten_variables(back.variables), flatten_variables(old.variables))
  assert load(cfg).graph.canonical() == old.graph.canonical()
  assert [old.graph[f"stage1_unit{unit}_conv1"].filters for unit in (1, 2)] == [6, 4]
  capsys.readouterr()


def test_convert_with_a_bad_transform(tmp_path, capsys):
  dst = tmp_path / "prn.cfg"
  assert cli.main(["convert", "yolov3", str(dst), "--transform", "shrink:2"]) == 2
  assert "gamma=2; expected more than 0, and at most 1, which changes nothing." in capsys.readouterr().err
  assert not dst.exists()
  with pytest.raises(PrnError, match="transform 'double:2' is unknown"):
    apply(build_graph("yolov3"), "double:2")
