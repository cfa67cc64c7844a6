"""Modules and names that have moved: they still import from where they were, with a warning, until version 0.2.

from prn_jax.formats.convert import convert    # DeprecationWarning: ... has moved to prn_jax.export.convert
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {  # old name -> new name, both below prn_jax
  "classify.predict": "run.classifier",
  "data_pipelines.anchors": "data_pipelines.doctor.anchors",
  "data_pipelines.archives": "data_pipelines.reading.archives",
  "data_pipelines.batching": "data_pipelines.feed.batching",
  "data_pipelines.channels": "data_pipelines.images.channels",
  "data_pipelines.decoding": "data_pipelines.feed.decoding",
  "data_pipelines.evaluation_batches": "data_pipelines.feed.evaluation_batches",
  "data_pipelines.image_formats": "data_pipelines.images.formats",
  "data_pipelines.in_threads": "data_pipelines.parallel",
  "data_pipelines.inputs": "data_pipelines.images.inputs",
  "data_pipelines.label_files": "data_pipelines.reading.label_files",
  "data_pipelines.label_txt": "data_pipelines.reading.label_txt",
  "data_pipelines.named_files": "data_pipelines.reading.named_files",
  "data_pipelines.pipeline": "data_pipelines.feed.pipeline",
  "data_pipelines.prepare": "data_pipelines.prepared.prepare",
  "data_pipelines.record_bytes": "data_pipelines.prepared.record_bytes",
  "data_pipelines.report": "data_pipelines.doctor.report",
  "data_pipelines.segmentations": "data_pipelines.reading.segmentations",
  "data_pipelines.shard_cache": "data_pipelines.prepared.shard_cache",
  "data_pipelines.shrink": "data_pipelines.prepared.shrink",
  "data_pipelines.summary": "data_pipelines.doctor.summary",
  "data_pipelines.tfrecord": "data_pipelines.reading.tfrecord",
  "detect.clean_loss": "detect.autodiff_loss",
  "detect.predict": "run.detector",
  "detect.save": "run.save",
  "download": "zoo.fetch",
  "evaluate": "run.evaluate",
  "formats.buckets": "files.buckets",
  "formats.convert": "export.convert",
  "formats.files": "files.disk",
  "formats.mirror": "files.mirror",
  "formats.onnx": "export.onnx",
  "formats.places": "files.places",
  "formats.structured": "files.structured",
  "formats.values": "files.values",
  "formats.verify": "export.verify",
  "inference": "run.inference",
  "paper": "experiments.paper",
  "predict": "run.images",
  "train.cluster": "hosts.cluster",
  "train.exit_codes": "hosts.exit_codes",
  "train.facts": "train.agreement",
  "train.hosts": "hosts.group",
  "train.peers": "hosts.peers",
  "train.roster": "hosts.roster",
  "train.starts": "hosts.starts",
  "train.tasks": "train.losses",
  "train.totals": "train.step_metrics",
  "train.watchdog": "hosts.watchdog",
}


class _OldNames(MetaPathFinder):
  def find_spec(
    self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
  ) -> ModuleSpec | None:
    new = MOVED.get(fullname.removeprefix("prn_jax.")) if fullname.startswith("prn_jax.") else None
    return None if new is None else ModuleSpec(fullname, _Elsewhere(f"prn_jax.{new}"))


class _Elsewhere(Loader):
  """Gives the module of the new name, not a second copy of it: classes stay the same classes."""

  def __init__(self, new: str) -> None:
    self._new = new

  def create_module(self, spec: ModuleSpec) -> ModuleType:
    warnings.warn(
      f"{spec.name} has moved to {self._new}; the old name goes in version 0.2.", DeprecationWarning, stacklevel=2
    )
    module = importlib.import_module(self._new)
    self._spec = module.__spec__
    return module

  def exec_module(self, module: ModuleType) -> None:
    module.__spec__ = self._spec  # the import system has put the old name's there


def install() -> None:
  """Lets `import` find modules by their old names; once is enough."""
  if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
    sys.meta_path.append(_OldNames())


def old_names(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
  """The `__getattr__` of a module for names that it no longer has.

  Args:
    module: its name.
    moved: name -> where it is now, from "prn_jax" on.
  """

  def get(name: str) -> Any:
    if name not in moved:
      raise AttributeError(f"module '{module}' has no attribute '{name}'")
    where, _, attribute = moved[name].rpartition(".")
    warnings.warn(
      f"{module}.{name} has moved to {moved[name]}; the old name goes in version 0.2.", DeprecationWarning, stacklevel=2
    )
    return getattr(importlib.import_module(where), attribute)

  return get
