"""From a configuration to a network."""

from __future__ import annotations

from typing import Any

import pytest

from prn_jax.labels import num_classes
from prn_jax.models import build_graph
from prn_jax.train.config import ConfigError, TrainConfig
from prn_jax.train.experiment import build_network
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
