"""How a run evaluates itself, for whoever repeats it: data and settings, from its directory alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prn_jax.errors import PrnError
from prn_jax.files.disk import is_file
from prn_jax.files.structured import read_json
from prn_jax.formats.checkpoints import FOLDER, is_run_directory
from prn_jax.train.config import ConfigError, EvalConfig
from prn_jax.train.effective import BATCH
from prn_jax.train.effective import FILE as EFFECTIVE


@dataclasses.dataclass(frozen=True)
class EvaluatedAs:
  """What the evaluation of a run sees.

  Attributes:
    data: SPEC of the validation images.
    on_bad_data: "stop" or "skip".
    batch_size: images per run of the network.
    config: protocol and thresholds.
  """

  data: str
  on_bad_data: str
  batch_size: int
  config: EvalConfig


def evaluated_as(path: Path) -> EvaluatedAs:
  """The evaluation of the run that a directory, or one of its checkpoints, belongs to.

  Raises:
    PrnError: it is no run directory, the run had no validation data, or its config.json is damaged.
  """
  run = next((place for place in (path, *path.resolve().parents[:2]) if (place / FOLDER).is_dir()), path)
  if not is_run_directory(path) or not is_file(run / "config.json"):
    raise PrnError(
      f"'{path}' is no run directory, whose validation data could be taken. Name annotated data with --data SPEC."
    )
  config = read_json(run / "config.json", ConfigError, advice="Name annotated data with --data SPEC.")
  given, data = config["eval"], config["data"]
  if not data["valid"].text():
    raise PrnError(f"run '{run}' has no validation data (config.data.valid is empty). Name some with --data SPEC.")
  batch_size = given["batch_size"].whole(0) or config["batch_size"].whole(0)
  if not batch_size:  # chosen by the number of images
    batch_size = read_json(run / EFFECTIVE, ConfigError, advice="Give --batch N.")[BATCH].whole(1)
  settings = EvalConfig(conf=given["conf"].number(), nms=given["nms"].number(), protocol=given["protocol"].text())
  return EvaluatedAs(data["valid"].text(), data["on_bad_data"].text(), batch_size, settings)
