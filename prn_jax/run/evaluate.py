"""A model on annotated data: what `prn eval` runs. Figures come from `detect.metrics` and `classify.metrics`."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prn_jax.classify.classification import Classification
from prn_jax.classify.metrics import ClassificationMetrics, classification_metrics, top_classes
from prn_jax.data_pipelines.class_names import are_numbers, match_names
from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches, placement_of
from prn_jax.data_pipelines.images import Resize, read_image
from prn_jax.data_pipelines.images.channels import check_channels
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.data_pipelines.joined import check_fully_annotated
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  Problem,
  Task,
  classes_text,
  unknown_classes,
  with_names,
)
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.detections import Detections
from prn_jax.detect.metrics import EvalData, Evaluation, Settings, collect, evaluate, get_protocol
from prn_jax.errors import PrnError, did_you_mean
from prn_jax.files.disk import written_beside
from prn_jax.graph.graph import Graph
from prn_jax.labels import num_classes
from prn_jax.model import Model
from prn_jax.network import Variables, why_not_finite
from prn_jax.run.defaults import CONF, MOST_DETECTIONS, NMS
from prn_jax.run.detector import DetectOptions, detections_of
from prn_jax.run.eval_program import EvalProgram
from prn_jax.run.images import Result
from prn_jax.run.mesh import make_mesh

_LOG = logging.getLogger(__name__)
MOST_CHARACTERS = 120  # of a picture's name: the last ones of a long path


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
  check_fully_annotated(dataset, f"data '{spec}'")
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
  """Results of a network on a data set.

  Attributes:
    results: image id -> result, without images.
    failures: images that could not be used (policy skip), of those that this process read.
    timing: seconds per stage; those of resizing are of all threads together.
    labels: image id -> class, of data for classification.
    num_left_out: images that could not be used, of all processes.
  """

  results: dict[Any, Result]
  failures: tuple[Problem, ...]
  timing: dict[str, float]
  labels: dict[Any, int] = dataclasses.field(default_factory=dict)
  num_left_out: int = 0


class NotFiniteError(PrnError):
  """A network gave NaN or infinity.

  Attributes:
    image_id: the id of the first such image.
  """

  def __init__(self, text: str, image_id: Any) -> None:
    super().__init__(text)
    self.image_id = image_id


def for_protocol(options: DetectOptions, protocol: str) -> DetectOptions:
  """The options with the kind of suppression that a protocol wants where nothing was asked for."""
  if options.nms_kind is None and not get_protocol(protocol).takes_nms_of_cfg:
    return dataclasses.replace(options, nms_kind="default")
  return options


class Evaluator:
  """Runs a network over every image of a data set, each exactly once, on all devices of a mesh.

  The network is rewritten for inference, in float32. Images are read and resized in threads. All processes of the mesh
  take part, and each gets all results.

  Args:
    graph: the network at the size of evaluation.
    dataset: its classes are numbered as the network numbers them.
    mesh: the devices.
    options: the options of a detector; None for a classifier.
    resize: how images come to the size of a detector, where `options` leaves it open.
    batch_size: images per run, over all devices; rounded up to as many for each.
    on_bad_data: "stop" at an image that cannot be decoded or has another size than its annotations say, or "skip" it.
    network: computes the heads instead of the graph; see `EvalProgram`.

  Attributes:
    problems: images that the last run left out (policy skip), of those that this process read.
  """

  def __init__(
    self,
    graph: Graph,
    dataset: Dataset,
    mesh: Mesh,
    options: DetectOptions | None = None,
    *,
    resize: Resize | str = Resize.STRETCH,
    batch_size: int = 1,
    on_bad_data: OnBadData | str = OnBadData.STOP,
    network: Callable[[Variables, jax.Array], Mapping[str, Any]] | None = None,
  ) -> None:
    check_channels(graph.channels, graph.name)
    _check_task(graph, dataset)
    self.graph, self.dataset, self.mesh = graph, dataset, mesh
    self.options = (options or DetectOptions()) if graph.detects else None
    self.resize = Resize(self.options.resize or resize) if self.options else Resize.CENTER_CROP
    self.problems: tuple[Problem, ...] = ()
    if batch_size < 1:
      raise PrnError(f"batch_size={batch_size}; expected at least 1.")
    self.batch_size = -(-batch_size // mesh.size) * mesh.size
    self._on_bad_data = OnBadData(on_bad_data)
    self._program = EvalProgram(graph, dataset.names, mesh, self.options, network)

  def __call__(
    self,
    variables: Variables,
    *,
    on_batch: Callable[[int], None] = lambda images: None,
    on_compiled: Callable[[], None] = lambda: None,
  ) -> Run:
    """Results with these variables.

    Args:
      variables: the variables of the graph; on this process or copied to every device of the mesh.
      on_batch: called after every batch with the number of its images.
      on_compiled: called between compiling programs, mostly once in the life of this evaluator, and running them;
        processes meet there.

    Raises:
      DataError: an image cannot be used (policy stop), or none can (policy skip). NotFiniteError: see there.
    """
    self._program.load(variables)
    seen = _Seen(self.graph, self.dataset)
    with eval_batches(
      self.dataset,
      (self.graph.width, self.graph.height),
      resize=self.resize,
      channels=self.graph.channels,
      batch_size=self.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_bad_data=self._on_bad_data,
    ) as batches:
      for batch in batches:
        rows = self._program.run(batch, on_compiled)
        on_batch(seen.add(rows, batches.image_ids, variables))
      self.problems = tuple(batches.problems)
      self._program.timing.resize += batches.resize_sec
    self._program.unload()
    return seen.run(self.problems, dataclasses.asdict(self._program.timing))


def _check_task(graph: Graph, dataset: Dataset) -> None:
  if graph.detects and dataset.task is not Task.DETECT:
    raise DataError(
      f"the data has classes of whole images, no boxes, but network '{graph.name}' detects. Use data with boxes."
    )
  if not graph.detects and dataset.task is not Task.CLASSIFY:
    raise DataError(
      f"the data has boxes, no classes of whole images, but network '{graph.name}' classifies. Use data with labels."
    )


class _Seen:
  """What the batches of a run have given so far."""

  def __init__(self, graph: Graph, dataset: Dataset) -> None:
    self.graph, self.dataset = graph, dataset
    self.results: dict[int, tuple[Any, Result]] = {}
    self.labels: dict[Any, int] = {}
    self.left_out: set[int] = set()

  def add(self, rows: Mapping[str, Any], image_ids: Mapping[int, Any], variables: Variables) -> int:
    """Takes the rows of a batch; gives the number of images among them."""
    indices = rows["index"]
    for row in np.flatnonzero(indices >= 0).tolist():
      index = int(indices[row])
      if not rows["mask"][row]:
        self.left_out.add(index)
        continue
      image_id = image_ids[index] if index in image_ids else self.dataset[index].image_id  # another process read it
      self._check_finite(rows["found"], row, image_id, variables)
      if self.graph.detects:
        place = placement_of(rows["placement"][row], (self.graph.width, self.graph.height))
        self.results[index] = image_id, detections_of(rows["found"], row, place, self.dataset.names)
      else:
        self.results[index] = image_id, Classification(rows["found"][row].copy(), self.dataset.names)
        self.labels[image_id] = int(rows["label"][row])
    return int((indices >= 0).sum())

  def _check_finite(self, found: Any, row: int, image_id: Any, variables: Variables) -> None:
    if self.graph.detects:
      what = f"in {found.num_nonfinite[row]} boxes" if found.num_nonfinite[row] else ""
    else:
      what = "" if np.isfinite(found[row]).all() else "as probabilities"
    if what:
      raise NotFiniteError(
        f"network '{self.graph.name}' gave NaN or infinity {what} for image '{image_id}': {why_not_finite(variables)}",
        image_id,
      )

  def run(self, problems: tuple[Problem, ...], timing: dict[str, float]) -> Run:
    seen, count = len(self.results) + len(self.left_out), len(self.dataset)
    if seen != count:
      raise DataError(f"evaluation saw {seen} of {count} images; each must be seen once.")
    if not self.results:
      first = f", the first because {problems[0].reason}" if problems else ""
      raise DataError(f"none of the {count} images of the evaluation can be used{first}.")
    results = dict(self.results[index] for index in sorted(self.results))
    return Run(results, problems, timing, self.labels, len(self.left_out))


def run_model(
  model: Model,
  dataset: Dataset,
  options: DetectOptions | None = None,
  *,
  batch_size: int = 1,
  on_bad_data: OnBadData | str = "stop",
  on_batch: Callable[[int], None] = lambda images: None,
  network: Callable[[Variables, jax.Array], Mapping[str, Any]] | None = None,
) -> Run:
  """Runs a detector or classifier over every image of a data set, on all devices; arguments and errors of `Evaluator`."""
  evaluator = Evaluator(
    model.graph,
    dataset,
    make_mesh(),
    options,
    resize=model.resize,
    batch_size=batch_size,
    on_bad_data=on_bad_data,
    network=network,
  )
  return evaluator({} if network and not model.has_weights else model.variables, on_batch=on_batch)


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
  return collect(dataset.names, truths, found, missing="leave_out" if run.num_left_out else "error")


def score_detections(
  dataset: Dataset, run: Run, protocol: str, settings: Settings | None = None, *, compare_regions: bool = False
) -> tuple[EvalData, Evaluation]:
  """Truths and detections, and their figures under a protocol; the last arguments are those of `metrics.evaluate`."""
  data = detection_data(dataset, run, clip=get_protocol(protocol).clips_boxes)
  return data, evaluate(data, protocol, settings, compare_regions=compare_regions)


def classification_result(dataset: Dataset, run: Run) -> ClassificationMetrics:
  """Top-1, top-5 and the confusion matrix of a classifier's run."""
  results = {key: result for key, result in run.results.items() if isinstance(result, Classification)}
  rows = top_classes(np.stack([result.probabilities for result in results.values()]))
  return classification_metrics(rows, [run.labels[key] for key in results], dataset.names)


class UsualFigures:
  """The figures that `prn eval` gives without further options: COCO's of a detector, top-1 and top-5 of a classifier.

  Args:
    model: gives the graph and how images come to its size; its weights are not looked at.
    dataset: annotated images, with the classes of the model.
    batch_size, on_bad_data, network: see `Evaluator`.
  """

  def __init__(
    self,
    model: Model,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    on_bad_data: OnBadData | str = "stop",
    network: Callable[[Variables, jax.Array], Mapping[str, Any]] | None = None,
  ) -> None:
    options = None
    if model.graph.detects:
      options = for_protocol(DetectOptions(conf=CONF, nms=NMS, max_detections=MOST_DETECTIONS), "coco")
    self._detects, self._dataset = model.graph.detects, dataset
    self._evaluator = Evaluator(
      model.graph,
      dataset,
      make_mesh(),
      options,
      resize=model.resize,
      batch_size=batch_size,
      on_bad_data=on_bad_data,
      network=network,
    )

  def __call__(self, variables: Variables) -> dict[str, float]:
    """The figures with these variables; the program is compiled once for all of them. Errors: see `Evaluator`."""
    run = self._evaluator(variables)
    if self._detects:
      return dict(score_detections(self._dataset, run, "coco")[1].to_json()["metrics"])
    return dict(classification_result(self._dataset, run).to_json()["metrics"])


def usual_figures(model: Model, dataset: Dataset, **how: Any) -> dict[str, float]:
  """`UsualFigures` of a model with its weights; `how`: the further arguments of that."""
  return UsualFigures(model, dataset, **how)(model.variables)


def image_reader(dataset: Dataset) -> Callable[[Any], np.ndarray]:
  """Gives the image of an id, for pictures of mistakes."""
  index = {dataset[i].image_id: i for i in range(len(dataset))}
  return lambda image_id: read_image(dataset[index[image_id]].image)


def draw_examples(dataset: Dataset, run: Run, folder: Path, count: int, conf: float) -> list[Path]:
  """Draws the detections above `conf` on `count` images spread over the data; returns the files."""
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
