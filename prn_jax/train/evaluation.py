"""Evaluation during training: every validation image once, on all devices, with one compiled program.

The figures are those of `prn eval` at the thresholds of the config; images go through the same preprocessing, but the
network runs as it is trained, not folded. All processes take part; every one of them gets the results.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prn_jax.classify.metrics import classification_metrics, top_classes
from prn_jax.data_pipelines.feed.evaluation_batches import eval_batches, placement_of
from prn_jax.data_pipelines.records import DataError, Dataset, Problem
from prn_jax.detect import metrics, nms
from prn_jax.detect.detections import Detections
from prn_jax.errors import did_you_mean
from prn_jax.graph.graph import Graph
from prn_jax.network import Network, Variables
from prn_jax.run.classification_report import write_classification_report
from prn_jax.run.detector import detections_of
from prn_jax.run.evaluate import Run, detection_data, draw_examples, image_reader
from prn_jax.run.images import Failure
from prn_jax.run.mesh import compiled, jit, put_batch, replicated, split
from prn_jax.train.config import ConfigError, EvalConfig
from prn_jax.train.diagnose import DivergedError

MOST_DETECTIONS = 300  # per image
PICTURES_CONF = 0.25
RATING_OF_CLASSIFIERS = ("top1", "top5")


@dataclasses.dataclass(frozen=True)
class Figures:
  """Results of one evaluation.

  Attributes:
    values: name -> figure; NaN where it is not defined, as VOC's mAP without any box.
    results: image id -> detections; empty for classifiers.
    scored: what the figures come from: `metrics.EvalData` with `metrics.Evaluation`, or `ClassificationMetrics`.
    point: precision and recall of a detector at confidence 0.25 and overlap 0.5, as Darknet counts.
  """

  values: dict[str, float]
  results: dict[Any, Detections]
  scored: Any
  point: dict[str, float] = dataclasses.field(default_factory=dict)


class Evaluator:
  """Evaluates variables of one network on one data set.

  Args:
    graph: the network at the size of evaluation.
    dataset: classes numbered as the network numbers them.
    mesh: of the training.
    config: see there.
    batch_size: images per run, over all devices.
    dtype: compute dtype of the network.
    resize: "stretch" or "letterbox", for detectors.
    on_bad_data: "stop" at an image that cannot be decoded or has another size than its annotations say, or "skip" it.

  Attributes:
    problems: images that the last evaluation left out (policy skip), of those that this process read.
      `bad_data.collect` brings those of all processes together.

  Raises:
    ConfigError: the protocol has no figure `config.metric`.
  """

  def __init__(
    self, graph: Graph, dataset: Dataset, mesh: jax.sharding.Mesh, config: EvalConfig, *, batch_size: int,
    dtype: Any = None, resize: str = "stretch", on_bad_data: str = "stop",
  ) -> None:  # fmt: skip
    self.graph, self.dataset, self.mesh, self.config = graph, dataset, mesh, config
    self.metric = _metric(graph, config)
    self.problems: tuple[Problem, ...] = ()
    self._on_bad_data = on_bad_data
    self._resize = resize if graph.detects else "center_crop"
    self._batch_size = -(-(config.batch_size or batch_size) // mesh.size) * mesh.size
    network = Network(graph, dtype=dtype)

    def run(variables: Variables, batch: dict[str, jax.Array]) -> dict[str, Any]:
      heads = network.apply(variables, batch["image"])
      assert isinstance(heads, dict)
      rest = {key: value for key, value in batch.items() if key != "image"}
      if not graph.detects:
        scores = heads[graph.heads[-1].name].astype(jnp.float32)
        return rest | {"found": scores.reshape(scores.shape[0], -1)}
      found = nms.postprocess(
        heads,
        graph,
        conf=config.conf,
        nms_threshold=config.nms,
        max_detections=MOST_DETECTIONS,
        nms_kind="default" if config.protocol != "darknet" else None,
      )
      return rest | {"found": found}

    self._program: Any = None  # compiled
    self._run = jit(run, mesh, in_shardings=(replicated(mesh), split(mesh)), out_shardings=replicated(mesh))

  def __call__(
    self,
    variables: Variables,
    on_batch: Callable[[], None] = lambda: None,
    on_compiled: Callable[[], None] = lambda: None,
  ) -> Figures:
    """Figures of these variables.

    Args:
      variables: on the mesh.
      on_batch: called after every batch.
      on_compiled: called once in the life of this evaluator, between compiling its program and running it; processes meet there.

    Raises:
      DivergedError: the network's outputs are not finite.
      DataError: an image cannot be used (policy stop), or none can (policy skip).
    """
    outputs: dict[int, tuple[Any, int, np.ndarray]] = {}
    with eval_batches(
      self.dataset,
      (self.graph.width, self.graph.height),
      resize=self._resize,
      channels=self.graph.channels,
      batch_size=self._batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      on_bad_data=self._on_bad_data,
    ) as batches:
      for batch in batches:
        placed = put_batch(batch, self.mesh)
        if self._program is None:
          self._program = compiled(self._run, variables, placed)
          on_compiled()
        result = jax.device_get(self._program(variables, placed))
        for row in np.flatnonzero(result["index"] >= 0):
          outputs[int(result["index"][row])] = (result["found"], int(row), result["placement"][row])
        on_batch()
      self.problems = tuple(batches.problems)
    if len(outputs) != len(self.dataset):
      raise DataError(f"evaluation saw {len(outputs)} of {len(self.dataset)} images; each must be seen once.")
    if not any(place[0] for _, _, place in outputs.values()):
      first = f", the first because {self.problems[0].reason}" if self.problems else ""
      raise DataError(f"none of the {len(outputs)} images of the evaluation can be used{first}.")
    return self._detection(outputs) if self.graph.detects else self._classification(outputs)

  def report(self, figures: Figures, folder: Path, num_pictures: int = 0) -> None:
    """Writes tables, curves and pictures of an evaluation."""
    if not self.graph.detects:
      write_classification_report(folder, figures.scored)
      return
    data, evaluation = figures.scored
    read = image_reader(self.dataset)
    metrics.write_report(folder, data, evaluation, conf_threshold=PICTURES_CONF, read_image=read)
    run = Run(dict(figures.results), (), {})
    draw_examples(self.dataset, run, folder / "examples", num_pictures, PICTURES_CONF)

  def _detection(self, outputs: dict[int, tuple[Any, int, np.ndarray]]) -> Figures:
    results, failures, size = {}, [], (self.graph.width, self.graph.height)
    for index in sorted(outputs):
      found, row, place = outputs[index]
      image_id = self.dataset[index].image_id
      if not place[0]:
        failures.append(Failure(str(image_id), "the image cannot be used"))
        continue
      if found.num_nonfinite[row]:
        raise self._diverged(index)
      results[image_id] = detections_of(found, row, placement_of(place, size), self.dataset.names)
    run = Run(dict(results), tuple(failures), {})
    data = detection_data(self.dataset, run, clip=metrics.get_protocol(self.config.protocol).clips_boxes)
    evaluation = metrics.evaluate(data, self.config.protocol)
    values = {key: math.nan if value is None else float(value) for key, value in evaluation.metrics.items()}
    counted = evaluation if self.config.protocol == "darknet" else metrics.evaluate(data, "darknet")
    point = {key: float(counted.metrics[key] or 0.0) for key in ("precision", "recall")}
    return Figures(values, results, (data, evaluation), point)

  def _classification(self, outputs: dict[int, tuple[Any, int, np.ndarray]]) -> Figures:
    order = [index for index in sorted(outputs) if outputs[index][2][0]]
    scores = np.stack([outputs[index][0][outputs[index][1]] for index in order])
    for index in np.flatnonzero(~np.isfinite(scores).all(axis=1)):
      raise self._diverged(order[index])
    labels = [self.dataset[index].label for index in order]
    result = classification_metrics(
      top_classes(scores), [-1 if one is None else one for one in labels], self.dataset.names
    )
    return Figures({"top1": result.top1, "top5": result.top5}, {}, result)

  def _diverged(self, index: int) -> DivergedError:
    return DivergedError(
      f"evaluation: network '{self.graph.name}' gave NaN or infinity for image '{self.dataset[index].image_id}', although "
      "the loss is finite: the training has diverged. Lower the learning rate, lengthen the warm-up "
      "(optim.schedule.burn_in_steps), or clip the gradient (optim.clip_norm)."
    )


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
