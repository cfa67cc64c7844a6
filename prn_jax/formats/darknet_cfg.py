"""Darknet cfg text <-> (Graph, Training), by Darknet's real grammar (docs/darknet.md a1).

Layer indices exist only in this file. Names survive as comments that Darknet skips: `# name = p4_skip` below
the section header (a layer without one is called after its kind and index, "conv_12"), and
`# network = yolov3` on top.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from prn_jax.errors import CfgError, GraphError, OutOfScopeError, did_you_mean
from prn_jax.files.places import to_path
from prn_jax.files.structured import decode_utf16, load_bytes, split_lines
from prn_jax.files.values import Misfit
from prn_jax.formats.darknet_training import (
  INERT,
  NET,
  SECTION_TRAINING,
  LayerTraining,
  NetTraining,
  Training,
  read_table,
  table_keys,
)
from prn_jax.graph.graph import INPUT, MAX_VALUES, SECTIONS, Graph, Layer, Shape, Wiring, checked_shape, default_name
from prn_jax.graph.section import Section, Value, Wires, shortened
from prn_jax.kinds.route import Route

OUT_OF_SCOPE = {
  **dict.fromkeys(("rnn", "gru", "lstm", "crnn", "conv_lstm", "history"), "recurrent layers are"),
  **dict.fromkeys(("detection", "local"), "YOLOv1 is"),
  **dict.fromkeys(("normalization", "lrn"), "local response normalisation is"),
  **dict.fromkeys(("deconvolutional", "deconv", "iseg", "l2norm", "logistic"), "pjreddie's extra layers are"),
  "contrastive": "contrastive learning is",
}
_NAME = re.compile(r"#\s*name\s*=\s*([a-z][a-z0-9_]*)\s*")
_NETWORK = re.compile(r"#\s*network\s*=\s*(.+?)\s*")


@dataclasses.dataclass(frozen=True)
class Repeated:
  """A key that a section gives twice with different values. The first counts, as in Darknet.

  Attributes:
    section, key: where.
    used, unused: the values as text.
    line, unused_line: their lines in the file.
  """

  section: str
  key: str
  used: str
  line: int
  unused: str
  unused_line: int

  @property
  def is_of_training(self) -> bool:
    """Whether only a training asks for it: Darknet's own cfgs give `decay` or `batch` twice."""
    return self.section in ("net", "network") and self.key not in ("width", "height", "channels")

  def text(self, file: str) -> str:
    return (
      f"cfg {file}:{self.unused_line} [{self.section}] {self.key}={self.unused} is not used: the first counts, as in Darknet, "
      f"which is {self.key}={self.used} in line {self.line}. Remove the one that you do not mean."
    )


@dataclasses.dataclass(frozen=True)
class DarknetCfg:
  """A cfg file: the network, and how Darknet would train it; `repeated` lists the values that do not count."""

  graph: Graph
  training: Training
  repeated: tuple[Repeated, ...] = ()


def is_cfg(path: str | Path) -> bool:
  """Whether a file name ends in .cfg, in any case."""
  return Path(path).suffix.lower() == ".cfg"


def read(path: str | Path, strict: bool = True) -> DarknetCfg:
  """Reads a cfg file. See `parse`."""
  path = to_path(path)
  try:
    data = load_bytes(path)
  except Misfit as error:
    raise CfgError(f"cannot read cfg '{path}': {str(error).removeprefix('cannot be read: ')}.") from None
  text = decode_utf16(data)  # PowerShell's > and old Notepads write it; Darknet's own files are bytes of any encoding
  text = data.decode("utf-8-sig", "surrogateescape") if text is None else text
  return parse("\n".join(split_lines(text)), path.name, strict)


def parse(text: str, file: str = "<cfg>", strict: bool = True) -> DarknetCfg:
  """Reads cfg text.

  Args:
    text: content of the file.
    file: its name, for messages; its stem becomes the graph's name unless the text gives one.
    strict: unknown keys and malformed numbers are errors. Otherwise unknown keys are kept in
      `training.extra`, and numbers are read by C's prefix rule.

  Returns:
    The network and its training settings. `parse(dump(graph)).graph == graph`.

  Raises:
    CfgError: with file, line, and the nearest known key. OutOfScopeError: for recurrent, YOLOv1 and XNOR
    networks. GraphError: for a link or shape that cannot be.
  """
  sections, names, network = _read_sections(text, file, strict)
  if not sections or sections[0].type not in ("net", "network"):
    if not sections:
      raise CfgError(f"cfg {file} has no section; expected [net] and layers. Is it a Darknet cfg?")
    raise sections[0].error("comes first; the first section must be [net].")
  net, *rest = sections
  if not rest:
    raise net.error("is the only section; expected layers such as [convolutional] behind it.")
  kinds = [_kind(section) for section in rest]  # before the size: networks that are out of scope often have none
  width, height, channels = (net.integer(key) for key in ("width", "height", "channels"))
  if min(width, height, channels) < 1:
    if net.has("inputs"):
      raise OutOfScopeError(
        f"{net.where('inputs')} has inputs={net.text('inputs')} instead of width, height and channels: networks that "
        "take vectors instead of images are out of scope of prn_jax."
      )
    raise net.error(f"has width={width}, height={height}, channels={channels}; expected at least 1 each.")
  if width * height * channels > MAX_VALUES:
    raise net.error(f"has input {width}x{height}x{channels}; expected at most {MAX_VALUES:,} values.")
  training = _TrainingReader(strict)
  net_training = read_table(NetTraining, net)
  training.keep_rest(net, "net", NET)
  layers = _read_layers(rest, kinds, names[1:], training, (width, height, channels))
  graph = Graph(tuple(layers), width, height, channels, network or Path(file).stem)
  settings = Training(net_training, training.sections, training.layers, training.extra)
  repeated = tuple(_repeated(sections))
  for one in repeated:
    if not one.is_of_training:
      logging.getLogger(__name__).warning("%s", one.text(file))
  return DarknetCfg(graph, settings, repeated)


def _repeated(sections: list[Section]) -> Iterator[Repeated]:
  for section in sections:
    for key, value, number in section.repeated:
      used, line = section.options[key]
      if value != used:
        yield Repeated(section.type, key, used, line, value, number)


def _read_sections(text: str, file: str, strict: bool) -> tuple[list[Section], list[str], str]:
  """Splits the text; returns the sections, the name comment of each ("" if none), the network's name."""
  sections: list[Section] = []
  names: list[str] = []
  network = ""
  for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):  # some editors begin with a mark
    line = re.sub(r"[ \t\r\n]", "", raw)
    if not line:
      continue
    if line[0] in "#;":
      if sections and (match := _NAME.fullmatch(raw.strip())):
        names[-1] = match[1]
      elif not sections and (match := _NETWORK.fullmatch(raw.strip())):
        network = match[1]
    elif line[0] == "[":
      sections.append(Section(line.strip("[]"), {}, file, number, strict))
      names.append("")
      if line != f"[{sections[-1].type}]":
        raise CfgError(f"cfg {file}:{number} '{shortened(line)}' is not a section header; expected [name] alone.")
    else:
      _read_option(line, raw, number, sections, file)
  return sections, names, network


def _read_option(line: str, raw: str, number: int, sections: list[Section], file: str) -> None:
  key, equals, value = line.partition("=")
  if not sections:
    raise CfgError(f"cfg {file}:{number} '{shortened(line)}' stands before the first section; expected [net] first.")
  section = sections[-1]
  if not equals or not key:
    raise CfgError(f"cfg {file}:{number} [{section.type}] '{shortened(line)}' is not of the form key=value.")
  if value and key in section.options:
    section.repeated.append((key, value, number))  # the first wins
  elif value:
    section.options[key] = (value, number)
    section.written[key] = raw.partition("=")[2].strip()
  else:
    logging.getLogger(__name__).warning(
      "cfg %s:%d [%s] gives no value for '%s'; as Darknet does, the line is skipped.",
      *(file, number, section.type, shortened(key)),
    )


@dataclasses.dataclass
class _TrainingReader:
  """Collects what the sections say about training while the layers are read."""

  strict: bool
  sections: dict[str, object] = dataclasses.field(default_factory=dict)
  layers: dict[str, LayerTraining] = dataclasses.field(default_factory=dict)
  extra: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

  def read(self, section: Section, layer: Layer) -> None:
    if layer.kind in SECTION_TRAINING:
      self.sections[layer.name] = read_table(SECTION_TRAINING[layer.kind], section)
    common = read_table(LayerTraining, section)
    if common != LayerTraining():
      self.layers[layer.name] = common
    self.keep_rest(section, layer.kind, layer.name)

  def keep_rest(self, section: Section, kind: str, name: str) -> None:
    """Keeps inert keys; an unknown one is an error, or kept as well if not strict."""
    inert = INERT.get(kind, ())
    rest = section.unknown()
    section.asked.update(inert)  # so that they are suggested
    for key in rest:
      if key not in inert and self.strict:
        raise section.unknown_key_error(key)
      self.extra.setdefault(name, {})[key] = section.options[key][0]


def _read_layers(
  sections: list[Section],
  kinds: list[type[Layer]],
  given_names: list[str],
  training: _TrainingReader,
  size: tuple[int, int, int],
) -> list[Layer]:
  names = [given or default_name(kind, i) for i, (given, kind) in enumerate(zip(given_names, kinds, strict=True))]
  width, height, channels = size
  seen: dict[str, Layer] = {}
  shapes = {INPUT: Shape(height, width, channels)}
  for i, (section, kind) in enumerate(zip(sections, kinds, strict=True)):
    layer = kind.from_cfg(section, Wires(i, names, section))
    training.read(section, layer)  # before the shapes: a misspelt key often spoils those
    try:
      shapes[layer.name] = checked_shape(layer, seen, shapes)
    except GraphError as error:
      raise GraphError(f"{section.where()} {error}") from None
    seen[layer.name] = layer
  return list(seen.values())


def _kind(section: Section) -> type[Layer]:
  if section.type in SECTIONS:
    return SECTIONS[section.type]
  if section.type in OUT_OF_SCOPE:
    raise OutOfScopeError(f"{section.where()}: {OUT_OF_SCOPE[section.type]} out of scope of prn_jax.")
  if section.type in ("net", "network"):
    raise section.error("comes a second time; a cfg has one [net], and it comes first.")
  raise section.error(f"is not a section that Darknet knows{did_you_mean(section.type, SECTIONS)}.")


def dump(graph: Graph, training: Training | None = None) -> str:
  """Writes a cfg that Darknet reads as the same network.

  A layer that does not read the layer before it, which a cfg cannot say, gets a [route] in front; graphs read
  from a cfg never need one.
  """
  training = training or Training()
  graph = sequential(graph)
  net: dict[str, Value] = {"width": graph.width, "height": graph.height, "channels": graph.channels}
  net |= table_keys(training.net)
  name = " ".join(graph.name.split())  # a comment is one line
  blocks = [f"# network = {name}", _block("net", "", net | dict(training.extra.get(NET, {})))]
  names = [layer.name for layer in graph]
  for i, layer in enumerate(graph):
    keys = layer.to_cfg(Wires(i, names))
    for table in (training.sections.get(layer.name), training.layers.get(layer.name)):
      keys |= table_keys(table) if table else {}
    keys |= training.extra.get(layer.name, {})
    name = "" if layer.name == default_name(layer, i) else layer.name
    blocks.append(_block(layer.sections[0], name, keys))
  return "\n\n".join(blocks) + "\n"


def sequential(graph: Graph) -> Graph:
  """The same network with a route before every layer that does not read the one before it."""
  layers: list[Layer] = []
  for layer in graph:
    first = layer.inputs[0] if layer.inputs else None
    previous = layers[-1].name if layers else INPUT
    if layer.wiring in (Wiring.PREVIOUS, Wiring.PREVIOUS_AND_SOURCES) and first != previous:
      if first == INPUT:
        raise GraphError(
          f"layer '{layer.name}' ({layer.kind}) reads the image, but is not the first layer; a cfg cannot say that."
        )
      route = Route(name=_free_name(f"{layer.name}_from", graph), inputs=(str(first),))
      layers.append(route)
      layer = dataclasses.replace(layer, inputs=(route.name, *layer.inputs[1:]))
    layers.append(layer)
  if len(layers) == len(graph):
    return graph
  return dataclasses.replace(graph, layers=tuple(layers))


def _free_name(name: str, graph: Graph) -> str:
  """`name`, with an underscore for each layer that is called so already."""
  while name in graph.shapes:
    name += "_"
  return name


def _block(section: str, name: str, keys: Mapping[str, Value]) -> str:
  lines = [f"[{section}]", *([f"# name = {name}"] if name else [])]
  return "\n".join([*lines, *(f"{key}={_text(value)}" for key, value in keys.items())])


def _text(value: Value) -> str:
  if isinstance(value, str) and (not value or re.search(r"[ \t\r\n]", value)):
    raise GraphError(f"the text '{value}' is empty or holds blanks; a cfg cannot say that.")
  if isinstance(value, bool):
    return str(int(value))
  if isinstance(value, str | int | float):
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
  return ",".join(map(_text, value))
