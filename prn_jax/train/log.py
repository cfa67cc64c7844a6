"""What a run leaves for people: metrics.csv, metrics.jsonl, TensorBoard events, and a line of progress.

A run that is taken up again at step n first drops what was written after n, so that every step stands there once. In a
bucket the files appear every half minute, and before each checkpoint, so that what a kill costs are rows to be dropped.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import math
import secrets
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from prn_jax.absent import without_module
from prn_jax.errors import PrnError
from prn_jax.files.disk import is_file, set_aside, write_text
from prn_jax.files.json_text import finite
from prn_jax.files.mirror import Mirror
from prn_jax.files.structured import MAX_DATA_BYTES, load_bytes, parse_json
from prn_jax.files.values import Misfit, Node, text_of

SHOWN = ("recall50", "grad_norm", "learning_rate")  # in the line of progress, beside the loss; the rest is in the files
EVAL = "eval/"  # names of an evaluation's figures begin so
POINT = "eval_at_conf_25/"  # and those of its precision and recall at that confidence
NUM_PICTURES = 8  # in TensorBoard; the folder of the report has them all
CSV, JSONL = "metrics.csv", "metrics.jsonl"
_MAX_STEP = 2**53
_LOG = logging.getLogger(__name__)


class MetricsLog:
  """Writes scalars by step. Only process 0 may have one.

  Args:
    folder: the run directory.
    start_step: rows after it are dropped.
  """

  def __init__(self, folder: Path, start_step: int = 0) -> None:
    self._mirror = Mirror(folder)
    self._folder = self._mirror.local
    self._rows = [row for row in _kept_metrics(folder) if row["step"] <= start_step]
    self._columns: list[str] = []
    for row in self._rows:
      self._add_columns(row)
    self._jsonl: TextIO | None = None
    self._csv: TextIO | None = None
    self._rewrite_jsonl()
    self._rewrite_csv()
    self._events: Any = None
    # purge_step makes TensorBoard forget what an interrupted run wrote beyond its last checkpoint, if it had any.
    is_resumed = start_step > 0 or any(folder.glob("events.out.tfevents.*"))
    self._purge_step = start_step + 1 if is_resumed else None

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a row; names with "/" are groups, as "eval/AP50". Infinite and undefined values are kept as null."""
    row: dict[str, Any] = {"step": step} | finite(dict(values))
    self._rows.append(row)
    assert self._jsonl is not None
    self._jsonl.write(json.dumps(row) + "\n")
    self._jsonl.flush()
    if self._add_columns(row) or self._csv is None:
      self._rewrite_csv()
    else:
      self._csv.write(_csv_line([row.get(column) for column in self._columns]))
      self._csv.flush()
    for name, value in values.items():
      if math.isfinite(value):
        self._writer().add_scalar(name if "/" in name else f"train/{name}", value, step)
    self._writer().flush()

  def write_evaluation(
    self, step: int, figures: Mapping[str, float], point: Mapping[str, float] = types.MappingProxyType({})
  ) -> None:
    """Adds the figures of an evaluation, and precision and recall at a confidence, in place of those of an earlier one of
    the same step."""
    kept = [row for row in self._rows if row["step"] != step or not is_evaluation(row)]
    if len(kept) < len(self._rows):
      self._rows = kept
      self._rewrite_jsonl()
      self._rewrite_csv()
    named = {f"{EVAL}{key}": value for key, value in figures.items()}
    self.write(step, named | {f"{POINT}{key}": value for key, value in point.items()})

  def pictures(self, step: int, folder: Path) -> None:
    """Shows a few pictures of a folder, as they are, in TensorBoard."""
    for file in sorted(folder.glob("*.jpg"))[:NUM_PICTURES]:
      with Image.open(file) as picture:
        self._writer().add_image(f"examples/{file.stem}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

  def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """Shows how values are distributed in TensorBoard; an array by name, as "gamma/conv_0"."""
    for name, array in values.items():
      self._writer().add_histogram(name, array, step)

  def close(self) -> None:
    for file in (self._jsonl, self._csv):
      if file is not None:
        file.close()
    if self._events is not None:
      self._events.close()
    self._mirror.close()

  def push(self) -> None:
    """Makes sure that a run directory in a bucket has all rows; call it before a checkpoint is declared finished."""
    self._mirror.push()

  def _add_columns(self, row: Mapping[str, Any]) -> bool:
    new = [key for key in row if key not in self._columns]
    self._columns += new
    return bool(new)

  def _rewrite_jsonl(self) -> None:
    if self._jsonl is not None:
      self._jsonl.close()  # the file takes the place of the one that it is open on
    write_text(self._folder / JSONL, "".join(json.dumps(row) + "\n" for row in self._rows))
    self._jsonl = (self._folder / JSONL).open("a", encoding="utf-8")

  def _rewrite_csv(self) -> None:
    lines = [_csv_line(self._columns)] if self._columns else []
    lines += [_csv_line([row.get(column) for column in self._columns]) for row in self._rows]
    if self._csv is not None:
      self._csv.close()
    write_text(self._folder / CSV, "".join(lines))
    self._csv = (self._folder / CSV).open("a", encoding="utf-8")

  def _writer(self) -> Any:
    if self._events is None:
      with without_module("torch"):  # tensorboardX takes it for the name of a type: 3 s and 200 MB for nothing
        from tensorboardX import SummaryWriter

      # A name of its own also where two lives of a run begin in one second: in a bucket the second would replace the first.
      suffix = f".{secrets.token_hex(3)}"
      self._events = SummaryWriter(str(self._folder), purge_step=self._purge_step, filename_suffix=suffix)
    return self._events


def read_metrics(folder: Path) -> list[dict[str, Any]]:
  """The rows of metrics.jsonl: "step" and finite figures or None. Lines that are none are left out: the last one where a
  kill cut it short, any where the file is damaged."""
  return _read_metrics(folder)[0]


def _kept_metrics(folder: Path) -> list[dict[str, Any]]:
  """The rows of an earlier part of the run. A damaged file is told and set aside; what can be read of it goes on."""
  rows, faults = _read_metrics(folder)
  if faults:
    place = set_aside(folder / JSONL)
    _LOG.warning("%s That is kept as '%s'; the %s rows that can be read go on.", faults[0], place, f"{len(rows):,}")
  return rows


def _read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
  """The rows, and what is wrong with other lines, or with the file."""
  path = folder / JSONL
  if not is_file(path):
    return [], []
  rows, faults = [], []
  try:
    *lines, cut_short = load_bytes(path, MAX_DATA_BYTES).split(b"\n")
  except Misfit as misfit:
    return [], [f"'{path}' {misfit}."]
  for number, line in enumerate(lines, 1):
    try:
      rows.append(_row(parse_json(line, f"'{path}', line {number},")))
    except PrnError as error:
      faults.append(str(error))
  with contextlib.suppress(PrnError):
    rows.append(_row(parse_json(cut_short, JSONL)))
  return rows, faults


def _row(root: Node) -> dict[str, Any]:
  row: dict[str, Any] = {"step": root["step"].whole(0, _MAX_STEP)}
  for key, value in root.mapping().items():
    if key != "step":
      is_undefined = value.raw is None or (isinstance(value.raw, float) and not math.isfinite(value.raw))
      row[text_of(key)] = None if is_undefined else value.number()
  return row


def is_evaluation(row: Mapping[str, Any]) -> bool:
  """Whether a row of metrics.jsonl holds the figures of an evaluation."""
  return any(key.startswith(EVAL) for key in row)


def last_evaluation(folder: Path, last_step: int) -> tuple[int, dict[str, float]] | None:
  """(step, figures) of the newest evaluation in metrics.jsonl, none after `last_step`; undefined figures are NaN."""
  for row in reversed(read_metrics(folder)):
    if row["step"] <= last_step and is_evaluation(row):
      figures = {key.removeprefix(EVAL): value for key, value in row.items() if key.startswith(EVAL)}
      return row["step"], {key: math.nan if value is None else value for key, value in figures.items()}
  return None


def evaluations(folder: Path, figure: str, last_step: int) -> list[tuple[int, float | None]]:
  """(step, figure) of the evaluations up to a step, in their order; None where the figure is not defined."""
  rows = [row for row in read_metrics(folder) if row["step"] <= last_step and is_evaluation(row)]
  return [(row["step"], row.get(f"{EVAL}{figure}")) for row in rows]


def _csv_line(cells: Sequence[Any]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerow(cells)
  return text.getvalue()


class Stopwatch:
  """Speed between two log lines, and how much of the time went into waiting for data.

  Args:
    batch_size: images per step.
    start_step, total_steps: first and last step of this part of the run.
  """

  def __init__(self, batch_size: int, start_step: int, total_steps: int) -> None:
    self._batch_size, self._total = batch_size, total_steps
    self._first = (time.perf_counter(), start_step)
    self._last = self._first
    self._waited = self._paused = self._all_paused = 0.0

  def waited(self, seconds: float) -> None:
    """Time spent waiting for a batch."""
    self._waited += seconds

  def paused(self, seconds: float) -> None:
    """Time that is not training: evaluation, checkpoints."""
    self._paused += seconds

  def lap(self, step: int) -> dict[str, float]:
    """images_per_sec, data_wait_frac and eta_sec since the last call; `step` is the number of steps done."""
    now = time.perf_counter()
    then, last_step = self._last
    busy = max(now - then - self._paused, 1e-9)
    self._all_paused += self._paused
    values = {
      "images_per_sec": (step - last_step) * self._batch_size / busy,
      "data_wait_frac": min(1.0, self._waited / busy),
      "eta_sec": (self._total - step) * (now - self._first[0] - self._all_paused) / max(1, step - self._first[1]),
    }
    self._last, self._waited, self._paused = (now, step), 0.0, 0.0
    return values


def progress_line(step: int, total: int, values: Mapping[str, float]) -> str:
  """One line for people: "step 120/1000  loss 3.21  iou 0.54  lr 0.001  43 images/s  data wait 2%  4 min left"."""
  first = {key: values[key] for key in ("loss", "iou", "top1") if key in values}
  shown = first | {k: v for k, v in values.items() if k in SHOWN}
  parts = [f"step {step:,}/{total:,}", *(f"{key} {_short(value)}" for key, value in shown.items())]
  if "images_per_sec" in values:
    speed = values["images_per_sec"]
    parts += [f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:.2g} images/s"]
    parts += [f"data wait {values['data_wait_frac']:.0%}", f"{duration(values['eta_sec'])} left"]
  return "  ".join(parts)


def _short(value: float) -> str:
  return f"{value:.4g}" if math.isfinite(value) else str(value)


def duration(seconds: float) -> str:
  """Seconds as "45 s", "12 min" or "3.5 h"."""
  if seconds < 99:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 99 * 60 else f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
  """A line for people, on stderr, at once."""
  print(text, file=sys.stderr, flush=True)
