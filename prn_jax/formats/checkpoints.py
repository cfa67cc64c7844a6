"""Checkpoints of a training run on disk: which are whole, which is best, and the weights in them.

    RUN/config.json, graph.cfg, ...
    RUN/checkpoints/1200/state/          an Orbax checkpoint of nested dicts keyed by strings
    RUN/checkpoints/1200/meta.json       step, shapes and types of all arrays, and what the caller keeps (graph, config)
    RUN/checkpoints/1200/manifest.json   sha256 of every file above, the metric and what it means; written last, in one
                                         step

The manifest is the only point of commitment: a folder without it is an interrupted save, or one being deleted (where it
goes first). "Latest" and "best" are read off the manifests; no pointer can disagree with them. Orbax restores flipped
bits silently as wrong numbers, so every reader verifies the hashes first.

The state is stored by path: a field of a named tuple or a key of a dict is a key, an element of a tuple is its index:
`params/stem/conv/kernel`, `ema_params/...`, `batch_stats/...`, `opt_state/0/trace/stem/conv/kernel`, `step`. Any Orbax
reads it without our classes: `orbax.checkpoint.PyTreeCheckpointer().restore(RUN/checkpoints/1200/state)`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np

from prn_jax.errors import CheckpointError, PrnError
from prn_jax.files.disk import is_file, is_folder, write_text
from prn_jax.files.places import files_below, is_remote, remove_tree, to_path
from prn_jax.files.sealed import check_files, hashes
from prn_jax.files.structured import read_json
from prn_jax.files.values import Node, shown
from prn_jax.formats.description import cannot_restore, check_version, description, file_hashes
from prn_jax.nested import flattened, nested

FOLDER = "checkpoints"
STATE, META, MANIFEST = "state", "meta.json", "manifest.json"
ONLY_FOR_TRAINING = (
  "only_for_training"  # in what a run stores: layers that its network has besides, while it is trained
)
FORMAT = "prn_jax checkpoint"
VERSION = 1
Which = int | Literal["best", "latest"]
_LOG = logging.getLogger(__name__)


class Rating(NamedTuple):
  """How good a checkpoint is.

  Attributes:
    metric: higher is better; None: it was not evaluated, or the figure is not defined.
    metric_of: what the figure means, as JSON values with its "name"; figures are compared where this is equal. None: it
      was not evaluated, or by a version that did not say.
  """

  metric: float | None = None
  metric_of: dict[str, Any] | None = None

  def __str__(self) -> str:
    return "not rated" if self.metric is None else f"{(self.metric_of or {}).get('name', 'metric')} {self.metric:.6g}"


def is_run_directory(path: Path) -> bool:
  """True for a run directory, its checkpoints folder, and one finished checkpoint in it."""
  return is_folder(path) and ((path / FOLDER).is_dir() or _is_checkpoint(path) or any(step_folders(path)))


def step_folders(folder: Path) -> list[int]:
  """Steps that have a folder, finished or not, in rising order."""
  if not folder.is_dir():
    return []
  try:
    entries = list(folder.iterdir())
  except (
    FileNotFoundError
  ):  # a folder of a bucket ends with its last object, which another process may just have deleted
    return []
  return sorted(
    int(entry.name)
    for entry in entries
    if entry.name.isdecimal() and str(int(entry.name)) == entry.name and entry.is_dir()
  )


def complete_steps(folder: Path) -> dict[int, Rating]:
  """Step -> rating of every finished checkpoint, in rising order. Contents are not verified here."""
  found: dict[int, Rating] = {}
  for step in step_folders(folder):
    with contextlib.suppress(CheckpointError):
      found[step] = rating_of(read_manifest(folder / str(step)))
  return found


def rating_of(manifest: Mapping[str, Any]) -> Rating:
  return Rating(manifest["metric"], manifest.get("metric_of"))


def best_of(ratings: Mapping[int, Rating]) -> int | None:
  """The step with the highest metric, the earliest of equals; None where no checkpoint has one.

  Only those take part whose metric means the same as that of the newest that has one.
  """
  rated = {step: rating for step, rating in ratings.items() if rating.metric is not None}
  if not rated:
    return None
  meaning = rated[max(rated)].metric_of
  return -max((rating.metric, -step) for step, rating in rated.items() if rating.metric_of == meaning)[1]


def read_manifest(checkpoint: Path) -> dict[str, Any]:
  """The manifest of a checkpoint.

  Raises:
    CheckpointError: there is none (the save was interrupted), it is damaged, or of a newer format.
    BucketError: nobody knows, because the bucket could not be asked.
  """
  path = checkpoint / MANIFEST
  if not is_file(path):
    raise CheckpointError(f"'{checkpoint}' is unfinished (no {MANIFEST}): its save was interrupted.")
  root = read_json(path, CheckpointError)
  stated = root["checksum"].text()
  manifest = {key: value for key, value in root.raw.items() if key != "checksum"}
  if stated != _checksum(manifest):
    raise CheckpointError(f"'{path}' has changed since it was saved: its checksum does not hold.")
  check_version(root, str(checkpoint), FORMAT, VERSION)
  if "metric_of" in root:
    root["metric_of"].mapping()
  metric = root["metric"].number() if "metric" in root else None
  return manifest | {"step": root["step"].whole(0), "metric": metric, "sha256": file_hashes(root["sha256"])}


def write_manifest(checkpoint: Path, step: int, rating: Rating, hashes: Mapping[str, str]) -> None:
  """Declares a checkpoint finished, or gives it another rating, in one step."""
  manifest = {"format": FORMAT, "version": VERSION, "step": step, **rating._asdict(), "sha256": dict(hashes)}
  write_text(checkpoint / MANIFEST, json.dumps(manifest | {"checksum": _checksum(manifest)}, indent=1))


def read_meta(checkpoint: Path) -> dict[str, Any]:
  """What meta.json holds: "step", "arrays" (path -> type and shape), "versions", and the caller's "meta"; call `verify`
  first."""
  root = read_json(checkpoint / META, CheckpointError)
  arrays = {name: _type_and_shape(value) for name, value in root["arrays"].mapping().items()}
  for key in ("meta", "versions"):
    root[key].mapping()
  return root.raw | {"step": root["step"].whole(0), "arrays": arrays}


def _type_and_shape(value: Node) -> tuple[str, list[int]]:
  import ml_dtypes  # noqa: F401  (gives numpy bfloat16)

  parts = value.items()
  if len(parts) != 2:
    raise value.fault(f"is {shown(value.raw)}; expected type and shape")
  name = parts[0].text()
  try:
    is_type = (
      bool(re.fullmatch(r"[a-z]\w{0,40}", name)) and np.dtype(name) is not None
    )  # numpy reads much more as types
  except (TypeError, ValueError, SyntaxError):
    is_type = False
  if not is_type:
    raise parts[0].fault(f"is {shown(parts[0].raw)}; expected the type of an array")
  return name, [side.whole(0, 2**40) for side in parts[1].items()]


def hash_files(checkpoint: Path, *, durable: bool = False) -> dict[str, str]:
  """sha256 of every file but the manifest, by its path below `checkpoint`; `durable` also forces them to the disk."""
  names = [name for name in files_below(checkpoint) if not _is_manifest(name)]
  if durable and not is_remote(checkpoint):
    for name in names:
      _force_to_disk(checkpoint / name)
  return hashes(checkpoint, names)


def verify(checkpoint: Path, *, part: int = 0, parts: int = 1) -> None:
  """Compares the files with the manifest.

  Args:
    checkpoint: the folder of one step.
    part, parts: reads the contents of every `parts`-th file only, from the `part`-th on: hosts share the work.

  Raises:
    CheckpointError: naming the first file that is missing or changed.
  """
  check_files(checkpoint, read_manifest(checkpoint)["sha256"], part=part, parts=parts)


def delete(checkpoint: Path) -> None:
  """Deletes a checkpoint; a kill on the way leaves an unfinished one, never a damaged one."""
  (checkpoint / MANIFEST).unlink(missing_ok=True)
  remove_tree(checkpoint)


def restore_arrays(checkpoint: Path, targets: Mapping[str, Any]) -> dict[str, Any]:
  """Reads some arrays of a checkpoint. With several processes each reads what it needs; they do not wait for another.

  Args:
    checkpoint: the folder of one step, verified.
    targets: path of an array -> `jax.ShapeDtypeStruct` with the sharding it shall have, or without one for numpy.

  Returns:
    Path -> array.
  """
  import jax
  import orbax.checkpoint as ocp

  def restore_args(target: Any) -> Any:
    if target.sharding is None:
      return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=target.sharding, global_shape=target.shape, dtype=target.dtype)

  items = nested(targets)
  arguments = nested({path: restore_args(target) for path, target in targets.items()})
  process = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})
  handler = ocp.PyTreeCheckpointHandler()
  with contextlib.closing(ocp.Checkpointer(handler, multiprocessing_options=alone)) as checkpointer:
    try:
      restored = checkpointer.restore(
        str((checkpoint / STATE).resolve()),
        args=ocp.args.PyTreeRestore(item=items, restore_args=arguments, partial_restore=True),
      )
      flat = flattened(restored)
      return {path: flat[path] for path in targets}
    except PrnError:
      raise
    except Exception as error:
      raise cannot_restore(checkpoint / STATE, error) from error


def load_params(path: str | Path, step: Which = "best", *, ema: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
  """The network's variables of a training run.

  Args:
    path: a run directory, its checkpoints folder, or one checkpoint (then `step` is not used).
    step: "best" (the latest where no checkpoint has a metric), "latest", or a number.
    ema: take the running averages of the weights where the run kept them.

  Returns:
    {"params": ..., "batch_stats": ...} as nested dicts of numpy arrays, and the metadata: "step", "metric" and
    "metric_of" (see `Rating`), and what the run stored ("graph_cfg", "names", "config", ...).

  Raises:
    CheckpointError: there is no finished checkpoint, no such step, or a file of it is missing or damaged.
  """
  checkpoint = _choose(to_path(path), step)
  try:
    verify(checkpoint)
  except CheckpointError as error:
    raise CheckpointError(f"{error} Give another checkpoint of the run, for example {_others(checkpoint)}.") from None
  meta = read_meta(checkpoint)
  names = _of_the_network(meta)
  averaged = ema and any(name.startswith("ema_params/") for name in names)
  wanted = {
    name: name.removeprefix("ema_") if averaged else name
    for name in names
    if name.startswith(_collections(names, averaged))
  }
  with _quiet():
    arrays = restore_arrays(checkpoint, {name: _numpy_target(*meta["arrays"][name]) for name in wanted})
  rating = rating_of(read_manifest(checkpoint))
  _LOG.info(
    "'%s': step %d%s, %s weights.",
    path,
    meta["step"],
    "" if rating.metric is None else f" ({rating})",
    "averaged (EMA)" if averaged else "plain",
  )
  variables = nested({name: arrays[source] for source, name in wanted.items()})
  return {"params": {}, "batch_stats": {}} | variables, {**meta["meta"], "step": meta["step"], **rating._asdict()}


def _of_the_network(meta: Mapping[str, Any]) -> list[str]:
  """Paths of the arrays, without those of layers that the network has only while it is trained."""
  said = meta["meta"].get(ONLY_FOR_TRAINING)
  spared = {name for name in said if isinstance(name, str)} if isinstance(said, list) else set()
  return [name for name in meta["arrays"] if not spared.intersection(name.split("/")[1:2])]


def described_model(path: Path, meta: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
  """The cfg text of a run, and "name", "names" and "resize" of its model as far as they are known.

  Args:
    path: the path that was given to `load_params`.
    meta: what that returned; graph.cfg and config.json of the run are read for what is not in it.

  Raises:
    CheckpointError: there is no graph.
  """
  run = next((place for place in (path, *path.resolve().parents[:2]) if (place / FOLDER).is_dir()), path)
  said = Node(dict(meta), f"'{path}'", error=CheckpointError)
  text = said["graph_cfg"].text() if "graph_cfg" in said else None
  if text is None:
    try:
      text = (run / "graph.cfg").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
      raise CheckpointError(
        f"run '{path}' has no graph.cfg, and its checkpoint of step {meta['step']} no graph."
      ) from None
  extra = {key: value for key, value in description(said).items() if value and key != "missing"}
  if "header" not in extra and "config" in said and "batch_size" in said["config"]:
    seen = said["config"]["batch_size"].whole(0) * meta["step"]
    extra["header"] = {"seen": seen}  # images, as Darknet counts them in its weights files
  if "names" not in extra:
    with contextlib.suppress(CheckpointError):  # then there are no names
      config = read_json(run / "config.json", CheckpointError)
      extra["names"] = config["names"].texts() if "names" in config else []
  return text, extra


def _choose(path: Path, step: Which) -> Path:
  if _is_checkpoint(path):
    return path
  folder = path / FOLDER if (path / FOLDER).is_dir() else path
  ratings = complete_steps(folder)
  if not ratings:
    unfinished = step_folders(folder)
    raise CheckpointError(
      f"'{path}' holds no finished checkpoint"
      + (f" (unfinished: step {', '.join(map(str, unfinished))})" if unfinished else "")
      + ". Train until the first one is saved."
    )
  if step == "best":
    chosen = best_of(ratings)
    step = max(ratings) if chosen is None else chosen
  elif step == "latest":
    step = max(ratings)
  if step not in ratings:
    raise CheckpointError(f"'{path}' has no finished checkpoint of step {step}; it has {_listed(ratings)}.")
  return folder / str(step)


def _collections(names: Iterable[str], averaged: bool) -> tuple[str, ...]:
  """Prefixes of the variables to load. A run may average the weights and not the statistics."""
  if not averaged:
    return "params/", "batch_stats/"
  has_stats = any(name.startswith("ema_batch_stats/") for name in names)
  return "ema_params/", "ema_batch_stats/" if has_stats else "batch_stats/"


def _others(checkpoint: Path) -> str:
  steps = [step for step in complete_steps(checkpoint.parent) if str(step) != checkpoint.name]
  return f"'{checkpoint.parent / str(steps[-1])}'" if steps else "from a copy: there is no other in this run"


def _listed(steps: Iterable[int]) -> str:
  return ", ".join(map(str, steps))


def _is_checkpoint(path: Path) -> bool:
  return (path / MANIFEST).is_file() and (path / META).is_file()


def _is_manifest(name: str) -> bool:
  """Also what a kill left while the manifest was being written."""
  return PurePosixPath(name).name == MANIFEST or PurePosixPath(name).name.startswith(f".{MANIFEST}.")


def _checksum(manifest: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _numpy_target(dtype: str, shape: list[int]) -> Any:
  import jax

  return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _force_to_disk(path: Path) -> None:
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Orbax warns about topology, which does not concern arrays read as numpy."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield
