"""What must be equal: among the hosts of a run at its start, and among figures that are compared with each other."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import numpy as np

from prn_jax.data_pipelines.records import Dataset, ImageId, RecordList, Renumbered
from prn_jax.errors import PrnError
from prn_jax.hosts.group import Hosts
from prn_jax.train.config import to_dict
from prn_jax.train.experiment import Experiment

NUM_READ = 64  # records of a data set that is not in memory


def check_hosts(experiment: Experiment, hosts: Hosts) -> None:
  """Raises HostsDifferError unless all processes are about to do the same.

  Hosts with other validation data would wait for each other in the first evaluation: they take other numbers of batches.
  """
  if hosts.peers is None:
    return
  text = json.dumps(to_dict(experiment.config), sort_keys=True)
  valid = experiment.evaluator.dataset if experiment.evaluator else None
  hosts.check_same(
    {
      "config": _sha256(text),
      "network": _sha256(experiment.graph_cfg()),  # a cfg of the same name may say something else there
      "training images": len(experiment.dataset),
      "ids of the training images": ids_digest(experiment.dataset),
      "validation images": 0 if valid is None else len(valid),
      "ids of the validation images": "" if valid is None else ids_digest(valid),
      "classes": ",".join(experiment.names),
      "steps": experiment.total_steps,
      "constants of the loss": arrays_digest(experiment.objective.constants),
    }
  )


def metric_of(experiment: Experiment) -> dict[str, Any]:
  """What the figure that rates a checkpoint means; empty without validation data.

  Settings of an evaluation may change while a run goes on. A figure at another threshold, or of other images, says
  nothing about which checkpoint is better.
  """
  evaluator, config = experiment.evaluator, experiment.config.eval
  if evaluator is None:
    return {}
  found: dict[str, Any] = {"name": evaluator.metric}
  if experiment.graph.detects:
    found |= {"protocol": config.protocol, "conf": config.conf, "nms": config.nms}
  return found | {"images": len(evaluator.dataset), "ids": ids_digest(evaluator.dataset)}


def ids_digest(dataset: Dataset) -> str:
  """12 digits that follow from the number of the images, and from their ids in order.

  Where annotations are in memory all ids count. Elsewhere a record must be read (or drawn) to know its id, and as many
  as `NUM_READ` count, spread evenly.
  """
  while isinstance(dataset, Renumbered):
    dataset = dataset.dataset
  ids: list[ImageId | None]
  if isinstance(dataset, RecordList):
    ids = [record.image_id for record in dataset.records]
  else:
    spread = np.linspace(0, len(dataset) - 1, min(len(dataset), NUM_READ))
    ids = [_id(dataset, int(index)) for index in spread]
  return _sha256(f"{len(dataset)} {ids!r}")


def _id(dataset: Dataset, index: int) -> ImageId | None:
  """None for a record that cannot be read: who trains with it words the message and follows the policy."""
  try:
    return dataset[index].image_id
  except PrnError:
    return None


def arrays_digest(arrays: Any) -> str:
  """12 digits that follow from the names, types, shapes and values of a pytree; "" if it has no arrays."""
  found = hashlib.sha256()
  leaves = jax.tree_util.tree_flatten_with_path(arrays)[0]
  for path, leaf in leaves:
    array = np.asarray(leaf)
    found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode() + array.tobytes())
  return found.hexdigest()[:12] if leaves else ""


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
