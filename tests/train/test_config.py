"""Configurations: every shipped one opens, equals the cfg it comes from, and typing errors are found before the run."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

import configs
from prn_jax.cli.main import split_config_keys
from prn_jax.cli.train import read_config
from prn_jax.errors import PrnError
from prn_jax.models import get_spec
from prn_jax.train.config import (
  ConfigError,
  DataConfig,
  Duration,
  TrainConfig,
  default_config,
  differences,
  to_dict,
  typed,
)
from prn_jax.train.darknet_config import config_from_cfg

SHIPPED = sorted(
  p.stem for p in Path(configs.__path__[0]).glob("*.py") if p.stem not in ("__init__", "default", "from_cfg")
)
# Configurations of published networks, and the public cfg whose settings they hold. The authors published some of
# them for testing (batch=1); their batch of training stands in the comments of the cfgs.
PUBLIC = {
  "coco_yolov3": ("yolov3", {"batch_size"}),
  "coco_yolov3_tiny": ("yolov3-tiny", {"batch_size"}),
  "coco_yolov3_tiny_prn": ("yolov3-tiny-prn", set()),
  "coco_enet_b0_prn": ("enet-coco", set()),
  "coco_yolov4": ("yolov4", set()),
  "coco_yolov4_tiny": ("yolov4-tiny", set()),
  "imagenet_darknet53": ("darknet53", {"batch_size"}),
  "imagenet_efficientnet_b0": ("efficientnet_b0", {"optim.accumulate"}),
}  # fmt: skip
# What a cfg does not hold, or holds elsewhere (its loss settings are read with the network).
NOT_IN_A_CFG = ("model", "loss.head", "data", "dtype", "optim.schedule.end_rate")


def shipped(name: str) -> TrainConfig:
  return typed(importlib.import_module(f"configs.{name}").get_config())


def test_the_list_is_what_was_promised() -> None:
  promised = {
    "imagenet_darknet53", "imagenet_darknet53_prn", "imagenet_efficientnet_b0", "coco_yolov3", "coco_yolov3_tiny",
    "coco_yolov3_tiny_prn", "coco_enet_b0_prn", "coco_yolov4", "coco_yolov4_tiny", "demo", "bccd_tiny_prn",
    "vehicles_tiny_prn", "traffic_tiny_prn", "cifar10_darknet",
  }  # fmt: skip
  assert promised <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configuration_is_whole(name: str) -> None:
  config = shipped(name)
  assert get_spec(config.model)
  assert config.total != Duration()
  doc = importlib.import_module(f"configs.{name}").__doc__ or ""
  assert f"prn train --config={name}" in doc
  if name.startswith(("coco", "imagenet")):
    assert "ot yet\nrun" in doc or "ot yet run" in doc, "published networks say whether they were run"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_published_settings_are_those_of_the_cfg(name: str, shared: Path) -> None:
  cfg, but = PUBLIC[name]
  config = shipped(name)
  public = config_from_cfg(str(shared / "cfg" / f"{cfg}.cfg"))
  public.data.train = "synthetic:traffic:1"
  expected = typed(public)
  changed = [line.split(":")[0] for line in differences(to_dict(expected), to_dict(config))]
  assert {key for key in changed if not key.startswith(NOT_IN_A_CFG)} == but
  if config.task == "detect":
    _check_loss_of_every_head(config, shared / "cfg" / f"{cfg}.cfg")


def _check_loss_of_every_head(config: TrainConfig, cfg: Path) -> None:
  from prn_jax.formats import darknet_cfg
  from prn_jax.models import build_graph
  from prn_jax.train.tasks import head_settings

  public = darknet_cfg.read(cfg)
  own = head_settings(build_graph(config.model), config.loss)
  data_keys = ("jitter", "random", "resize", "max", "map")  # of the data loader, not of the loss
  for mine, head in zip(own.values(), public.graph.heads, strict=True):
    theirs = public.training.sections[head.name]
    for field in dataclasses.fields(theirs):
      if field.name not in data_keys:
        assert getattr(mine, field.name) == getattr(theirs, field.name), (head.name, field.name)


def test_default_has_every_field_of_the_dataclasses() -> None:
  for task in ("detect", "classify"):
    config = default_config(task)
    config.model, config.data.train = "darknet19", "synthetic:traffic:1"
    assert to_dict(typed(config)).keys() == {f.name for f in dataclasses.fields(TrainConfig)}


def test_round_trip_through_plain_values() -> None:
  config = shipped("coco_yolov4")
  assert typed(to_dict(config)) == config


# -- wrong input -------------------------------------------------------------------------------------------------------


def changed(**values: Any) -> dict[str, Any]:
  config = to_dict(TrainConfig(model="darknet19", data=DataConfig(train="synthetic:traffic:1")))
  for path, value in values.items():
    *groups, key = path.split("__")
    target = config
    for group in groups:
      target = target[group]
    target[key] = value
  return config


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"batchsize": 3}, r"config\.batchsize does not exist.*did you mean.*batch_size"),
    ({"optim__momentun": 0.9}, r"config\.optim\.momentun does not exist.*momentum"),
    ({"task": "detection"}, r"config\.task is 'detection'.*detect"),
    ({"model": ""}, r"config\.model is empty; give a registered model"),
    ({"data__train": ""}, r"config\.data\.train is empty"),
    ({"batch_size": 0}, r"config\.batch_size is 0; expected at least 1"),
    ({"seed": -1}, r"config\.seed is -1; expected at least 0"),
    ({"batch_size": 2.5}, r"config\.batch_size is 2\.5 \(float\); expected int"),
    ({"remat": 1}, r"config\.remat is 1 \(int\); expected bool"),
    ({"bn_scope": "local"}, r"config\.bn_scope is 'local'.*global or per_device"),
    ({"dtype": "float16"}, r"config\.dtype is 'float16'.*float32 or bfloat16"),
    ({"sizes": ((320,),)}, r"config\.sizes\[0\] is \[320\]; expected 2 values"),
    ({"sizes": 320}, r"config\.sizes is 320; expected a list"),
    ({"optim": 3}, r"config\.optim is 3; expected a group of settings"),
    ({"optim__name": "adam"}, r"config\.optim: optim\.name is 'adam'.*adamw"),
    ({"optim__schedule__policy": "cosin"}, r"schedule\.policy is 'cosin'.*cosine"),
    ({"loss__style": "clean"}, r"config\.loss\.style is 'clean'; expected darknet or autodiff"),
    ({"augment__jitter": -1.0}, r"config\.augment: .*jitter"),
  ],
)
def test_wrong_configuration(values: dict[str, Any], message: str) -> None:
  with pytest.raises(ConfigError, match=f"(?s){message}"):
    typed(changed(**values))


def test_durations() -> None:
  assert Duration(epochs=2.0).to_steps(10, 105, "x") == 21
  assert Duration(examples=105).to_steps(10, 1, "x") == 10
  assert Duration(steps=7).to_steps(10, 1, "x") == 7
  assert Duration().to_steps(10, 1, "x") == 0
  assert Duration(epochs=0.001).to_steps(10, 100, "x") == 1
  with pytest.raises(ConfigError, match=r"config\.total\.steps=1, config\.total\.epochs=2\.0: expected one unit"):
    Duration(steps=1, epochs=2.0).to_steps(10, 100, "config.total")
  for value in (float("nan"), float("inf"), -1.0):
    with pytest.raises(ConfigError, match=r"x\.epochs=.*expected one unit, finite and not below 0"):
      Duration(epochs=value).to_steps(10, 100, "x")


def test_differences_name_old_and_new_values_and_leave_free_keys_out() -> None:
  old, new = changed(), changed(optim__learning_rate=0.5, data__threads=9, log_every={"steps": 3})
  assert differences(old, new) == ["optim.learning_rate: 0.001, now 0.5"]


# -- the command line --------------------------------------------------------------------------------------------------


def test_command_line_overrides() -> None:
  config = typed(read_config("coco_yolov3", [
    "--config.optim.learning_rate=0.5", "--config.sizes=((320, 320),)", "--config.remat", "--config.loss.head.iou_loss=giou",
    "--config.model_options.num_classes=3",
  ]))  # fmt: skip
  assert config.optim.learning_rate == 0.5
  assert config.sizes == ((320, 320),)
  assert config.remat is True
  assert config.loss.head == {"ignore_thresh": 0.7, "iou_loss": "giou"}
  assert config.model_options == {"num_classes": 3}


def test_configuration_of_ones_own_may_have_dataclasses(tmp_path: Path) -> None:
  file = tmp_path / "mine.py"
  file.write_text("""
from __future__ import annotations
import dataclasses
from configs import default

@dataclasses.dataclass
class Mine:
  rate: float = 0.25

def get_config():
  config = default.get_config()
  config.optim.learning_rate = Mine().rate
  return config
""")
  assert read_config(str(file), []).optim.learning_rate == 0.25


@pytest.mark.parametrize(
  ("config", "overrides", "message"),
  [
    ("coco_yolo3", [], r"no configuration is called 'coco_yolo3'.*coco_yolov3"),
    ("missing.py", [], r"configuration file 'missing\.py' does not exist"),
    ("coco_yolov3", ["--config.optim.lr=1"], r"--config\.optim\.lr: config\.optim has no key 'lr'.*learning_rate"),
    ("coco_yolov3", ["--config.batchsize=1"], r"config has no key 'batchsize' \(did you mean 'batch_size'"),
    ("coco_yolov3", ["--config.batch_size=many"], r"batch_size.*--print-config"),
  ],
)
def test_wrong_command_line(config: str, overrides: list[str], message: str) -> None:
  with pytest.raises(PrnError, match=f"(?s){message}"):
    typed(read_config(config, overrides))


def test_keys_of_the_configuration_are_split_off() -> None:
  given = ["train", "--config=demo", "--config.a.b=1", "--json", "--config.c", "2", "--config.d", "--workdir", "x"]
  keys, others = split_config_keys(given)
  assert keys == ["--config.a.b=1", "--config.c=2", "--config.d"]
  assert others == ["train", "--config=demo", "--json", "--workdir", "x"]
