"""Photos -> boxes: resizing, the network, box decoding, suppression, and back to the photo's pixels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.data_pipelines import images
from prn_jax.data_pipelines.class_names import match_names
from prn_jax.data_pipelines.images.channels import check_channels, to_channels
from prn_jax.detect.detections import Detections
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.graph.graph import Graph
from prn_jax.labels import num_classes
from prn_jax.ranges import at_least, between, check

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.inference import Inference

MOST_CANDIDATES = 131072  # more come only from random weights, and would take seconds per image


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectOptions:
  """What decides which boxes come out.

  Attributes:
    conf: objectness and score must exceed it (0.25 to look at, 0.001 for COCO's figures).
    nms: overlap above which the lower score is suppressed.
    resize: "stretch" or "letterbox"; None takes the model's.
    max_detections: most boxes per image, best first.
    class_agnostic: boxes of different classes suppress each other.
    nms_kind: "default", "greedynms", "diounms", "cornersnms"; None takes the cfg's.
    classes: numbers or names of the classes that are looked for; None is all.
  """

  conf: float = field(default=0.25, metadata=between(0, 1, "boxes that are less sure are left out"))
  nms: float = field(default=0.45, metadata=between(0, 1, "of two boxes that overlap more, the less sure is left out"))
  resize: str | None = None
  max_detections: int = field(default=300, metadata=at_least(1, "boxes per image, the surest first"))
  class_agnostic: bool = False
  nms_kind: str | None = None
  classes: Sequence[int | str] | int | str | None = None

  def __post_init__(self) -> None:
    if self.classes is not None:
      one = isinstance(self.classes, int | np.integer | str)
      object.__setattr__(self, "classes", (self.classes,) if one else tuple(self.classes))  # type: ignore[arg-type]
    check(self, PrnError)
    if self.resize not in (None, *images.DETECTOR_RESIZES):
      raise PrnError(f"resize={self.resize}; expected one of {', '.join(images.DETECTOR_RESIZES)}.")


@dataclasses.dataclass
class Timing:
  """Seconds spent per stage, summed over all images so far."""

  resize: float = 0.0
  network: float = 0.0
  boxes: float = 0.0


class Detector:
  """Runs a detection network on images of any size. Every batch is padded to a size for which a program is compiled
  once; thresholds are arguments of that program.

  Args:
    model: a network with detection heads.
    options: see `DetectOptions`.
    batch_sizes: images per run, or several such sizes, rising: a batch takes the smallest that holds it.
    network: the model's `Inference`, where there is one already.

  Attributes:
    batch_size: the largest.
    timing: seconds that each stage took. The stages are timed apart, each up to its result on the device.
  """

  def __init__(
    self,
    model: Model,
    options: DetectOptions | None = None,
    batch_sizes: int | Sequence[int] = 1,
    network: Inference | None = None,
  ) -> None:
    from prn_jax.detect import nms
    from prn_jax.detect.decode import detection_heads
    from prn_jax.run.inference import Inference

    self.model = model
    self.options = options or DetectOptions()
    self.batch_sizes = (batch_sizes,) if isinstance(batch_sizes, int) else tuple(batch_sizes)
    self.batch_size = self.batch_sizes[-1]
    self.timing = Timing()
    detection_heads(model.graph)  # a classifier is refused here, in words
    check_channels(model.graph.channels, model.graph.name)
    self._network = network or Inference(model)
    self._resize = images.Resize(self.options.resize or model.resize)
    self._class_mask = class_mask(model.graph, model.names, self.options.classes)
    self._max_candidates = nms.MAX_CANDIDATES

  @property
  def seconds(self) -> dict[str, float]:
    """`timing` by stage."""
    return dataclasses.asdict(self.timing)

  def prepare(self, image_u8: np.ndarray) -> tuple[np.ndarray, images.Placement]:
    """(h, w, 3) uint8 -> the network's input (h, w, 3 or 1) float32, and where the image lies in it."""
    graph = self.model.graph
    return self._resize(to_channels(image_u8, graph.channels), graph.width, graph.height)

  def run(self, prepared: Sequence[tuple[np.ndarray, images.Placement]]) -> Any:
    """One batch of at most `batch_size` prepared images -> `nms.Suppressed`, relative to the network input; rows beyond
    the images belong to padding."""
    import jax

    from prn_jax.run.inference import padded_size

    graph, options = self.model.graph, self.options
    size = padded_size(len(prepared), self.batch_sizes)
    batch = np.zeros((size, graph.height, graph.width, graph.channels), np.float32)
    scale = np.ones((size, 2), np.float32)
    for i, (image, placement) in enumerate(prepared):
      batch[i] = image
      scale[i] = 1 / placement.scale_x, 1 / placement.scale_y
    start = time.perf_counter()
    heads = jax.block_until_ready(self._network(batch))
    after_network = time.perf_counter()
    # As integers the thresholds would be another program.
    found = self._suppress(heads, scale, float(options.conf), float(options.nms), self._class_mask)
    found = jax.device_get(found)
    self.timing.network += after_network - start
    self.timing.boxes += time.perf_counter() - after_network
    if found.overflow[: len(prepared)].any():  # rare: a lower threshold on a crowded scene; nothing may be lost
      if self._max_candidates >= MOST_CANDIDATES:
        raise too_many(options.conf)
      self._max_candidates *= 2
      return self.run(prepared)
    return found

  def _suppress(self, heads: Any, scale: np.ndarray, *args: Any) -> Any:
    """`nms.postprocess`, by a program that all detectors of this network share and that may be read from disk."""
    import jax

    from prn_jax.detect import nms
    from prn_jax.run import traced

    graph, options = self.model.graph, self.options
    fixed: dict[str, Any] = {
      "max_detections": options.max_detections,
      "class_agnostic": options.class_agnostic,
      "nms_kind": options.nms_kind,
      "max_candidates": self._max_candidates,
    }

    def run(heads: Any, scale: Any, conf: Any, nms_threshold: Any, class_mask: Any) -> dict[str, Any]:
      dynamic = {"conf": conf, "nms_threshold": nms_threshold, "box_scale": scale, "class_mask": class_mask}
      found = nms.postprocess(heads, graph, **dynamic, **fixed)
      return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}

    program = self._network.with_heads(
      (len(scale), *fixed.values()),
      lambda: traced.kept(jax.jit(run), (heads, scale, *args), graph, ("boxes", fixed)),
    )
    return nms.Suppressed(**program(heads, scale, *args))

  def __call__(self, images_u8: Sequence[np.ndarray], paths: Sequence[str | None] | None = None) -> list[Detections]:
    """Detects in decoded images.

    Args:
      images_u8: (h, w, 3) uint8 RGB each; sizes may differ.
      paths: their files, for the results.

    Returns:
      One `Detections` per image, boxes in its own pixels, best first.

    Raises:
      PrnError: the network put out NaN or infinity (weights of a training that exploded, or of another cfg).
    """
    results: list[Detections] = []
    paths = paths or [None] * len(images_u8)
    for start in range(0, len(images_u8), self.batch_size):
      part = slice(start, start + self.batch_size)
      began = time.perf_counter()
      prepared = [self.prepare(image) for image in images_u8[part]]
      self.timing.resize += time.perf_counter() - began
      results += self.results(prepared, images_u8[part], paths[part])
    return results

  def results(
    self,
    prepared: Sequence[tuple[np.ndarray, images.Placement]],
    images_u8: Sequence[np.ndarray | None],
    paths: Sequence[str | None],
  ) -> list[Detections]:
    """As a call, for at most `batch_size` images that `prepare` has resized already.

    Args:
      prepared: results of `prepare`.
      images_u8: what results hold for drawing; may be None.
      paths: the argument of a call.
    """
    found = self.run(prepared)
    rows = enumerate(zip(prepared, images_u8, paths, strict=True))
    return [self.to_detections(found, i, placement, image, path) for i, ((_, placement), image, path) in rows]

  def to_detections(
    self, found: Any, index: int, placement: images.Placement, image: np.ndarray | None, path: str | None
  ) -> Detections:
    """Row `index` of a batch's result, in the pixels of the original image."""
    if found.num_nonfinite[index]:
      from prn_jax.variables import why_not_finite

      raise PrnError(
        f"network '{self.model.graph.name}' gave NaN or infinity in {found.num_nonfinite[index]} boxes"
        f"{f' for {path}' if path else ''}: {why_not_finite(self.model.weights or {})}"
      )
    return detections_of(found, index, placement, self.model.names, image, path)


def too_many(conf: float) -> PrnError:
  """What to say of more candidates than there may be."""
  return PrnError(
    f"more than {MOST_CANDIDATES:,} boxes and classes exceed conf={conf:g} in one image. Raise conf; if it is not tiny, the "
    "weights are not those of this network."
  )


def class_mask(graph: Graph, names: Sequence[str], classes: Any) -> np.ndarray:
  """(num_classes,) bool: which classes are looked for.

  Args:
    graph: the network.
    names: the names of its classes; matched as in `class_names.match_names`.
    classes: the field of `DetectOptions`.

  Raises:
    PrnError: the network has no such class.
  """
  count = num_classes(graph)
  if classes is None:
    return np.ones(count, bool)
  mask = np.zeros(count, bool)
  for item in classes:
    index = match_names([item], names)[0] if isinstance(item, str) else int(item)
    if not 0 <= index < count:
      known = f"'{names[0]}' to '{names[-1]}'" if names else "which has no names (names=FILE gives it some)"
      hint = did_you_mean(item, names) if isinstance(item, str) else ""
      raise PrnError(
        f"classes: {item!r} is no class of network '{graph.name}'{hint}; expected 0 to {count - 1} or a name, {known}."
      )
    mask[index] = True
  return mask


def detections_of(
  found: Any,
  index: int,
  placement: images.Placement,
  names: Sequence[str],
  image: np.ndarray | None = None,
  path: str | None = None,
) -> Detections:
  """Row `index` of `nms.Suppressed` on the host as detections in the pixels of the original image.

  Args:
    found: the boxes of a batch; the row's values are finite.
    index: the image.
    placement: the place of the image in the network input.
    names, image, path: fields of the result.
  """
  count = int(found.count[index])
  return Detections(
    boxes_xyxy_px=placement.to_image_xyxy_px(found.boxes_cxcywh_rel[index, :count]),
    scores=found.scores[index, :count].copy(),  # a view would keep all slots of the batch
    classes=found.classes[index, :count].copy(),
    names=tuple(names),
    image_width=placement.image_width,
    image_height=placement.image_height,
    uncertainty=None if found.uncertainty is None else found.uncertainty[index, :count].copy(),
    path=path,
    image=image,
  )
