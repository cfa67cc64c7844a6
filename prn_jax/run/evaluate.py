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

from prn_jax.classify.classification import Classification
from prn_jax.classify.metrics import ClassificationMetrics, classification_metrics, top_classes
from prn_jax.data_pipelines.class_names import are_numbers, match_names
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  Record,
  check_stated_size,
  classes_text,
  image_name,
  unknown_classes,
  with_names,
)
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.detections import Detections
from prn_jax.detect.metrics import EvalData, collect
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.labels import num_classes
from prn_jax.run.detector import DetectOptions
from prn_jax.run.images import Failure, Result, predictor, stream

if TYPE_CHECKING:
  from prn_jax.model import Model

_LOG = logging.getLogger(__name__)
MOST_CHARACTERS = 120  # of a picture's name: the last ones of a long path
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def open_data(spec: str, model: Model, on_bad_data: OnBadData | str = "stop") -> Dataset:
  """Opens annotated images with the classes numbered as the model numbers them.

  Classes are matched by name, see `class_names.match_names` (COCO's "motorcycle" is Darknet's "motorbike"). A class of
  the data that no image shows may be unknown to the network; classes of the network that the data lacks have no
  objects, and count as the protocol says. Where one side has no names (or such as "0", "1", "2"), position decides,
  which needs as many classes on both sides, and is said.

  Raises:
    DataError: the data is bad, or its classes cannot be those of the model.
  """
  dataset = open_spec(spec, on_bad_data)
  unnamed = _without_names(dataset, model)
  if not unnamed:
    _check_known(spec, dataset, model)
    return with_names(dataset, model.names)
  count = num_classes(model.graph)
  if len(dataset.names) != count:
    raise DataError(
      f"data '{spec}' has {len(dataset.names)} classes, but network '{model.graph.name}' has {count}, and {unnamed} has "
      "no class names to match them by. Give the names of the network's classes (--names), or use data of its classes."
    )
  _LOG.warning(
    "classes are matched by position, since %s has no class names: class 0 of the network%s is '%s' of the data.",
    unnamed,
    f" ('{model.names[0]}')" if model.names and not model.names_are_assumed else "",
    dataset.names[0],
  )
  return dataset


def _without_names(dataset: Dataset, model: Model) -> str:
  """The side that has no names, in words; "" if both have some."""
  if all(place >= 0 for place in match_names(dataset.names, model.names)):
    return ""
  if not model.names or are_numbers(model.names):
    return "the network"
  if model.names_are_assumed and all(place < 0 for place in match_names(dataset.names, model.names)):
    return "the network"  # 80 and 20 classes are COCO's and VOC's only as long as nothing speaks against it
  return "the data" if are_numbers(dataset.names) else ""


def _check_known(spec: str, dataset: Dataset, model: Model) -> None:
  """Raises DataError if there are objects of classes that the network does not know."""
  unknown = unknown_classes(dataset, model.names)
  if not unknown:
    return
  whose = " (assumed, since none were given: those of its usual data)" if model.names_are_assumed else ""
  shown = ", ".join(f"'{name}'" for name in model.names[:8]) + (", ..." if len(model.names) > 8 else "")
  raise DataError(
    f"data '{spec}' has objects of {classes_text(unknown)}, but network '{model.graph.name}' has "
    f"{len(model.names)} other names{whose}: {shown}{did_you_mean(unknown[0], model.names)}. Classes are matched by name. "
    "Give names under which the data knows the network's classes, in the network's order (--names), or use data of its classes."
  )


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
    is_file = not isinstance(record.image, bytes)
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
  from prn_jax.files.disk import written_beside

  read = image_reader(dataset)
  ids = [key for key, result in run.results.items() if isinstance(result, Detections)]
  chosen: Sequence[Any] = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int))]
  files = []
  for image_id, name in zip(chosen, _file_names(chosen), strict=True):
    result = run.results[image_id]
    assert isinstance(result, Detections)
    file = folder / f"{name}.jpg"
    with written_beside(file) as out:
      shown = dataclasses.replace(result[result.scores > conf], names=dataset.names, image=read(image_id))
      shown.draw().save(out, "JPEG", quality=92)
    files.append(file)
  return files


def _file_names(ids: Sequence[Any]) -> list[str]:
  """The whole id of every image as a file name without suffix, folders joined by "_"; numbered where two are equal."""
  names: list[str] = []
  taken = Counter[str]()
  for image_id in ids:
    path = Path(str(image_id))
    text = str(path.with_suffix("") if is_image_name(path) else path)
    name = re.sub(r'[/\\:*?"<>|]+', "_", text).strip("_")[-MOST_CHARACTERS:]
    taken[name.lower()] += 1  # some file systems do not tell A from a
    number = taken[name.lower()]
    names.append(name if number == 1 else f"{name} ({number})")
  return names
