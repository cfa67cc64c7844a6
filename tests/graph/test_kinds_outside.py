"""Decisions about kinds of layers stand in their own files: elsewhere nothing compares `.kind`, looks a kind up in a
table or tests for a class of `prn_jax.kinds`, except in the places below."""

from __future__ import annotations

import ast

import pytest

from tests.conftest import REPO

# file -> why it knows kinds
ALLOWED = {
  "benchmarks/torch_graph.py": "a second lowering, to torch, of the kinds that the compared networks have",
  "prn_jax/experiments/paper.py": "Darknet's older count of operations, which the paper has, knows two kinds",
  "prn_jax/formats/darknet_cfg.py": "settings of training that a cfg's sections hold; the graph knows no training",
  "prn_jax/graph/graph.py": "the register of kinds",
  "prn_jax/quantize/calibrate.py": "a range in front of an activation follows from what it makes of it",
  "prn_jax/quantize/equalize.py": "factors move between convolutions alone",
  "prn_jax/quantize/fpga.py": "names the operations of that lowering in a file",
  "prn_jax/quantize/integer.py": "a third lowering, to integers, of the kinds that have one",
  "prn_jax/quantize/noise.py": "one row for every quantize layer",
  "prn_jax/quantize/rewrite.py": "turns convolutions into quantised ones, and rounds what certain kinds give",
  "prn_jax/transforms/fuse_stem.py": "turns one pair of kinds into another, by all their fields",
  "prn_jax/transforms/num_classes.py": "anchors that all heads share are pixels in one kind and cells in another",
  "prn_jax/transforms/partial_residual.py": "turns Darknet's shortcuts and routes into one another",
}
SEARCHED = ("prn_jax", "benchmarks", "launch", "notebooks", "configs")


def decisions(source: str) -> list[str]:
  """Lines of a module that decide by the kind of a layer.

  Example: decisions("if layer.kind in TABLE: ...") is ["1: layer.kind in TABLE"].
  """
  tree = ast.parse(source)
  imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
  classes = {
    name.asname or name.name
    for node in imports
    if (node.module or "").startswith("prn_jax.kinds")
    for name in node.names
  }
  return [f"{node.lineno}: {ast.unparse(node)}" for node in ast.walk(tree) if _decides(node, classes)]


def _decides(node: ast.AST, classes: set[str]) -> bool:
  if isinstance(node, ast.Compare):
    return any(map(_is_kind, [node.left, *node.comparators]))
  if isinstance(node, ast.Subscript):
    return _is_kind(node.slice)
  if isinstance(node, ast.MatchClass):
    return ast.unparse(node.cls) in classes
  if not isinstance(node, ast.Call):
    return isinstance(node, ast.Match) and _is_kind(node.subject)
  if isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
    return bool({n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)} & classes)
  return isinstance(node.func, ast.Attribute) and node.func.attr == "get" and any(map(_is_kind, node.args))


def _is_kind(node: ast.AST) -> bool:
  """`layer.kind`, but not the kind of a checksum or of a problem in data."""
  owner = ast.unparse(node.value) if isinstance(node, ast.Attribute) and node.attr == "kind" else "checksum"
  return owner.rpartition(".")[-1] not in ("checksum", "problem", "source", "item")


def test_no_other_file_knows_kinds() -> None:
  found = {}
  for folder in SEARCHED:
    for path in sorted((REPO / folder).rglob("*.py")):
      name = path.relative_to(REPO).as_posix()
      if not name.startswith(("prn_jax/kinds/", "prn_jax/data_pipelines/", "prn_jax/configs/")):
        found[name] = decisions(path.read_text())
  assert len(found) > 200
  strangers = {name: lines for name, lines in found.items() if lines and name not in ALLOWED}
  assert not strangers, "let the kinds say it themselves (prn_jax/graph/graph.py: Layer)"
  assert [name for name in ALLOWED if not found[name]] == [], "the list no longer needs them"


@pytest.mark.parametrize(
  "line",
  [
    "x = layer.kind == 'conv'",
    "x = 'conv' != graph[name].kind",
    "x = row.layer.kind in KINDS",
    "x = TABLE[layer.kind]",
    "x = TABLE.get(layer.kind, 0)",
    "x = isinstance(layer, Conv)",
    "x = isinstance(layer, str | Conv)",
    "match layer.kind:\n  case 'conv': pass",
    "match layer:\n  case Conv(): pass",
  ],
)
def test_a_decision_is_seen(line: str) -> None:
  assert len(decisions(f"from prn_jax.kinds.conv import Conv\n{line}")) == 1


@pytest.mark.parametrize(
  "line", ["x = f'{layer.kind}'", "x = isinstance(layer, Other)", "x = entry.checksum.kind == 'a'"]
)
def test_what_is_no_decision_is_left_alone(line: str) -> None:
  assert decisions(f"from prn_jax.kinds.conv import Conv\n{line}") == []
