"""The list of models. A file in this folder that calls `register` is found by itself; nothing imports JAX."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import prn_jax.kinds  # noqa: F401  (the builder knows only registered kinds)
from prn_jax.errors import GraphError, ModelNotFoundError, PrnError, did_you_mean
from prn_jax.graph import Graph
from prn_jax.graph.builder import Builder

Task = Literal["detect", "classify"]
Status = Literal["exact", "reconstructed", "own"]
ALEXEYAB = "AlexeyAB/darknet 59596d78 cfg/"  # prefix of the references to public cfgs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
  """Figures that a source gives for a model at one input size; None where it gives none.

  Attributes:
    size: width and height of the input in pixels.
    source: the place where the figures stand, spelled out.
    bflops: billions of operations, a multiply-add counting two (Darknet's convention).
    params_m: parameters in millions.
    ap, ap50: COCO average precision in percent, over IoU 0.50 to 0.95 and at IoU 0.50.
    top1, top5: ImageNet accuracy in percent.
  """

  size: int
  source: str
  bflops: float | None = None
  params_m: float | None = None
  ap: float | None = None
  ap50: float | None = None
  top1: float | None = None
  top5: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
  """One registered model.

  Attributes:
    name: canonical name, words separated by "-".
    builder: writes the layers; its keyword arguments are the options of `build_graph`.
    width, height: default input size in pixels, that of the reference.
    task: what the heads mean.
    status: "exact": the graph equals the reference; "reconstructed": the authors published no cfg, the graph
      is derived from their text and figures; "own": designed here.
    reference: the public cfg with its repository and commit, or the text it is derived from.
    published: figures to compare with.
    stride: an input whose sides are multiples of it always fits.
    weights: file in `prn_jax/assets` with trained weights, for models small enough to carry them.
    names: class names that belong to these weights.
    note: how the graph differs from the network of its published figures; one sentence.
  """

  name: str
  builder: Callable[..., None]
  width: int
  height: int
  task: Task
  status: Status
  reference: str
  published: tuple[Published, ...] = ()
  stride: int = 32
  weights: str = ""
  names: tuple[str, ...] = ()
  note: str = ""

  @property
  def options(self) -> Mapping[str, Any]:
    """Option name -> default value."""
    parameters = list(inspect.signature(self.builder).parameters.values())[1:]  # without the Builder
    return {p.name: p.default for p in parameters}


_SPECS: dict[str, ModelSpec] = {}


def register(
  name: str,
  *,
  size: int | tuple[int, int],
  task: Task,
  reference: str,
  status: Status = "exact",
  published: tuple[Published, ...] = (),
  stride: int = 32,
  weights: str = "",
  names: tuple[str, ...] = (),
  note: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
  """Decorator that registers a builder function `(g: Builder, option=default, ...) -> None`.

  Args:
    name: canonical name, words separated by "-".
    size: default input in pixels: one number for a square, or (width, height).
    task, reference, status, published, stride, weights, names, note: see `ModelSpec`.
  """
  width, height = (size, size) if isinstance(size, int) else size

  def wrap(builder: Callable[..., None]) -> Callable[..., None]:
    assert name not in _SPECS, f"two models are called {name}"
    _SPECS[name] = ModelSpec(
      name=name,
      builder=builder,
      width=width,
      height=height,
      task=task,
      status=status,
      reference=reference,
      published=published,
      stride=stride,
      weights=weights,
      names=names,
      note=note,
    )
    return builder

  return wrap


def list_models() -> list[str]:
  """Names of all registered models, sorted."""
  return sorted(_specs())


def get_spec(name: str) -> ModelSpec:
  """The registration of `name`, where "_" stands for "-" as well.

  Raises:
    ModelNotFoundError: nothing has this name; names the nearest one.
  """
  specs = _specs()
  canonical = name.replace("_", "-")
  if canonical not in specs:
    hint = did_you_mean(canonical, specs)
    raise ModelNotFoundError(f"no model is called '{name}'{hint}. 'prn models' lists all {len(specs)}.")
  return specs[canonical]


def build_graph(name: str, *, width: int | None = None, height: int | None = None, **options: Any) -> Graph:
  """The layer graph of a registered model.

  Args:
    name: registered name.
    width, height: input size in pixels; by default the reference's. One alone keeps the other's default.
    options: arguments of the model's builder, e.g. `num_classes`; by default the reference's.

  Returns:
    A graph that is called `name` and has a chosen name for every layer.

  Raises:
    ModelNotFoundError: unknown model. PrnError: unknown option, or a size or class count below 1.
    GraphError: the model cannot have this input size.

  Example: build_graph("yolov3-tiny-prn", width=320, height=320, num_classes=3)
  """
  spec = get_spec(name)
  _check_options(spec, options)
  width = spec.width if width is None else width
  height = spec.height if height is None else height
  if min(width, height) < 1:
    raise PrnError(f"model '{spec.name}' at {width}x{height}: width and height must be at least 1.")
  g = Builder(width, height, name=spec.name)
  try:
    spec.builder(g, **options)
  except GraphError as error:
    if width % spec.stride or height % spec.stride:
      raise GraphError(
        f"model '{spec.name}' at {width}x{height}: {error} Sides that are multiples of {spec.stride} always fit."
      ) from None
    raise
  return g.graph()


def _check_options(spec: ModelSpec, options: Mapping[str, Any]) -> None:
  for option in options:
    if option not in spec.options:
      raise PrnError(
        f"model '{spec.name}' has no option '{option}'{did_you_mean(option, spec.options)}. "
        f"It takes width, height, {', '.join(spec.options)}."
      )
  classes = options.get("num_classes", 1)
  if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
    raise PrnError(f"model '{spec.name}': num_classes={classes!r}; expected a whole number of at least 1.")


@functools.cache
def _specs() -> dict[str, ModelSpec]:
  """All models; the first call imports every file of this folder."""
  for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    importlib.import_module(f"{__package__}.{module.name}")
  return _SPECS
