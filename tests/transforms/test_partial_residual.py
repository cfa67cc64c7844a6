"""Partial residual transforms: exact widths and channels, the models they must give, cost, cfg, and messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prn_jax import Model
from prn_jax.errors import GraphError, PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.partial import leading_cuts, stage_widths
from prn_jax.kinds.shortcut import Shortcut
from prn_jax.models import build_graph
from prn_jax.network import init_variables
from prn_jax.transforms.partial_residual import apply, bottleneck, expand, fprn, multi_source, shrink
from prn_jax.transforms.stages import find_stages, groups_around

ALL = ("fprn:0.5", "fprn:0.25", "fprn:1", "shrink:0.5", "shrink:0.75", "expand:0.5", "bottleneck:0.75")
RESIDUAL = ("darknet53", "yolov3", "resnet50", "enet-b0-prn", "efficientnet-b0", "yolov4")


def residual_net(channels: int = 8, blocks: int = 2, activation: str = "linear", size: int = 8) -> Graph:
  """A stem, one residual stage and a classifier of three classes."""
  g = Builder(size, size, name="small")
  conv = {"batch_normalize": True, "activation": "leaky"}
  g.conv(channels, 3, padding=1, name="stem", **conv)
  for i in range(1, blocks + 1):
    x = g.last
    g.conv(channels // 2, 1, name=f"unit{i}_conv1", **conv)
    g.conv(channels, 3, padding=1, name=f"unit{i}_conv2", **conv)
    g.shortcut(x, activation=activation, name=f"unit{i}_add")
  g.avgpool(name="pool")
  g.conv(3, 1, name="scores")
  return g.graph()


def width(graph: Graph, name: str) -> int:
  return graph.shapes[name].channels


# -- widths and cuts ------------------------------------------------------------------------------------


def test_widths_of_a_stage_change_linearly():
  """256 * (1 - 0.5 * i / 8): figure 7 prints 240 for the first block."""
  assert stage_widths("shrink", 256, 8, 0.5) == (256, 240, 224, 208, 192, 176, 160, 144, 128)
  assert stage_widths("expand", 256, 8, 0.5) == (128, 144, 160, 176, 192, 208, 224, 240, 256)
  assert stage_widths("bottleneck", 256, 8, 0.5) == (256, 224, 192, 160, 128, 160, 192, 224, 256)
  assert stage_widths("shrink", 1024, 4, 0.75) == (1024, 960, 896, 832, 768)
  assert stage_widths("bottleneck", 64, 1, 0.5) == (64, 64)


@pytest.mark.parametrize("schedule", ["shrink", "expand", "bottleneck"])
def test_gamma_of_one_changes_no_width(schedule):
  assert stage_widths(schedule, 30, 3, 1) == (30, 30, 30, 30)


def test_widths_are_even():
  """30 * (1 - 0.5 * i / 2) is 22.5 and 15, half-way up: 16; 30 * 0.9 is 27: 28; 4 * 0.1 is less than one step."""
  assert stage_widths("shrink", 30, 2, 0.5) == (30, 22, 16)
  assert stage_widths("shrink", 30, 1, 0.9) == (30, 28)
  assert stage_widths("shrink", 4, 1, 0.1) == (4, 2)


def test_widths_are_multiples_of_the_groups_around_and_never_above_the_stage():
  """64 * 0.875 is 56 and 64 * 0.625 is 40, half-way between 32 and 48."""
  assert stage_widths("shrink", 64, 4, 0.5, groups=16) == (64, 64, 48, 48, 32)
  assert stage_widths("shrink", 60, 1, 0.98, groups=8) == (60, 56)
  assert stage_widths("expand", 6, 2, 0.5, groups=8) == (6, 6, 6)


@pytest.mark.parametrize(
  ("channels", "keep", "cuts"),
  [
    (256, 128, ((2, 0),)),
    (256, 192, ((2, 0), (4, 2))),
    (256, 224, ((2, 0), (4, 2), (8, 6))),
    (24, 9, ((3, 0), (24, 8))),
  ],
)
def test_cuts(channels, keep, cuts):
  assert leading_cuts(channels, keep) == cuts


@given(st.integers(1, 40), st.integers(0, 8))
def test_cuts_hold_the_leading_channels_in_order(eighth, count):
  channels, keep = 8 * eighth, count * eighth
  held = [
    i
    for groups, part in leading_cuts(channels, keep)
    for i in range(part * channels // groups, (part + 1) * channels // groups)
  ]
  assert held == list(range(keep))


# -- the models of the paper ----------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0, 0.125, 0.25, 0.5, 0.75])
def test_yolov3_becomes_yolov3_fprn(sparsity):
  assert apply(build_graph("yolov3"), f"fprn:{sparsity}") == build_graph("yolov3-fprn", sparsity=sparsity)


@pytest.mark.parametrize("gamma", [1, 0.75, 0.5])
@pytest.mark.parametrize("schedule", ["shrink", "expand", "bottleneck"])
def test_darknet53_becomes_its_partial_forms(schedule, gamma):
  changed = apply(build_graph("darknet53"), f"{schedule}:{gamma}")
  assert changed == build_graph(f"darknet53-prn-{schedule}", gamma=gamma)


def test_yolov3_becomes_yolov3_prn_as_far_as_the_head():
  assert shrink(build_graph("yolov3"), 0.5) == build_graph("yolov3-prn", head="yolov3")


@pytest.mark.parametrize("text", ["fprn:0", "shrink:1", "expand:1", "bottleneck:1"])
@pytest.mark.parametrize("name", RESIDUAL)
def test_the_neutral_value_gives_the_same_network(name, text):
  graph = build_graph(name)
  assert apply(graph, text) == graph


@pytest.mark.parametrize("text", ALL)
@pytest.mark.parametrize("name", RESIDUAL)
def test_heads_keep_their_shapes_and_the_cfg_holds_the_network(name, text):
  graph = build_graph(name)
  changed = apply(graph, text)
  assert [(h, changed.shapes[h.name]) for h in changed.heads] == [(h, graph.shapes[h.name]) for h in graph.heads]
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed


# -- characteristic 1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darknet53", "resnet50", "yolov3-tiny-prn", "enet-b0-prn"])
def test_fprn_keeps_layers_cost_and_variables(name):
  graph = build_graph(name)
  changed = fprn(graph, 0.5)
  assert [layer.name for layer in changed if layer.name in graph.shapes] == [layer.name for layer in graph]
  assert {layer.kind for layer in changed if layer.name not in graph.shapes} == {"route"}
  before, after = cost(graph), cost(changed)
  assert (after.params, after.bflops) == (before.params, before.bflops)
  for layer in graph:
    if isinstance(layer, Shortcut):
      previous, source = graph.input_shapes(layer)
      assert width(changed, changed[layer.name].inputs[1]) == min(previous.channels, source.channels) // 2


def test_fprn_adds_the_leading_channels():
  graph = residual_net(channels=8, blocks=2)
  changed = fprn(graph, 0.25)  # 6 of 8: a half and a quarter
  outputs = Model(changed, init_variables(changed, 3)).forward(np.random.default_rng(0).random((2, 8, 8, 3)), "all")
  for unit, source in (("unit1", "stem"), ("unit2", "unit1_add")):
    expected = np.array(outputs[f"{unit}_conv2"])
    expected[..., :6] += outputs[source][..., :6]
    np.testing.assert_array_equal(outputs[f"{unit}_add"], expected)
    np.testing.assert_array_equal(outputs[f"{unit}_add_part"], outputs[source][..., :6])


def test_fprn_of_sparsity_one_is_a_plain_network():
  changed = fprn(residual_net(activation="relu"), 1)
  outputs = Model(changed, init_variables(changed)).forward(np.random.default_rng(0).random((1, 8, 8, 3)), "all")
  assert not any(isinstance(layer, Shortcut) for layer in changed)
  np.testing.assert_array_equal(outputs["unit2_add"], np.maximum(outputs["unit2_conv2"], 0))


def test_a_source_with_more_or_fewer_channels():
  """Of 12 and of 4 channels, 8 and 4 are added to 8; sparsity 1/2 leaves 4 and 2. Both shortcuts share one cut."""
  g = Builder(8, 8)
  wide = g.conv(12, 3, padding=1, name="wide")
  narrow = g.conv(4, 3, padding=1, name="narrow")
  g.conv(8, 3, padding=1, name="a")
  g.shortcut(wide, narrow, name="both")
  g.conv(8, 3, padding=1, name="b")
  g.shortcut(wide, name="again")
  changed = fprn(g.graph(), 0.5)
  assert [width(changed, name) for name in changed["both"].inputs] == [8, 4, 2]
  assert changed["again"].inputs[1] == changed["both"].inputs[1] == "both_part1"
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed


def test_half_a_partial_residual_halves_what_a_shortcut_keeps():
  """While the second convolution of a unit runs, the source is needed only as far as it is added."""
  graph = residual_net(channels=64, blocks=1, size=16)
  changed = fprn(graph, 0.5)
  assert "stem" not in {name for layer in list(changed)[4:] for name in layer.inputs}
  assert changed.shapes["unit1_add_part"].size * 2 == graph.shapes["stem"].size


# -- characteristic 2 -----------------------------------------------------------------------------------


def test_stages_are_found():
  stages = find_stages(build_graph("darknet53"))
  assert [len(blocks) for blocks in stages] == [1, 2, 8, 8, 4]
  assert stages[1][0] == (
    "stage2_down",
    ("stage2_unit1_conv1", "stage2_unit1_conv2"),
    "stage2_unit1_conv2",
    "stage2_unit1_add",
    1,
  )
  assert [len(blocks) for blocks in find_stages(build_graph("resnet50"))] == [3, 4, 6, 3]
  assert [len(blocks) for blocks in find_stages(build_graph("efficientnet-b0"))] == [1, 1, 2, 2, 3]


def test_units_of_the_printed_figure():
  """Figure 7 for the stage of 128: 64 1x1, 96 3x3; 64 1x1, 64 3x3; and 240 3x3 first in the stage of 256."""
  changed = shrink(build_graph("darknet53"), 0.5)
  convs = [f"stage2_unit{unit}_conv{i}" for unit in (1, 2) for i in (1, 2)]
  assert [(changed[name].filters, changed[name].size) for name in convs] == [(64, 1), (96, 3), (64, 1), (64, 3)]
  assert [width(changed, f"stage3_unit1_conv{i}") for i in (1, 2)] == [128, 240]


def test_layers_inside_a_unit_keep_their_width():
  changed = shrink(build_graph("resnet50"), 0.5)
  names = [f"stage2_unit4_conv{i}" for i in (1, 2, 3)]
  assert [width(changed, name) for name in names] == [128, 128, 256]  # the last of 512
  assert width(changed, "stage3_unit1_conv3") == 938  # 1024 * 11/12 is 938.7
  changed = shrink(build_graph("efficientnet-b0"), 0.5)
  place = "stage6_unit4"
  assert width(changed, f"{place}_add") == 96  # of 192
  depthwise = changed[f"{place}_depthwise"]
  assert (depthwise.filters, depthwise.groups) == (960, 960)
  assert width(changed, f"{place}_se_reduce") == 64


def grouped_net(reads: int, makes: int, cut: int, behind: int) -> Graph:
  """A stage of 64 channels whose units read it with `reads` groups and make it with `makes`; behind it, one of `cut`
  equal parts, which a convolution with `behind` groups reads."""
  g = Builder(8, 8, name="grouped")
  g.conv(64, 3, padding=1, name="stem")
  for unit in (1, 2, 3, 4):
    x = g.last
    g.conv(32, 1, groups=reads, activation="leaky", name=f"unit{unit}_conv1")
    g.conv(64, 3, padding=1, groups=makes, name=f"unit{unit}_conv2")
    g.shortcut(x, name=f"unit{unit}_add")
  g.maxpool(2, 2, name="pool")
  g.route("pool", groups=cut, name="cut")
  g.conv(behind, 1, groups=behind, name="scores")
  return g.graph()


@pytest.mark.parametrize(
  ("groups", "multiple"),
  [((1, 1, 1, 1), 2), ((8, 1, 1, 1), 8), ((1, 16, 1, 1), 16), ((4, 1, 4, 2), 8), ((1, 1, 2, 8), 16)],
)
def test_widths_fit_the_groups_of_the_layers_around(groups, multiple):
  graph = grouped_net(*groups)
  (blocks,) = find_stages(graph)
  assert math.lcm(2, groups_around(graph, blocks)) == multiple
  for schedule, change in (("shrink", shrink), ("expand", expand), ("bottleneck", bottleneck)):
    changed = change(graph, 0.6)
    expected = stage_widths(schedule, 64, 4, 0.6, multiple)
    assert tuple(width(changed, name) for name in ("stem", *(f"unit{i}_add" for i in (1, 2, 3, 4)))) == expected
    assert all(w % multiple == 0 for w in expected)
    assert {changed[f"unit{i}_conv1"].filters for i in (1, 2, 3, 4)} == {32}


@pytest.mark.parametrize("text", ["shrink:0.5", "shrink:0.3", "expand:0.5", "bottleneck:0.75"])
def test_csresnext50_can_be_changed(shared, text):
  graph = darknet_cfg.read(shared / "cfg" / "csresnext50-panet-spp.cfg").graph
  changed = apply(graph, text)
  assert cost(changed).params < cost(graph).params
  assert {layer.groups for layer in changed if layer.kind == "conv"} == {1, 32}
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed


def test_expand_narrows_the_front_only_where_the_stage_alone_reads_it():
  graph = build_graph("darknet53")
  assert width(expand(graph, 0.5), "stage3_down") == 128
  g = Builder(8, 8)
  stem = g.conv(8, 3, padding=1, name="stem")
  g.conv(8, 3, padding=1, name="unit_conv")
  g.shortcut(stem, name="unit_add")
  g.route("unit_add", stem, name="concat")
  changed = expand(g.graph(), 0.5)
  assert (width(changed, "stem"), width(changed, "concat")) == (8, 16)


def test_a_branch_that_others_read_is_no_block():
  g = Builder(8, 8)
  x = g.conv(8, 3, padding=1, name="stem")
  inner = g.conv(8, 3, padding=1, name="inner")
  g.conv(8, 3, padding=1, name="outer")
  g.shortcut(x, name="add")
  g.route("add", inner, name="concat")
  assert find_stages(g.graph()) == []


def test_blocks_that_share_weights_keep_their_width():
  """Two branches from one map with the same weights, as in TridentNet: both still fit behind a narrower stage."""
  g = Builder(8, 8, name="shared")
  g.conv(16, 3, padding=1, name="stem")
  for unit in (1, 2):
    x = g.last
    g.conv(16, 3, padding=1, name=f"unit{unit}_conv")
    g.shortcut(x, name=f"unit{unit}_add")
  fork = g.last
  g.conv(16, 3, padding=1, name="near_conv")
  near = g.shortcut(fork, name="near_add")
  g.route(fork, name="far_from")
  g.conv(16, 3, padding=1, dilation=2, share="near_conv", name="far_conv")
  far = g.shortcut(fork, name="far_add")
  g.route(near, far, name="both")
  changed = shrink(g.graph(), 0.5)
  assert [width(changed, name) for name in ("unit1_add", "unit2_add", "near_conv", "far_conv")] == [12, 8, 16, 16]
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed


# -- characteristic 3 -----------------------------------------------------------------------------------


def test_multi_source_head():
  graph = build_graph("yolov3-tiny")
  changed = multi_source(graph)
  join, skip = changed["p4_concat"], changed["p4_conv_skip"]
  assert (join.kind, join.inputs, width(changed, "p4_concat")) == ("shortcut", ("p4_up", "stage5_conv"), 128)
  assert skip.inputs == ("p4_conv", "p4_up", "stage5_conv")
  assert changed["head_p4_conv"].inputs == ("p4_conv_skip",)
  assert cost(changed).bflops == pytest.approx(4.774, abs=5e-4)
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed


@pytest.mark.parametrize(("name", "joins"), [("yolov3", 2), ("yolov4", 4), ("yolov4-tiny", 1), ("yolov7-tiny", 4)])
def test_every_join_of_levels_becomes_an_addition(name, joins):
  graph = build_graph(name)
  changed = multi_source(graph)
  became = [layer.name for layer in graph if layer.kind == "route" and changed[layer.name].kind == "shortcut"]
  assert len(became) == joins
  assert [changed.shapes[h.name] for h in changed.heads] == [graph.shapes[h.name] for h in graph.heads]
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed
  assert cost(changed).params < cost(graph).params


# -- properties -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
  st.sampled_from(["fprn", "shrink", "expand", "bottleneck"]),
  st.integers(1, 8),
  st.integers(2, 6),
  st.integers(1, 5),
  st.sampled_from(["linear", "leaky", "swish"]),
)
def test_any_small_network_survives(transform, eighths, eight_channels, blocks, activation):
  graph = residual_net(8 * eight_channels, blocks, activation)
  changed = apply(graph, f"{transform}:{eighths / 8}")
  assert darknet_cfg.parse(darknet_cfg.dump(changed)).graph == changed
  assert changed.shapes["scores"] == graph.shapes["scores"]
  assert cost(changed).params <= cost(graph).params


# -- messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("fprn:1.5", r"sparsity=1\.5; expected 0 \(all channels are added\) to 1 \(none is\)\."),
    ("shrink:0", r"gamma=0; expected more than 0, and at most 1, which changes nothing\."),
    ("shrink", r"transform 'shrink' needs a number behind 'shrink:', such as shrink:0\.5\."),
    ("fprn:half", r"transform 'fprn:half' needs a number behind 'fprn:'"),
    ("shrnk:0.5", r"transform 'shrnk:0\.5' is unknown \(did you mean 'shrink'\?\)\. Expected one of fprn:SPARSITY"),
    ("multi-source", r"network 'darknet53' concatenates no two levels, so there is nothing to join"),
    (
      "fprn:0.3",
      r"layer 'stage3_unit1_add' \(shortcut\) with sparsity 0\.3: the first 179 of 256 channels would need 5 routes.*"
      r"Choose a sparsity that is a multiple of 1/8\.",
    ),
  ],
)
def test_messages(text, message):
  with pytest.raises(PrnError, match=message):
    apply(build_graph("darknet53"), text)


def test_a_network_without_residuals():
  graph = build_graph("yolov3-tiny")
  with pytest.raises(GraphError, match=r"network 'yolov3-tiny' has no shortcuts, so there is nothing to make partial"):
    fprn(graph, 0.5)
  with pytest.raises(GraphError, match=r"network 'yolov3-tiny' has no residual stages, so none can bottleneck\."):
    bottleneck(graph, 0.5)


def test_a_shortcut_from_the_image():
  g = Builder(8, 8)
  g.conv(3, 3, padding=1, name="c")
  g.shortcut("input", name="add")
  with pytest.raises(GraphError, match=r"layer 'add' \(shortcut\) adds the image, which a cfg cannot cut into parts"):
    fprn(g.graph(), 0.5)
