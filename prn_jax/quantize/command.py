"""From a float model to a quantised one on disk, with its report: what `prn quantize` does."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from prn_jax.data_pipelines.records import Dataset
from prn_jax.errors import PrnError
from prn_jax.export import convert, onnx
from prn_jax.files.disk import is_folder, write_text, written_beside
from prn_jax.files.json_text import json_text
from prn_jax.files.places import to_path
from prn_jax.model import Model
from prn_jax.quantize import ptq
from prn_jax.quantize.noise import noise
from prn_jax.quantize.presets import Preset
from prn_jax.quantize.report import Report
from prn_jax.quantize.rewrite import kept_in_float
from prn_jax.quantize.runtime import Session, fusion, latencies, openvino_latencies
from prn_jax.run.calibration import images_of, spread
from prn_jax.run.evaluate import usual_figures

ONNX, REPORT = "quantized.onnx", "quantization.json"
NOISE_BATCHES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What is wanted.

  Attributes:
    preset: how.
    options: what is done besides.
    calibration: data whose images decide about the ranges; its annotations are not looked at.
    num_images: images of it, evenly spread.
    evaluation: annotated data for the figures, with the model's classes; None: no figures.
    on_bad_data: "stop" or "skip".
  """

  preset: Preset
  calibration: Dataset
  options: ptq.Options = ptq.Options()
  num_images: int = 64
  evaluation: Dataset | None = None
  on_bad_data: str = "stop"


def quantize_to(dst: str | Path, model: Model, request: Request) -> Report:
  """Writes DST/ as a model directory with `ONNX` and `REPORT` in it, and gives the report.

  Raises:
    PrnError: the model cannot be quantised, the data cannot be used, or DST is not a place for a model.
  """
  folder = to_path(dst)
  if folder.suffix in convert.WRITERS or (folder.exists() and not is_folder(folder)):
    raise PrnError(
      f"'{dst}' is no folder: a quantised model is written as a directory. Give one, as '{folder.stem}.q/'."
    )
  chosen = spread(request.calibration, request.num_images)
  batches = list(images_of(model, chosen, on_bad_data=request.on_bad_data))
  made = ptq.quantized(model, request.preset, batches, request.options)
  with tempfile.TemporaryDirectory() as place:
    before, after = Path(place, "float.onnx"), Path(place, ONNX)
    onnx.save(before, model)
    onnx.save(after, made.model)
    report = _report(before, after, model, made, request, batches, len(chosen))
    convert.save(made.model, f"{str(dst).rstrip('/')}/")
    with written_beside(folder / ONNX) as file:
      file.write(after.read_bytes())
  write_text(folder / REPORT, json_text(report.to_json()))
  return report


def _report(
  before: Path,
  after: Path,
  model: Model,
  made: ptq.Quantized,
  request: Request,
  batches: list[np.ndarray],
  num_images: int,
) -> Report:
  graph = made.model.graph
  found: dict[str, dict[str, float]] = {}
  if request.evaluation is not None:
    for key, one, path in (("float", model, before), ("quantized", made.model, after)):
      session = Session(one.graph, path)
      found[key] = usual_figures(one, request.evaluation, on_bad_data=request.on_bad_data, network=session)
  files = {"float": before, "int8": after}
  times = {"onnxruntime": latencies(graph, files)}
  if other := openvino_latencies(graph, files):
    times["openvino"] = other
  return Report(
    preset=request.preset.name,
    bits=request.preset.bits,
    num_images=num_images,
    in_float=kept_in_float(model.graph),
    bytes_float=before.stat().st_size,
    bytes_int=after.stat().st_size,
    milliseconds=times,
    fusion=fusion(graph, after),
    noise=noise(graph, made.before, made.model.variables, batches[:NOISE_BATCHES]),
    figures=found,
    num_evaluated=len(request.evaluation) if request.evaluation is not None else 0,
  )
