"""From a configuration to a network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import prn_jax
from prn_jax.cli.train import read_config
from prn_jax.data_pipelines.augment import DetectionAugment
from prn_jax.data_pipelines.doctor.anchors import box_sizes, fit_anchors, score_anchors
from prn_jax.data_pipelines.records import DataError
from prn_jax.formats import darknet_cfg
from prn_jax.labels import num_classes
from prn_jax.models import build_graph
from prn_jax.run.mesh import make_mesh
from prn_jax.train.config import ConfigError, DataConfig, Duration, TrainConfig, typed
from prn_jax.train.experiment import build_network, open_experiment
from prn_jax.train.rundir import run_metadata
from prn_jax.transforms.num_classes import anchors_of
from prn_jax.transforms.partial_residual import fprn, shrink
from tests.data_pipelines.pipeline_data import jpeg
from tests.nets import tiny_detector
from tests.train.test_effective import write_data

SHORT = ("--config.total.steps=2", "--config.batch_size=8")


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
  usual = {"model": "traffic-nano-prn", "data": DataConfig(train="synthetic:traffic:8"), "total": Duration(steps=1)}
  return TrainConfig(**usual | {"width": 64, "height": 64, "batch_size": 8} | values)


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


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("model", ["traffic-nano-prn", "letter_box=0", "letter_box=1"])
def test_images_are_evaluated_and_used_as_they_are_trained_with(model: str, trained: bool, tmp_path: Path) -> None:
  if "=" in model:
    cfg = tmp_path / "net.cfg"
    cfg.write_text(darknet_cfg.dump(tiny_detector(64, classes=4)).replace("[net]", f"[net]\n{model}"))
    assert prn_jax.load(cfg).resize == ("letterbox" if model.endswith("1") else "stretch")
    model = str(cfg)
  data = DataConfig(train="synthetic:traffic:8", valid="synthetic:traffic:8@valid")
  opened = open_experiment(detector(model=model, data=data, augment=DetectionAugment(letterbox=trained)))
  expected = "letterbox" if trained else "stretch"
  assert opened.resize == run_metadata(opened)["resize"] == expected
  assert opened.evaluator is not None
  assert opened.evaluator.evaluator.resize == expected
  (tmp_path / "saved.cfg").write_text(opened.graph_cfg())
  assert prn_jax.load(tmp_path / "saved.cfg").resize == expected


def test_what_a_cfg_says_of_letterboxes_is_followed(tmp_path: Path) -> None:
  cfg = tmp_path / "net.cfg"
  text = darknet_cfg.dump(tiny_detector(64, classes=4)).replace("[net]", "[net]\nmax_batches=10\nletter_box=1")
  cfg.write_text(text)
  config = read_config(str(cfg), ["--config.data.train=synthetic:traffic:8", "--config.batch_size=8"])
  assert config.augment.letterbox is True
  assert open_experiment(typed(config)).resize == "letterbox"


def coco_file(folder: Path, name: str, categories: tuple[str, ...], used: tuple[int, ...]) -> str:
  """Data of one image with an object of every used category."""
  (folder / "1.jpg").write_bytes(jpeg(40, 30))
  box = {"image_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
  content = {
    "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30}],
    "categories": [{"id": i, "name": category} for i, category in enumerate(categories)],
    "annotations": [box | {"id": i, "category_id": k} for i, k in enumerate(used)],
  }
  (folder / f"{name}.json").write_text(json.dumps(content))
  return f"coco:{folder / name}.json:{folder}"


def test_validation_data_is_matched_by_name(tmp_path: Path) -> None:
  cfg = tmp_path / "net.cfg"
  cfg.write_text(darknet_cfg.dump(tiny_detector(64)))
  train = coco_file(tmp_path, "train", ("car", "motorcycle", "person"), (0, 1, 2))

  def config(valid: str) -> TrainConfig:
    return detector(model=str(cfg), data=DataConfig(train=train, valid=valid))

  other = coco_file(tmp_path, "valid", ("my-project", "Person", "motorbike"), (1, 2, 1))
  opened = open_experiment(config(other))
  assert opened.evaluator is not None
  assert opened.evaluator.dataset.names == opened.names == ("car", "motorcycle", "person")
  assert opened.evaluator.dataset[0].classes.tolist() == [2, 1, 2]
  foreign = coco_file(tmp_path, "foreign", ("person", "cart"), (0, 1))
  message = (
    r"config\.data\.valid: .* has objects of class 'cart', but the training data .* car, motorcycle, person \(did"
  )
  with pytest.raises(DataError, match=message):
    open_experiment(config(foreign))


def test_anchors_are_clustered_from_the_boxes_of_the_training(tmp_path: Path) -> None:
  (tmp_path / "net.cfg").write_text(darknet_cfg.dump(tiny_detector(2)))
  sides = [6, 6, 9, 9, 20, 20, 30, 30]
  labels = tuple(f"0 .5 .5 {side / 64} {side / 32}" for side in sides)
  data = write_data(tmp_path / "data", labels=labels)
  opened = [
    open_experiment(
      typed(read_config(f"{tmp_path}/net.cfg", [f"--config.data.train={data}", f"--config.fit_anchors={fit}", *SHORT]))
    )
    for fit in (False, True)
  ]
  before, own = (anchors_of(one.graph) for one in opened)
  sizes = box_sizes(opened[1].dataset, (opened[1].graph.width, opened[1].graph.height))
  np.testing.assert_allclose(own, fit_anchors(sizes, len(before)).sizes_wh_px)
  assert opened[0].chosen == tuple(line for line in opened[1].chosen if not line.startswith("anchors "))
  (line,) = (line for line in opened[1].chosen if line.startswith("anchors "))
  found = score_anchors(sizes, np.array(before))
  assert line.endswith(
    f"those before: mean IoU {found.mean_iou:.3f}, best possible recall at IoU .5 {found.recall[0.5]:.3f}"
  )
  with pytest.raises(ConfigError, match=r"config\.fit_anchors is for detectors, but config\.task is 'classify'"):
    typed(read_config("cifar10_darknet", ["--config.fit_anchors=True"]))
