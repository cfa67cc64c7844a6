"""What fine-tuning brought back: the third figure of a pruning's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.files.structured import read_json
from prn_jax.files.values import Node
from prn_jax.model import Model
from prn_jax.prune.command import figure
from prn_jax.prune.report import FILE, write_report
from prn_jax.run.evaluate import open_data


def add_tuned(model: Model, place: str, folder: Path) -> dict[str, Any]:
  """Rates the fine-tuned network on the data of the report, and writes the report again with its figure.

  Args:
    model: the pruned network after its training.
    place: where it is, for the report.
    folder: where `report.write_report` wrote the report.

  Returns:
    The report.

  Raises:
    PrnError: there is no report, it has no figures, or it is about another network.
  """
  file = folder / FILE
  found = read_json(file, advice="--report names the folder that prn prune --report DIR has written.")
  if "data" not in found:
    raise PrnError(
      f"'{file}' has no figures to compare with, since the pruning had no data. Prune again with --data SPEC."
    )
  _check_same(model, found, place, file)
  on_bad_data = found["on_bad_data"].text()
  name, value = figure(model, open_data(found["data"].text(), model, on_bad_data), on_bad_data)
  report = {**found.raw, f"{name}_tuned": value, "tuned": place}
  write_report(folder, report)
  return report


def _check_same(model: Model, found: Node, place: str, file: Path) -> None:
  """Raises PrnError unless the layers are as wide as the report says."""
  shapes = model.graph.shapes
  for row in found["layers"].items():
    name, left = row["layer"].text(), row["channels_left"].whole(0)
    own = shapes[name].channels if name in shapes else 0
    if own != left:
      raise PrnError(
        f"'{place}' is not the network of '{file}': its layer '{name}' has {own} channels, and the report says that {left} are left. "
        "Give the network that was trained from the pruned one."
      )
