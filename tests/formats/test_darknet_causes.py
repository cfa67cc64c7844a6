"""Files that Darknet's owners have: the true cause is named, or the file is read as it was meant."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from prn_jax import Model, load
from prn_jax.errors import CfgError, OutOfScopeError, PrnError, WeightsError
from prn_jax.export import convert
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.formats.darknet_weights import Header
from prn_jax.kinds.conv import Conv
from prn_jax.loading import with_weights
from prn_jax.network import flatten_variables
from tests.nets import random_model

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
HEAD = "[convolutional]\nfilters=18\nsize=1\n[yolo]\nclasses=1\nnum=3\nmask=0,1,2\n"


def problem(text: str) -> str:
  with pytest.raises(PrnError) as caught:
    darknet_cfg.parse(text, "net.cfg")
  return str(caught.value)


# -- anchors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("gap", [" ", "\t", "   "])
def test_a_comma_that_is_missing_between_anchors_is_named(gap: str) -> None:
  text = problem(f"{NET}{HEAD}anchors = 9,12{gap}15,31, 35,22\n")
  assert text.startswith("cfg net.cfg:12 [yolo] has anchors=9,12")
  assert text.endswith("no comma between 12 and 15. Darknet reads 1215 there; put the comma in.")


def test_a_comma_that_is_missing_in_a_list_of_steps_is_named() -> None:
  net = NET.replace("width", "steps=4000 4500\nwidth")
  text = problem(f"{net}{HEAD}anchors=9,12,15,31,35,22\n")
  assert "[net] has steps=4000 4500: no comma between 4000 and 4500" in text


def test_blanks_that_do_no_harm_stay_harmless(caplog: pytest.LogCaptureFixture) -> None:
  graph = darknet_cfg.parse(f"{NET}{HEAD}anchors = 9, 12,  15 ,31, 35,22  # 3 4\n").graph
  assert graph.layers[-1].anchors == ((9, 12), (15, 31), (35, 22))  # type: ignore[attr-defined]
  assert not caplog.messages


def test_leniently_a_missing_comma_is_read_as_darknet_does(caplog: pytest.LogCaptureFixture) -> None:
  text = f"{NET}{HEAD}anchors=9,12 15,31,35,22,40\n"
  graph = darknet_cfg.parse(text, "net.cfg", strict=False).graph
  assert graph.layers[-1].anchors[0] == (9, 1215)  # type: ignore[attr-defined]
  assert "no comma between 12 and 15; as in Darknet, that is 1215." in caplog.messages[0]


@pytest.mark.parametrize(
  ("line", "cause"),
  [
    ("anchors=0,0, 0,0, 0,0\n", "all 3 anchors are 0, a placeholder. 'prn data anchors SPEC --num N --size WxH'"),
    ("", "has no anchors; expected anchors=WIDTH,HEIGHT, ... 'prn data anchors SPEC --num N --size WxH' finds them"),
  ],
)
def test_anchors_that_are_none(line: str, cause: str) -> None:
  assert cause in problem(NET + HEAD + line)
  assert cause in problem(NET + HEAD.replace("yolo", "region").replace("mask=0,1,2\n", "") + line)


# -- networks that are out of scope ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["rnn", "lstm", "crnn", "gru"])
@pytest.mark.parametrize("net", ["[net]\ninputs=256\nbatch=8\n", NET])
def test_recurrent_networks_are_called_so(kind: str, net: str) -> None:
  with pytest.raises(OutOfScopeError, match=rf"\[{kind}\]: recurrent layers are out of scope of prn_jax\.$"):
    darknet_cfg.parse(f"{net}[{kind}]\noutput=64\n")


def test_networks_of_vectors_are_called_so() -> None:
  text = problem("[net]\ninputs=256\n[connected]\noutput=10\n[softmax]\n")
  assert text == (
    "cfg net.cfg:2 [net] has inputs=256 instead of width, height and channels: networks that take vectors instead of "
    "images are out of scope of prn_jax."
  )


# -- repeated keys -----------------------------------------------------------------------------------------------------
def test_values_that_do_not_count_are_listed() -> None:
  text = NET.replace("width", "batch=1\nsubdivisions=1\nbatch=64\nsubdivisions=1\nwidth")
  cfg = darknet_cfg.parse(f"{text}{HEAD}anchors=9,12,15,31,35,22\nclasses=1\n")
  assert cfg.training.net.batch == 1
  (only,) = cfg.repeated  # equal values are no matter
  assert (only.section, only.key, only.used, only.line, only.unused, only.unused_line) == (
    "net",
    "batch",
    "1",
    2,
    "64",
    4,
  )


def test_a_value_of_a_layer_that_does_not_count_is_told_with_both_lines(caplog: pytest.LogCaptureFixture) -> None:
  text = f"{NET}[convolutional]\nfilters=4\nsize=1\nfilters=8\n[avgpool]\n"
  (conv, _) = darknet_cfg.parse(text, "a.cfg").graph
  assert isinstance(conv, Conv)
  assert conv.filters == 4
  line = text[: text.index("filters=8")].count("\n") + 1
  (told,) = caplog.messages
  assert told == (
    f"cfg a.cfg:{line} [convolutional] filters=8 is not used: the first counts, as in Darknet, which is filters=4 in "
    f"line {line - 2}. Remove the one that you do not mean."
  )


# -- weights -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model() -> Model:
  return random_model()


def five_numbers(path: Path, model: Model, seen: int = 640, fifth: int = 0) -> Path:
  """The file that PyTorch-YOLOv3 writes: five 32-bit integers, version 0.0.0, then the values."""
  darknet_weights.save(path, model.graph, model.variables)
  path.write_bytes(struct.pack("<5i", 0, 0, 0, seen, fifth) + path.read_bytes()[20:])
  return path


def test_version_0_with_five_numbers_is_read_and_said(
  model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
  back = with_weights(Model(model.graph), five_numbers(tmp_path / "net.weights", model))
  assert back.digest() == model.digest()
  assert "version 0.0.0 announces a header of 16 bytes, but the size of the file fits 20" in caplog.messages[0]
  assert back.header == Header(0, 2, 5, 640)
  back.save(tmp_path / "again.weights")  # Darknet would misread the header of the original
  assert (tmp_path / "again.weights").read_bytes()[:20] == Header(0, 2, 5, 640).pack()
  caplog.clear()
  assert with_weights(Model(model.graph), tmp_path / "again.weights").digest() == model.digest()
  assert not caplog.messages


def test_a_backbone_with_five_numbers_is_read(model: Model, tmp_path: Path) -> None:
  whole = five_numbers(tmp_path / "net.weights", model)
  first = sum(array.size for array in model.graph.arrays(model.graph.layers[0]))
  part = tmp_path / "net.conv.1"
  part.write_bytes(whole.read_bytes()[: 20 + 4 * first])
  loaded = darknet_weights.load(part, model.graph)
  assert set(loaded.variables["params"]) == {"stem"}


@pytest.mark.parametrize("fifth", [1, 1065353216])
def test_a_fifth_number_that_is_a_value_is_not_taken_for_a_header(model: Model, tmp_path: Path, fifth: int) -> None:
  with pytest.raises(WeightsError, match=r"would fit, but not this version"):
    darknet_weights.load(five_numbers(tmp_path / "net.weights", model, fifth=fifth), model.graph)


def test_a_version_that_is_not_0_says_what_it_says(model: Model, tmp_path: Path) -> None:
  path = five_numbers(tmp_path / "net.weights", model)
  path.write_bytes(struct.pack("<3i", 0, 1, 0) + path.read_bytes()[12:])
  with pytest.raises(WeightsError, match=r"header 0\.1\.0 \(16 bytes\)"):
    darknet_weights.load(path, model.graph)


# -- the first layers --------------------------------------------------------------------------------------------------
def test_the_first_layers_are_written_as_darknets_partial_does(model: Model, tmp_path: Path) -> None:
  proof = convert.convert(model, tmp_path / "net.conv.5")
  assert proof.holds
  assert proof.text == "read back: 15 arrays of the first 5 layers equal"  # three convolutions with batch norm
  whole = tmp_path / "net.weights"
  darknet_weights.save(whole, darknet_cfg.sequential(model.graph), model.variables)
  part = (tmp_path / "net.conv.5").read_bytes()
  assert whole.read_bytes()[: len(part)] == part
  with pytest.raises(PrnError, match=r"has 13 layers; expected \.conv\.1 to \.conv\.13"):
    convert.convert(model, tmp_path / "net.conv.99")


def test_random_layers_are_not_written_as_if_they_were_trained(model: Model, tmp_path: Path) -> None:
  model.save(tmp_path / "net.cfg")
  convert.convert(model, tmp_path / "net.conv.5")
  part = load(tmp_path / "net.cfg", tmp_path / "net.conv.5")
  assert part.missing
  for name in ("x.weights", "x.onnx", "x.conv.9"):
    with pytest.raises(PrnError, match=r"layers are random, for the weights end before them .*NAME\.conv\.\d"):
      part.save(tmp_path / name)
    assert not (tmp_path / name).exists()
  part.save(tmp_path / "again.conv.5")
  assert (tmp_path / "again.conv.5").read_bytes() == (tmp_path / "net.conv.5").read_bytes()
  part.save(tmp_path / "folder")
  assert load(tmp_path / "folder").missing == part.missing
  flat = flatten_variables(part.variables)
  np.testing.assert_array_equal(
    flat["params/stem/conv/kernel"], flatten_variables(model.variables)["params/stem/conv/kernel"]
  )


@pytest.mark.parametrize("name", ["NET.CFG", "net.Cfg"])
def test_the_ending_of_a_cfg_may_have_any_case(model: Model, tmp_path: Path, name: str) -> None:
  convert.convert(model, tmp_path / name)
  assert load(tmp_path / name).graph.canonical() == model.graph.canonical()


def test_errors_of_lists_name_the_key() -> None:
  with pytest.raises(CfgError, match=r"but a value is missing beside a comma"):
    darknet_cfg.parse(f"{NET}{HEAD}anchors=9,12,,15,31,35,22\n")
