"""What a first training gets where nothing was said, and what it is told."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.records import RecordList
from prn_jax.data_pipelines.spec import open_spec
from prn_jax.detect.metrics import ImageDetections, collect, evaluate
from prn_jax.network import init_variables, why_not_finite
from prn_jax.run.mesh import make_mesh
from prn_jax.train.advice import best_overlap, warnings, why_zero
from prn_jax.train.config import DataConfig, Duration, TrainConfig
from prn_jax.train.defaults import resolve
from prn_jax.train.evaluation import Figures
from prn_jax.train.experiment import Experiment, open_experiment
from prn_jax.train.optim import OptimConfig, ScheduleConfig
from tests.nets import tiny_detector


def one_device() -> jax.sharding.Mesh:
  return make_mesh(jax.devices()[:1])


@pytest.mark.parametrize(
  ("images", "batch"), [(5, 5), (20, 8), (100, 8), (205, 16), (439, 32), (639, 32), (640, 64), (118_287, 64)]
)
def test_small_data_gets_small_batches(images: int, batch: int) -> None:
  config, notes = resolve(TrainConfig(total=Duration(steps=1000)), images, one_device())
  assert (config.batch_size, config.bn_momentum) == (batch, 0.99)
  said = f"batch_size {batch}, chosen for {images:,} images; --config.batch_size=N takes another"
  assert notes == ((said,) if batch != 64 else ())


@pytest.mark.parametrize(
  ("steps", "momentum"), [(3, 0.5), (20, 0.75), (50, 0.9), (100, 0.95), (499, 0.98), (500, 0.99)]
)
def test_short_runs_get_short_averages(steps: int, momentum: float) -> None:
  config, notes = resolve(TrainConfig(total=Duration(steps=steps), batch_size=64), 1000, one_device())
  assert config.bn_momentum == momentum
  assert len(notes) == (momentum != 0.99)
  if notes:
    assert notes[0].startswith(f"bn_momentum {momentum:g}, chosen for {steps:,} steps (the usual 0.99 needs 500)")


def test_what_was_given_stays() -> None:
  given = TrainConfig(total=Duration(steps=2), batch_size=64, bn_momentum=0.99)
  assert resolve(given, 3, one_device()) == (given, ())


@pytest.mark.parametrize(("steps", "warm_up"), [(1, 0), (20, 2), (50, 5), (51, 50)])
def test_a_warm_up_fits_into_the_run(steps: int, warm_up: int) -> None:
  """A recipe for hundreds of steps is tried with a few."""
  optim = OptimConfig(schedule=ScheduleConfig(policy="cosine", burn_in_steps=50))
  given = TrainConfig(total=Duration(steps=steps), batch_size=64, bn_momentum=0.9, optim=optim)
  config, notes = resolve(given, 1000, one_device())
  assert config.optim.schedule.burn_in_steps == warm_up
  said = f"optim.schedule.burn_in_steps {warm_up} instead of 50, which do not fit into {steps:,} steps"
  assert notes == ((said,) if warm_up != 50 else ())


def test_every_device_and_every_group_gets_whole_shares() -> None:
  mesh = make_mesh(jax.devices()[:8])
  config = TrainConfig(
    total=Duration(steps=600), optim=OptimConfig(accumulate=2), augment=DetectionAugment(mosaic=True)
  )
  assert resolve(config, 205, mesh)[0].batch_size == 16
  assert resolve(config, 3, mesh)[0].batch_size == 16
  assert resolve(TrainConfig(total=Duration(steps=600)), 3, mesh)[0].batch_size == 8


def opened(steps: int = 600, model: str = "yolov3-tiny", images: int = 24, **values: Any) -> Experiment:
  usual: dict[str, Any] = {"width": 64, "height": 64, "batch_size": 8, "bn_momentum": 0.99}
  data = DataConfig(train=f"synthetic:traffic:{images}", valid="synthetic:traffic:3@valid")
  return open_experiment(
    TrainConfig(model=model, data=data, total=Duration(steps=steps), **usual | values), one_device()
  )


def test_first_trainings_are_warned() -> None:
  few, batch, pretrained = (
    "100 steps are few: the averages of batch norm follow the weights after about 500 (5 / (1 - bn_momentum 0.99)), and "
    "the evaluation, which uses them, may find nothing before. Lengthen config.total, or start from weights.",
    "the batch (32) is larger than the data (24 images): every step repeats images. Give --config.batch_size=0 (chosen by "
    "the data), or more images.",
    "all weights start random, although published ones of yolov3-tiny exist: 'prn models --download yolov3-tiny' fetches "
    "them, and --config.weights=FILE starts from them. On little data that decides what is learned.",
  )
  assert warnings(opened(steps=100, batch_size=32)) == [batch, few, pretrained]
  assert warnings(opened()) == [pretrained]
  assert warnings(opened(model="traffic-nano-prn")) == []
  assert warnings(opened(steps=100, bn_momentum=0.0, batch_size=0, model="traffic-nano-prn")) == []


def scored(experiment: Experiment, found: ImageDetections | None, truths: bool = True) -> Figures:
  """Figures of one image with one car at (10, 10, 30, 30), with this found in it."""
  source = open_spec("synthetic:traffic:3")
  car = np.array([[10.0, 10, 30, 30]], np.float32)[: int(truths)]
  record = source[0].__class__(
    source[0].image,
    "road",
    64,
    64,
    car,
    np.zeros(len(car), np.int32),
    np.zeros(len(car), bool),
    np.zeros(len(car), bool),
  )
  data = RecordList(source.names, source.category_ids, (record,))
  empty = ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32))
  collected = collect(data.names, data.records, {"road": found or empty})
  evaluation = evaluate(collected, "coco")
  values = {key: float("nan") if value is None else float(value) for key, value in evaluation.metrics.items()}
  return Figures(values, {}, (collected, evaluation))


def found(*box: float, of: int = 0) -> ImageDetections:
  return ImageDetections(np.array([box]), np.array([0.9]), np.array([of]))


YOUNG = (
  "The averages of batch norm, which evaluations use, have seen 40 of about 500 updates that they need to follow the "
  "weights: wait, or start the next run with a smaller config.bn_momentum."
)


@pytest.mark.parametrize(
  ("detections", "truths", "step", "expected"),
  [
    (None, True, 40, f"AP50 is 0: no box is more certain than config.eval.conf=0.005 in any of 1 images. {YOUNG}"),
    (None, True, 600, "AP50 is 0: no box is more certain than config.eval.conf=0.005 in any of 1 images. The network has "
     "not learned to be certain yet, or the learning rate is too small or too large."),
    (found(10, 10, 30, 30, of=1), True, 600, "AP50 is 0: the classes that were found (truck) have no box in "
     "config.data.valid, which has car."),
    (found(10, 10, 30, 15), True, 600, "AP50 is 0: of 1 detections none is right; the best overlaps a box of its class by "
     "0.25, 0.5 counts. Train longer, or see what it learns from (train_samples.jpg)."),
    (found(10, 10, 30, 15), False, 600, "AP50 is undefined: the 1 images of config.data.valid have no box at all."),
    (found(10, 10, 30, 30), True, 40, ""),
  ],
)  # fmt: skip
def test_a_figure_of_zero_is_explained(
  detections: ImageDetections | None, truths: bool, step: int, expected: str
) -> None:
  experiment = opened(model="traffic-nano-prn")
  assert why_zero(experiment, scored(experiment, detections, truths), "AP50", step) == expected


def test_overlaps_are_of_one_image_and_class() -> None:
  experiment = opened(model="traffic-nano-prn")
  assert best_overlap(scored(experiment, found(10, 10, 30, 30)).scored[0]) == pytest.approx(1.0)
  assert best_overlap(scored(experiment, found(10, 10, 30, 30, of=2)).scored[0]) == 0.0
  assert best_overlap(scored(experiment, found(20, 10, 40, 30)).scored[0]) == pytest.approx(1 / 3)


def test_an_explosion_is_called_so() -> None:
  variables = init_variables(tiny_detector(32, 4), 0)
  assert why_not_finite(variables).startswith("its weights are finite (the largest is ")
  layer, arrays = next((name, values) for name, values in variables["params"].items() if "conv" in values)
  arrays["conv"]["kernel"] = np.full_like(arrays["conv"]["kernel"], np.nan)
  count = arrays["conv"]["kernel"].size
  assert why_not_finite(variables) == (
    f"the training that made its weights exploded: params/{layer}/conv/kernel holds {count:,} values that are NaN or "
    "infinite. Use an earlier checkpoint of it, or train again with a lower learning rate."
  )
