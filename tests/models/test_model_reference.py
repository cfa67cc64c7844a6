"""Every model against its public cfg, exact parameters and BFLOPs, and published figures."""

from __future__ import annotations

import csv
import sys
from typing import NamedTuple

import pytest

from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.models import build_graph, get_spec, list_models
from prn_jax.models.sparsenet import sparsenet


class Row(NamedTuple):
  size: int | str  # one number for a square
  layers: int
  params: int
  weight_file_floats: int
  bflops: str


# As Darknet prints them for the public cfgs; for models without one, what their graphs have.
TABLE = {
  "csdarknet53-omega": Row(256, 108, 27_642_184, 27_677_512, "13.071"),
  "csdarknet53-timm": Row(256, 109, 27_642_184, 27_677_512, "13.071"),
  "darknet-cifar": Row(32, 37, 521_306, 524_282, "0.034"),
  "darknet19": Row(224, 27, 20_842_376, 20_856_776, "5.585"),
  "darknet53": Row(256, 78, 41_609_928, 41_645_640, "18.576"),
  "darknet53-fprn": Row(256, 124, 41_609_928, 41_645_640, "18.576"),
  "darknet53-prn-bottleneck": Row(256, 78, 33_044_040, 33_074_504, "14.884"),
  "darknet53-prn-expand": Row(256, 78, 31_291_976, 31_321_416, "13.877"),
  "darknet53-prn-shrink": Row(256, 78, 27_995_720, 28_025_160, "12.835"),
  "darknet53-timm": Row(256, 79, 41_609_928, 41_645_640, "18.576"),
  "densenet121": Row(256, 186, 7_915_688, 7_936_168, "7.534"),
  "densenet121-timm": Row(224, 310, 7_981_608, 8_065_256, "5.671"),
  "densenet201": Row(256, 306, 17_173_160, 17_206_440, "10.850"),
  "efficientnet-b0": Row(224, 136, 4_853_720, 4_890_040, "0.915"),
  "efficientnet-b0-timm": Row(224, 79, 5_288_548, 5_330_564, "0.772"),
  "efficientnet-lite0": Row(224, 63, 4_652_008, 4_694_024, "0.771"),
  "efficientnet-lite0-prn": Row(416, 73, 4_568_702, 4_612_254, "3.236"),
  "efficientnet-lite1": Row(240, 83, 5_416_680, 5_470_344, "1.201"),
  "efficientnet-lite2": Row(260, 83, 6_092_072, 6_150_168, "1.720"),
  "efficientnet-lite3": Row(280, 95, 8_197_096, 8_273_768, "2.767"),
  "efficientnet-lite4": Row(300, 119, 13_006_568, 13_118_936, "5.108"),
  "enet-b0-prn": Row(416, 146, 4_770_414, 4_808_270, "3.731"),
  "ghostnet": Row(224, 146, 5_182_508, 5_204_476, "0.283"),
  "ghostnet-prn": Row(416, 154, 3_781_510, 3_805_014, "1.510"),
  "mobilenetv3-large": Row(224, 70, 5_483_032, 5_507_432, "0.434"),
  "mobilenetv3-prn": Row(416, 79, 4_107_862, 4_133_958, "2.061"),
  "mobilenetv3-small": Row(224, 55, 2_542_856, 2_554_968, "0.113"),
  "mobilenetv3-small-prn": Row(416, 64, 2_094_870, 2_109_446, "0.978"),
  "mpelee-prn": Row(416, 196, 3_761_982, 3_774_622, "4.805"),
  "pelee-fpn": Row(416, 172, 3_737_310, 3_748_574, "4.836"),
  "pelee-prn": Row(416, 175, 3_147_486, 3_158_750, "4.039"),
  "pelee-prn-3l": Row(416, 184, 3_344_733, 3_356_509, "5.036"),
  "pelee-ssd": Row(304, 215, 5_981_012, 5_998_420, "2.570"),
  "pelee-yolov3": Row(416, 174, 3_901_662, 3_913_438, "5.057"),
  "peleenet": Row(224, 165, 2_802_248, 2_811_976, "1.017"),
  "resnet101": Row(256, 138, 41_772_584, 41_870_248, "19.709"),
  "resnet101-timm": Row(224, 146, 44_549_160, 44_654_504, "15.614"),
  "resnet152": Row(256, 206, 57_416_232, 57_559_976, "29.412"),
  "resnet50": Row(256, 70, 22_780_456, 22_825_896, "10.007"),
  "resnet50-prn": Row(416, 89, 24_902_334, 24_956_990, "28.872"),
  "resnet50-timm": Row(224, 78, 25_557_032, 25_610_152, "8.186"),
  "resnext50": Row(256, 69, 22_252_328, 22_312_872, "10.119"),
  "sparsenet-40-24": Row(32, 158, 758_356, 765_604, "0.624"),
  "sparsenet-bc-100-24": Row(32, 254, 1_462_444, 1_481_116, "1.282"),
  "tiny-darknet": Row(224, 23, 1_042_104, 1_046_488, "0.985"),
  "traffic-nano-prn": Row("192x160", 27, 609_862, 611_718, "0.159"),
  "traffic-tiny-prn": Row("256x192", 24, 225_894, 226_950, "0.283"),
  "yolov2": Row(416, 32, 50_962_889, 50_983_561, "29.475"),
  "yolov2-tiny": Row(416, 16, 11_232_057, 11_237_145, "5.412"),
  "yolov3": Row(416, 107, 61_949_149, 62_001_757, "65.879"),
  "yolov3-fprn": Row(416, 153, 61_949_149, 62_001_757, "65.879"),
  "yolov3-ghostnet": Row(416, 172, 23_867_141, 23_906_005, "17.484"),
  "yolov3-mobilenetv3": Row(416, 97, 24_209_877, 24_251_333, "18.041"),
  "yolov3-prn": Row(416, 107, 33_767_517, 33_806_941, "42.438"),
  "yolov3-spp": Row(608, 114, 62_998_749, 63_052_381, "141.531"),
  "yolov3-spp3": Row(608, 126, 64_276_701, 64_330_333, "153.294"),
  "yolov3-timm": Row(416, 108, 61_949_149, 62_001_757, "65.879"),
  "yolov3-tiny": Row(416, 24, 8_852_366, 8_858_734, "5.571"),
  "yolov3-tiny-3l": Row(608, 31, 9_003_087, 9_009_967, "15.172"),
  "yolov3-tiny-efficientnet-b0": Row(416, 143, 6_933_486, 6_972_110, "5.990"),
  "yolov3-tiny-efficientnet-lite0": Row(416, 70, 5_662_718, 5_707_038, "4.049"),
  "yolov3-tiny-mobilenetv3-small": Row(416, 61, 3_041_430, 3_056_774, "1.592"),
  "yolov3-tiny-prn": Row(416, 28, 4_935_182, 4_939_758, "3.467"),
  "yolov3-tiny-prn-3l": Row(416, 37, 5_132_429, 5_137_517, "4.464"),
  "yolov3-tiny3": Row(416, 31, 9_213_453, 9_220_333, "7.386"),
  "yolov4": Row(608, 162, 64_363_101, 64_429_405, "128.459"),
  "yolov4-csp": Row(512, 175, 52_921_437, 52_986_205, "77.003"),
  "yolov4-tiny": Row(416, 38, 6_056_606, 6_062_814, "6.910"),
  "yolov7-tiny": Row(416, 99, 6_227_101, 6_241_885, "5.802"),
}
COMPARE_ONLY = "compare"  # rows whose source counts operations in another way; only their AP is quoted


def public_cfg(name: str) -> str:
  """File name of the public cfg of an exact model."""
  return get_spec(name).reference.rpartition("/")[2]


def exact_models() -> list[str]:
  return [name for name in list_models() if get_spec(name).reference.startswith("AlexeyAB/darknet 59596d78 cfg/")]


def test_every_registered_model_has_a_row():
  assert sorted(TABLE) == list_models()


@pytest.mark.parametrize("name", sorted(TABLE))
def test_cost_is_exact(name):
  row, graph = TABLE[name], build_graph(name)
  found = cost(graph)
  size = graph.width if graph.width == graph.height else f"{graph.width}x{graph.height}"
  assert Row(size, len(graph), found.params, found.weight_file_floats, f"{found.bflops:.3f}") == row


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_header_of_the_file_tells_the_same_figures(name):
  row = TABLE[name]
  module = sys.modules[get_spec(name).builder.__module__]
  line = next(line for line in (module.__doc__ or "").splitlines() if line.startswith(f"| {name} "))
  for figure in (str(row.size), f"{row.params:,}", row.bflops):
    assert f" {figure} " in line


@pytest.mark.parametrize("name", exact_models())
def test_the_graph_equals_the_public_cfg(shared, name):
  reference = darknet_cfg.read(shared / "cfg" / public_cfg(name)).graph
  assert get_spec(name).status == "exact"
  assert build_graph(name).canonical() == reference.canonical()


# Two readings of yolov3-prn: (1x1, 3x3) widths of the towers of p5, p4, p3; learnable parameters; operations of its
# convolutions at 416 and 320, a multiply-add counting two, as published: 42.429 and 25.106.
READINGS = {
  "halved_towers": ("A.cfg", ((256, 512), (128, 256), (128, 256)), 33_767_517, (42_428_658_688, 25_105_715_200)),
  "halved_3x3": ("B.cfg", ((512, 512), (256, 256), (128, 128)), 38_291_165, (42_429_350_912, 25_106_124_800)),
}


@pytest.mark.parametrize("head", sorted(READINGS))
def test_yolov3_prn_meets_the_published_operations(head):
  _, towers, params, operations = READINGS[head]
  graph = build_graph("yolov3-prn", head=head)
  for level, widths in zip(("p5", "p4", "p3"), towers, strict=True):
    assert tuple(graph[f"{level}_conv{i}"].filters for i in range(1, 7)) == widths * 3
  assert [graph[f"stage3_unit{i}_conv1"].filters for i in range(1, 9)] == [128] * 8
  assert [graph[f"stage3_unit{i}_conv2"].filters for i in range(1, 9)] == list(range(240, 127, -16))
  assert cost(graph).params == params
  for size, expected, printed in zip((416, 320), operations, ("42.429", "25.106"), strict=True):
    found = 2 * cost(build_graph("yolov3-prn", width=size, height=size, head=head)).macs
    assert (found, f"{found / 1e9:.3f}") == (expected, printed)


def test_the_abstracts_share_of_yolov3_prn():
  """55% of YOLOv3's parameters are left, and 35% of its operations are saved; the other reading leaves 62%."""
  yolov3 = cost(build_graph("yolov3"))
  ours, other = (cost(build_graph("yolov3-prn", head=head)) for head in ("halved_towers", "halved_3x3"))
  assert (round(ours.params / yolov3.params, 3), round(other.params / yolov3.params, 3)) == (0.545, 0.618)
  assert round(1 - ours.macs / yolov3.macs, 3) == 0.356


@pytest.mark.parametrize("head", sorted(READINGS))
def test_yolov3_prn_equals_the_reading(shared, head):
  reference = darknet_cfg.read(shared / "reference" / "yolov3-prn" / READINGS[head][0]).graph
  assert build_graph("yolov3-prn", head=head).canonical() == reference.canonical()


def test_resnext50_has_the_published_operations():
  """10.11, in the count of 2018, which knows convolutions alone."""
  assert f"{2 * cost(build_graph('resnext50')).macs / 1e9:.2f}" == "10.11"


@pytest.mark.parametrize(
  ("depth", "growth", "bc", "millions"), [(40, 24, False, "0.76"), (100, 36, False, "5.65"), (100, 24, True, "1.46")]
)
def test_sparsenet_has_the_printed_parameters(depth, growth, bc, millions):
  """Those of its README, without the biases that Darknet's convolutions have where no batch norm follows."""
  g = Builder(32, 32, name="sparse")
  sparsenet(g, 100, depth, growth, bc=bc)
  graph = g.graph()
  biases = sum(layer.filters for layer in graph if layer.kind == "conv" and not layer.batch_normalize) - 100
  assert f"{(cost(graph).params - biases) / 1e6:.2f}" == millions


def test_sparsenet_reads_layers_at_powers_of_two():
  """The seventh unit reads those 1, 2 and 4 before it; the eighth also the block's input, 8 before it."""
  graph = build_graph("sparsenet-40-24")
  assert graph["block1_unit7_concat"].inputs == ("block1_unit6_conv", "block1_unit5_conv", "block1_unit3_conv")
  assert graph["block1_unit8_concat"].inputs[-1] == "stem"
  assert graph["head_concat"].inputs == tuple(f"block3_unit{i}_conv" for i in (12, 11, 9, 5))


def test_an_unknown_head_of_yolov3_prn():
  with pytest.raises(
    PrnError,
    match=r"model 'yolov3-prn': head='halved_3x4' \(did you mean 'halved_3x3'\?\); expected halved_towers or halved_3x3 or",
  ):
    build_graph("yolov3-prn", head="halved_3x4")


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_graph_survives_the_cfg_format(name):
  graph = build_graph(name)
  assert darknet_cfg.parse(darknet_cfg.dump(graph)).graph == graph


@pytest.mark.parametrize("name", exact_models())
def test_zoo_figures(shared, name):
  with (shared / "reference" / "zoo.csv").open() as file:
    row = next(row for row in csv.DictReader(file) if row["cfg"] == public_cfg(name))
  ours = TABLE[name]
  assert (row["width"], row["height"], row["layers"]) == (str(ours.size), str(ours.size), str(ours.layers))
  assert row["bflops"] == ours.bflops
  assert (int(row["params"]), int(row["weight_file_floats"])) == (ours.params, ours.weight_file_floats)


def test_published_figures_are_those_of_the_reference(shared):
  """Each row of published.csv about one of our models stands in its spec, and the graph reaches its BFLOPs."""
  with (shared / "reference" / "published.csv").open() as file:
    rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
  checked = set()
  for row in rows:
    if row["model"] not in TABLE:
      continue
    keys = ("ap", "ap50") if row["status"] == COMPARE_ONLY else ("bflops", "params_m", "ap", "ap50")
    expected = {key: float(row[key]) for key in keys if row[key]}
    candidates = [p for p in get_spec(row["model"]).published if p.size == int(row["size"])]
    assert any(all(getattr(p, key) == value for key, value in expected.items()) for p in candidates), row
    if "bflops" in expected:
      size = int(row["size"])
      found = cost(build_graph(row["model"], width=size, height=size)).bflops
      assert found == pytest.approx(expected["bflops"], rel=float(row["tolerance"])), row
    checked.add(row["model"])
  assert checked >= {"yolov3", "yolov3-tiny", "yolov3-tiny-prn", "enet-b0-prn", "yolov4", "darknet53", "resnet152"}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_published_costs_are_near_the_graphs(name):
  """All sources, also those that leave out pools: within 3%; parameters, learnable or as in the file, within 1%."""
  for figures in get_spec(name).published:
    found = cost(build_graph(name, width=figures.size, height=figures.size))
    if figures.bflops:
      assert found.bflops == pytest.approx(figures.bflops, rel=0.03), figures
    if figures.params_m:
      counts = (found.params / 1e6, found.weight_file_floats / 1e6)
      assert any(count == pytest.approx(figures.params_m, rel=0.01) for count in counts), figures
