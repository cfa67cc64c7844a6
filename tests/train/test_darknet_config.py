"""A cfg as a configuration: no training key of [net] is dropped in silence."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import INERT, NetTraining
from prn_jax.train.config import ConfigError, typed
from prn_jax.train.darknet_config import KEYS_OF_NET, Use, config_from_cfg
from tests.conftest import shared_params

KEYS = [field.name for field in dataclasses.fields(NetTraining)]
NETWORK_KEYS = ("width", "height", "channels")
# Without these some keys could not show what they do: scales need steps, resize_step needs random sizes.
NET = {"width": 32, "height": 32, "channels": 3, "batch": 4, "max_batches": 100, "steps": "5,9"}
SECTIONS = {
  "classifier": "[convolutional]\nfilters=4\nactivation=linear\n[avgpool]\n[softmax]\n",
  "detector": "[convolutional]\nfilters=6\nactivation=linear\n[yolo]\nmask=0\nanchors=4,4\nnum=1\nclasses=1\nrandom=1\n",
}
# Values that differ from Darknet's default and can be; other numbers are 3 above it.
VALUES = {
  "batch": 8, "policy": "steps", "steps": "7", "scales": ".5,.5", "seq_scales": "2", "momentum": 0.5, "ema_alpha": 0.9, "hue": 0.1,
  "label_smooth_eps": 0.1, "flip": 0, "cutmix": 1, "mixup": 1, "min_crop": 40, "angle": 7, "resize_step": 16,
}  # fmt: skip


def written(folder: Path, task: str, **net: Any) -> str:
  path = folder / f"{task}.cfg"
  keys = "\n".join(f"{key}={value}" for key, value in (NET | net).items())
  path.write_text(f"[net]\n{keys}\n{SECTIONS[task]}")
  return str(path)


def opened(path: str) -> Any:
  config = config_from_cfg(path)
  config.data.train = "synthetic:traffic:1"
  return typed(config)


@pytest.mark.parametrize("task", SECTIONS)
def test_every_key_is_listed(task: str) -> None:
  assert set(KEYS_OF_NET[task]) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("task", SECTIONS)
def test_every_key_is_what_the_list_says(task: str, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
  """A key that is followed changes the configuration; another one is named in the log or in an error."""
  default = getattr(NetTraining(), key)
  value = VALUES.get(key, 1 if isinstance(default, bool) else 0 if isinstance(default, str) else default)
  value = value if key in VALUES or isinstance(default, bool) else default + 3
  plain = opened(written(tmp_path, task))
  use = KEYS_OF_NET[task][key]
  path = written(tmp_path, task, **{key: value})
  with caplog.at_level(logging.WARNING):
    if use is Use.REFUSED:
      with pytest.raises(PrnError, match=rf"\[net\] {key}={value:g} is not supported"):
        opened(path)
      return
    changed = opened(path)
  assert (changed != plain) == (use is Use.FOLLOWED)
  is_told = f"[net] {key}=" in caplog.text
  assert is_told == (use not in (Use.FOLLOWED, Use.IDLE))


def test_what_is_said_of_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
  with caplog.at_level(logging.WARNING):
    opened(written(tmp_path, "classifier", letter_box=1, mosaic=1))
    opened(written(tmp_path, "detector", angle=7, loss_scale=128))
  texts = [record.getMessage() for record in caplog.records]
  classifier, detector = tmp_path / "classifier.cfg", tmp_path / "detector.cfg"
  assert sorted(texts) == [
    f"cfg {classifier}: [net] letter_box=1 has no effect on a classifier, as in Darknet.",
    f"cfg {classifier}: [net] mosaic=1 is not followed: images of classifiers are not mixed here.",
    f"cfg {detector}: [net] angle=7 has no effect on a detector, as in Darknet.",
    f"cfg {detector}: [net] loss_scale=128 is not followed: it makes up for the range of float16, in which nothing "
    "is computed here.",
  ]
  with pytest.raises(ConfigError, match=r"badlabels_reverse=1 is not supported in training and would change what is"):
    opened(written(tmp_path, "classifier", badlabels_reverse=1))


@pytest.mark.parametrize("cfg", shared_params("cfg/*.cfg"))
def test_every_key_of_public_cfgs_is_followed_or_told(cfg: Path, caplog: pytest.LogCaptureFixture) -> None:
  text = cfg.read_text()
  if "[detection]" in text:
    return  # refused as a whole (test_config)
  task = "detector" if "yolo]" in text or "[region]" in text else "classifier"
  known = {*KEYS, *NETWORK_KEYS, *INERT["net"]}
  section = re.split(r"^\s*\[", text, flags=re.MULTILINE)[1]
  lines = (line.split("=")[0].strip() for line in section.splitlines()[1:])
  given = {key for key in lines if key and not key.startswith(("#", ";"))}
  assert given <= known, "keys that no list has"
  with caplog.at_level(logging.WARNING):
    config_from_cfg(str(cfg))
  net, default = darknet_cfg.read(cfg).training.net, NetTraining()
  silent = {key for key in KEYS if getattr(net, key) == getattr(default, key)}
  told = set(re.findall(r"\[net\] (\w+)=", caplog.text))
  assert told == {key for key in given - silent if KEYS_OF_NET[task].get(key) not in (Use.FOLLOWED, Use.IDLE, None)}
  assert told <= {"cutmix", "mosaic"}, "public cfgs ask for little else that is not followed"


def test_crops_of_classifiers_have_darknets_defaults(tmp_path: Path) -> None:
  plain = opened(written(tmp_path, "classifier")).augment
  assert (plain.min_crop, plain.max_crop, plain.angle, plain.aspect, plain.blur) == (32, 64, 0, 1, 0)
  given = opened(written(tmp_path, "classifier", min_crop=10, max_crop=50, angle=7, aspect=0.75, blur=1)).augment
  assert (given.min_crop, given.max_crop, given.angle, given.aspect, given.blur) == (10, 50, 7, 0.75, 1)
  swapped = opened(written(tmp_path, "classifier", max_crop=20)).augment  # below the default of min_crop
  assert (swapped.min_crop, swapped.max_crop) == (20, 32)


@pytest.mark.parametrize(
  ("keys", "mosaic", "mixup"),
  [
    ({"mixup": 1}, False, True),
    ({"mixup": 3}, True, False),
    ({"mosaic": 1, "mixup": 1}, True, False),
    ({"cutmix": 1, "mixup": 1}, False, False),
    ({"mosaic": 1, "cutmix": 1}, True, False),
  ],
)
def test_mixing_of_detectors(keys: dict[str, int], mosaic: bool, mixup: bool, tmp_path: Path) -> None:
  augment = opened(written(tmp_path, "detector", **keys)).augment
  assert (augment.mosaic, augment.mixup) == (mosaic, mixup)


def test_step_between_sizes_that_cannot_be(tmp_path: Path) -> None:
  with pytest.raises(ConfigError, match=r"\[net\] resize_step=0; expected at least 1"):
    opened(written(tmp_path, "detector", resize_step=0))
