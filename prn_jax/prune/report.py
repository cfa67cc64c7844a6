"""What a pruning did, as files: report.json for programs, layers.png and report.html for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prn_jax.files.disk import write_text, written_beside

_INK, _LEFT, _GONE = "#1d2329", "#1f5fa8", "#cfd8e3"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 960px; padding: 24px; }
table { border-collapse: collapse; font-size: 13.5px; margin: 12px 0; } td, th { padding: 3px 14px 3px 0; text-align: right;
border-top: 1px solid #eceff2; } td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }
"""
FIGURES = ("AP50", "top1")


def write_report(folder: Path, name: str, report: Mapping[str, Any]) -> list[Path]:
  """Writes the three files.

  Args:
    folder: an existing folder.
    name: what was pruned, for the title.
    report: sizes, figures if there are any, and "layers" (see `prune.methods.by_layer`).

  Returns:
    The files.
  """
  files = [folder / file for file in ("report.json", "layers.png", "report.html")]
  write_text(files[0], json.dumps(report, indent=1) + "\n")
  _picture(report["layers"], files[1])
  write_text(files[2], _page(name, report))
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


def _page(name: str, report: Mapping[str, Any]) -> str:
  totals = [("parameters", f"{report['params']:,}", f"{report['params_left']:,}", report["params_share"])]
  totals.append(("BFLOPs", f"{report['bflops']:.3f}", f"{report['bflops_left']:.3f}", report["bflops_share"]))
  rows = "".join(
    f"<tr><td>{what}</td><td>{old}</td><td>{new}</td><td>{share:.1%}</td></tr>" for what, old, new, share in totals
  )
  rows += "".join(
    f"<tr><td>{figure}, not fine-tuned</td><td>{report[f'{figure}_before']:.4f}</td><td>{report[f'{figure}_after']:.4f}</td><td></td></tr>"
    for figure in FIGURES
    if f"{figure}_after" in report
  )
  layers = "".join(
    f"<tr><td>{html.escape(row['layer'])}</td><td>{row['channels']:,}</td><td>{row['channels_left']:,}</td>"
    f"<td>{row['params']:,}</td><td>{row['params_left']:,}</td><td>{row['bflops']:.4f}</td><td>{row['bflops_left']:.4f}</td></tr>"
    for row in report["layers"]
  )
  blocks = ", ".join(report["blocks_removed"])
  return (
    f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Pruning of {html.escape(name)}</title>'
    f"<style>{_STYLE}</style></head><body><h1>Pruning of {html.escape(name)}</h1>"
    f"<p>Method {html.escape(report['method'])}: {report['units_removed']:,} of {report['units']:,} channels went"
    f"{f', and the blocks of {html.escape(blocks)}' if blocks else ''}. They held {report['score_removed']:.1%} of the scores.</p>"
    f"<table><tr><th></th><th>before</th><th>after</th><th>left</th></tr>{rows}</table>"
    '<img src="layers.png" alt="channels of every layer, before and after">'
    "<table><tr><th>layer</th><th>channels</th><th>left</th><th>parameters</th><th>left</th><th>BFLOPs</th><th>left</th></tr>"
    f"{layers}</table></body></html>\n"
  )
