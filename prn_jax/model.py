"""A network with its weights, frozen. Everything that runs, converts or trains networks reaches graphs through `Model`.

`import prn_jax` shows a `Model` that is also called on images and saved (`prn_jax.api`); both are taken everywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax import compilation_cache, labels, moved
from prn_jax.data_pipelines.images import Resize
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import Training
from prn_jax.formats.darknet_weights import Header
from prn_jax.formats.safetensors import digest
from prn_jax.graph.graph import Graph

if TYPE_CHECKING:
  import jax

Variables = dict[str, Any]
_LOG = logging.getLogger(__name__)
MOST_INPUT = 64.0  # beyond it, an image is surely in 0..255


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
  """A graph, its variables, and what is needed to read its results; `dataclasses.replace` gives a changed one.

  Attributes:
    graph: the network.
    weights: {"params": ..., "batch_stats": ...}: nested dicts of arrays, NHWC/HWIO; None if there are none, see `variables`.
    names: class names; may be empty.
    names_are_assumed: nobody gave them; they are COCO's or VOC's because of the number of classes.
    resize: how images are brought to the network's size.
    training: Darknet's training settings, if the cfg had them.
    header: header of the weights file that the variables come from.
    missing: layers that the weights file did not reach; they are random.
  """

  graph: Graph
  weights: Variables | None = None
  _: dataclasses.KW_ONLY
  names: tuple[str, ...] = ()
  names_are_assumed: bool = False
  resize: Resize | str = Resize.STRETCH
  training: Training | None = None
  header: Header | None = None
  missing: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    object.__setattr__(self, "names", tuple(self.names))
    object.__setattr__(self, "resize", Resize(self.resize))
    object.__setattr__(self, "missing", tuple(self.missing))

  @property
  def has_weights(self) -> bool:
    """False while the variables are (or would be) random."""
    return self.weights is not None

  @functools.cached_property
  def variables(self) -> Variables:
    """The weights, as nested dicts of arrays, NHWC/HWIO; random if there are none."""
    if self.weights is not None:
      return self.weights
    from prn_jax.variables import init_variables

    _LOG.warning("model '%s' has no weights: its variables are random.", self.graph.name)
    return init_variables(self.graph)

  @functools.cached_property
  def _compiled(self) -> dict[Any, Any]:
    """Programs of this model, made when they are first needed."""
    return {}

  def forward(self, x_nhwc: Any, layers: str | Sequence[str] = "heads") -> dict[str, jax.Array]:
    """Runs the network as Darknet computes it: float32, no folding, highest convolution precision.

    Args:
      x_nhwc: (n, height, width, channels), RGB (or grey) in [0, 1], or uint8; another size than the graph's is allowed if the
        network has no fully connected layer.
      layers: "heads" (detections or class scores), "all", or layer names.

    Returns:
      Layer name -> (n, h, w, c) float32, activated as Darknet stores it, in cfg order.

    Raises:
      PrnError: the shape of `x_nhwc` does not fit. KeyError: no such layer.
    """
    import jax

    from prn_jax.network import Network, wanted_layers

    compilation_cache.use()
    x = _unit_range(np.asarray(x_nhwc), self.graph)
    graph = self._graph_for(x.shape)
    wanted = tuple(wanted_layers(graph, layers))
    key = (x.shape, wanted)
    if key not in self._compiled:
      network = Network(graph, precision=jax.lax.Precision.HIGHEST)
      self._compiled[key] = jax.jit(functools.partial(network.apply, layers=wanted))
    outputs = self._compiled[key](self.variables, x)
    return {name: outputs[name] for name in wanted}  # jit returns them sorted by name

  def _graph_for(self, shape: tuple[int, ...]) -> Graph:
    g = self.graph
    if len(shape) != 4 or shape[3] != g.channels:
      raise PrnError(
        f"network '{g.name}' takes images of shape (n, {g.height}, {g.width}, {g.channels}), {colours(g.channels)} in "
        f"[0, 1]; got shape {shape}."
      )
    if shape[1:3] == (g.height, g.width):
      return g
    resized = g.resized(shape[2], shape[1])
    if any(resized.arrays(a) != g.arrays(b) for a, b in zip(resized, g, strict=True)):
      raise PrnError(
        f"network '{g.name}' has fully connected layers, which fix its input to {g.width}x{g.height}; "
        f"got {shape[2]}x{shape[1]}."
      )
    return resized

  def digest(self) -> str:
    """sha256 over the names, shapes and bytes of all variables."""
    from prn_jax.variables import flatten_variables

    return digest({key: np.asarray(value) for key, value in flatten_variables(self.variables).items()})

  def release(self) -> None:
    """Forgets compiled programs and the memory that they hold."""
    self._compiled.clear()

  def cfg(self) -> str:
    """The network and its training settings as Darknet cfg text."""
    return darknet_cfg.dump(self.graph, self.training)

  def __repr__(self) -> str:
    g = self.graph
    state = "" if self.has_weights else ", random weights"
    return (
      f"Model('{g.name}', {g.width}x{g.height}x{g.channels}, {len(g)} layers, {labels.num_classes(g)} classes{state})"
    )


def colours(channels: int) -> str:
  """What the channels of a network's input are, in messages."""
  return {1: "grey", 3: "RGB"}.get(channels, "values")


def _unit_range(x: np.ndarray, graph: Graph) -> np.ndarray:
  """Images as float32 in [0, 1]; bytes are divided by 255, other values far outside are refused. Values a little
  outside, as augmentation and tests make them, pass."""
  if x.dtype == np.uint8:
    return x.astype(np.float32) / 255
  if not x.size:
    raise PrnError(f"network '{graph.name}' was given an empty batch, shape {x.shape}.")
  x = x.astype(np.float32, copy=False)
  if x.max() > MOST_INPUT:
    raise PrnError(
      f"network '{graph.name}' was given values up to {x.max():.4g}; expected {colours(graph.channels)} in [0, 1], or uint8."
    )
  return x


if not TYPE_CHECKING:
  __getattr__ = moved.old_names(
    __name__,
    {
      "build": "prn_jax.api.build",
      "check_variables": "prn_jax.loading.check_variables",
      "load": "prn_jax.api.load",
      "with_weights": "prn_jax.loading.with_weights",
    },
  )
