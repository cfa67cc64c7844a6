"""The order of rooms, and who imports whom.

`python -m tests.house` writes the table of CONTRIBUTING.md and draws docs/architecture.svg; `--list` prints every import that climbs.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prn_jax.files.marked import filled

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "CONTRIBUTING.md"
DRAWING = REPO / "docs" / "architecture.svg"


@dataclasses.dataclass(frozen=True)
class Room:
  """Modules that stand on one floor.

  Attributes:
    modules: dotted names below `prn_jax`; what is below one of them belongs to it.
    holds: what a reader finds there.
  """

  modules: tuple[str, ...]
  holds: str


ORDER = (  # the lowest first; a room imports itself and those before it
  Room(
    ("errors", "lazy", "version", "moved", "interrupts", "extensions", "examples", "ranges", "nested", "absent"),
    "errors, the version, Ctrl-C, extensions of others; no file is read here",
  ),
  Room(("files",), "places (disk, bucket), writing without halves, JSON, YAML and XML with their checks"),
  Room(("fonts", "compiling", "compilation_cache"), "letters for pictures; the cache of compiled programs"),
  Room(("data_pipelines",), "images, annotations, augmentation, batches; knows no networks"),
  Room(("graph",), "the layer graph, its builder, shapes, cost, channels, gradients; no JAX"),
  Room(("ops",), "arithmetic with gradients of its own"),
  Room(("kinds",), "one file per kind of layer, with everything that is true of it"),
  Room(("models",), "builders of whole networks"),
  Room(
    ("variables", "network", "labels"),
    "what a network computes with, by name; a graph as a Flax module; the names of its classes",
  ),
  Room(("formats",), "models in files: cfg, weights, Orbax, safetensors"),
  Room(("transforms",), "graph and variables -> graph and variables"),
  Room(("model", "loading"), "a graph with its variables and names, and how it is opened"),
  Room(("classify", "detect", "distill"), "losses, boxes, suppression, results, metrics"),
  Room(("run",), "networks at work on photos and data sets"),
  Room(("track",), "objects followed through videos, figures of that, counts; no JAX"),
  Room(("export",), "models for other programs, each with its proof"),
  Room(("quantize",), "networks in few bits: ranges, rounding, integers, and what it cost"),
  Room(("serve",), "a model behind HTTP: photos in, boxes out"),
  Room(("bench",), "how fast: networks, and the whole path from a video to a count"),
  Room(("api",), "`load`, `build` and `Model`, as `import prn_jax` shows them"),
  Room(("zoo",), "published weights"),
  Room(("hosts",), "processes that work as one; knows nothing of training"),
  Room(("train",), "the training: configuration, step, loop, checkpoints"),
  Room(("prune",), "units of channels that go together, what matters least, the network without it"),
  Room(("analyze",), "the paper's analysis of gradients"),
  Room(("configs",), "one `get_config()` per experiment"),
  Room(("experiments",), "the paper's tables and experiments, in small"),
  Room(("cli",), "`prn`: parse, call, print; no logic"),
)


@dataclasses.dataclass(frozen=True, order=True)
class Import:
  """One import of ours: both names without `prn_jax.`; `is_late` inside a function, `is_typing` for annotations only."""

  importer: str
  imported: str
  line: int
  is_late: bool
  is_typing: bool

  def __str__(self) -> str:
    return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
  """Our modules -> their files. `prn_jax` itself is ""; its links to `configs` and `data_pipelines` are followed."""
  roots = {"": REPO / "prn_jax", "configs": REPO / "configs", "data_pipelines": REPO / "data_pipelines"}
  found = {}
  for prefix, root in roots.items():
    for file in root.rglob("*.py"):
      parts = file.relative_to(root).with_suffix("").parts
      name = ".".join((*filter(None, [prefix]), *(part for part in parts if part != "__init__")))
      if prefix or parts[0] not in ("configs", "data_pipelines"):
        found[name] = file
  return found


def imports(files: dict[str, Path]) -> list[Import]:
  """Every import of one of `files` by another."""
  return [found for name, file in files.items() for found in _imports_of(name, ast.parse(file.read_text()), files)]


def _imports_of(name: str, tree: ast.Module, files: dict[str, Path]) -> Iterator[Import]:
  late = _inside(tree, lambda node: isinstance(node, ast.FunctionDef | ast.Lambda))
  typing = _inside(tree, lambda node: isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
  for node in ast.walk(tree):
    targets = []
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "prn_jax":
      base = (node.module or "").removeprefix("prn_jax").removeprefix(".")
      inner = [".".join(filter(None, (base, alias.name))) for alias in node.names]
      targets = [each if each in files else base for each in inner]
    elif isinstance(node, ast.Import):
      targets = [a.name.partition(".")[2] for a in node.names if a.name.partition(".")[0] == "prn_jax"]
    for target in sorted(set(targets)):
      if target != name and target in files:
        yield Import(name, target, node.lineno, id(node) in late, id(node) in typing)


def _inside(tree: ast.Module, is_frame: Callable[[ast.AST], bool]) -> set[int]:
  return {id(inner) for node in ast.walk(tree) if is_frame(node) for inner in ast.walk(node)}


def floor(name: str) -> int | None:
  """The place of a module in ORDER; `prn_jax` and `prn_jax.__main__` stand above everything; None: in no room."""
  if name in ("", "__main__"):
    return len(ORDER)
  for number, room in enumerate(ORDER):
    if any(name == module or name.startswith(f"{module}.") for module in room.modules):
      return number
  return None


def climbs(found: Sequence[Import]) -> list[Import]:
  """Imports of a room above one's own."""
  return [each for each in found if (floor(each.imported) or 0) > (floor(each.importer) or 0) and each.imported]


def circles(found: Sequence[Import]) -> list[list[str]]:
  """Sets of two and more modules each of which imports the others, at last; annotations do not count."""
  graph: dict[str, set[str]] = {}
  for each in found:
    if not each.is_typing:
      graph.setdefault(each.importer, set()).add(each.imported)
  reach = {name: _reachable(graph, name) for name in graph}
  rings = {frozenset(other for other in reach[name] if name in reach.get(other, ())) for name in graph}
  return sorted(sorted(ring) for ring in rings if len(ring) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
  seen: set[str] = set()
  ahead = [start]
  while ahead:
    for name in graph.get(ahead.pop(), ()):
      if name not in seen:
        seen.add(name)
        ahead.append(name)
  return seen


def table() -> str:
  """The rooms as Markdown, the lowest first."""
  lines = ["| room of `prn_jax` | holds |", "|---|---|"]
  lines += [f"| {', '.join(f'`{module}`' for module in room.modules)} | {room.holds} |" for room in ORDER]
  return "\n".join(lines) + "\n"


def drawing() -> str:
  """The rooms as SVG, the command line at the top."""
  wide, high, gap = 760, 50, 6
  whole = len(ORDER) * (high + gap) + 14
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {whole}" width="{wide}" height="{whole}" '
    'font-family="Helvetica, Arial, sans-serif">',
    "<title>Rooms of prn_jax: each imports itself and the rooms below it</title>",
    f'<rect width="{wide}" height="{whole}" fill="#ffffff"/>',
  ]
  for row, room in enumerate(reversed(ORDER)):
    top = 10 + row * (high + gap)
    names, holds = "  ".join(room.modules), html.escape(room.holds.replace("`", ""))
    lines += [
      f'<rect x="10" y="{top}" width="{wide - 20}" height="{high}" rx="5" fill="#dbe9f6" stroke="#666"/>',
      f'<text x="22" y="{top + 21}" font-size="15" font-weight="bold" fill="#111" xml:space="preserve">{names}</text>',
      f'<text x="22" y="{top + 40}" font-size="13" fill="#222">{holds}</text>',
    ]
  return "\n".join([*lines, "</svg>\n"])


if __name__ == "__main__":
  found = imports(modules())
  if "--list" in sys.argv:
    print(*climbs(found), *(f"circle: {', '.join(ring)}" for ring in circles(found)), sep="\n")
  else:
    PAGE.write_text(filled(PAGE.read_text(), {"rooms": table()}))
    DRAWING.write_text(drawing())
