"""How much faster pruned networks run: shares of the channels gone, with and without widths rounded to 8, 16 and 32.

    python benchmarks/pruned_speed.py yolov3-tiny-prn --size 416x416

Every network of an engine runs the same image in turn, so that a busy machine slows all alike, and the least time of each
counts; what is worth quoting is its ratio to the dense network's, in the same engine. Engines: JAX (as `prn predict` runs a
network), onnxruntime, and OpenVINO where it is installed. The load of the machine is printed before and after: with others
at work, ratios are not to be trusted. Weights are random, and chance chooses the channels, so that all layers get narrower.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prn_jax.export import onnx
from prn_jax.graph.cost import cost
from prn_jax.loading import load
from prn_jax.model import Model
from prn_jax.network import init_variables
from prn_jax.prune.cut import cut
from prn_jax.prune.methods import get_method
from prn_jax.prune.selection import Goal, Kept, Target, choose
from prn_jax.quantize.runtime import installed_engines, openvino_latencies
from prn_jax.quantize.runtime import latencies as onnxruntime_latencies
from prn_jax.run.latency import latencies, measured_on

DENSE = "dense"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model", nargs="?", default="yolov3-tiny-prn")
  parser.add_argument("--size", default="416x416")
  parser.add_argument("--percent", default="30,50,70", help="of the channels that go")
  parser.add_argument("--round-to", default="1,8,16,32", help="multiples of which widths are; 1 is any")
  args = parser.parse_args()
  width, height = map(int, args.size.split("x"))
  dense = load(args.model).graph.resized(width, height)
  models = {DENSE: Model(dense, init_variables(dense))}
  for percent in args.percent.split(","):
    for base in args.round_to.split(","):
      models[f"{percent}%, multiples of {base}"] = pruned(models[DENSE], float(percent) / 100, int(base))
  print(f"{args.model} {args.size}, batch 1, on {measured_on()}, {', '.join(installed_engines())}")
  print(f"load before: {os.getloadavg()[0]:.1f}")
  report(models, measure(models))
  print(f"load after: {os.getloadavg()[0]:.1f}")


def pruned(model: Model, share: float, base: int) -> Model:
  kept = Kept(round_to=base)
  choice = choose(model.graph, model.variables, get_method("random"), Target(Goal.SHARE, share), kept)
  return Model(*cut(model.graph, model.variables, choice.units))


def measure(models: Mapping[str, Model]) -> dict[str, dict[str, float]]:
  """Engine -> network -> milliseconds."""
  with tempfile.TemporaryDirectory() as folder:
    files = {name: Path(folder, f"{i}.onnx") for i, name in enumerate(models)}
    for name, file in files.items():
      onnx.save(file, models[name])
    graph = models[DENSE].graph  # gives the size of the image and the names of the heads
    found = {
      "JAX": latencies({name: model.graph for name, model in models.items()}),
      "onnxruntime": onnxruntime_latencies(graph, files),
    }
    if other := openvino_latencies(graph, files):
      found["OpenVINO"] = other
  return found


def report(models: Mapping[str, Model], times: Mapping[str, Mapping[str, float]]) -> None:
  """A table in Markdown: what is left of parameters and operations, and times as fast as the dense network."""
  engines = list(times)
  print(f"| channels that went | parameters | BFLOPs | {' | '.join(engines)} |")
  print(f"|{'---|' * (3 + len(engines))}")
  whole = cost(models[DENSE].graph)
  for name, model in models.items():
    own = cost(model.graph)
    cells = [f"{own.params / whole.params:.0%}", f"{own.bflops / whole.bflops:.0%}"]
    for engine in engines:
      milliseconds = times[engine][name]
      ratio = times[engine][DENSE] / milliseconds
      cells.append(f"{milliseconds:.1f} ms" if name == DENSE else f"{ratio:.2f}x")
    print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
  main()
