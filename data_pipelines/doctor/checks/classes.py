"""Checks of classes and their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from prn_jax.data_pipelines.class_names import plain
from prn_jax.data_pipelines.doctor.checkup import Exam, Needs, Severity, Spot, register_check
from prn_jax.data_pipelines.doctor.summary import FEW
from prn_jax.data_pipelines.doctor.written import Layout
from prn_jax.data_pipelines.findings import Check

MAX_RATIO = 100


def _what(exam: Exam) -> str:
  return "images" if exam.split.is_classification else "objects"


@register_check(Check.CLASS_UNUSED, Severity.LOOK)
def unused(exam: Exam) -> Iterator[Spot]:
  for k in np.flatnonzero(exam.split.examples == 0):
    yield Spot(f"class {k} '{exam.split.names[k]}' has no {_what(exam)}")


@register_check(Check.CLASS_FEW, Severity.LOOK)
def few(exam: Exam) -> Iterator[Spot]:
  examples = exam.split.examples
  for k in np.flatnonzero((examples > 0) & (examples < FEW)):
    yield Spot(f"class {k} '{exam.split.names[k]}' has {examples[k]} {_what(exam)}")


@register_check(
  "classes.imbalance", Severity.NOTE, "a class with 100 times as many examples as another that has 10 or more",
  "Collect more of the rare classes, or weigh the loss.",
)  # fmt: skip
def imbalance(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  most = int(split.examples.argmax()) if len(split.examples) else 0
  for k in np.flatnonzero((split.examples >= FEW) & (split.examples * MAX_RATIO <= split.examples.max(initial=0))):
    many, less = split.examples[most], split.examples[k]
    yield Spot(
      f"'{split.names[most]}' has {many:,} {_what(exam)}, '{split.names[k]}' {less:,} ({many / less:.0f} to 1)"
    )


@register_check(
  "classes.similar_names", Severity.SERIOUS, "names that differ in upper and lower case, blanks, hyphens or underscores",
  "Join them: objects of one kind are learnt as two classes.",
)  # fmt: skip
def similar_names(exam: Exam) -> Iterator[Spot]:
  by_key: dict[str, list[str]] = defaultdict(list)
  for name in exam.split.names:
    by_key[plain(name)].append(name)
  for names in by_key.values():
    if len(names) > 1:
      yield Spot(f"{' and '.join(map(repr, names))} read the same")


@register_check(
  "classes.untidy_name", Severity.LOOK, "a name that is empty, or begins or ends with a blank",
  "Correct the name: other programs may take it for another.",
)  # fmt: skip
def untidy_name(exam: Exam) -> Iterator[Spot]:
  for k, name in enumerate(exam.split.names):
    if name != name.strip() or not name:
      yield Spot(f"class {k} is called {name!r}")


@register_check(
  "classes.off_by_one", Severity.SERIOUS, "class ids that are all one too high or too low for the list of classes",
  "Number the labels as the list is numbered: YOLO and Darknet from 0, COCO by the ids of its categories.", Needs.BOXES,
)  # fmt: skip
def off_by_one(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  written = split.written
  if written is None or written.layout is Layout.XYXY_FROM_1:
    return
  used, known = set(written.class_ids.tolist()), set(split.dataset.category_ids)
  if not used or used <= known:
    return
  for shift, way in ((-1, "high"), (1, "low")):
    if {one + shift for one in used} <= known:
      stated = f"{min(known)} to {max(known)}" if len(known) > 1 else f"{min(known)}"
      yield Spot(f"labels use the ids {min(used)} to {max(used)}, the classes are {stated}: all seem one too {way}")


@register_check(
  "classes.one_split", Severity.LOOK, "a class with examples in one split and none in the other",
  "Divide the data anew, or take the class out: it is not learnt, or not tested.", Needs.AGAINST,
)  # fmt: skip
def one_split(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for _, other in exam.others:
    here = {name for name, number in zip(split.names, split.examples, strict=True) if number}
    there = {name for name, number in zip(other.names, other.examples, strict=True) if number}
    for names, place, missing in ((here - there, split.spec, other.spec), (there - here, other.spec, split.spec)):
      for name in sorted(names & set(split.names) & set(other.names)):
        yield Spot(f"'{name}' has {_what(exam)} here, and none in {missing}", place=place)


@register_check(
  "classes.other_list", Severity.SERIOUS, "splits whose lists of classes differ in names or order",
  "Use one list for all splits: numbers mean different classes otherwise.", Needs.AGAINST,
)  # fmt: skip
def other_list(exam: Exam) -> Iterator[Spot]:
  split = exam.split
  for _, other in exam.others:
    if split.names == other.names:
      continue
    here, there = sorted(set(split.names) - set(other.names)), sorted(set(other.names) - set(split.names))
    if here or there:
      said = "; ".join(
        f"only {place}: {', '.join(names)}" for names, place in ((here, "here"), (there, "there")) if names
      )
    else:
      said = "the same names in another order"
    yield Spot(f"{len(split.names)} classes here, {len(other.names)} in {other.spec}: {said}")
