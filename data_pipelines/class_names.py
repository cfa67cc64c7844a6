"""Which names of two lists of classes mean the same class: spelling, and what COCO, VOC and Darknet call differently."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

VOC_NAMES = (
  "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
  "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Pascal VOC's 20 classes (data/voc.names)."""

# COCO's annotations say motorcycle where Darknet's coco.names and VOC say motorbike, and so on; keys are `plain`.
SYNONYMS = {
  "motorbike": "motorcycle",
  "aeroplane": "airplane",
  "sofa": "couch",
  "tvmonitor": "tv",
  "television": "tv",
  "hairdryer": "hairdrier",
  "doughnut": "donut",
  "mobilephone": "cellphone",
}


@functools.lru_cache(4096)  # sets have few names, and an object of one in every line
def plain(name: str) -> str:
  """The name without case, blanks, underscores and hyphens: "Traffic_Light" is "traffic light"."""
  return re.sub(r"[\s_\-\ufeff]+", "", unicodedata.normalize("NFKC", name)).casefold()


def common(name: str) -> str:
  """`plain`, and one word for the classes that have several: "Motorbike" is "motorcycle"."""
  return SYNONYMS.get(plain(name), plain(name))


def match_names(names: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
  """For every name the index of the known name that means the same class; -1 where none does.

  Equal names go first, then those equal without case, blanks, underscores and hyphens, then synonyms. No known name is
  given to two, and a spelling that stands for several names on one side (T-shirt, tshirt) decides nothing.

  Example: match_names(["Car", "airplane", "fox"], ["aeroplane", "car"]) is (1, 0, -1).
  """
  found = [-1] * len(names)
  rules: tuple[Callable[[str], str], ...] = (str, plain, common)
  for rule in rules:
    open_names = _by_key(rule, names, [i for i, place in enumerate(found) if place < 0])
    open_known = _by_key(rule, known, sorted(set(range(len(known))) - set(found)))
    for key, index in open_names.items():
      found[index] = open_known.get(key, -1)
  return tuple(found)


def are_numbers(names: Sequence[str]) -> bool:
  """Whether the classes have no names, or such as "0", "1", "2", which say nothing."""
  return all(name.strip() == str(index) for index, name in enumerate(names))


def _by_key(rule: Callable[[str], str], names: Sequence[str], indices: Sequence[int]) -> dict[str, int]:
  """Key -> index of the one name that has it."""
  keys = {index: rule(names[index]) for index in indices}
  counts = Counter(keys.values())
  return {key: index for index, key in keys.items() if key and counts[key] == 1}
