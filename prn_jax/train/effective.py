"""What took effect in a run: network, loss, classes and data, as they came out of the files that the configuration names.

config.json says what was asked. A cfg, a list of names or annotations may be edited between two starts, and then the same
question has another answer. So a run keeps the answer in effective.json, and every later start compares its own with it.
Files that were moved or worded otherwise, and say the same, are the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prn_jax.data_pipelines.joined import joined
from prn_jax.data_pipelines.records import Dataset, RecordList
from prn_jax.errors import PrnError
from prn_jax.formats import darknet_cfg
from prn_jax.formats.darknet_training import HeadTraining, LayerTraining, RegionTraining, Training
from prn_jax.graph.graph import Graph, Layer
from prn_jax.train.agreement import arrays_digest, ids_digest
from prn_jax.train.config import DATA_KEYS
from prn_jax.train.experiment import Experiment
from prn_jax.train.losses import LossConfig, head_settings

FILE = "effective.json"
NETWORK, LOSS, LAYERS, CLASSES, TRAIN, VALID = "network", "loss", "layers", "classes", "train", "valid"
BATCH, MOMENTUM, CONSTANTS = "batch_size", "bn_momentum", "constants"
# Keys of the configuration that say where something lies, or leave a number open, and the parts that came from there.
# Where those are equal, it was moved, or is the same number.
PLACES = {
  "model": (NETWORK, LOSS, LAYERS), "data.train": (CLASSES, TRAIN), "data.valid": (VALID,), BATCH: (BATCH,),
  MOMENTUM: (MOMENTUM,), "distill.teacher": (CONSTANTS,), "distill.weights": (CONSTANTS,),
}  # fmt: skip
# Keys of a head without influence on its gradients; those of the data are in the configuration.
_IDLE = {
  *DATA_KEYS, "track_history_size", "sim_thresh", "dets_for_track", "dets_for_show", "track_ciou_norm", "embedding_layer",
}  # fmt: skip
_SHOWN_CHARS = 160  # of a value in a message
_Table = dict[str, Any]


def effective(experiment: Experiment) -> _Table:
  """What takes effect in this experiment, as JSON values by part (`NETWORK`, ...)."""
  evaluator = experiment.evaluator
  found = described(experiment.graph, experiment.training, experiment.config.loss, experiment.resize)
  found |= {
    CLASSES: list(experiment.names),
    TRAIN: _data(experiment.dataset),
    VALID: _data(evaluator.dataset) if evaluator else None,
    BATCH: experiment.config.batch_size,
    MOMENTUM: experiment.config.bn_momentum,
    CONSTANTS: arrays_digest(experiment.objective.constants),
    "total_steps": experiment.total_steps,
  }
  return _json(found)


def described(graph: Graph, training: Training | None, loss: LossConfig, resize: str) -> _Table:
  """Network and loss; values at their default are written too."""
  layers = training.layers if training else {}
  found = {
    NETWORK: {
      "input": [graph.width, graph.height, graph.channels],
      "resize": resize,
      "layers": {layer.name: _fields(layer) for layer in graph},
    },
    LOSS: {name: _of_loss(head) for name, head in _heads(graph, training, loss).items()},
    LAYERS: {name: dataclasses.asdict(layers[name]) for name in layers if layers[name] != LayerTraining()},
  }
  return _json(found)


def of_checkpoint(meta: Mapping[str, Any]) -> _Table:
  """The parts that follow from what every checkpoint keeps, for runs of versions that did not write effective.json."""
  config = meta.get("config") or {}
  loss = config.get("loss") or {}
  try:
    cfg = darknet_cfg.parse(str(meta["graph_cfg"]), "graph.cfg", strict=False)
    known = {f.name for f in dataclasses.fields(LossConfig)}
    given = LossConfig(**{key: value for key, value in loss.items() if key in known})
    found = described(cfg.graph, cfg.training, given, str(meta.get("resize") or "stretch"))
  except (PrnError, KeyError, TypeError, AttributeError):
    return {}
  found |= {key: config[key] for key in (BATCH, MOMENTUM) if config.get(key)}
  return found | ({CLASSES: list(meta["names"])} if meta.get("names") else {})


def changes(old: Mapping[str, Any], new: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
  """What is not as it was, as "FILE: KEY: OLD, now NEW". Parts that `old` does not tell of are left out, and validation
  images: they have no part in what is learned, and figures of other images are not compared.

  Args:
    old, new: two results of `effective`.
    asked: the configuration of now, as `to_dict` gives it.
  """
  model, data = asked["model"], asked["data"]["train"]
  of_model = [*_network_changes(old, new), *_setting_changes(old, new, LOSS), *_setting_changes(old, new, LAYERS)]
  of_data = _class_changes(old.get(CLASSES), new[CLASSES])
  of_data += _data_changes(old.get(TRAIN), new[TRAIN], same_classes=not of_data)
  chosen = [
    f"{key}: {old[key]}, now {new[key]} (chosen by number of images, devices and steps); --config.{key}={old[key]} keeps it"
    for key in (BATCH, MOMENTUM)
    if key in old and old[key] != new[key] and not asked[key]
  ]
  of_constants = []
  if CONSTANTS in old and old[CONSTANTS] != new[CONSTANTS]:
    texts = (f"arrays with the digest {one[CONSTANTS]}" if one[CONSTANTS] else "none" for one in (old, new))
    of_constants.append(f"constants of the loss, such as the weights of a teacher: {', now '.join(texts)}")
  return [*(f"{model}: {line}" for line in of_model), *(f"{data}: {line}" for line in of_data), *chosen, *of_constants]


def moved(config_key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
  """Whether a key of the configuration that differs only names another place of the same thing."""
  parts = PLACES.get(config_key, ())
  return bool(parts) and all(part in old and not _differs(old[part], new[part]) for part in parts)


def is_sound(found: Any) -> bool:
  """Whether this is the content of an effective.json, as `changes` can compare it."""
  if not isinstance(found, dict) or not all(
    isinstance(found.get(part), dict) for part in (NETWORK, LOSS, LAYERS, TRAIN)
  ):
    return False
  tables = [found[NETWORK].get("layers"), found[LOSS], found[LAYERS]]
  classes, train = found.get(CLASSES), found[TRAIN]
  return (
    all(isinstance(table, dict) and all(isinstance(one, dict) for one in table.values()) for table in tables)
    and isinstance(classes, list)
    and all(isinstance(name, str) for name in classes)
    and isinstance(train.get("images"), int)
    and "ids" in train
  )


# -- describing --------------------------------------------------------------------------------------------------------


def _heads(graph: Graph, training: Training | None, loss: LossConfig) -> Mapping[str, HeadTraining | RegionTraining]:
  return head_settings(graph, loss, training) if graph.detects else {}


def _of_loss(head: HeadTraining | RegionTraining) -> _Table:
  return {f.name: getattr(head, f.name) for f in dataclasses.fields(head) if f.name not in _IDLE}


def _fields(layer: Layer) -> _Table:
  values = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer) if f.name != "name"}
  return {"kind": layer.kind} | values


def _data(dataset: Dataset) -> _Table:
  table = {"images": len(dataset), "ids": ids_digest(dataset), "annotations": annotations_digest(dataset)}
  if several := joined(dataset):
    names = [[n for n, has in zip(several.names, part.annotated, strict=True) if has] for part in several.parts]
    table["sets"] = [f"{part.weight:g} x ({', '.join(own)})" for part, own in zip(several.parts, names, strict=True)]
  return table


def annotations_digest(dataset: Dataset) -> str:
  """12 digits that follow from every box, class and ignored region; "" where the annotations are not in memory."""
  several = joined(dataset)
  if not (several.is_in_memory if several else isinstance(dataset, RecordList)):
    return ""  # reading them all would cost as much as an epoch
  digest = hashlib.sha256()
  for record in map(dataset.__getitem__, range(len(dataset))):
    digest.update(f"{len(record.classes)} {record.label} {record.width}x{record.height};".encode())
    for array in (record.boxes_xyxy_px, record.classes, record.is_crowd, record.is_difficult, record.ignored_xyxy_px):
      digest.update(array.tobytes())
  return digest.hexdigest()[:12]


def _json(value: Any) -> Any:
  """Plain JSON: lists for tuples, text for what JSON lacks."""
  if isinstance(value, Mapping):
    return {str(key): _json(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_json(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value if value is None or type(value) in (bool, int, float, str) else str(value)


# -- comparing ---------------------------------------------------------------------------------------------------------


def _network_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  if NETWORK not in old:
    return []
  was, now = old[NETWORK], new[NETWORK]
  lines = _value_changes(
    {k: v for k, v in was.items() if k != "layers"}, {k: v for k, v in now.items() if k != "layers"}
  )
  before, after = was.get("layers", {}), now["layers"]
  if list(before) != list(after):
    lines += _listed("layers that are new", [f"[{after[name]['kind']}] {name}" for name in after if name not in before])
    lines += _listed(
      "layers that are gone", [f"[{one['kind']}] {name}" for name, one in before.items() if name not in after]
    )
    if set(before) == set(after):
      lines.append("its layers stand in another order")
  for name in (name for name in after if name in before):
    if before[name].get("kind") != after[name]["kind"]:
      lines.append(f"layer {name} was a [{before[name].get('kind')}], now a [{after[name]['kind']}]")
    else:
      lines += [f"[{after[name]['kind']}] {name}: {line}" for line in _value_changes(before[name], after[name])]
  return lines


def _setting_changes(old: Mapping[str, Any], new: Mapping[str, Any], part: str) -> list[str]:
  """Of the settings of heads (`LOSS`) or of other layers (`LAYERS`)."""
  if part not in old:
    return []
  default = _json(dataclasses.asdict(LayerTraining())) if part == LAYERS else {}
  names = [*new[part], *(name for name in old[part] if name not in new[part])]
  if part == LOSS:  # heads that are not in both are changes of the network
    names = [name for name in names if name in old[part] and name in new[part]]
  return [
    f"[{_kind(new, name)}] {name}: {line}"
    for name in names
    for line in _value_changes(old[part].get(name, default), new[part].get(name, default))
  ]


def _kind(new: Mapping[str, Any], layer: str) -> str:
  return str(new[NETWORK]["layers"].get(layer, {}).get("kind", "layer"))


def _value_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Keys that both have; one that is in one version of prn_jax alone says nothing."""
  return [f"{key}: {_shown(old[key])}, now {_shown(new[key])}" for key in new if key in old and old[key] != new[key]]


def _differs(old: Any, new: Any) -> bool:
  """As `_value_changes`, at any depth."""
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    names_differ = list(old) != list(new) and any(isinstance(item, Mapping) for item in (*old.values(), *new.values()))
    return names_differ or any(_differs(old[key], new[key]) for key in new if key in old)
  return bool(old != new)


def _class_changes(old: Sequence[str] | None, new: Sequence[str]) -> list[str]:
  if old is None or list(old) == list(new):
    return []
  if len(old) == len(new) and set(old) != set(new):
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    return [f"class {i}: {a!r}, now {b!r}" for i, a, b in pairs]
  what = "the same classes in another order" if sorted(old) == sorted(new) else f"{len(old)} classes, now {len(new)}"
  return [f"{what}: {_shown(list(old))}, now {_shown(list(new))}"]


def _data_changes(old: Mapping[str, Any] | None, new: Mapping[str, Any], *, same_classes: bool) -> list[str]:
  if not old:
    return []
  if old["images"] != new["images"]:
    return [f"{old['images']:,} images, now {new['images']:,}"]
  if old["ids"] != new["ids"]:
    return [f"other images, or another order of the {new['images']:,} images"]
  if same_classes and old.get("annotations") and new["annotations"] and old["annotations"] != new["annotations"]:
    return ["the same images with other boxes or classes"]
  if "sets" in old and old["sets"] != new.get("sets"):
    return [f"its sets: {_shown(old['sets'])}, now {_shown(new.get('sets'))}"]
  return []


def _listed(what: str, names: Sequence[str]) -> list[str]:
  rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return [f"{what}: {', '.join(names[:5])}{rest}"] if names else []


def _shown(value: Any) -> str:
  text = json.dumps(_short(value), ensure_ascii=False)
  return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 4]} ..."


def _short(value: Any) -> Any:
  """1 for 1.0, as people write it."""
  if isinstance(value, list):
    return [_short(item) for item in value]
  return int(value) if isinstance(value, float) and value.is_integer() else value
