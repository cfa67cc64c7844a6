"""From a configuration to a network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import pytest

from data_pipelines.augment import DetectionAugment
from prn_jax.labels import num_classes
from prn_jax.models import build_graph
from prn_jax.train.config import ConfigError, DataConfig, Duration, TrainConfig
from prn_jax.train.experiment import build_network, open_experiment
from prn_jax.train.sharding import make_mesh
from prn_jax.transforms.partial_residual import fprn, shrink


def network(**values: Any) -> Any:
  return build_network(TrainConfig(**values), classes=10)[0]


def test_transforms_are_applied_in_order() -> None:
  plain = build_graph("darknet-cifar", num_classes=10)
  assert network(model="darknet-cifar").layers == plain.layers
  assert network(model="darknet-cifar", transforms=("shrink:0.75",)).layers == shrink(plain, 0.75).layers
  both = network(model="darknet-cifar", transforms=("shrink:0.5", "fprn:0.5"))
  assert both.layers == fprn(shrink(plain, 0.5), 0.5).layers


def test_transformed_detector_gets_the_classes_and_the_size_of_the_run() -> None:
  graph = network(model="yolov3-tiny", transforms=("multi-source",), width=256, height=224)
  assert (graph.width, graph.height) == (256, 224)
  assert num_classes(graph) == 10
  assert {layer.kind for layer in graph} >= {"shortcut", "upsample"}


@pytest.mark.parametrize(
  ("transforms", "message"),
  [
    (("shrinks:0.5",), r"config\.transforms\[0\]: transform 'shrinks:0\.5' is unknown.*did you mean 'shrink'"),
    (("shrink:0.5", "fprn:2"), r"config\.transforms\[1\]: .*2"),
    (("multi-source",), r"config\.transforms\[0\]: .*concatenates no two levels"),
  ],
)
def test_transforms_that_cannot_be_are_named(transforms: tuple[str, ...], message: str) -> None:
  with pytest.raises(ConfigError, match=message):
    network(model="darknet-cifar", transforms=transforms)


def detector(**values: Any) -> TrainConfig:
  data = DataConfig(train="synthetic:traffic:8")
  size = {"width": 64, "height": 64, "batch_size": 8, "total": Duration(steps=1)}
  return TrainConfig(model="traffic-nano-prn", data=data, **size | values)


@pytest.mark.parametrize(
  ("augment", "batch_size", "message"),
  [
    ({"mosaic": True}, 6, r"augment\.mosaic mixes groups of 4 images, but batch_size 6 .*of 4, such as 8 or 4, or"),
    ({"mosaic": True, "mixup": True}, 2, r"augment\.mosaic mixes groups of 4.*a multiple of 4, such as 4, or"),
    ({"mixup": True}, 5, r"augment\.mixup mixes groups of 2.*multiple of 2, such as 6 or 4, or give .*mixup=False"),
  ],
)
def test_images_that_are_mixed_must_be_in_one_batch(augment: dict[str, bool], batch_size: int, message: str) -> None:
  config = detector(augment=DetectionAugment(**augment), batch_size=batch_size)
  mesh = make_mesh(jax.devices()[:1])
  with pytest.raises(ConfigError, match=message):
    open_experiment(config, mesh)
  assert open_experiment(dataclasses.replace(config, batch_size=4), mesh).pipeline.batch_size == 4
