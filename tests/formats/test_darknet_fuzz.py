"""Damaged cfgs and weights: whatever the bytes, only our own errors, in bounded time and memory."""

from __future__ import annotations

import logging
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prn_jax.errors import PrnError, WeightsError
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.graph.builder import Builder
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph
from prn_jax.graph.receptive import receptive_fields
from tests.conftest import SHARED
from tests.graph.strategies import graphs
from tests.graph.test_property import random_variables

BASES = (
  "cifar",
  "yolov3-tiny-prn",
  "enet-coco",
  "yolov2",
  "yolov4-tiny",
  "resnet50",
  "go.test",
  "yolov4-sam-mish-csp-reorg-bfm",
)
GARBAGE = (
  "999999999", "2147483647", "-2147483648", "-999999", "0", "-1", "1", "2", "7", "1e9", "9" * 300, "9" * 5000, "1." * 9,
  "nan", "inf", "-inf", "1e400", "1e-400", ".5", "0x10", "", "#", "=", ",", "1,2,,3", "-1,-1", "-1,-9999", "0,0,0",
  "\x00", "\u0663", "\u0131nf", "leaky", "per_channel", "softmax", "[net]", "a" * 5000, "%s%n", "\udcff",
)  # fmt: skip
SECTIONS = (
  "net",
  "yolo",
  "Gaussian_yolo",
  "region",
  "shortcut",
  "route",
  "maxpool",
  "reorg",
  "crop",
  "implicit",
  "sam",
  "se",
  "depthwise",
  "normalize",
  "",
)
KEYS = (
  "filters", "size", "stride", "pad", "padding", "groups", "dilation", "stride_x", "antialiasing", "share_index", "from",
  "layers", "width", "height", "channels", "num", "mask", "anchors", "classes", "coords", "maxpool_depth",
  "out_channels", "group_id", "output", "temperature", "crop_width", "reverse", "activation", "weights_type",
  "weights_normalization", "nms_kind", "atoms", "probability", "scale_wh", "tree", "steps",
  "reduction", "squeezed", "biased", "gate", "same", "bn_epsilon", "mean", "std",
)  # fmt: skip
bounded = settings(deadline=10_000, suppress_health_check=[HealthCheck.too_slow], max_examples=300)


@pytest.fixture(autouse=True)
def no_warnings_in_the_log() -> Any:
  logging.disable(logging.WARNING)
  yield
  logging.disable(logging.NOTSET)


def small_graph() -> Graph:
  g = Builder(16, 16, name="small", defaults={"batch_normalize": True, "activation": "leaky"})
  c1 = g.conv(4, 3, padding=1)
  g.conv(8, 3, padding=1, groups=2)
  g.shortcut(c1, weights_type="per_feature", weights_normalization="relu")
  g.maxpool(2, 2)
  g.reorg(2)
  g.connected(5)
  g.softmax(groups=5)
  return g.graph()


def base_texts() -> list[str]:
  texts = [darknet_cfg.dump(small_graph())]
  if SHARED is not None:
    texts += [(SHARED / "cfg" / f"{name}.cfg").read_text(errors="surrogateescape") for name in BASES]
  return texts


TEXTS = base_texts()


@st.composite
def damaged_lines(draw: Any) -> str:
  """A real cfg with one to four lines deleted, doubled, moved, given another value, or made up."""
  lines = draw(st.sampled_from(TEXTS)).split("\n")
  for _ in range(draw(st.integers(1, 4))):
    i = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["value", "value", "key", "insert", "delete", "double", "move", "section", "cut"]))
    key, equals, _value = lines[i].partition("=")
    if how == "value" and equals:
      lines[i] = f"{key}={draw(st.sampled_from(GARBAGE))}"
    elif how == "key" and equals:
      lines[i] = f"{draw(st.sampled_from(KEYS))}={_value}"
    elif how == "insert":
      lines.insert(i, f"{draw(st.sampled_from(KEYS))}={draw(st.sampled_from(GARBAGE))}")
    elif how == "delete" and len(lines) > 1:
      del lines[i]
    elif how == "double":
      lines[i:i] = lines[i : i + draw(st.integers(1, 12))]
    elif how == "move":
      lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(i))
    elif how == "section":
      lines.insert(i, f"[{draw(st.sampled_from(SECTIONS))}]")
    elif how == "cut":
      lines = lines[: i + 1]
  return "\n".join(lines)


@st.composite
def damaged_bytes(draw: Any) -> str:
  """A real cfg with flipped, removed and added bytes, read as a file would be."""
  data = bytearray(draw(st.sampled_from(TEXTS)).encode("utf-8", "surrogateescape"))
  for _ in range(draw(st.integers(1, 8))):
    i = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["flip", "set", "cut", "add"]))
    if how == "flip":
      data[i] ^= 1 << draw(st.integers(0, 7))
    elif how == "set":
      data[i] = draw(st.integers(0, 255))
    elif how == "cut":
      del data[i : i + draw(st.integers(1, 40))]
    else:
      data[i:i] = draw(st.binary(min_size=1, max_size=8))
    if not data:
      break
  return bytes(data).decode("utf-8", "surrogateescape")


def read_anything(text: str, strict: bool) -> None:
  """Parses; what parses must also cost something, and survive a dump."""
  message = ""
  try:
    cfg = darknet_cfg.parse(text, "fuzz.cfg", strict)
  except PrnError as error:
    message = str(error)
  if message:
    assert len(message) < 2000
    return
  assert cost(cfg.graph).weight_file_floats >= 0
  assert receptive_fields(cfg.graph)
  again = darknet_cfg.parse(darknet_cfg.dump(cfg.graph, cfg.training), strict=strict)
  assert again.graph == cfg.graph
  assert again.training == cfg.training


@bounded
@given(damaged_lines(), st.booleans())
def test_damaged_lines(text: str, strict: bool) -> None:
  read_anything(text, strict)


@bounded
@given(damaged_bytes(), st.booleans())
def test_damaged_bytes(text: str, strict: bool) -> None:
  read_anything(text, strict)


@bounded
@given(st.text(st.sampled_from("[]net=0123456789\n#,-.convyoluia \t")), st.booleans())
def test_noise(text: str, strict: bool) -> None:
  read_anything(f"[net]\nwidth=8\nheight=8\nchannels=3\n[conv]\n{text}", strict)


BOMBS = {
  "filters": "[conv]\nfilters=2147483647\nsize=3\npad=1",
  "kernel": "[conv]\nfilters=999999999\nsize=2147483647\npad=1",
  "padding": "[conv]\npadding=2147483647",
  "pool": "[maxpool]\nsize=2147483647\nstride=1",
  "anchors": "[conv]\nfilters=85\n[yolo]\nclasses=80\nnum=2147483647\nanchors=1,2",
  "mask": "[conv]\nfilters=85\n[yolo]\nclasses=80\nmask=2147483646\nanchors=1,2",
  "classes": "[region]\nclasses=2147483647\nnum=1000\nanchors=1,2",
  "upsample": "[upsample]\nstride=2147483647",
  "shrink": "[upsample]\nstride=-2147483647",
  "reorg": "[reorg]\nstride=2147483647",
  "implicit": "[implicit]\nfilters=2147483647\natoms=2147483647",
  "depthwise": "[depthwise]\nfilters=2147483646\nsize=2147483647",
  "squeezed": "[se]\nsqueezed=2147483647",
  "connected": "[connected]\noutput=2147483647",
  "groups": "[softmax]\ngroups=2147483647",
  "depth": "[maxpool]\nmaxpool_depth=1\nout_channels=2147483647",
  "crop": "[crop]\ncrop_width=2147483647\ncrop_height=1",
  "digits": f"[conv]\nfilters={'9' * 1_000_000}",
  "zeros": f"[conv]\nfilters={'0' * 1_000_000}1",
  "list": f"[conv]\n[route]\nlayers={'-1,' * 100_000}-1",
  "key": f"[conv]\n{'k' * 1_000_000}=1",
  "section": f"[{'s' * 1_000_000}]",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("strict", [True, False])
def test_bombs_take_neither_time_nor_memory(name: str, strict: bool) -> None:
  text = f"[net]\nwidth=416\nheight=416\nchannels=3\n{BOMBS[name]}\n"
  tracemalloc.start()
  start = time.process_time()
  try:
    read_anything(text, strict)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 100e6
  assert time.process_time() - start < 10


@pytest.mark.parametrize("side", ["2147483647", "1e9", "0", "-5", "9" * 400])
def test_impossible_input_sizes(side: str) -> None:
  with pytest.raises(PrnError, match=r"cfg huge.cfg:\d+ \[net\] has "):
    darknet_cfg.parse(f"[net]\nwidth={side}\nheight=2147483647\nchannels=3\n[conv]\n", "huge.cfg")


@pytest.mark.slow
@bounded
@given(graphs(max_layers=4), st.data())
def test_damaged_weights(graph: Graph, data: st.DataObject) -> None:
  """Flipped bytes, cuts, additions, and files of other networks."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, data.draw(st.sampled_from(["a.weights", "a.conv.3", "a.3"])))
    darknet_weights.save(path, graph, random_variables(graph))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
      i = data.draw(st.integers(0, max(len(content) - 1, 0)))
      how = data.draw(st.sampled_from(["header", "flip", "cut", "add", "end"]))
      if how == "header" and len(content) > 11:
        content[data.draw(st.integers(0, 11))] = data.draw(st.integers(0, 255))
      elif how == "flip" and content:
        content[i] ^= 1 << data.draw(st.integers(0, 7))
      elif how == "cut":
        del content[i : i + data.draw(st.integers(1, 64))]
      elif how == "add":
        content[i:i] = data.draw(st.binary(max_size=64))
      elif how == "end":
        del content[i:]
    path.write_bytes(content)
    other = data.draw(st.one_of(st.just(graph), graphs(max_layers=2)))
    partial = data.draw(st.sampled_from([None, True, False]))
    message = ""
    try:
      loaded = darknet_weights.load(path, other, partial=partial)
    except WeightsError as error:
      message = str(error)
    if message:
      assert message.startswith(f"weights {path.name}: ")
      return
    stored = sum(len(other.arrays(layer)) > 0 for layer in other)
    assert len(loaded.missing) <= stored
    if not loaded.missing:
      darknet_weights.save(path, other, loaded.variables, loaded.header)
      assert path.read_bytes() == bytes(content)


def test_folder_and_missing_file(tmp_path: Path) -> None:
  for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no.weights", "No such file or directory")):
    with pytest.raises(PrnError, match=f"cannot read weights '{path}': {reason}"):
      darknet_weights.load(path, small_graph())
    with pytest.raises(PrnError, match=f"cannot read cfg '{path}': {reason}"):
      darknet_cfg.read(path)
