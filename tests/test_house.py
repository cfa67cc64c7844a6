"""Imports go one way, and the page that says so is true."""

from __future__ import annotations

import ast

from prn_jax.files.marked import filled
from tests.house import DRAWING, ORDER, PAGE, Import, circles, climbs, drawing, floor, imports, modules, table

FILES = modules()
IMPORTS = imports(FILES)


def test_every_module_is_in_a_room() -> None:
  assert [name for name in FILES if floor(name) is None] == []
  assert [module for room in ORDER for module in room.modules if module not in FILES] == []


def test_no_import_climbs() -> None:
  assert [str(each) for each in climbs(IMPORTS)] == []


def test_no_import_goes_in_a_circle() -> None:
  assert circles(IMPORTS) == []


def test_a_climb_and_a_circle_are_seen() -> None:
  up = Import("graph.graph", "cli.main", 1, True, False)
  down = Import("cli.main", "graph.graph", 1, False, False)
  assert climbs([up, down]) == [up]
  assert circles([up, down]) == [["cli.main", "graph.graph"]]
  assert circles([down]) == []


def test_the_page_for_contributors_shows_the_rooms() -> None:
  """`python -m tests.house` writes the table, and draws the rooms."""
  page = PAGE.read_text()
  assert "<!-- rooms -->" in page
  assert filled(page, {"rooms": table()}) == page
  assert DRAWING.read_text() == drawing()


def test_data_know_no_networks() -> None:
  """Nor JAX: workers that read and augment start without it."""
  allowed = {"errors", "fonts", "lazy", "ranges", "version"}
  found = [each for each in IMPORTS if each.importer.startswith("data_pipelines")]
  assert found
  foreign = {each.imported for each in found if not each.imported.startswith(("data_pipelines", "files."))}
  assert foreign <= allowed
  for name in (name for name in FILES if name.startswith("data_pipelines")):
    tree = ast.parse(FILES[name].read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {each.partition(".")[0] for each in names} & {"jax", "flax", "optax", "orbax"}, name
