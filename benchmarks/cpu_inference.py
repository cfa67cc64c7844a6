"""Time of one forward pass, prn_jax against other engines, interleaved in one run.

    python benchmarks/cpu_inference.py yolov3-tiny-prn --vs onnxruntime,opencv

Every engine runs the same random weights on the same image, in turn, so that a busy machine slows all alike. Only
ratios are worth quoting. The other engines are used if they are installed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import prn_jax
from prn_jax import Model
from prn_jax.export import convert
from prn_jax.export.verify import probe_input
from prn_jax.network import init_variables
from prn_jax.run.inference import Inference


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("model", nargs="?", default="yolov3-tiny-prn")
  parser.add_argument("--vs", default="onnxruntime", help="comma list of onnxruntime, opencv")
  parser.add_argument("--runs", type=int, default=40)
  parser.add_argument("--threads", type=int, default=2)
  args = parser.parse_args()
  graph = prn_jax.load(args.model).graph
  model = Model(graph, init_variables(graph))
  x = probe_input(model)
  with tempfile.TemporaryDirectory() as folder:
    engines = {"prn_jax": jax_engine(model, x)}
    for name in filter(None, args.vs.split(",")):
      engines[name] = OTHERS[name](model, x, Path(folder), args.threads)
    report(args.model, measure(engines, args.runs))


def jax_engine(model: Model, x: np.ndarray) -> Callable[[], object]:
  import jax

  inference = Inference(model)
  return lambda: jax.block_until_ready(inference(x))


def onnxruntime_engine(model: Model, x: np.ndarray, folder: Path, threads: int) -> Callable[[], object]:
  import onnxruntime

  convert.save(model, folder / "model.onnx")
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
  x_nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
  return lambda: session.run(None, {"input": x_nchw})


def opencv_engine(model: Model, x: np.ndarray, folder: Path, threads: int) -> Callable[[], object]:
  import cv2

  convert.save(model, folder / "model.cfg")
  convert.save(model, folder / "model.weights")
  cv2.setNumThreads(threads)
  net = cv2.dnn.readNetFromDarknet(str(folder / "model.cfg"), str(folder / "model.weights"))
  x_nchw = np.ascontiguousarray(x.transpose(0, 3, 1, 2))

  def run() -> object:
    net.setInput(x_nchw)
    return net.forward(net.getUnconnectedOutLayersNames())

  return run


TURN = 6
OTHERS = {"onnxruntime": onnxruntime_engine, "opencv": opencv_engine}


def measure(engines: dict[str, Callable[[], object]], runs: int) -> dict[str, np.ndarray]:
  """Milliseconds of each run. Engines take turns of `TURN` runs, of which the first does not count: the engine before
  leaves threads spinning for a while."""
  times: dict[str, list[float]] = {name: [] for name in engines}
  for _ in range(-(-runs // (TURN - 1))):
    for name, engine in engines.items():
      for run in range(TURN):
        start = time.perf_counter()
        engine()
        if run:
          times[name].append(1e3 * (time.perf_counter() - start))
  return {name: np.array(values) for name, values in times.items()}


def report(model: str, times: dict[str, np.ndarray]) -> None:
  print(f"{model}, batch 1, milliseconds")
  print(f"{'engine':<14}{'min':>8}{'p25':>8}{'median':>8}{'p90':>8}   prn_jax / engine: min, p25, median")
  ours = np.percentile(times["prn_jax"], [0, 25, 50])
  for name, values in times.items():
    row = np.percentile(values, [0, 25, 50, 90])
    ratios = ", ".join(f"{r:.2f}" for r in ours / row[:3])
    print(f"{name:<14}" + "".join(f"{v:8.1f}" for v in row) + f"   {ratios}")


if __name__ == "__main__":
  main()
