"""Several data sets as one: `sets:FILE.yaml`, or the same list as JSON in place of a file: `sets:[{"spec": ...}, ...]`.

    sets:
      - spec: coco:instances_train2017.json:train2017   # as on the command line
        weight: 0.5                    # draws of every image in an epoch; default 1
        labels: {motorbike: motorcycle, bench: null}    # its names -> ours; null leaves its objects out
      keep: [person, car, motorbike] # by its names; default: all classes that `labels` does not leave out
        annotated: [person, car]       # default: all classes that it lists
      - spec: bdd100k:labels.json:images
    names: [person, car, motorcycle]   # default: all, in order of appearance

Classes of different sets that have the same name, or names that mean the same (`class_names.match_names`), are one
class. `annotated` are the classes, by our names, of which a set has a box for every object that its images show. In the
images of a set, training takes nothing away from a class that it does not annotate. Objects that are left out are
background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prn_jax.data_pipelines.class_names import match_names
from prn_jax.data_pipelines.findings import Check, Finding
from prn_jax.data_pipelines.joined import LEFT_OUT, Joined, Part, all_names, joined
from prn_jax.data_pipelines.records import DataError, Dataset, ProblemLog, Task, classes_text, unknown_classes
from prn_jax.data_pipelines.spec import open_spec, register_source
from prn_jax.errors import did_you_mean
from prn_jax.files.places import to_path
from prn_jax.files.structured import parse_json, read_yaml
from prn_jax.files.values import Node, shown

KEYS = ("spec", "weight", "labels", "keep", "annotated")
MAX_WEIGHT = 1000.0


class _Set(NamedTuple):
  """One entry: the data, and the names that its classes have here, None for those that are left out."""

  node: Node
  dataset: Dataset
  names: tuple[str | None, ...]


def several(*sets: str | Mapping[str, Any], names: Sequence[str] = ()) -> str:
  """The SPEC of several sets, for configurations: `config.data.train = several("coco:...", {"spec": ..., "weight": 2})`.

  Args:
    sets: SPECs, or the keys of an entry of the file (see the head of this file).
    names: all classes in their order; by default in order of appearance.
  """
  entries = [{"spec": one} if isinstance(one, str) else dict(one) for one in sets]
  text = json.dumps([*entries, {"names": list(names)}] if names else entries, ensure_ascii=False)
  return f"sets:{text}"


@register_source("sets:FILE.yaml", "several of these as one")
def open_sets(parts: tuple[str, ...], log: ProblemLog) -> Joined:
  """Opens all sets.

  Raises:
    DataError: the list or one of its sets is wrong, or an entry of them is bad (policy stop).
  """
  entries, names = _entries(parts[0])
  sets = [_open(entry, log) for entry in entries]
  known = names or all_names([[name for name in one.names if name is not None] for one in sets])
  notes = [note for number, one in enumerate(sets, 1) for note in _respelt(number, one, known, parts[0])]
  return Joined(known, [_part(one, known, is_given=bool(names)) for one in sets], notes)


def _entries(text: str) -> tuple[list[Node], tuple[str, ...]]:
  """The entries, and the names if they are given."""
  if text.lstrip().startswith("["):
    listed = parse_json(text, "the list of sets", DataError).items()
    given = [entry["names"] for entry in listed if "names" in entry and "spec" not in entry]
    entries = [entry for entry in listed if "spec" in entry or "names" not in entry]
  else:
    root = read_yaml(to_path(text), DataError)
    _check_keys(root, ("sets", "names"))
    entries, given = root["sets"].items(), [root["names"]] if "names" in root else []
  if not entries:
    raise DataError(
      f"{'the list of sets' if text.lstrip().startswith('[') else text} is empty; expected at least one set"
    )
  names = tuple(given[0].texts()) if given else ()
  if len(set(names)) != len(names):
    raise given[0].fault("holds a name twice; names must differ")
  return entries, names


def _check_keys(node: Node, known: Sequence[str]) -> None:
  for key in node.mapping():
    if key not in known:
      raise node.fault(f"has the key {shown(key)}{did_you_mean(key, known)}; expected some of {', '.join(known)}")


def _open(entry: Node, log: ProblemLog) -> _Set:
  _check_keys(entry, KEYS)
  dataset = open_spec(entry["spec"].text(), log.policy, keep_polygons=log.keep_polygons, keep_places=log.keep_places)
  if joined(dataset):
    raise entry["spec"].fault("is a list of sets itself; list all sets in one place")
  names: list[str | None] = list(dataset.names)
  if "keep" in entry:
    kept = set(_places(entry["keep"], entry["keep"].texts(), dataset.names))
    names = [name if index in kept else None for index, name in enumerate(names)]
  labels = entry["labels"].mapping() if "labels" in entry else {}
  for place, node in zip(_places(entry.get("labels"), list(labels), dataset.names), labels.values(), strict=True):
    names[place] = None if node.raw is None else node.text()
  if None in names and dataset.task is Task.CLASSIFY:
    raise entry.fault("leaves out classes of whole images; only boxes can be left out")
  return _Set(entry, dataset, tuple(names))


def _places(node: Node, given: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
  """The indices of the classes of a set that are named; DataError for a name that it does not have."""
  places = match_names(given, names)
  for name, place in zip(given, places, strict=True):
    if place < 0:
      more = f" and {len(names) - 20} more" if len(names) > 20 else ""
      known = f"{', '.join(names[:20])}{more}"
      raise node.fault(f"has '{name}'{did_you_mean(name, names)}, which is no class of this set; it has {known}")
  return places


def _part(one: _Set, known: Sequence[str], *, is_given: bool) -> Part:
  kept = [index for index, name in enumerate(one.names) if name is not None]
  own = [str(one.names[index]) for index in kept]
  different = list(dict.fromkeys(own))  # several classes may become one
  by_name = dict(zip(different, match_names(different, known), strict=True))
  new_index = np.full(len(one.names), LEFT_OUT, np.int32)
  new_index[kept] = [by_name[name] for name in own]
  if is_given:
    _check_used(one, new_index)
  annotated = np.zeros(len(known), np.bool_)
  annotated[new_index[new_index != LEFT_OUT]] = True
  if "annotated" in one.node:
    given = one.node["annotated"].texts()
    places = match_names(given, known)
    for name, place in zip(given, places, strict=True):
      if place < 0:
        raise one.node["annotated"].fault(f"has '{name}'{did_you_mean(name, known)}, which is no class of the sets")
    annotated = np.zeros(len(known), np.bool_)
    annotated[list(places)] = True
  weight = one.node["weight"].number(1e-3, MAX_WEIGHT) if "weight" in one.node else 1.0
  part = Part(one.dataset, new_index, annotated, weight)
  if not round(weight * len(one.dataset)):
    raise one.node["weight"].fault(f"is {weight:g}, so that none of the {len(one.dataset)} images would be drawn")
  return part


def _check_used(one: _Set, new_index: np.ndarray) -> None:
  """Raises DataError where objects have a class that is neither among the given names nor left out by `labels`."""
  pairs = zip(one.names, new_index, one.dataset.names, strict=True)
  known = [own for name, place, own in pairs if name is None or place != LEFT_OUT]
  if used := unknown_classes(one.dataset, known):
    raise one.node.fault(
      f"has objects of {classes_text(used)}, not among the given names. Add them there, or give them another name or "
      "null under 'labels'"
    )


def _respelt(number: int, one: _Set, known: Sequence[str], where: str) -> list[Finding]:
  """A note for every class that became one of another spelling."""
  own = [name for name in one.names if name is not None]
  places = match_names(own, known)
  other = [
    f"'{name}' as '{known[place]}'"
    for name, place in zip(own, places, strict=True)
    if place >= 0 and known[place] != name
  ]
  text = f"set {number}: classes are matched by name, {', '.join(other)}"
  return [Finding(Check.LABEL_RESPELT, "the list" if where.startswith("[") else where, text)] if other else []
