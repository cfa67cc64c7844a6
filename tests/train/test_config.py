"""Configurations: every shipped one opens, equals the cfg it comes from, and typing errors are found before the run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from prn_jax import configs
from prn_jax.cli.main import main, split_config_keys
from prn_jax.cli.train import read_config
from prn_jax.configs import imagenet_darknet53_prn
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.labels import num_classes
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
from prn_jax.train.experiment import build_network, open_experiment
from tests.conftest import shared_params
from tests.nets import tiny_detector

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
  return typed(importlib.import_module(f"prn_jax.configs.{name}").get_config())


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
  doc = importlib.import_module(f"prn_jax.configs.{name}").__doc__ or ""
  assert f"prn train --config={name}" in doc
  words = " ".join(doc.split())
  assert re.search(r"Expected: (?:(?!Run:).)*(\d|[Nn]ot yet run)", words), (
    "every configuration says what comes out, or that nobody knows"
  )
  if name.startswith(("coco", "imagenet")):
    assert "ot yet run" in words, "published networks say whether they were run"


@pytest.mark.parametrize("name", ["bdd100k", "visdrone", "dior", "oxfordhand", "openimages"])
def test_configuration_of_a_data_set_takes_place_network_and_anchors(name: str) -> None:
  module = importlib.import_module(f"prn_jax.configs.{name}")
  usual, other = typed(module.get_config()), typed(module.get_config("/some/where,yolov3-tiny-prn,model"))
  assert usual.fit_anchors
  assert (other.model, other.fit_anchors, other.anchors) == ("yolov3-tiny-prn", False, ())
  for spec in (other.data.train, other.data.valid):
    assert spec.startswith(f"{name}:/some/where")
  with pytest.raises(ValueError, match=r"anchors 'owm' \(did you mean 'own'\?\); expected own, published or model"):
    module.get_config(",,owm")
  with pytest.raises(ValueError, match=r"has 4 parts; expected ROOT,MODEL,ANCHORS"):
    module.get_config("a,b,own,d")
  if name in ("visdrone", "openimages"):
    with pytest.raises(ValueError, match=r"network 'yolov3' has 9 anchors; published are lists of no number"):
      module.get_config(",yolov3,published")
  else:
    assert len(module.get_config(",yolov3,published").anchors) == 9
    assert len(module.get_config(",yolov3-tiny,published").anchors) == 6


@pytest.mark.parametrize("variant", ["residual", "fprn,0.5", "prn-shrink,0.75", "prn-expand,0.5", "prn-bottleneck,0.5"])
def test_networks_of_the_comparison_differ_in_nothing_but_the_network(variant: str) -> None:
  """The paper's figure 11: all at 224x224, trained as Darknet53; the share of channels reaches the network."""
  config = typed(imagenet_darknet53_prn.get_config(variant))
  base = dataclasses.replace(shipped("imagenet_darknet53"), width=224, height=224)
  changed = {line.split(":")[0] for line in differences(to_dict(base), to_dict(config))}
  name, _, share = variant.partition(",")
  assert changed == (
    set() if name == "residual" else {"model", f"model_options.{imagenet_darknet53_prn.OPTIONS[name]}"}
  )
  assert list(config.model_options.values()) == ([float(share)] if share else [])
  graph = build_network(config, 1000)[0]
  assert (graph.width, graph.height, num_classes(graph)) == (224, 224, 1000)


def test_residual_form_has_no_share_of_channels() -> None:
  with pytest.raises(ValueError, match=r"'residual' is the network as it is .* ',0\.5'"):
    imagenet_darknet53_prn.get_config("residual,0.5")


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
  from prn_jax.models import build_graph
  from prn_jax.train.losses import head_settings

  public = darknet_cfg.read(cfg)
  own = head_settings(build_graph(config.model), config.loss)
  data_keys = ("jitter", "random", "resize", "max", "map")  # of the data loader, not of the loss
  for mine, head in zip(own.values(), public.graph.heads, strict=True):
    theirs = public.training.sections[head.name]
    for field in dataclasses.fields(theirs):
      if field.name not in data_keys:
        assert getattr(mine, field.name) == getattr(theirs, field.name), (head.name, field.name)


@pytest.mark.parametrize("cfg", shared_params("cfg/*.cfg"))
def test_every_public_cfg_becomes_a_configuration(cfg: Path) -> None:
  text = cfg.read_text()
  is_detector = "yolo]" in text or "[region]" in text
  if "[detection]" in text:  # YOLOv1's head
    with pytest.raises(ConfigError, match=r"has no \[yolo\], \[Gaussian_yolo\] or \[region\] head; other detectors"):
      config_from_cfg(str(cfg))
    return
  config = config_from_cfg(str(cfg))
  config.data.train = "synthetic:traffic:1"
  opened = typed(config)
  assert opened.task == ("detect" if is_detector else "classify")
  assert opened.batch_size == darknet_cfg.read(cfg).training.net.batch


def test_default_has_every_field_of_the_dataclasses() -> None:
  for task in ("detect", "classify"):
    config = default_config(task)
    config.model, config.data.train = "darknet19", "synthetic:traffic:1"
    assert to_dict(typed(config)).keys() == {f.name for f in dataclasses.fields(TrainConfig)}


def test_round_trip_through_plain_values() -> None:
  config = shipped("coco_yolov4")
  assert typed(to_dict(config)) == config


def test_threads_are_one_per_core_unless_told() -> None:
  config = shipped("demo")
  assert open_experiment(config, is_resumed=True).pipeline.threads is None
  three = dataclasses.replace(config, data=dataclasses.replace(config.data, threads=3))
  assert open_experiment(three).pipeline.threads == 3


def test_weights_are_read_for_a_new_run_only() -> None:
  config = dataclasses.replace(shipped("demo"), weights="gone.weights")
  with pytest.raises(PrnError, match=r"cannot read weights 'gone\.weights'"):
    open_experiment(config)
  assert not open_experiment(config, is_resumed=True).start.loaded


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
    ({"batch_size": -1}, r"config\.batch_size is -1; expected at least 0"),
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
    ({"width": -32}, r"config\.width is -32; expected at least 0: pixels of the input; 0 keeps the model's\.$"),
    ({"height": -1}, r"config\.height is -1; expected at least 0"),
    ({"sizes": ((320, 0),)}, r"config\.sizes\[0\] is \[320, 0\]; expected a width and a height in pixels, above 0"),
    ({"anchors": ((8.0, 8.0), (-4.0, 8.0))}, r"config\.anchors\[1\] is \[-4\.0, 8\.0\]; expected a width and a height"),
    ({"resize_every_steps": 0}, r"config\.resize_every_steps is 0; expected at least 1"),
    ({"bn_momentum": 1.5}, r"config\.bn_momentum is 1\.5; expected at least 0 and below 1: the share of the old"),
    ({"bn_momentum": 1.0}, r"config\.bn_momentum is 1\.0; expected at least 0 and below 1"),
    ({"bn_momentum": float("nan")}, r"config\.bn_momentum is nan; expected a finite number"),
    ({"keep_checkpoints": 0}, r"config\.keep_checkpoints is 0; expected at least 1: one is needed to resume"),
    ({"profile_steps": (5, 2)}, r"config\.profile_steps is \[5, 2\]; expected the first and the last step"),
    ({"profile_steps": (-1, 2)}, r"config\.profile_steps is \[-1, 2\]"),
    ({"profile_steps": (1, 2, 3)}, r"config\.profile_steps is \[1, 2, 3\]; .* as in \(10, 15\), or \(\) for none"),
    ({"weights_model": "yolov3"}, r"config\.weights_model is 'yolov3', but config\.weights is empty"),
    ({"total": {"steps": -5}}, r"config\.total\.steps=-5: expected one unit, finite and not below 0"),
    (
      {"log_every": {"steps": 5, "epochs": 1.0}},
      r"config\.log_every\.steps=5, config\.log_every\.epochs=1\.0: expected one",
    ),
    ({"eval__every": {"epochs": float("inf")}}, r"config\.eval\.every\.epochs is inf; expected a finite number"),
    ({"data__max_boxes": 0}, r"config\.data\.max_boxes is 0; expected at least 1"),
    ({"data__threads": -1}, r"config\.data\.threads is -1; expected at least 0: 0 is one per core"),
    ({"data__workers": -2}, r"config\.data\.workers is -2; expected at least 0"),
    ({"data__prefetch": 0}, r"config\.data\.prefetch is 0; expected at least 1"),
    ({"data__cache_mb": -1}, r"config\.data\.cache_mb is -1; expected at least 0"),
    ({"loss__label_smoothing": 1.0}, r"config\.loss\.label_smoothing is 1\.0; expected at least 0 and below 1"),
    ({"loss__head": {"ignore_tresh": 0.5}}, r"config\.loss\.head\.ignore_tresh does not exist.*mean 'ignore_thresh'"),
    ({"loss__head": {"jitter": 0.5}}, r"config\.loss\.head\.jitter does not exist"),
    ({"loss__head": {"iou_normalizer": -1.0}}, r"config\.loss\.head\.iou_normalizer is -1\.0; expected at least 0"),
    ({"loss__head": {"ignore_thresh": "high"}}, r"config\.loss\.head\.ignore_thresh is 'high' \(str\); expected float"),
    (
      {"eval__batch_size": -4},
      r"config\.eval\.batch_size is -4; expected at least 0: images per run; 0 is the training",
    ),
    ({"eval__num_pictures": -1}, r"config\.eval\.num_pictures is -1; expected at least 0"),
    (
      {"eval__conf": 2.0},
      r"config\.eval\.conf is 2\.0; expected at least 0 and below 1: detections that are less sure",
    ),
    (
      {"eval__nms": -1.0},
      r"config\.eval\.nms is -1\.0; expected a number from 0 to 1: of two detections that overlap more",
    ),
    ({"hosts__step_timeout_sec": 0.0}, r"config\.hosts\.step_timeout_sec is 0\.0; expected at least 0\.001: seconds"),
    ({"optim__learning_rate": float("inf")}, r"config\.optim\.learning_rate is inf; expected a finite number"),
    ({"optim__schedule__power": -1.0}, r"config\.optim\.schedule: schedule\.power is -1\.0; expected at least 0"),
    ({"optim__schedule__sgdr_mult": 0}, r"schedule\.sgdr_mult is 0; expected at least 1"),
    (
      {"optim__schedule__steps": (5.0,), "optim__schedule__scales": (-0.1,)},
      r"scales \[-0\.1\]; .*scales of at least 0",
    ),
  ],
)
def test_wrong_configuration(values: dict[str, Any], message: str) -> None:
  with pytest.raises(ConfigError, match=f"(?s){message}"):
    typed(changed(**values))


def test_ranges_leave_the_edges() -> None:
  low = {
    "width": 0, "bn_momentum": 0.0, "eval__conf": 0.0, "eval__nms": 1.0, "eval__num_pictures": 0, "data__prefetch": 1,
    "profile_steps": (3, 3), "loss__head": {"max_delta": float("inf"), "ignore_thresh": 1.0, "iou_loss": "ciou"},
  }  # fmt: skip
  assert typed(changed(**low)).loss.head["max_delta"] == float("inf")


@pytest.mark.parametrize(
  ("size", "message"),
  [
    (
      {"width": 100},
      r"config\.width and config\.height: .*'yolov3-tiny-prn'.*100x416.*fits: width 96 or 128 \(multiples of 32\)\.$",
    ),
    (
      {"width": 100, "height": 100},
      r"100x100\. The nearest that fits: width 96 or 128 \(multiples of 32\), height 96 or 128 \(multiples of 32\)\.$",
    ),
    ({"width": 3}, r"3x416\. The nearest that fits: width 32 \(multiples of 32\)\.$"),
  ],
)
def test_size_that_does_not_fit_names_the_nearest(size: dict[str, int], message: str) -> None:
  with pytest.raises(ConfigError, match=message):
    build_network(TrainConfig(model="yolov3-tiny-prn", **size), 80)


def test_one_of_several_sizes_does_not_fit() -> None:
  config = dataclasses.replace(shipped("demo"), sizes=((160, 160), (160, 100)))
  with pytest.raises(ConfigError, match=r"config\.sizes\[1\]: .*160x100\. The nearest that fits: height 96 or 128"):
    open_experiment(config)


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


def test_a_run_of_an_older_version_lacks_keys_that_have_their_default() -> None:
  new = changed()
  old = json.loads(json.dumps(new))
  del old["transforms"], old["optim"]["ema_decay"], old["loss"]
  assert differences(old, new) == []
  changes = differences(old, changed(optim__ema_decay=0.9, loss__head={"iou_loss": "giou"}))
  assert changes == ["loss.head.iou_loss: None, now 'giou'", "optim.ema_decay: 0.0, now 0.9"]


def test_what_best_means_is_free_to_change_but_the_data_is_not() -> None:
  """A checkpoint keeps the meaning of its figure with it (see `FREE_KEYS`)."""
  new = changed(eval__metric="AP", eval__protocol="voc", eval__conf=0.1, eval__nms=0.5)
  assert differences(changed(), new) == []
  assert differences(changed(), changed(data__valid="synthetic:traffic:2")) == [
    "data.valid: '', now 'synthetic:traffic:2'"
  ]


def test_sizes_compare_equal_after_a_trip_through_json() -> None:
  new = changed(sizes=((320, 320),))
  assert differences(json.loads(json.dumps(new)), new) == []


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
from prn_jax.configs import default

@dataclasses.dataclass
class Mine:
  rate: float = 0.25

def get_config():
  config = default.get_config()
  config.optim.learning_rate = Mine().rate
  return config
""")
  assert read_config(str(file), []).optim.learning_rate == 0.25


def test_configuration_of_ones_own_imports_its_neighbours(tmp_path: Path) -> None:
  (tmp_path / "rates_of_mine.py").write_text("RATE = 0.125")
  file = tmp_path / "mine.py"
  file.write_text("""
from prn_jax.configs import default
import rates_of_mine

def get_config():
  config = default.get_config()
  config.optim.learning_rate = rates_of_mine.RATE
  return config
""")
  before = list(sys.path)
  assert read_config(str(file), []).optim.learning_rate == 0.125
  assert sys.path == before


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("import helpr", r"mine\.py' fails in line 1: ModuleNotFoundError: No module named 'helpr'\.$"),
    ("x = 1", r"mine\.py' has no function get_config\(\)"),
    ("def get_config(root):\n  return root", r"get_config\(\) missing 1 .*'root'\. Did you give the argument"),
    ("def get_config():\n  return 1 / 0", r"fails in line 2: ZeroDivisionError: division by zero\.$"),
  ],
)
def test_configuration_of_ones_own_that_fails(tmp_path: Path, text: str, message: str) -> None:
  file = tmp_path / "mine.py"
  file.write_text(text)
  with pytest.raises(PrnError, match=message):
    read_config(str(file), [])


def test_an_incomplete_configuration_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
  assert main(["train", "--config=default", "--config.batch_size=3", "--print-config"]) == 0
  printed = json.loads(capsys.readouterr().out)
  assert (printed["batch_size"], printed["data"]["train"]) == (3, "")


def test_run_directory_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
  (tmp_path / "file").touch()
  assert main(["train", "--config=demo", f"--workdir={tmp_path / 'file'}"]) == 2
  assert "it is a file. Give a folder with --workdir." in capsys.readouterr().err


def test_a_cfg_is_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.chdir(tmp_path)
  Path("tiny.cfg").write_text(darknet_cfg.dump(tiny_detector()))
  short, long = (read_config(name, ["--config.seed=3"]) for name in ("tiny.cfg", "from_cfg:tiny.cfg"))
  assert short.to_dict() == long.to_dict()
  assert (short.model, short.seed, short.task) == ("tiny.cfg", 3, "detect")


@pytest.mark.parametrize(
  ("config", "overrides", "message"),
  [
    ("coco_yolo3", [], r"no configuration is called 'coco_yolo3'.*coco_yolov3"),
    ("missing.cfg", [], r"cannot read cfg 'missing\.cfg'"),
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
