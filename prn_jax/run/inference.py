"""A model compiled for use: batch norm folded, stem rewritten on CPU, one program per input shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from prn_jax import compilation_cache
from prn_jax.graph.graph import Graph
from prn_jax.model import Model
from prn_jax.run import traced
from prn_jax.transforms.fold_batchnorm import fold_batchnorm
from prn_jax.transforms.fuse_stem import fuse_stem
from prn_jax.variables import Variables

# XLA's CPU backend hands convolutions to YNNPACK; for float models its own are 1.1 to 1.4 times faster
# (docs/speed.md). An older jaxlib without the option ignores us by raising.
CPU_OPTIONS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}

PostProcess = Callable[[dict[str, jax.Array]], Any]


def optimized(graph: Graph, variables: Variables) -> tuple[Graph, Variables]:
  """Graph and variables, rewritten for inference on the default backend; heads keep their names."""
  graph, variables = fold_batchnorm(graph, variables)
  return fuse_stem(graph, variables) if jax.default_backend() == "cpu" else (graph, variables)


class Inference:
  """Runs a model on batches of one image size. Agrees with `Model.forward` to rounding (1e-5 relative).

  Args:
    model: the model.
    post: applied to the heads inside the same program, for example `detect.nms.postprocess`.
    dtype: compute dtype; None is float32. The heads are float32 in any case.
  """

  def __init__(self, model: Model, post: PostProcess | None = None, dtype: Any = None) -> None:
    compilation_cache.use()
    graph, variables = optimized(model.graph, model.variables)
    self.graph = graph
    self._variables = jax.device_put(variables)

    def run(variables: Variables, images: jax.Array) -> Any:
      from prn_jax.network import Network  # Flax takes a third of a second, and a program that was kept needs none

      x = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
      heads = Network(graph, dtype=dtype).apply(variables, x)
      assert isinstance(heads, dict)
      return post(heads) if post else heads

    self._run = jax.jit(run)
    self._what = None if post else ("network", str(dtype))
    self._compiled: dict[Any, Any] = {}
    self._with_heads: dict[Any, Any] = {}

  @property
  def num_programs(self) -> int:
    """Programs compiled so far: one for every shape of a batch."""
    return len(self._compiled)

  def __call__(self, images: Any) -> Any:
    """Runs one batch.

    Args:
      images: (n, h, w, c) float32 in [0, 1], or uint8; h and w may differ from the graph's size.

    Returns:
      Head name -> (n, h, w, c), or what `post` makes of it; still on the device.
    """
    key = (images.shape, np.dtype(images.dtype))
    if key not in self._compiled:
      args = self._variables, images
      run = traced.kept(self._run, args, self.graph, self._what) if self._what else self._run
      self._compiled[key] = _with_cpu_options(run, *args)
    return self._compiled[key](self._variables, images)

  def with_heads(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """The program that works on what this network puts out, made once for a key: who runs it next need not compile it.

    Args:
      key: all that makes it another program.
      make: called where there is none for the key yet.
    """
    if key not in self._with_heads:
      self._with_heads[key] = make()
    return self._with_heads[key]


def padded_size(count: int, sizes: Sequence[int]) -> int:
  """The smallest of the (rising) batch sizes that holds so many images."""
  return next(size for size in sizes if size >= count)


def _with_cpu_options(function: Any, *args: Any) -> Any:
  """Compiles a jitted function for these arguments, with `CPU_OPTIONS` where they are known."""
  lowered = function.lower(*args)
  if jax.default_backend() == "cpu":
    try:
      return lowered.compile(compiler_options=CPU_OPTIONS)
    except Exception:  # jaxlib's error type for an unknown option has changed between versions
      pass
  return lowered.compile()
