"""Ways to write the partial residual y[..., :c] += x[..., :c], compared in one run.

    python benchmarks/partial_residual.py            times on this machine, interleaved; ratios to pad-and-add
    python benchmarks/partial_residual.py --tpu      compiles for a TPU v5e that need not be there (needs libtpu):
                                                     fusions, and bytes moved between memory and core

`alone` is the sum by itself; `block` is 3x3 convolution, leaky, sum, leaky, as in yolov3-tiny-prn. Only ratios are
worth quoting: all forms run in turn, so that a busy machine slows all alike. All forms give the same bits
(tests/kinds/test_partial_residual.py).
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prn_jax.kinds.shortcut import add_partial

Form = Callable[[jax.Array, jax.Array], jax.Array]


def common(y: jax.Array, x: jax.Array) -> int:
  return min(y.shape[-1], x.shape[-1])


def at_add(y: jax.Array, x: jax.Array) -> jax.Array:
  """The definition."""
  c = common(y, x)
  return y.at[..., :c].add(x[..., :c])


def at_set(y: jax.Array, x: jax.Array) -> jax.Array:
  c = common(y, x)
  return y.at[..., :c].set(y[..., :c] + x[..., :c])


def dynamic_update_slice(y: jax.Array, x: jax.Array) -> jax.Array:
  c = common(y, x)
  return lax.dynamic_update_slice(y, y[..., :c] + x[..., :c], (0,) * y.ndim)


def concatenate(y: jax.Array, x: jax.Array) -> jax.Array:
  c = common(y, x)
  return jnp.concatenate([y[..., :c] + x[..., :c], y[..., c:]], axis=-1)


def jnp_pad(y: jax.Array, x: jax.Array) -> jax.Array:
  c = common(y, x)
  pad = jnp.pad(x[..., :c], [(0, 0)] * (y.ndim - 1) + [(0, y.shape[-1] - c)], constant_values=-0.0)
  return y + pad


FORMS: dict[str, Form] = {
  "lax.pad": add_partial,
  "jnp.pad": jnp_pad,
  "concatenate": concatenate,
  "at.add": at_add,
  "at.set": at_set,
  "dynamic_update_slice": dynamic_update_slice,
}
REFERENCE = "lax.pad"


def leaky(x: jax.Array) -> jax.Array:
  return jnp.where(x > 0, x, 0.1 * x)


def block(form: Form, inputs: jax.Array, kernel: jax.Array, source: jax.Array) -> jax.Array:
  """The place of the partial residual in a network."""
  y = lax.conv_general_dilated(inputs, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
  return leaky(form(leaky(y), source))


def programs(form: Form, where: str) -> dict[str, Callable[..., Any]]:
  """Forward, and gradient of the sum of squares with respect to all arguments."""
  forward = form if where == "alone" else lambda *args: block(form, *args)
  square = lambda *args: (forward(*args).astype(jnp.float32) ** 2).sum()  # noqa: E731
  return {"forward": forward, "gradient": lambda *args: jax.grad(square, range(len(args)))(*args)}


def shapes(where: str, batch: int, channels: int, source: int) -> list[tuple[int, ...]]:
  """26x26 maps, as where yolov3-tiny-prn adds 128 of 256 channels."""
  if where == "alone":
    return [(batch, 26, 26, channels), (batch, 26, 26, source)]
  return [(batch, 26, 26, 128), (3, 3, 128, channels), (batch, 26, 26, source)]


def measure(where: str, dtype: Any, source: int, direction: str, args: argparse.Namespace) -> dict[str, float]:
  """Form -> median seconds of one call; the forms take turns."""
  random = np.random.default_rng(0)
  arrays = [jnp.asarray(random.normal(size=s), dtype) for s in shapes(where, args.batch, args.channels, source)]
  compiled = {name: jax.jit(programs(form, where)[direction]).lower(*arrays).compile() for name, form in FORMS.items()}
  times: dict[str, list[float]] = collections.defaultdict(list)
  for run in compiled.values():
    jax.block_until_ready(run(*arrays))
  turns = list(compiled.items())
  for i in range(args.runs):
    first = i % len(turns)  # nobody always follows the same neighbour
    for name, run in turns[first:] + turns[:first]:
      start = time.perf_counter()
      jax.block_until_ready(run(*arrays))
      times[name].append(time.perf_counter() - start)
  return {name: float(np.median(values)) for name, values in times.items()}


def compare_here(args: argparse.Namespace) -> None:
  print(
    f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {args.batch}, 26x26, {args.runs} interleaved runs"
  )
  print(f"median time of {REFERENCE} in ms, then each form's time divided by it\n")
  print("| where | direction | dtype | channels | ms | " + " | ".join(n for n in FORMS if n != REFERENCE) + " |")
  print("|" + "---|" * (len(FORMS) + 4))
  for where in ("alone", "block"):
    for direction in ("forward", "gradient"):
      for dtype in (jnp.float32, jnp.bfloat16):
        for source in (args.channels // 2, args.channels * 2):
          medians = measure(where, dtype, source, direction, args)
          own = medians.pop(REFERENCE)
          ratios = " | ".join(f"{seconds / own:.2f}" for seconds in medians.values())
          name = jnp.dtype(dtype).name
          print(f"| {where} | {direction} | {name} | {source} to {args.channels} | {own * 1e3:.3f} | {ratios} |")


def fusions(hlo: str) -> str:
  """The kinds of fusions in the entry computation of compiled HLO, e.g. "1 kOutput"."""
  entry = hlo[hlo.index("\nENTRY") :]
  kinds = collections.Counter(re.findall(r" fusion\(.*kind=(\w+)", entry))
  return " + ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"


def compare_for_tpu(args: argparse.Namespace) -> None:
  """Compiles for one chip of a v5e topology; the real compiler, no hardware."""
  from jax.experimental import topologies
  from jax.sharding import NamedSharding, PartitionSpec

  topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
  mesh = jax.sharding.Mesh(np.array(topology.devices[:1]), ("one",))
  here = NamedSharding(mesh, PartitionSpec())
  print(f"TPU v5e compiler, jax {jax.__version__}, block, batch {args.batch}, 26x26, bfloat16\n")
  print("| direction | channels | form | fusions | MB moved |")
  print("|---|---|---|---|---|")
  for direction in ("forward", "gradient"):
    for source in (args.channels // 2, args.channels * 2):
      for name, form in FORMS.items():
        arguments = [
          jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=here)
          for s in shapes("block", args.batch, args.channels, source)
        ]
        compiled = jax.jit(programs(form, "block")[direction]).lower(*arguments).compile()
        moved = compiled.cost_analysis()["bytes accessed"] / 1e6
        print(f"| {direction} | {source} to {args.channels} | {name} | {fusions(compiled.as_text())} | {moved:.1f} |")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--tpu", action="store_true", help="compile for TPU v5e instead of measuring")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--channels", type=int, default=256, help="of the layer that is added to")
  parser.add_argument("--runs", type=int, default=30)
  args = parser.parse_args()
  (compare_for_tpu if args.tpu else compare_here)(args)


if __name__ == "__main__":
  # for --tpu on a machine without one: no metadata server, one process, the host as the default backend
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_WORKER_ID", "0")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
  main()
