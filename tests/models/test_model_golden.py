"""Golden text of every model: names, output shapes and variables, which are the keys of checkpoints.

Regenerate with `python -m tests.models.test_model_golden` from the project's root, and review the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from prn_jax.graph import Graph
from prn_jax.models import build_graph, list_models

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "models"
HOW = "If the change is meant: python -m tests.models.test_model_golden"
HEADER = "# layer  kind  width x height x channels  variables, each at COLLECTION/<layer>/PATH:SHAPE"


def golden_text(graph: Graph) -> str:
  """One line a layer, in cfg order."""
  lines = [HEADER, f"input  {graph.width}x{graph.height}x{graph.channels}"]
  for layer in graph:
    variables = [f"{a.collection}/{a.path}:{'x'.join(map(str, a.array_shape))}" for a in graph.arrays(layer)]
    lines.append("  ".join([layer.name, layer.kind, str(graph.shapes[layer.name]), *variables]))
  return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", list_models())
def test_names_and_shapes(name):
  file = FOLDER / f"{name}.txt"
  assert file.is_file(), f"{file} is missing. {HOW}"
  expected, found = file.read_text().splitlines(), golden_text(build_graph(name)).splitlines()
  differences = [pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]]
  assert not differences, f"{file.name}: first difference {differences[0]}. {HOW}"
  assert len(expected) == len(found), f"{file.name} has {len(expected)} lines, the model {len(found)}. {HOW}"


def test_no_stray_files():
  assert sorted(file.stem for file in FOLDER.glob("*.txt")) == list_models(), HOW


def regenerate() -> None:
  FOLDER.mkdir(parents=True, exist_ok=True)
  for file in FOLDER.glob("*.txt"):
    file.unlink()
  for name in list_models():
    (FOLDER / f"{name}.txt").write_text(golden_text(build_graph(name)))


if __name__ == "__main__":
  regenerate()
