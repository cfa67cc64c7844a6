"""`prn analyze --out`: all figures, and one HTML file that holds everything and needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from prn_jax.analyze.analysis import Analysis
from prn_jax.analyze.figures import FIGURES, FORMATS, save
from prn_jax.analyze.tables import RANGE_HEADINGS, megabytes, memory_rows, range_rows
from prn_jax.files.disk import write_text
from prn_jax.graph.gradients import Totals

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1240px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2.2em; border-bottom: 1px solid #dde1e7; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; font-size: .93em; }
th, td { padding: .22em .8em; text-align: right; border-bottom: 1px solid #eceff3; }
th { color: #555; font-weight: 600; vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
td.left, th.left { text-align: left; } tr.sum td { font-weight: 600; border-top: 2px solid #c3c9d2; }
td.more { background: #e3f1e6; } td.less { background: #fbe9dd; }
img { width: 100%; } p.note { color: #555; max-width: 64em; } summary { cursor: pointer; margin-top: .8em; }
"""
COLUMNS = {
  "timestamps": "timestamps",
  "sources": "sources",
  "timestamp_combinations": "timestamp combinations",
  "source_combinations": "source combinations",
}
NOTES = {
  "timestamps": "A gradient reaches a layer over paths of several lengths. A column is a layer, a row a length, counted "
  "in layers with weights. Colour: in how many of the layer's combinations of timestamps the length stands. The bars "
  "are the number of combinations of each layer; their sum is the total.",
  "sources": "Which layers' gradients reach a layer directly, that is, over shortcuts, routes and pools only. Rows from "
  "the losses at the bottom to the first layer on top. A step of the diagonal is the next layer; the triangles are "
  "stages whose shortcuts hand gradients far back. Full colour: all channels of the layer receive the gradient; paler: "
  "only some, because a shortcut adds only a part of its source. The bars are the number of combinations of sources.",
  "ranges": "The channels of each layer, cut (magenta) where the combination of sources or timestamps changes.",
  "memory": "A channel is alive from the layer that computes it to the last layer that reads it. Orange: maps that no "
  "layer reads any more but a later shortcut.",
}
LAYERS_NOTE = (
  "A row is a range of channels that receive the same. Different pairs of timestamps and path counts are the "
  "combinations of timestamps of a layer, different sets of sources its combinations of sources; #1, #2, ... are the "
  "parts of a source that is cut up."
)


def write_report(models: Sequence[Analysis], out: Path) -> list[Path]:
  """Writes every figure as PNG and SVG, and report.html, the last of the returned files.

  Args:
    models: one network, or two to compare.
    out: an existing folder; files of an earlier report are replaced.
  """
  files, pictures = [], {}
  for name, draw in FIGURES.items():
    figure = draw(models)
    files += [save(figure, out / f"{name}.{kind}") for kind in FORMATS]
    pictures[name] = base64.b64encode((out / f"{name}.svg").read_bytes()).decode("ascii")
  path = out / "report.html"
  write_text(path, _page(models, pictures))
  return [*files, path]


def _page(models: Sequence[Analysis], pictures: dict[str, str]) -> str:
  title = " and ".join(f"{model.name} {model.graph.width}x{model.graph.height}" for model in models)
  body = [
    f"<h1>Gradient combinations and memory: {escape(title)}</h1>",
    '<p class="note">After section 3 of Wang et al., &ldquo;Enriching Variety of Layer-wise Learning Information by '
    "Gradient Combination&rdquo; (ICCVW 2019); docs/analysis.md defines every number.</p>",
    "<h2>Stages</h2>",
    _stage_table(models),
  ]
  for name, picture in pictures.items():
    body.append(f"<h2>{name.capitalize()}</h2>")
    body.append(f'<p class="note">{NOTES[name]}</p>')
    body.append(f'<img alt="{name}" src="data:image/svg+xml;base64,{picture}">')
    if name == "memory":
      body.append(_table([list(row) for row in memory_rows(models)]))
      body += [_details(f"Every shortcut of {model.name}", _shortcut_table(model)) for model in models]
  body.append("<h2>Layers</h2>")
  body.append(f'<p class="note">{LAYERS_NOTE}</p>')
  body += [_details(f"Every layer of {model.name}", _layer_table(model)) for model in models]
  head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
  return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _stage_table(models: Sequence[Analysis]) -> str:
  """Stages with the totals of each model beside each other; the first model's are marked where they differ."""
  names = list(dict.fromkeys(stage.name for model in models for stage in model.stages))
  by_name = [{stage.name: stage.totals for stage in model.stages} for model in models]
  heading = '<tr><th rowspan="2">stage</th>' + "".join(
    f'<th colspan="{len(models)}">{text}</th>' for text in COLUMNS.values()
  )
  models_row = "".join(f"<th>{escape(model.name)}</th>" for _ in COLUMNS for model in models)
  rows = [f"{heading}</tr>", f"<tr>{models_row}</tr>"]
  for name in names:
    rows.append(f"<tr><td>{escape(name)}</td>{_total_cells([stages.get(name) for stages in by_name])}</tr>")
  rows.append(f'<tr class="sum"><td>all</td>{_total_cells([model.totals for model in models])}</tr>')
  return f"<table>{''.join(rows)}</table>"


def _total_cells(found: Sequence[Totals | None]) -> str:
  cells = ""
  for key in COLUMNS:
    values: list[int | None] = [getattr(item, key) if item else None for item in found]
    first, other = values[0], values[-1]
    for i, value in enumerate(values):
      mark = ""
      if i == 0 and first is not None and other is not None and first != other:
        mark = ' class="more"' if first > other else ' class="less"'
      cells += f"<td{mark}>{'-' if value is None else value}</td>"
  return cells


def _layer_table(model: Analysis) -> str:
  rows = [["layer", "output", *RANGE_HEADINGS]]
  for layer in model.layers:
    rows += [
      [layer.name if i == 0 else "", str(layer.shape) if i == 0 else "", *cells]
      for i, cells in enumerate(range_rows(model, layer))
    ]
  return _table(rows, left=len(rows[0]))


def _shortcut_table(model: Analysis) -> str:
  rows = [["shortcut", "adds", "channels of the map", "channels kept", "bytes kept", "kept share", "layers"]]
  for item in model.memory.kept:
    share = f"{item.kept_channels / item.channels:.0%}"
    kept = megabytes(item.kept_bytes)
    rows.append([item.shortcut, item.source, f"{item.channels}", f"{item.kept_channels}", kept, share, f"{item.steps}"])
  return _table(rows, left=2)


def _details(title: str, content: str) -> str:
  return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
  """A table with its headings in the first row; the first `left` columns flush left."""
  text = ""
  for number, row in enumerate(rows):
    tag = "td" if number else "th"
    cells = "".join(f"<{tag}{' class=left' if i < left else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))
    text += f"<tr>{cells}</tr>"
  return f"<table>{text}</table>"
