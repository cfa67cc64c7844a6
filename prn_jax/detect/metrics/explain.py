"""Why two tools give two figures for the same detections.

Every protocol is a value of `Rules`, so a difference between two protocols is a list of fields. `explain` scores the
detections under every protocol, changes one field of the reference at a time, and walks from the reference to each
other protocol field by field; the effects along a walk add up to the whole difference.
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

import numpy as np

from prn_jax.detect.metrics.data import EvalData, EvalError
from prn_jax.detect.metrics.match import (
  COCO,
  COCO50,
  DARKNET,
  VOC,
  VOC07,
  AbsentClass,
  Interpolation,
  Matching,
  Regions,
  Rules,
  Special,
  score,
)
from prn_jax.detect.metrics.overlap import Pixels
from prn_jax.errors import did_you_mean
from prn_jax.files.json_text import finite

PROTOCOLS: dict[str, tuple[str, Rules]] = {
  "coco": ("COCO AP", COCO),
  "coco50": ("COCO AP50", COCO50),
  "voc07": ("VOC2007, 11 points", VOC07),
  "voc": ("VOC2010, area", VOC),
  "darknet": ("Darknet, area", DARKNET),
  "darknet11": ("Darknet, 11 points", dataclasses.replace(DARKNET, interpolation=Interpolation.DARKNET_11)),
  "darknet101": ("Darknet, 101 points", dataclasses.replace(DARKNET, interpolation=Interpolation.DARKNET_101)),
}

_WORDS = {
  "iou_thresholds": "least IoU",
  "crowd": "crowd regions",
  "difficult": "difficult objects",
  "regions": "ignored regions",
  "absent_class": "classes without truths",
  "max_detections": "detections per image and class",
  "score_threshold": "score to exceed",
  "matching": "a detection takes",
  "is_iou_strict": "IoU equal to the threshold",
  "interpolation": "precision over recall by",
  "pixels": "width of a box",
  "round_px": "boxes rounded to",
  "is_clipped": "boxes clipped to the image",
}
"""Every field of `Rules`, in the order of a walk: what enters first, then matching, then averaging."""

_NOTHING = 1e-12

_SINGLE_CHANGES: tuple[tuple[str, Any], ...] = (
  ("iou_thresholds", COCO.iou_thresholds),
  ("iou_thresholds", (0.5,)),
  ("iou_thresholds", (0.75,)),
  ("crowd", Special.REGION),
  ("crowd", Special.IGNORE),
  ("crowd", Special.COUNT),
  ("crowd", Special.DROP),
  ("difficult", Special.IGNORE),
  ("difficult", Special.COUNT),
  ("difficult", Special.DROP),
  ("regions", Regions.NOT_WRONG),
  ("regions", Regions.UNKNOWN),
  ("absent_class", AbsentClass.SKIP),
  ("absent_class", AbsentClass.ZERO),
  ("max_detections", 1),
  ("max_detections", 10),
  ("max_detections", 100),
  ("max_detections", None),
  ("score_threshold", 0.005),
  ("score_threshold", 0.05),
  ("score_threshold", 0.25),
  ("score_threshold", 0.5),
  ("matching", Matching.BEST_FREE),
  ("matching", Matching.BEST),
  ("is_iou_strict", False),
  ("is_iou_strict", True),
  *(("interpolation", kind) for kind in Interpolation),
  ("pixels", Pixels.CONTINUOUS),
  ("pixels", Pixels.INCLUSIVE),
  ("round_px", 0.01),
  ("round_px", 1.0),
  ("is_clipped", True),
)


@dataclasses.dataclass(frozen=True)
class Change:
  """One field of the rules changed, all others kept.

  Attributes:
    what: the rule in words.
    before, after: its values in words.
    figure: mean AP after the change.
    effect: what the change added.
  """

  what: str
  before: str
  after: str
  figure: float
  effect: float


@dataclasses.dataclass(frozen=True)
class Walk:
  """From the reference to another protocol, one rule after the other."""

  protocol: str
  title: str
  figure: float
  changes: tuple[Change, ...]


@dataclasses.dataclass(frozen=True)
class Explanation:
  """The same detections under every protocol, and where the differences come from.

  Attributes:
    reference, title, figure: the protocol that all changes start from, and its mean AP in [0, 1].
    figures: mean AP of every protocol, by its name in `PROTOCOLS`.
    changes: single changes of the reference, the largest effect first.
    walks: one per other protocol.
    facts: what of the data makes a rule matter, in sentences.
  """

  reference: str
  title: str
  figure: float
  figures: dict[str, float]
  changes: tuple[Change, ...]
  walks: tuple[Walk, ...]
  facts: tuple[str, ...]

  def to_json(self) -> dict[str, Any]:
    """All fields; None for a figure that is undefined (no class has truths)."""
    return finite(dataclasses.asdict(self))

  def text(self) -> str:
    """A page of text."""
    lines = ["The same detections under every protocol (mean AP)"]
    for name, value in self.figures.items():
      mark = "   <- reference" if name == self.reference else ""
      lines.append(f"  {PROTOCOLS[name][0]:<22}{value:8.4f}{mark}")
    lines += ["", "The data", *(f"  {fact}" for fact in self.facts)]
    lines += ["", f"One change of {self.title} ({self.figure:.4f})", *_change_lines(self.changes)]
    for walk in self.walks:
      total = walk.figure - self.figure
      lines += ["", f"From {self.title} ({self.figure:.4f}) to {walk.title} ({walk.figure:.4f}): {total:+.4f}"]
      lines += _change_lines(walk.changes)
    return "\n".join(lines) + "\n"


def explain(data: EvalData, *, reference: str = "coco50") -> Explanation:
  """Scores the detections under every protocol and attributes the differences.

  Args:
    data: the result of `collect`.
    reference: a name in `PROTOCOLS`.

  Raises:
    EvalError: the reference is unknown.
  """
  if reference not in PROTOCOLS:
    raise EvalError(
      f"protocol '{reference}' is unknown{did_you_mean(reference, PROTOCOLS)}; expected one of {', '.join(PROTOCOLS)}"
    )
  scorer = _Scorer(data)
  title, rules = PROTOCOLS[reference]
  figure = scorer(rules)
  changes = [
    _change(scorer, rules, field, value)[1]
    for field, value in _SINGLE_CHANGES
    if value != getattr(rules, field) and (field != "regions" or scorer.has_regions)
  ]
  changes.sort(key=lambda change: -abs(np.nan_to_num(change.effect)))
  walks = []
  for name, (other_title, other) in PROTOCOLS.items():
    if name != reference:
      walks.append(Walk(name, other_title, scorer(other), _walk(scorer, rules, other)))
  figures = {name: scorer(other) for name, (_, other) in PROTOCOLS.items()}
  return Explanation(reference, title, figure, figures, tuple(changes), tuple(walks), scorer.facts())


class _Scorer:
  """Scores rules; rules that cannot differ on this data are scored once."""

  def __init__(self, data: EvalData) -> None:
    self._data = data
    self._known: dict[Rules, float] = {}
    group = data.det_image * data.num_classes + data.det_classes
    self._most = int(np.bincount(group).max(initial=0)) if len(group) else 0

  @property
  def has_regions(self) -> bool:
    """Whether it matters what is done with ignored regions."""
    return bool(len(self._data.region_image))

  def __call__(self, rules: Rules) -> float:
    key = self._canonical(rules)
    if key not in self._known:
      self._known[key] = score(self._data, rules).mean
    return self._known[key]

  def _canonical(self, rules: Rules) -> Rules:
    data = self._data
    changes: dict[str, Any] = {}
    if not data.truth_is_crowd.any():
      changes["crowd"] = Special.COUNT
    if not data.truth_is_difficult.any():
      changes["difficult"] = Special.COUNT
    if not len(data.region_image):
      changes["regions"] = Regions.UNKNOWN
    if rules.max_detections is not None and rules.max_detections >= self._most:
      changes["max_detections"] = None
    if rules.score_threshold is not None and (data.det_scores > rules.score_threshold).all():
      changes["score_threshold"] = None
    return dataclasses.replace(rules, **changes)

  def facts(self) -> tuple[str, ...]:
    """What of the data makes a rule matter."""
    data = self._data
    counted = np.bincount(data.truth_classes[~data.truth_is_crowd], minlength=data.num_classes)
    is_low = data.det_scores <= 0.05
    share = f" ({is_low.mean():.0%})" if len(is_low) else ""
    num_regions = len(data.region_image)
    ignored = (f"{num_regions:,} ignored regions",) if num_regions else ()
    return (
      f"{data.num_images:,} images, {len(data.truth_classes):,} truths, {data.num_detections:,} detections",
      f"{data.truth_is_crowd.sum():,} crowd regions, {data.truth_is_difficult.sum():,} difficult objects",
      *ignored,
      f"{(counted == 0).sum()} of {data.num_classes} classes without truths",
      f"at most {self._most} detections of one class in one image",
      f"{is_low.sum():,} detections{share} score .05 or less",
    )


def _walk(scorer: _Scorer, start: Rules, end: Rules) -> tuple[Change, ...]:
  changes, rules = [], start
  for field in _WORDS:
    if getattr(rules, field) != getattr(end, field) and (field != "regions" or scorer.has_regions):
      rules, change = _change(scorer, rules, field, getattr(end, field))
      changes.append(change)
  return tuple(changes)


def _change(scorer: _Scorer, rules: Rules, field: str, value: Any) -> tuple[Rules, Change]:
  changed = dataclasses.replace(rules, **{field: value})
  before, after = scorer(rules), scorer(changed)
  words = (_word(field, getattr(rules, field)), _word(field, value))
  return changed, Change(_WORDS[field], *words, after, after - before)


def _word(field: str, value: Any) -> str:
  if field == "iou_thresholds":
    return f"{value[0]:g}" if len(value) == 1 else f"{value[0]:g} to {value[-1]:g}"
  if field == "max_detections":
    return "all" if value is None else str(value)
  if field == "score_threshold":
    return "any" if value is None else f"{value:g}"
  if field == "round_px":
    return "nothing" if value is None else f"{value:g} px"
  if field == "is_iou_strict":
    return "is too little" if value else "is enough"
  if field == "is_clipped":
    return "yes" if value else "no"
  if field == "pixels":
    return "x2 - x1 + 1" if value is Pixels.INCLUSIVE else "x2 - x1"
  if field in ("crowd", "difficult"):
    return {
      Special.REGION: "take any box inside",
      Special.IGNORE: "count neither way",
      Special.COUNT: "must be found",
      Special.DROP: "are not there",
    }[value]
  if field == "regions":
    return "hold nothing that is wrong" if value is Regions.NOT_WRONG else "are not there"
  return str(value)


def _change_lines(changes: tuple[Change, ...]) -> list[str]:
  """The changes that matter, one per line, and what does not matter here, in one paragraph."""
  strong = [change for change in changes if not abs(change.effect) < _NOTHING]
  rows = [(f"{change.what}: {change.before} -> {change.after}", change) for change in strong]
  width = max((len(text) for text, _ in rows), default=0)
  lines = [f"  {text:<{width}}  {change.figure:8.4f}  {change.effect:+.4f}" for text, change in rows]
  weak: dict[str, list[str]] = {}
  for change in changes:
    if abs(change.effect) < _NOTHING:
      weak.setdefault(change.what, []).append(change.after)
  if weak:
    text = "; ".join(f"{what}: {', '.join(values)}" for what, values in weak.items())
    lines += textwrap.wrap(f"without effect here: {text}", 110, initial_indent="  ", subsequent_indent="    ")
  return lines
