"""Weights of timm in our networks: scores and the maps of every stage against timm's own, names, and what is refused."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from prn_jax.errors import CheckpointError, PrnError
from prn_jax.formats import timm
from prn_jax.formats.timm_rules import ARCHITECTURES, HALVES, IMAGENET, Pixels
from prn_jax.loading import load
from prn_jax.models import build_graph
from prn_jax.network import Network, expected_variables, unflatten_variables
from tests.conftest import REPO
from tests.golden.timm import weights as golden

QUICK_COMPILE = {"xla_backend_optimization_level": 0}
# Stages -> (timm's module, the name with which our layers of it begin).
BLOCKS = {i: (f"blocks.{i - 1}", f"stage{i}_") for i in range(1, 10)}
STAGES = {
  "darknet": {i: (f"stages.{i - 1}", f"stage{i}_") for i in range(1, 6)},
  "resnet": {i: (f"layer{i}", f"stage{i}_") for i in range(1, 5)},
  "densenet": {i: (f"features.denseblock{i}", f"block{i}_") for i in range(1, 5)},
  "mobilenetv3": {i: BLOCKS[i] for i in range(1, 8)},
  "mobilenetv3_small": {i: BLOCKS[i] for i in range(1, 7)},
  "efficientnet": {i: BLOCKS[i] for i in range(1, 8)},
  "ghostnet": BLOCKS,
}


def stages_of(name: str) -> dict[int, tuple[str, str]]:
  """The longest key that is in the name."""
  return STAGES[max((key for key in STAGES if key in name), key=len)]


def first_tag(name: str) -> str:
  return f"timm/{name}.{next(iter(ARCHITECTURES[name].tags))}"


QUICK = (
  "ghostnet_100",
  "mobilenetv3_small_100",
  "resnet50",
  "tf_efficientnet_lite0",
)  # the others take minutes together


@functools.cache
def outputs() -> dict[str, np.ndarray]:
  """What timm's networks put out (tests/golden/timm/make.py)."""
  with np.load(golden.FOLDER / "outputs.npz") as found:
    return dict(found)


def first_pixels(name: str) -> Pixels:
  return next(iter(ARCHITECTURES[name].tags.values()))


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in ARCHITECTURES])
def test_scores_and_stages_are_timms(name: str, tmp_path: Path) -> None:
  """64 values of each, to 1e-4 of the largest value of all."""
  save_file(golden.arrays(golden.shapes(name)), tmp_path / "model.safetensors")
  graph, flat = timm.load(tmp_path / "model.safetensors", first_tag(name))
  assert {key: value.shape for key, value in flat.items()} == expected_variables(graph)
  stages = stages_of(name).values()
  ours = [next(layer.name for layer in reversed(graph.layers) if layer.name.startswith(start)) for _, start in stages]
  graph = graph.resized(62, 75)
  apply = jax.jit(lambda v, x: Network(graph, precision="highest").apply(v, x, layers=[*ours, "head_conv"]),
                  compiler_options=QUICK_COMPILE)  # fmt: skip
  expected = outputs()
  found = apply(unflatten_variables(flat), golden.IMAGES)
  for layer, module in zip([*ours, "head_conv"], [*(module for module, _ in stages), "scores"], strict=True):
    key, value = f"{name}/{module}", np.asarray(found[layer])
    assert value.shape == tuple(expected[f"{key}/shape"]), layer
    at, largest = golden.places(value.shape, key), expected[f"{key}/largest"]
    np.testing.assert_allclose(value.reshape(-1)[at], expected[key], rtol=0, atol=1e-4 * largest, err_msg=layer)
    np.testing.assert_allclose(np.abs(value).max(), largest, rtol=1e-4)
    assert np.ptp(expected[key]) > 1e-3 * largest


def made_up(name: str, classes: int = 3) -> dict[str, np.ndarray]:
  """Arrays with the names and shapes of a file of timm, by our tables; zeros."""
  architecture = ARCHITECTURES[name]
  options = {"form": architecture.form} if architecture.form else {}
  graph = build_graph(architecture.model, num_classes=classes, **options)
  arrays = {}
  for layer in graph:
    if graph.arrays(layer):
      for array, key, rule in timm._places(layer, graph.arrays(layer), architecture.rules):
        if key:
          arrays[key] = np.zeros(timm._expected_shape(array, rule), np.float32)
  return arrays


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
  path = tmp_path / "model.safetensors"
  save_file(made_up("resnet50"), path)
  return path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tables_have_timms_names_and_shapes(name: str) -> None:
  """All of them and no others; counters are left out."""
  found = {key: value.shape for key, value in made_up(name, classes=golden.CLASSES).items()}
  assert found == golden.shapes(name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pixels_are_those_that_timm_says(name: str) -> None:
  assert ARCHITECTURES[name].tags == golden.pixels(name)


def test_pixels_become_the_layer_in_front(tmp_path: Path) -> None:
  save_file(made_up("mobilenetv3_large_100"), tmp_path / "m.safetensors")
  for tag, pixels in ARCHITECTURES["mobilenetv3_large_100"].tags.items():
    graph, _ = timm.load(tmp_path / "m.safetensors", f"timm/mobilenetv3_large_100.{tag}")
    assert (graph.layers[0].kind, graph.layers[0].mean, graph.layers[0].std) == ("normalize", *pixels)
  with pytest.raises(PrnError) as error:
    timm.load(tmp_path / "m.safetensors", "timm/mobilenetv3_large_100")
  assert str(error.value) == (
    "weights of timm's 'mobilenetv3_large_100' differ in what they expect of pixels. Say which these are: "
    "timm/mobilenetv3_large_100.ra_in1k, timm/mobilenetv3_large_100.ra4_e3600_r224_in1k, "
    "timm/mobilenetv3_large_100.miil_in21k, timm/mobilenetv3_large_100.miil_in21k_ft_in1k; or put their config.json "
    f"beside '{tmp_path / 'm.safetensors'}'."
  )


def test_config_json_beside_the_file_decides(resnet: Path) -> None:
  config = resnet.parent / "config.json"
  config.write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": HALVES._asdict() | {"tag": "mine"}}))
  assert timm.load(resnet, "timm/resnet50.mine")[0].layers[0].mean == (0.5, 0.5, 0.5)
  config.write_text(json.dumps({"architecture": "resnet101"}))
  with pytest.raises(
    CheckpointError, match=r"says that 'model.safetensors' is timm's 'resnet101', not 'resnet50'\. Say --as"
  ):
    timm.load(resnet, "timm/resnet50")
  config.write_text(json.dumps({"pretrained_cfg": {"mean": [0.5, "half", 0.5], "std": [1, 1, 1]}}))
  with pytest.raises(CheckpointError, match=r"config\.json: pretrained_cfg\.mean\[1\] is 'half'; expected a finite"):
    timm.load(resnet, "timm/resnet50")
  config.write_text(json.dumps({"pretrained_cfg": {"mean": [0.5], "std": [1, 1, 1]}}))
  with pytest.raises(
    CheckpointError, match=r"config\.json' gives a mean of 1 and a std of 3 numbers; expected 3 of each\."
  ):
    timm.load(resnet, "timm/resnet50")
  config.unlink()
  assert timm.load(resnet, "timm/resnet50")[0].layers[0].mean == IMAGENET.mean


@pytest.mark.parametrize(
  ("name", "message"),
  [
    (
      "resnet50",
      r"'resnet50' names no weights of another library; expected timm/NAME, such as timm/resnet50\.a1_in1k\.",
    ),
    (
      "timm/resnet5",
      r"'timm/resnet5': timm's 'resnet5' has no network here \(did you mean 'resnet50'\?\)\. These have: csp",
    ),
    (
      "timm/resnet50.a1_in2k",
      r"has no weights 'a1_in2k' that we know \(did you mean 'a1_in1k'\?\); what they expect of",
    ),
  ],
)
def test_unknown_names(name: str, message: str, resnet: Path) -> None:
  with pytest.raises(PrnError, match=message):
    timm.load(resnet, name)


def test_nothing_is_left_over_or_missing(resnet: Path) -> None:
  """In both directions, with the names."""
  with pytest.raises(CheckpointError) as error:
    timm.load(resnet, "timm/resnet101")
  text = str(error.value)
  assert text.startswith(f"'{resnet}' is not timm's 'resnet101': 255 missing: layer3.6.bn1.bias, layer3.6.bn1.weight, ")
  assert text.endswith("; 0 without a place. Say another name with --as.")
  arrays = made_up("resnet50")
  save_file(arrays | {"layer9.weight": np.zeros(3, np.float32)}, resnet)
  with pytest.raises(CheckpointError, match=r"0 missing; 1 without a place: layer9\.weight\. Say"):
    timm.load(resnet, "timm/resnet50")


def test_no_shape_is_guessed(resnet: Path) -> None:
  arrays = made_up("resnet50")
  save_file(arrays | {"layer1.0.conv1.weight": np.zeros((64, 64), np.float32)}, resnet)
  with pytest.raises(
    CheckpointError, match=r"'layer1\.0\.conv1\.weight' has shape \(64, 64\); the network needs \(64, 64, 1, 1\)\."
  ):
    timm.load(resnet, "timm/resnet50")
  save_file(arrays | {"fc.weight": np.zeros((3, 2048, 1, 1), np.float32)}, resnet)
  with pytest.raises(
    CheckpointError, match=r"expected an array 'fc\.weight' of two axes, found shape \(3, 2048, 1, 1\)\."
  ):
    timm.load(resnet, "timm/resnet50")
  save_file({key: value for key, value in arrays.items() if key != "fc.weight"}, resnet)
  with pytest.raises(CheckpointError, match=r"has no classifier of timm's 'resnet50': .* found none\."):
    timm.load(resnet, "timm/resnet50")


def test_bad_values(resnet: Path) -> None:
  arrays = made_up("resnet50")
  save_file(arrays | {"bn1.bias": np.full(64, np.nan, np.float32)}, resnet)
  with pytest.raises(CheckpointError, match=r"array 'bn1\.bias' holds NaN or infinity\. Fetch it again\."):
    timm.load(resnet, "timm/resnet50")
  save_file(arrays | {"bn1.bias": np.zeros(64, np.int32)}, resnet)
  with pytest.raises(CheckpointError, match=r"array 'bn1\.bias' is of type int32; expected floating-point numbers\."):
    timm.load(resnet, "timm/resnet50")
  resnet.write_bytes(resnet.read_bytes()[:1000])
  with pytest.raises(CheckpointError, match=r"model\.safetensors' is not a readable safetensors file: "):
    timm.load(resnet, "timm/resnet50")


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
  arrays = {key: value.astype(np.float16) + np.float16(0.1) for key, value in made_up("mobilenetv3_small_100").items()}
  save_file(arrays, tmp_path / "m.safetensors")
  _, flat = timm.load(tmp_path / "m.safetensors", "timm/mobilenetv3_small_100")
  assert {value.dtype for value in flat.values()} == {np.dtype(np.float32)}
  assert flat["params/stem/conv/kernel"][0, 0, 0, 0] == np.float32(np.float16(0.1))


def test_the_two_ways_of_a_csp_stage() -> None:
  """timm makes both by one convolution; and joins them in the other order than Darknet."""
  arrays = {
    key: np.random.default_rng(len(key)).random(value.shape, np.float32)
    for key, value in made_up("cspdarknet53").items()
  }
  source = timm.parse_name("timm/cspdarknet53")
  flat = timm._matched(build_graph("csdarknet53-timm", num_classes=3), source, arrays, "x")
  both = arrays["stages.1.conv_exp.conv.weight"]
  for part, rows in (("part1", both[:64]), ("part2", both[64:])):
    np.testing.assert_array_equal(flat[f"params/stage2_{part}/conv/kernel"], rows.transpose(2, 3, 1, 0))
  joined = arrays["stages.1.conv_transition.conv.weight"]
  swapped = np.concatenate([joined[:, 64:], joined[:, :64]], 1)
  np.testing.assert_array_equal(flat["params/stage2_transition/conv/kernel"], swapped.transpose(2, 3, 1, 0))


def test_a_foreign_file_without_as_says_what_to_do(resnet: Path) -> None:
  with pytest.raises(
    CheckpointError, match=r"Of weights from timm say what they are: prn convert FILE OUT/ --as timm/NAME\."
  ):
    load(resnet)


def test_convert_and_start_a_detector(tmp_path: Path) -> None:
  """The command, and a detector that starts from what it wrote: every layer of the backbone."""
  from prn_jax.train.start import start_variables

  arrays = {key: np.full(value.shape, 0.01, np.float32) for key, value in made_up("mobilenetv3_small_100").items()}
  save_file(arrays, tmp_path / "m.safetensors")
  command = [
    sys.executable,
    "-m",
    "prn_jax",
    "convert",
    str(tmp_path / "m.safetensors"),
    str(tmp_path / "out.safetensors"),
    "--as",
  ]
  done = subprocess.run(
    [*command, "timm/mobilenetv3_small_100.lamb_in1k"], capture_output=True, text=True, cwd=REPO, check=False
  )
  assert done.returncode == 0, done.stderr
  assert "proof: read back: " in done.stdout
  assert "arrays equal to the last bit" in done.stdout
  detector = build_graph("mobilenetv3-small-prn", form="timm", num_classes=2)
  variables, report = start_variables(detector, tmp_path / "out.safetensors")
  backbone = [layer.name for layer in detector if detector.arrays(layer) and layer.name.startswith("st")]
  assert list(report.loaded) == backbone
  assert len(backbone) > 40
  assert report.unused == ("head_hidden", "head_conv")
  assert float(variables["params"]["stage6_conv"]["conv"]["kernel"][0, 0, 0, 0]) == np.float32(0.01)


def test_as_with_weights_is_refused(resnet: Path) -> None:
  command = [
    sys.executable,
    "-m",
    "prn_jax",
    "convert",
    str(resnet),
    "out/",
    "--as",
    "timm/resnet50",
    "--weights",
    "x.weights",
  ]
  done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False)
  assert done.returncode == 2
  assert "--as timm/resnet50 says that" in done.stderr
  assert "leave --weights and --partial out" in done.stderr
