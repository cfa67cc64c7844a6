"""What a pruning did, as files: report.json for programs, layers.png and report.html for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prn_jax.files.disk import write_text, written_beside
from prn_jax.graph.cost import cost
from prn_jax.graph.graph import Graph

_INK, _LEFT, _GONE = "#1d2329", "#1f5fa8", "#cfd8e3"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 960px; padding: 24px; }
table { border-collapse: collapse; font-size: 13.5px; margin: 12px 0; } td, th { padding: 3px 14px 3px 0; text-align: right;
border-top: 1px solid #eceff2; } td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }
"""
FIGURES = ("AP50", "top1")
FILE = "report.json"


def write_report(folder: Path, report: Mapping[str, Any]) -> list[Path]:
  """Writes the three files.

  Args:
    folder: an existing folder.
    report: "name" of what was pruned, sizes, "layers" (see `by_layer`), and, if there are any, figures and times.

  Returns:
    The files.
  """
  files = [folder / file for file in (FILE, "layers.png", "report.html")]
  write_text(files[0], json.dumps(report, indent=1) + "\n")
  _picture(report["layers"], files[1])
  write_text(files[2], _page(report))
  return files


def _picture(rows: list[dict[str, Any]], file: Path) -> None:
  """A bar for every layer: the channels that there were, and in front of it those that are left."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(max(6.0, 0.16 * len(rows) + 1.5), 3.6), layout="constrained")
  axes = figure.subplots()
  places = range(len(rows))
  axes.bar(places, [row["channels"] for row in rows], width=0.8, color=_GONE, label="before")
  axes.bar(places, [row["channels_left"] for row in rows], width=0.8, color=_LEFT, label="left")
  axes.set_xticks(list(places), [row["layer"] for row in rows], rotation=90, fontsize=6)
  axes.set_xlim(-0.7, len(rows) - 0.3)
  axes.set_ylabel("channels", color=_INK)
  for side in ("top", "right"):
    axes.spines[side].set_visible(False)
  axes.legend(frameon=False)
  with written_beside(file) as target:
    figure.savefig(target, format="png", dpi=110)


def _page(report: Mapping[str, Any]) -> str:
  layers = "".join(
    f"<tr><td>{html.escape(row['layer'])}</td><td>{row['channels']:,}</td><td>{row['channels_left']:,}</td>"
    f"<td>{row['params']:,}</td><td>{row['params_left']:,}</td><td>{row['bflops']:.4f}</td><td>{row['bflops_left']:.4f}</td></tr>"
    for row in report["layers"]
  )
  name, blocks = html.escape(report["name"]), html.escape(", ".join(report["blocks_removed"]))
  held = f" They held {report['score_removed']:.1%} of the scores." if report["score_removed"] else ""
  return (
    f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pruning of {name}</title>'
    f"<style>{_STYLE}</style></head><body><h1>Pruning of {name}</h1>"
    f"<p>Method {html.escape(report['method'])}: {report['units_removed']:,} of {report['units']:,} channels went"
    f"{f', and the blocks of {blocks}' if blocks else ''}.{held}</p>"
    f"<table><tr><th></th><th>before</th><th>after</th><th>left, or change</th></tr>{_totals(report)}</table>{_notes(report)}"
    '<img src="layers.png" alt="channels of every layer, before and after">'
    "<table><tr><th>layer</th><th>channels</th><th>left</th><th>parameters</th><th>left</th><th>BFLOPs</th><th>left</th></tr>"
    f"{layers}</table></body></html>\n"
  )


def _totals(report: Mapping[str, Any]) -> str:
  """Rows of sizes, times and figures."""
  rows = [
    ("parameters", f"{report['params']:,}", f"{report['params_left']:,}", f"{report['params_share']:.1%}"),
    ("BFLOPs", f"{report['bflops']:.3f}", f"{report['bflops_left']:.3f}", f"{report['bflops_share']:.1%}"),
  ]
  if times := report.get("latency"):
    old, new = times["before_ms"], times["after_ms"]
    rows.append(("ms for an image", f"{old:.2f}", f"{new:.2f}", f"{new / old:.1%}"))
  for figure in FIGURES:
    if f"{figure}_after" in report:
      old = report[f"{figure}_before"]
      for key, what in (("after", "not fine-tuned"), ("tuned", "fine-tuned")):
        if (new := report.get(f"{figure}_{key}")) is not None:
          rows.append((f"{figure}, {what}", f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}"))
  return "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)


def _notes(report: Mapping[str, Any]) -> str:
  """How times and figures came about."""
  found = []
  if times := report.get("latency"):
    found.append(
      f"Times: batch 1, {times['width']}x{times['height']}, the least of many passes of both networks in turn, on {times['machine']}."
    )
  if "data" in report:
    found.append(f"Figures: on {report['data']}{'; fine-tuned: ' + report['tuned'] if 'tuned' in report else ''}.")
  if rated := report.get("candidates"):
    figures = sorted(one["figure"] for one in rated)
    found.append(
      f"The best of {len(rated)} random candidates, rated {figures[-1]:.4f} on images of its own; the median one {figures[len(figures) // 2]:.4f}, "
      f"the worst {figures[0]:.4f}."
    )
  return "".join(f"<p>{html.escape(text)}</p>" for text in found)


def by_layer(graph: Graph, compact: Graph) -> list[dict[str, Any]]:
  """Rows of a table: layers with weights of both networks, their channels, parameters and operations."""
  before, after = ({row.layer.name: row for row in cost(one).layers} for one in (graph, compact))
  return [
    {
      "layer": name,
      "channels": graph.shapes[name].channels,
      "channels_left": compact.shapes[name].channels if name in after else 0,
      "params": row.params,
      "params_left": after[name].params if name in after else 0,
      "bflops": row.flops / 1e9,
      "bflops_left": after[name].flops / 1e9 if name in after else 0.0,
    }
    for name, row in before.items()
    if row.params
  ]
