"""Broken cfgs and weights files with the message that a user sees, word for word."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prn_jax.errors import CfgError, GraphError, PrnError, WeightsError
from prn_jax.formats import darknet_cfg, darknet_weights
from prn_jax.formats.darknet_weights import Header, Loaded
from prn_jax.graph.builder import Builder
from prn_jax.graph.graph import Graph
from prn_jax.network import flatten_variables
from tests.formats.corpus.cfgs import CFGS, CONV, HALF, NET
from tests.graph.test_property import random_variables


@pytest.mark.parametrize("name", CFGS)
def test_broken_cfg(name: str) -> None:
  text, error, message = CFGS[name]
  with pytest.raises(error) as caught:
    darknet_cfg.parse(text, "broken.cfg")
  assert str(caught.value) == message
  assert isinstance(caught.value, PrnError)


def test_line_numbers_count_blank_and_comment_lines() -> None:
  text = "# network = x\n\n" + NET + "\n; note\n" + CONV.replace("filters", "fliters")
  with pytest.raises(CfgError, match=r"^cfg b\.cfg:10 \[convolutional\] has unknown key 'fliters'"):
    darknet_cfg.parse(text, "b.cfg")


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
  (tmp_path / "a.cfg").write_bytes(b"\xef\xbb\xbf" + (NET + CONV).replace("\n", "\r\n").encode())
  assert darknet_cfg.read(tmp_path / "a.cfg").graph == darknet_cfg.parse(NET + CONV).graph


# -- what Darknet reads although it looks broken -----------------------------------------------------------------------
def test_darknets_grammar() -> None:
  """docs/darknet.md a1: blanks vanish, also inside values; the first of repeated keys wins; numbers end at '#'."""
  text = (
    "[net]\nwidth = 3 2\nheight=32 #rows\nchannels=3\n[conv]\nfilters=8\nfilters=16\nsize=3\n"
    "  pad = 1 \nactivation= leaky\n\n[maxpool]\nstride=2\n[avg]\n[soft]\n"
  )
  graph = darknet_cfg.parse(text).graph
  assert (graph.width, graph.height) == (32, 32)
  conv, pool, *_ = graph.layers
  assert (conv.filters, conv.size, conv.padding, conv.activation) == (8, 3, 1, "leaky")
  assert (pool.size, pool.stride, pool.total_padding) == (2, 2, 1)
  assert [layer.kind for layer in graph] == ["conv", "maxpool", "avgpool", "softmax"]


def test_line_that_ends_in_equals_is_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
  graph = darknet_cfg.parse(NET + CONV.replace("=8", "="), "a.cfg").graph
  assert graph.layers[0].filters == 1
  assert caplog.messages == [
    "cfg a.cfg:6 [convolutional] gives no value for 'filters'; as Darknet does, the line is skipped."
  ]


def test_unknown_activation_is_relu_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
  graph = darknet_cfg.parse(NET + CONV.replace("leaky", "hard_swish"), "a.cfg").graph
  assert graph.layers[0].activation == "relu"
  assert caplog.messages == [
    "cfg a.cfg:9 [convolutional] has activation=hard_swish, which Darknet does not know and computes as relu; "
    "so do we (did you mean 'hard_mish'?)."
  ]


def test_without_strict_unknown_keys_are_kept_and_numbers_are_prefixes() -> None:
  text = NET + CONV.replace("=8", "=8x") + "fliters=9\n"
  cfg = darknet_cfg.parse(text, strict=False)
  assert cfg.graph.layers[0].filters == 8
  assert cfg.training.extra == {"conv_0": {"fliters": "9"}}
  assert "fliters=9" in darknet_cfg.dump(cfg.graph, cfg.training)


# -- graphs that a cfg cannot say ----------------------------------------------------------------------------------------
def test_image_as_a_source_cannot_be_dumped() -> None:
  g = Builder(8, 8)
  g.conv(3, name="a")
  g.shortcut("input", name="b")
  with pytest.raises(GraphError, match=r"^layer 'b' reads the image as a source; a cfg cannot say that\.$"):
    darknet_cfg.dump(g.graph())


def test_second_reader_of_the_image_cannot_be_dumped() -> None:
  g = Builder(8, 8)
  g.conv(3, name="a")
  g.last = "input"
  g.conv(3, name="b")
  with pytest.raises(GraphError, match=r"layer 'b' \(conv\) reads the image, but is not the first layer"):
    darknet_cfg.dump(g.graph())


def test_text_with_blanks_cannot_be_dumped() -> None:
  g = Builder(8, 8)
  g.conv(6)
  g.region(classes=1, anchors=((1, 1),), tree="my tree")
  with pytest.raises(GraphError, match="the text 'my tree' is empty or holds blanks; a cfg cannot say that"):
    darknet_cfg.dump(g.graph())


def test_inserted_route_takes_a_free_name() -> None:
  g = Builder(8, 8)
  first = g.conv(3, name="first")
  g.conv(3, name="b_from")
  g.last = first
  g.conv(3, name="b")
  names = [layer.name for layer in darknet_cfg.parse(darknet_cfg.dump(g.graph())).graph]
  assert names == ["first", "b_from", "b_from_", "b"]


def test_network_name_with_line_breaks_stays_a_comment() -> None:
  graph = dataclasses.replace(darknet_cfg.parse(NET + CONV).graph, name="a\n[net]\nb")
  again = darknet_cfg.parse(darknet_cfg.dump(graph)).graph
  assert again == graph
  assert again.name == "a [net] b"


# -- weights -----------------------------------------------------------------------------------------------------------
WEIGHTED = NET.replace("32", "8") + (
  "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\n"  # layer 0: 4 * 4 + 4 * 27 = 124 values
  "[maxpool]\nstride=2\n"
  "[convolutional]\nfilters=2\nbatch_normalize=1\n"  # layer 2: 4 * 2 + 2 * 4 = 16 values
  "[avgpool]\n"
  "[connected]\noutput=3\n"  # layer 4: 3 + 2 * 3 = 9 values; 149 in all
)
HEADER, TOTAL = 20, 149


def weighted() -> Graph:
  return darknet_cfg.parse(WEIGHTED, "net.cfg").graph


def whole() -> bytes:
  return write(weighted())


def write(graph: Graph, header: Header | None = None) -> bytes:
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    darknet_weights.save(Path(folder, "w"), graph, random_variables(graph), header)
    return Path(folder, "w").read_bytes()


def values(count: int) -> bytes:
  """The file, cut behind its first `count` values."""
  return whole()[: HEADER + 4 * count]


NEEDS = "network 'net' needs 149 (a 16-byte header does not fit either). "
TRUNCATED = "the file is truncated, or belongs to another cfg."
MAY_BE_PARTIAL = "If it is a partial file (a backbone), say so: --partial, or partial=True. Otherwise it is truncated or of another cfg."
BROKEN_WEIGHTS: dict[str, tuple[Callable[[], bytes], dict[str, Any], str]] = {
  "empty": (lambda: b"", {}, "only 0 bytes; a header alone takes 16 or 20. Is it a weights file?"),
  "three_bytes": (lambda: b"abc", {}, "only 3 bytes; a header alone takes 16 or 20. Is it a weights file?"),
  "inside_first_layer": (
    lambda: values(100), {},
    f"header 0.2.5 (20 bytes), then 100 values; {NEEDS}"
    f"It ends inside layer 0 'conv_0' (conv), which has 100 of its 124 values: {TRUNCATED}",
  ),
  "one_value_short": (  # not taken for a file with a 16-byte header, which would shift every value
    lambda: values(148), {},
    "header 0.2.5 (20 bytes), then 148 values; network 'net' needs 149 (a 16-byte header would fit, but not this "
    f"version). It ends inside layer 4 'connected_4' (connected), which has 8 of its 9 values: {TRUNCATED}",
  ),
  "between_layers": (
    lambda: values(124), {},
    f"header 0.2.5 (20 bytes), then 124 values; {NEEDS}"
    f"It ends exactly before layer 2 'conv_2' (conv). {MAY_BE_PARTIAL}",
  ),
  "header_only": (
    lambda: values(0), {},
    f"header 0.2.5 (20 bytes), then 0 values; {NEEDS}It ends exactly before layer 0 'conv_0' (conv). {MAY_BE_PARTIAL}",
  ),
  "partial_inside_a_layer": (
    lambda: values(131), {"partial": True},
    f"header 0.2.5 (20 bytes), then 131 values; {NEEDS}"
    f"It ends inside layer 2 'conv_2' (conv), which has 7 of its 16 values: {TRUNCATED}",
  ),
  "partial_between_arrays": (  # 124 + beta and gamma of layer 2
    lambda: values(128), {"partial": True},
    f"header 0.2.5 (20 bytes), then 128 values; {NEEDS}"
    f"It ends inside layer 2 'conv_2' (conv), which has 4 of its 16 values: {TRUNCATED}",
  ),
  "stray_bytes": (
    lambda: whole() + b"xyz", {},
    f"header 0.2.5 (20 bytes), then 149 values and 3 stray bytes; {NEEDS}"
    "3 bytes are left after the last layer: the file is damaged. Fetch it again.",
  ),
  "cut_in_a_value": (
    lambda: whole()[:-2], {},
    f"header 0.2.5 (20 bytes), then 148 values and 2 stray bytes; {NEEDS}"
    f"It ends inside layer 4 'connected_4' (connected), which has 8 of its 9 values: {TRUNCATED}",
  ),
  "too_long": (
    lambda: whole() + bytes(40), {},
    f"header 0.2.5 (20 bytes), then 159 values; {NEEDS}10 values are left after the last layer: the cfg and the "
    "weights do not belong together. Use the cfg that the weights were trained with (same filters, same classes).",
  ),
  "too_long_partial": (
    lambda: whole() + bytes(40), {"partial": True},
    f"header 0.2.5 (20 bytes), then 159 values; {NEEDS}10 values are left after the last layer: the cfg and the "
    "weights do not belong together. Use the cfg that the weights were trained with (same filters, same classes).",
  ),
  "wrong_cfg": (  # another number of classes
    lambda: write(darknet_cfg.parse(WEIGHTED.replace("output=3", "output=5")).graph), {},
    f"header 0.2.5 (20 bytes), then 155 values; {NEEDS}6 values are left after the last layer: the cfg and the "
    "weights do not belong together. Use the cfg that the weights were trained with (same filters, same classes).",
  ),
  "old_header": (
    lambda: write(weighted(), Header(0, 1, 0, 7, 4))[:-4], {},
    "header 0.1.0 (16 bytes), then 148 values; network 'net' needs 149 (a 20-byte header does not fit either). "
    f"It ends inside layer 4 'connected_4' (connected), which has 8 of its 9 values: {TRUNCATED}",
  ),
  "web_page": (
    lambda: b"<!DOCTYPE html><html><title>404</title></html>", {},
    "header 1329865020.1348031555.1952981061 (20 bytes), then 6 values and 2 stray bytes; network 'net' needs 149 "
    "(a 16-byte header does not fit either). Its first bytes are b'<!DOCTYPE ht': this does not look like a Darknet "
    f"weights file. It ends inside layer 0 'conv_0' (conv), which has 6 of its 124 values: {TRUNCATED}",
  ),
  "dontload_in_the_middle": (  # Darknet would read the values of layer 2 into layer 4
    whole, {"skip": ["conv_2"]},
    "header 0.2.5 (20 bytes), then 149 values; network 'net' needs 133 (a 16-byte header does not fit either). 16 "
    "values are left after the last layer: the cfg and the weights do not belong together. Use the cfg that the "
    "weights were trained with (same filters, same classes).",
  ),
}  # fmt: skip


def load_bytes(
  content: bytes,
  tmp_path: Path,
  name: str = "net.weights",
  partial: bool | None = None,
  skip: Collection[str] = (),
  skip_scales: Collection[str] = (),
) -> Loaded:
  (tmp_path / name).write_bytes(content)
  return darknet_weights.load(tmp_path / name, weighted(), partial=partial, skip=skip, skip_scales=skip_scales)


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_broken_weights(name: str, tmp_path: Path) -> None:
  content, options, message = BROKEN_WEIGHTS[name]
  with pytest.raises(WeightsError) as caught:
    load_bytes(content(), tmp_path, **options)
  assert str(caught.value) == f"weights net.weights: {message}"


def test_corpus_is_large_enough() -> None:
  assert len(CFGS) + len(BROKEN_WEIGHTS) >= 30
  assert sum(a.size for layer in weighted() for a in weighted().arrays(layer)) == TOTAL


@pytest.mark.parametrize(
  ("count", "name", "missing"),
  [
    (124, "net.conv.2", ("conv_2", "connected_4")),
    (140, "net.conv.4", ("connected_4",)),
    (140, "net.4", ("connected_4",)),
    (149, "net.conv.9", ()),
    (0, "net.conv.0", ("conv_0", "conv_2", "connected_4")),
  ],
)
def test_partial_file(count: int, name: str, missing: tuple[str, ...], tmp_path: Path) -> None:
  loaded = load_bytes(values(count), tmp_path, name)
  assert loaded.missing == missing
  stored = {key.split("/")[1] for key in flatten_variables(loaded.variables)}
  assert stored == {"conv_0", "conv_2", "connected_4"} - set(missing)
  everything = flatten_variables(random_variables(weighted()))
  for key, value in flatten_variables(loaded.variables).items():
    np.testing.assert_array_equal(value, everything[key])


def test_partial_file_with_another_name_is_refused_until_the_user_says_so(tmp_path: Path) -> None:
  with pytest.raises(WeightsError, match="say so: --partial"):
    load_bytes(values(124), tmp_path, "backbone.weights")
  assert load_bytes(values(124), tmp_path, "backbone.weights", partial=True).missing == ("conv_2", "connected_4")
  with pytest.raises(WeightsError, match="ends exactly before layer 2"):
    load_bytes(values(124), tmp_path, "net.conv.2", partial=False)


def test_dontload_at_the_end_may_be_in_the_file_or_not(tmp_path: Path) -> None:
  """Darknet skips the layer without consuming bytes, and ignores what is left."""
  for content in (values(140), whole()):
    loaded = load_bytes(content, tmp_path, skip=["connected_4", "maxpool_1"])
    assert loaded.missing == ("connected_4",)
    assert set(loaded.variables["params"]) == {"conv_0", "conv_2"}


def test_dontload_in_the_middle_is_not_in_the_file(tmp_path: Path) -> None:
  lacking = values(124) + whole()[HEADER + 4 * 140 :]
  loaded = load_bytes(lacking, tmp_path, skip=["conv_2"])
  assert loaded.missing == ("conv_2",)
  expected = random_variables(weighted())["params"]["connected_4"]["dense"]["kernel"]
  np.testing.assert_array_equal(loaded.variables["params"]["connected_4"]["dense"]["kernel"], expected)


def test_dontloadscales_lacks_the_batch_norm(tmp_path: Path) -> None:
  """The file has beta and kernel of layer 0 only: gamma, mean and variance keep their initialisation."""
  data = whole()
  lacking = data[: HEADER + 16] + data[HEADER + 64 :]
  loaded = load_bytes(lacking, tmp_path, skip_scales=["conv_0"])
  assert loaded.missing == ("conv_0",)
  assert set(loaded.variables["params"]["conv_0"]["bn"]) == {"bias"}
  assert set(loaded.variables["batch_stats"]) == {"conv_2"}


def test_pjreddies_short_seen_behind_a_new_version(tmp_path: Path) -> None:
  """A transposed file of pjreddie's Darknet has a 32-bit `seen`, which its version does not tell: its size does."""
  graph, header = weighted(), Header(0, 1001, 0, 11, 4)
  content = write(graph, header)
  loaded = load_bytes(content, tmp_path)
  assert loaded.header == header
  assert loaded.header.transposed
  darknet_weights.save(tmp_path / "again", graph, loaded.variables, loaded.header)
  assert (tmp_path / "again").read_bytes() == content


def test_saving_refuses_variables_that_do_not_fit(tmp_path: Path) -> None:
  graph, path = weighted(), tmp_path / "out.weights"
  variables = random_variables(graph)
  del variables["params"]["conv_2"]["bn"]["bias"]
  with pytest.raises(WeightsError, match=r"^layer 'conv_2' \(conv\) has no variable params/bn/bias\.$"):
    darknet_weights.save(path, graph, variables)
  variables = random_variables(graph)
  variables["params"]["conv_2"]["bn"]["bias"] = np.zeros(3, np.float32)
  with pytest.raises(WeightsError, match=r"bn/bias has shape \(3,\); the graph needs \(2,\)\.$"):
    darknet_weights.save(path, graph, variables)
  variables = random_variables(graph)
  variables["params"]["conv_9"] = {"conv": {"bias": np.zeros(3, np.float32)}}
  with pytest.raises(WeightsError, match="no place for the variables params/conv_9/conv/bias: they belong to another"):
    darknet_weights.save(path, graph, variables)
  assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_cfg_and_weights_of_the_corpus_log_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
  with caplog.at_level(logging.DEBUG):
    darknet_cfg.parse(NET + CONV + HALF)
    load_bytes(whole(), tmp_path)
  assert caplog.messages == []
