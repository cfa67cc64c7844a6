"""Time of one training step, prn_jax against torch, interleaved in one run.

    python benchmarks/train_step.py yolov3-tiny-prn --size 416x416 --batch 8

Both sides have the same network with the same weights, batch norm in training mode, the same loss (mean square of what
the heads read) and SGD with momentum. Only ratios are worth quoting. Without torch only our time is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prn_jax.models.registry import build_graph
from prn_jax.network import Network, init_variables
from prn_jax.run.mesh import make_mesh, put_batch, put_state
from prn_jax.train import sharding
from prn_jax.train.step import Recipe, init_state

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model", nargs="?", default="yolov3-tiny-prn")
  parser.add_argument("--size", default="", help="WxH; default the model's")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--runs", type=int, default=8)
  parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of ours, and of torch's autocast")
  parser.add_argument("--compile", action="store_true", help="torch.compile as well")
  args = parser.parse_args()
  sizes = dict(zip(("width", "height"), map(int, args.size.split("x")), strict=True)) if args.size else {}
  graph = build_graph(args.model, **sizes)
  layers = tuple(head.inputs[0] for head in graph.heads)
  x = np.random.default_rng(0).random((args.batch, graph.height, graph.width, 3), np.float32)
  engines = {"prn_jax": jax_engine(graph, layers, x, args.dtype)} | torch_engines(graph, layers, x, args)
  times = measure(engines, args.runs)
  device = jax.devices()[0].device_kind
  print(f"{args.model} {graph.width}x{graph.height}, batch {args.batch}, {args.dtype}, {device}; {args.runs} runs each")
  ours = statistics.median(times["prn_jax"])
  for name, values in times.items():
    median, least = statistics.median(values), min(values)
    print(
      f"  {name:<24} {1000 * least:8.1f} ms least, {1000 * median:8.1f} ms median, "
      f"{args.batch / median:7.1f} images/s, ratio to ours {median / ours:.2f} (least {least / min(times['prn_jax']):.2f})"
    )


def jax_engine(graph: Any, layers: tuple[str, ...], x: np.ndarray, dtype: str) -> Callable[[], object]:
  def loss_fn(outputs: dict[str, jax.Array], batch: Any, constants: Any = ()) -> tuple[jax.Array, dict[str, jax.Array]]:
    return sum(jnp.mean(jnp.square(value.astype(jnp.float32))) for value in outputs.values()), {}  # type: ignore[return-value]

  recipe = Recipe(Network(graph, dtype=DTYPES[dtype]), optax.sgd(1e-3, momentum=0.9), loss_fn, layers)
  mesh = make_mesh(jax.devices()[:1])
  step = sharding.compile_step(recipe, mesh)
  state = [put_state(jax.device_get(init_state(init_variables(graph), recipe)), mesh)]
  batch = put_batch({"image": x}, mesh)

  def run() -> object:
    state[0], metrics = step(state[0], batch, ())
    return jax.block_until_ready(metrics)

  return run


def torch_engines(graph: Any, layers: tuple[str, ...], x: np.ndarray, args: Any) -> dict[str, Callable[[], object]]:
  try:
    import torch
    from torch_graph import TorchGraph
  except ImportError:
    return {}
  device = "cuda" if torch.cuda.is_available() else "cpu"

  def engine(channels_last: bool, compiled: bool) -> Callable[[], object]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net: Any = TorchGraph(graph, init_variables(graph)).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    run_net = torch.compile(net) if compiled else net
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(device, memory_format=layout)

    def run() -> object:
      optimizer.zero_grad()
      with torch.autocast(device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
        outputs = run_net(images, layers)
      loss = sum(value.float().square().mean() for value in outputs.values())
      loss.backward()
      optimizer.step()
      return loss.item()

    return run

  engines = {"torch": engine(False, False), "torch channels_last": engine(True, False)}
  return engines | ({"torch compiled": engine(True, True)} if args.compile else {})


def measure(engines: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
  """Seconds of every run; the engines take turns."""
  times: dict[str, list[float]] = {name: [] for name in engines}
  for run in engines.values():
    run()  # compile
    run()
  for _ in range(runs):
    for name, run in engines.items():
      start = time.perf_counter()
      run()
      times[name].append(time.perf_counter() - start)
  return times


if __name__ == "__main__":
  main()
