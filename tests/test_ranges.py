"""Where numbers of settings may lie: messages, and that every range fits its field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from prn_jax.data_pipelines.augment.classification import ClassificationAugment
from prn_jax.data_pipelines.augment.detection import DetectionAugment
from prn_jax.data_pipelines.feed.pipeline import PipelineConfig
from prn_jax.data_pipelines.prepared.shrink import ShrinkOptions
from prn_jax.errors import PrnError
from prn_jax.formats.darknet_training import HeadTraining, RegionTraining
from prn_jax.hosts.group import HostSettings
from prn_jax.ranges import Range, at_least, below, between, check, range_of, whole_fields
from prn_jax.train.config import DataConfig, EvalConfig, TrainConfig
from prn_jax.train.losses import LossConfig
from prn_jax.train.optim import OptimConfig, ScheduleConfig

SETTINGS = (
  ClassificationAugment, DataConfig, DetectionAugment, EvalConfig, HeadTraining, HostSettings, LossConfig, OptimConfig,
  PipelineConfig, RegionTraining, ScheduleConfig, ShrinkOptions, TrainConfig,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Inner:
  share: float = dataclasses.field(default=0.5, metadata=below(0, 1, "of the whole"))


@dataclasses.dataclass(frozen=True)
class Settings:
  count: int = dataclasses.field(default=1, metadata=at_least(1, "images"))
  quality: int | None = dataclasses.field(default=None, metadata=between(1, 100))
  angle: float = dataclasses.field(default=0.0, metadata=between(-180, 180, "degrees"))
  largest: float = dataclasses.field(default=1.0, metadata=at_least(0, is_finite=False))
  text: str = ""
  inner: Inner = Inner()


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"count": 0}, "set.count is 0; expected at least 1: images."),
    ({"count": 1.5}, "set.count is 1.5; expected a whole number of at least 1: images."),
    ({"count": True}, "set.count is True; expected a whole number of at least 1: images."),
    ({"count": "3"}, "set.count is '3'; expected a whole number of at least 1: images."),
    ({"quality": 101}, "set.quality is 101; expected a whole number from 1 to 100."),
    ({"angle": -180.5}, "set.angle is -180.5; expected a number from -180 to 180: degrees."),
    ({"angle": math.nan}, "set.angle is nan; expected a number from -180 to 180: degrees."),
    ({"angle": None, "largest": math.nan}, "set.largest is nan; expected at least 0."),
    ({"inner": Inner(1.0)}, "set.inner.share is 1.0; expected at least 0 and below 1: of the whole."),
    ({"inner": Inner("x")}, "set.inner.share is 'x'; expected a number of at least 0 and below 1: of the whole."),  # type: ignore[arg-type]
  ],
)
def test_messages(values: dict[str, Any], message: str) -> None:
  with pytest.raises(PrnError) as caught:
    check(Settings(**values), PrnError, "set.{}")
  assert str(caught.value) == message


def test_what_is_right() -> None:
  check(Settings(), PrnError)
  check(Settings(np.int32(7), 100, np.float32(180), math.inf, inner=Inner(0)), PrnError)  # type: ignore[arg-type]
  assert Range(0).problem(math.inf) == "expected a finite number"


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda cls: cls.__name__)
def test_defaults_lie_in_their_ranges(settings: type[Any]) -> None:
  whole = whole_fields(settings)
  ranges = {field: wanted for field in dataclasses.fields(settings) if (wanted := range_of(field))}
  assert ranges
  for field, wanted in ranges.items():
    if field.default not in (None, dataclasses.MISSING):
      assert not wanted.problem(field.default, is_whole=field.name in whole), field.name
