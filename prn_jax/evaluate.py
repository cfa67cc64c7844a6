"""A model on annotated data: what `prn eval` runs. Figures come from `detect.metrics` and `classify.metrics`."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prn_jax.classify.metrics import ClassificationMetrics, classification_metrics, top_classes
from prn_jax.classify.predict import Classification
from prn_jax.data_pipelines.records import (
  IMAGE_SUFFIXES,
  DataError,
  Dataset,
  OnBadData,
  Record,
  check_stated_size,
  image_name,
  with_names,
)
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.detections import Detections
from prn_jax.detect.metrics import EvalData, collect
from prn_jax.detect.predict import DetectOptions
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.labels import num_classes
from prn_jax.predict import Failure, Result, predictor, stream

if TYPE_CHECKING:
  from prn_jax.model import Model

_LOG = logging.getLogger(__name__)
MOST_CHARACTERS = 120  # of a picture's name: the last ones of a long path
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def open_data(spec: str, model: Model, on_bad_data: OnBadData | str = "stop") -> Dataset:
  """Opens annotated images with the classes numbered as the model numbers them.

  If the model knows the data's class names, classes are matched by name. Otherwise they are matched by position, which
  needs as many of them (COCO's "motorcycle" is Darknet's "motorbike").

  Raises:
    DataError: the data is bad, or its classes cannot be those of the model.
  """
  dataset = open_spec(spec, on_bad_data)
  if model.names and set(dataset.names) <= set(model.names):
    return with_names(dataset, model.names)
  count = num_classes(model.graph)
  if len(dataset.names) != count:
    unknown = [name for name in dataset.names if name not in model.names]
    shown = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    hint = did_you_mean(unknown[0], model.names)
    raise DataError(
      f"data '{spec}' has {len(dataset.names)} classes, but network '{model.graph.name}' has {count}, so that they are "
      f"matched by name; the network does not know {shown}{hint}. Give names under which it does (--names), or "
      "use data of its classes."
    )
  if model.names:
    pairs = [(a, b) for a, b in zip(model.names, dataset.names, strict=True) if a != b]
    _LOG.warning(
      "classes are matched by position, since %d of %d names differ, as '%s' and '%s'.", len(pairs), count, *pairs[0]
    )
  return dataset


@dataclasses.dataclass(frozen=True)
class Run:
  """Results of a model on a data set.

  Attributes:
    results: image id -> result, without images.
    failures: images that could not be used (policy skip).
    timing: seconds per stage.
  """

  results: dict[Any, Result]
  failures: tuple[Failure, ...]
  timing: dict[str, float]


def run_model(
  model: Model,
  dataset: Dataset,
  options: DetectOptions | None = None,
  *,
  batch_size: int = 1,
  on_bad_data: OnBadData | str = "stop",
  progress: Progress | None = None,
) -> Run:
  """Runs a detector or classifier over every image of a data set, each exactly once.

  Raises:
    DataError: an image cannot be read, or has another size than its annotations say (policy stop).
  """
  run = predictor(model, options, batch_size)
  results: dict[Any, Result] = {}
  failures, records = [], deque[Record]()  # of the images that are under way

  def images() -> Iterator[Any]:
    for i in range(len(dataset)):
      record = dataset[i]
      records.append(record)
      yield record.image

  found = stream(run, images(), keep_images=False)
  for result in progress(found, len(dataset)) if progress else found:
    record = records.popleft()
    result = _checked(record, result)
    if isinstance(result, Failure):
      if OnBadData(on_bad_data) is OnBadData.STOP:
        raise DataError(f"{result.reason} With --on-bad-data skip the image is left out, counted and listed.")
      failures.append(result)
    else:
      results[record.image_id] = result
  return Run(results, tuple(failures), dict(run.seconds))


def _checked(record: Record, result: Result | Failure) -> Result | Failure:
  """The result; a failure where truths and detections would be in pixels of different images."""
  name = image_name(record)
  if isinstance(result, Failure):
    is_file = isinstance(record.image, Path)
    return result if is_file else Failure(name, f"image '{name}' in memory: {result.reason}")
  if isinstance(result, Detections):
    try:
      check_stated_size(record, name, (result.image_width, result.image_height))
    except DataError as error:
      return Failure(name, str(error))
  return result


def detection_data(dataset: Dataset, run: Run, *, clip: bool = True) -> EvalData:
  """Truths and detections, ready for `detect.metrics.evaluate`; images that failed are left out.

  Args:
    dataset, run: see `run_model`.
    clip: cut boxes at the image's border, as Darknet's `detector valid` does before COCO's and VOC's scoring;
      its `detector map` does not.
  """
  found = {
    key: result.clipped() if clip else result for key, result in run.results.items() if isinstance(result, Detections)
  }
  truths = (dataset[i] for i in range(len(dataset)))
  return collect(dataset.names, truths, found, missing="leave_out" if run.failures else "error")


def classification_result(dataset: Dataset, run: Run) -> ClassificationMetrics:
  """Top-1, top-5 and the confusion matrix of a classifier's run."""
  labels, rows = [], []
  for i in range(len(dataset)):
    record = dataset[i]
    result = run.results.get(record.image_id)
    if isinstance(result, Classification):
      if record.label is None:
        raise PrnError(f"image '{record.image_id}' has no label: this data is for detection, the network classifies.")
      labels.append(record.label)
      rows.append(top_classes(result.probabilities[None])[0])
  if not rows:
    raise DataError("no image could be classified; there is nothing to evaluate.")
  return classification_metrics(np.stack(rows), labels, dataset.names)


def image_reader(dataset: Dataset) -> Callable[[Any], np.ndarray]:
  """Gives the image of an id, for pictures of mistakes."""
  from prn_jax.data_pipelines.images import read_image

  index = {dataset[i].image_id: i for i in range(len(dataset))}
  return lambda image_id: read_image(dataset[index[image_id]].image)


def draw_examples(dataset: Dataset, run: Run, folder: Path, count: int, conf: float) -> list[Path]:
  """Draws the detections above `conf` on `count` images spread over the data; returns the files."""
  from prn_jax.formats.files import written_beside

  read = image_reader(dataset)
  ids = [key for key, result in run.results.items() if isinstance(result, Detections)]
  chosen: Sequence[Any] = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int))]
  files = []
  for image_id, name in zip(chosen, _file_names(chosen), strict=True):
    result = run.results[image_id]
    assert isinstance(result, Detections)
    file = folder / f"{name}.jpg"
    with written_beside(file) as out:
      dataclasses.replace(result[result.scores > conf], image=read(image_id)).draw().save(out, "JPEG", quality=92)
    files.append(file)
  return files


def _file_names(ids: Sequence[Any]) -> list[str]:
  """The whole id of every image as a file name without suffix, folders joined by "_"; numbered where two are equal."""
  names: list[str] = []
  taken = Counter[str]()
  for image_id in ids:
    path = Path(str(image_id))
    text = str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)
    name = re.sub(r'[/\\:*?"<>|]+', "_", text).strip("_")[-MOST_CHARACTERS:]
    taken[name.lower()] += 1  # some file systems do not tell A from a
    number = taken[name.lower()]
    names.append(name if number == 1 else f"{name} ({number})")
  return names
