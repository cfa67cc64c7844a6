"""Evaluation during training. The figures are those of `prn eval` at the thresholds of the config, to the last digit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from prn_jax.data_pipelines.records import Dataset, Problem
from prn_jax.detect import metrics
from prn_jax.errors import did_you_mean
from prn_jax.graph.graph import Graph
from prn_jax.network import Variables
from prn_jax.run.classification_report import write_classification_report
from prn_jax.run.defaults import MOST_DETECTIONS
from prn_jax.run.detector import DetectOptions
from prn_jax.run.evaluate import (
  Evaluator,
  NotFiniteError,
  Run,
  classification_result,
  draw_examples,
  for_protocol,
  image_reader,
  score_detections,
)
from prn_jax.train.config import ConfigError, EvalConfig
from prn_jax.train.diagnose import DivergedError

PICTURES_CONF = 0.25
RATING_OF_CLASSIFIERS = ("top1", "top5")


@dataclasses.dataclass(frozen=True)
class Figures:
  """Results of one evaluation.

  Attributes:
    values: name -> figure; NaN where it is not defined, as VOC's mAP without any box.
    run: the detections that they come from; without results for classifiers.
    scored: what the figures come from: `metrics.EvalData` with `metrics.Evaluation`, or `ClassificationMetrics`.
    point: precision and recall of a detector at confidence 0.25 and overlap 0.5, as Darknet counts.
  """

  values: dict[str, float]
  run: Run
  scored: Any
  point: dict[str, float] = dataclasses.field(default_factory=dict)


class Validation:
  """The validation data of a training, evaluated as `prn eval` does, with the figure that rates a checkpoint.

  Args:
    graph: the network at the size of evaluation.
    dataset: classes numbered as the network numbers them.
    mesh: the devices of the training.
    config: see there.
    batch_size: images per run, over all devices, where `config` leaves it open.
    resize: "stretch" or "letterbox", for detectors.
    on_bad_data: see `run.evaluate.Evaluator`.

  Attributes:
    metric: name of the figure that decides which checkpoint is best.

  Raises:
    ConfigError: the protocol has no figure `config.metric`.
  """

  def __init__(
    self, graph: Graph, dataset: Dataset, mesh: jax.sharding.Mesh, config: EvalConfig, *, batch_size: int,
    resize: str = "stretch", on_bad_data: str = "stop",
  ) -> None:  # fmt: skip
    self.graph, self.dataset, self.mesh, self.config = graph, dataset, mesh, config
    self.metric = _metric(graph, config)
    options = None
    if graph.detects:
      options = DetectOptions(conf=config.conf, nms=config.nms, resize=resize, max_detections=MOST_DETECTIONS)
      options = for_protocol(options, config.protocol)
    self.evaluator = Evaluator(
      graph,
      dataset,
      mesh,
      options,
      batch_size=config.batch_size or batch_size,
      on_bad_data=on_bad_data,
    )

  @property
  def problems(self) -> tuple[Problem, ...]:
    """Images that the last evaluation left out (policy skip), of those that this process read. `bad_data.collect` brings
    those of all processes together."""
    return self.evaluator.problems

  def __call__(
    self,
    variables: Variables,
    on_batch: Callable[[], None] = lambda: None,
    on_compiled: Callable[[], None] = lambda: None,
  ) -> Figures:
    """Figures of these variables; every process gets them.

    Args:
      variables: on the mesh.
      on_batch: called after every batch.
      on_compiled: see `run.evaluate.Evaluator`.

    Raises:
      DivergedError: the network's outputs are not finite.
      DataError: an image cannot be used (policy stop), or none can (policy skip).
    """
    try:
      run = self.evaluator(variables, on_batch=lambda images: on_batch(), on_compiled=on_compiled)
    except NotFiniteError as error:
      raise DivergedError(
        f"evaluation: network '{self.graph.name}' gave NaN or infinity for image '{error.image_id}', although the loss is "
        "finite: the training has diverged. Lower the learning rate, lengthen the warm-up "
        "(optim.schedule.burn_in_steps), or clip the gradient (optim.clip_norm)."
      ) from None
    if not self.graph.detects:
      result = classification_result(self.dataset, run)
      return Figures(
        {"top1": result.top1, "top5": result.top5}, dataclasses.replace(run, results={}, labels={}), result
      )
    data, evaluation = score_detections(self.dataset, run, self.config.protocol)
    values = {key: math.nan if value is None else float(value) for key, value in evaluation.metrics.items()}
    counted = evaluation if self.config.protocol == "darknet" else metrics.evaluate(data, "darknet")
    point = {key: float(counted.metrics[key] or 0.0) for key in ("precision", "recall")}
    return Figures(values, run, (data, evaluation), point)

  def report(self, figures: Figures, folder: Path, num_pictures: int = 0) -> None:
    """Writes tables, curves and pictures of an evaluation."""
    if not self.graph.detects:
      write_classification_report(folder, figures.scored)
      return
    data, evaluation = figures.scored
    read = image_reader(self.dataset)
    metrics.write_report(folder, data, evaluation, conf_threshold=PICTURES_CONF, read_image=read)
    draw_examples(self.dataset, figures.run, folder / "examples", num_pictures, PICTURES_CONF)


def _metric(graph: Graph, config: EvalConfig) -> str:
  """The figure that decides which checkpoint is best."""
  protocol = metrics.get_protocol(config.protocol)
  known = protocol.ratings if graph.detects else RATING_OF_CLASSIFIERS
  name = config.metric or (protocol.rating if graph.detects else "top1")
  if name not in known:
    what = f"protocol '{config.protocol}'" if graph.detects else "a classifier"
    raise ConfigError(
      f"config.eval.metric is '{name}'{did_you_mean(name, known)}; expected a figure of {what}: {', '.join(known)}."
    )
  return name
