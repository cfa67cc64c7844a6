"""What `import prn_jax` shows: loading and building models that are called on images and saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from prn_jax import loading
from prn_jax.data_pipelines.images.channels import check_channels
from prn_jax.errors import PrnError
from prn_jax.model import Model as FrozenModel

if TYPE_CHECKING:
  import os
  from typing import IO

  import numpy as np
  from PIL import Image

  from prn_jax.classify.classification import Classification
  from prn_jax.detect.detections import Detections
  from prn_jax.run.classifier import Classifier
  from prn_jax.run.detector import Detector

  OneImage = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray
  Images = Sequence[OneImage] | Iterator[OneImage]


class Model(FrozenModel):
  """A network with its weights (see `prn_jax.model.Model`) that is called on images and saved."""

  # `str` and files are iterable, too, but name one image.
  @overload
  def __call__(self, images: OneImage, *, batch_size: int | None = None, **options: Any) -> Detections: ...
  @overload
  def __call__(self, images: Images, *, batch_size: int | None = None, **options: Any) -> list[Detections]: ...

  def __call__(self, images: Any, *, batch_size: int | None = None, **options: Any) -> Any:
    """Detects or classifies in images.

    Args:
      images: one image: a path, URL, bytes, open file (BytesIO), PIL image or array ((h, w, 3) uint8, or float in [0, 1];
        (h, w) or (h, w, 1) are grey). Or many: a list, a generator, an array (n, h, w, 3), a folder, a pattern ("*.jpg").
      batch_size: images per run of the network. By default 1, 2, 4 or 8, whichever holds what is there; a program is
        compiled for each of these sizes once.
      **options: fields of `run.detector.DetectOptions`: conf, nms, classes, resize, max_detections, class_agnostic,
        nms_kind.

    Returns:
      `Detections` for one image, a list of them for many. A classifier gives `Classification`, for which `classify` has
      the types. A checker takes every `str` and array for one image; put a folder into a list where that matters.

    Raises:
      PrnError: an image cannot be read, or an option is wrong.
    """
    from prn_jax.run import images as predict

    if not predict.is_many(images):
      run = self._predictor(options, batch_size)
      image, path = predict.read(images)
      return run([image], [path])[0]
    return list(self.stream(images, batch_size=batch_size, **options))

  @overload
  def classify(self, images: OneImage, *, batch_size: int | None = None) -> Classification: ...  # type: ignore[overload-overlap]
  @overload
  def classify(self, images: Images, *, batch_size: int | None = None) -> list[Classification]: ...

  def classify(self, images: Any, *, batch_size: int | None = None) -> Any:
    """`model(images)` of a classifier. PrnError: the network detects."""
    if self.graph.detects:
      raise PrnError(f"network '{self.graph.name}' detects; call it: model(images).")
    return self(images, batch_size=batch_size)

  def stream(self, images: Any, *, batch_size: int | None = None, **options: Any) -> Iterator[Any]:
    """As `model(images)` for many images, one result after the other.

    However many there are, few are in memory: the next ones are decoded while the network works on these.
    """
    from prn_jax.run import images as predict

    run = self._predictor(options, batch_size)
    for result in predict.stream(run, predict.each(images)):
      if isinstance(result, predict.Failure):
        raise PrnError(result.reason)
      yield result

  def _predictor(self, options: dict[str, Any], batch_size: int | None) -> Detector | Classifier:
    """What runs with these options. All of them share the compiled network; the last one is kept."""
    from prn_jax.run import images as predict
    from prn_jax.run.inference import Inference

    check_channels(self.graph.channels, self.graph.name)  # before anything is computed
    checked = predict.options(self, options)
    sizes = predict.batch_sizes(batch_size)
    asked, run = self._compiled.get("predictor", (None, None))
    if asked != (checked, sizes):
      if "inference" not in self._compiled:
        self._compiled["inference"] = Inference(self)
      run = predict.predictor(self, checked, sizes, self._compiled["inference"])
      self._compiled["predictor"] = (checked, sizes), run
    return run

  def save(self, dst: str | Path, *, any_size: bool = False) -> None:
    """Writes the model by the type of `dst`: a directory, or .weights, .cfg, .safetensors, .onnx.

    With `any_size` an .onnx file takes images of every size that the network allows, not of its own size only.
    """
    from prn_jax.export import convert

    convert.save(self, dst, any_size=any_size)


def load(
  model: str | Path,
  weights: str | Path | None = None,
  names: str | Path | Sequence[str] | None = None,
  *,
  strict: bool = True,
  partial: bool | None = None,
  **options: Any,
) -> Model:
  """Loads a model.

  Args:
    model: a registered name ("yolov3-tiny-prn"), a .cfg file, a saved model directory, or the directory of a
      training run (its best checkpoint, else the latest) or of one checkpoint in it.
    weights: Darknet weights or a saved model of the same network, where `model` has none.
    names: class names, or a file with one per line. By default those saved with the model; COCO's for 80
      classes and VOC's for 20.
    strict: see `formats.darknet_cfg.parse`.
    partial: see `formats.darknet_weights.load`.
    **options: of the registered model: width, height, num_classes, ...

  Raises:
    ModelNotFoundError: nothing has that name. CfgError, GraphError, WeightsError, CheckpointError: see there.

  Example:
    >>> load("yolov3-tiny-prn").graph.width
    416
  """
  return _callable(loading.load(model, weights, names, strict=strict, partial=partial, **options))


def build(model: str, **options: Any) -> Model:
  """A registered model with random weights; `options` as width, height, num_classes."""
  return _callable(loading.build(model, **options))


def _callable(frozen: FrozenModel) -> Model:
  """The same model, with what `Model` adds to it."""
  return Model(**{field.name: getattr(frozen, field.name) for field in dataclasses.fields(frozen)})
