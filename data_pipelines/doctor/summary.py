"""Figures of a data set, and what may be wrong with it: `prn data inspect`."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.table import Floats, Progress, Seen, Table, columns, looked_at
from prn_jax.data_pipelines.findings import Check, Finding
from prn_jax.data_pipelines.images import read_image
from prn_jax.data_pipelines.prepared.shrink import checked_size, named_bytes
from prn_jax.data_pipelines.records import (
  DataError,
  Dataset,
  OnBadData,
  Problem,
  ProblemLog,
  Record,
  count_problems,
  source_notes,
)

SMALL_SIDE_PX, MEDIUM_SIDE_PX = 32, 96  # COCO: small is an area below 32 x 32 pixels, medium below 96 x 96
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FEW = 10  # examples; a class with fewer can hardly be learnt
TINY_SIDE_PX = 4
MOST_NAMED = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Summary(Table):
  """What a data set holds; images that cannot be used are left out.

  Attributes:
    category_ids: the ids of the classes.
    sizes_wh_px: (n, 2) of the images.
    areas_px: (m,) COCO's area of the segmentation, elsewhere of the box.
    ignored_of: (k,) which image each of k ignored regions is in.
    same_files: image ids of files that are equal byte by byte.
    was_decoded: whether the pixels were looked at.
    source_notes: what the source understood, but is worth a look.
  """

  category_ids: tuple[int, ...]
  sizes_wh_px: NDArray[np.int64]
  areas_px: Floats
  ignored_of: NDArray[np.int64]
  same_files: tuple[tuple[int | str, ...], ...]
  was_decoded: bool
  source_notes: tuple[Finding, ...] = ()

  @functools.cached_property
  def objects_per_class(self) -> NDArray[np.int64]:
    return np.bincount(self.classes, minlength=len(self.names))

  @functools.cached_property
  def images_per_class(self) -> NDArray[np.int64]:
    """Images with the class as their label, or with an object of it."""
    if self.is_classification:
      return np.bincount(self.labels, minlength=len(self.names))
    pairs = np.unique(np.stack([self.image_of, self.classes]), axis=1)
    return np.bincount(pairs[1], minlength=len(self.names))

  @functools.cached_property
  def sides_rel(self) -> Floats:
    """(m,) square root of the box's share of its image's area."""
    return np.sqrt((self.box_sizes_wh_px / self.sizes_wh_px[self.image_of]).prod(1))

  @functools.cached_property
  def aspects(self) -> Floats:
    """(m,) width / height of the boxes."""
    return self.box_sizes_wh_px[:, 0] / self.box_sizes_wh_px[:, 1]

  @functools.cached_property
  def coco_sizes(self) -> dict[str, int]:
    """Number of small, medium and large objects by COCO's limits."""
    bins = np.digitize(self.areas_px, [SMALL_SIDE_PX**2, MEDIUM_SIDE_PX**2])
    return dict(zip(("small", "medium", "large"), np.bincount(bins, minlength=3).tolist(), strict=True))

  @functools.cached_property
  def notes(self) -> tuple[Finding, ...]:
    """What is no error, but worth a look."""
    return tuple(_notes(self))

  @property
  def findings(self) -> tuple[Finding, ...]:
    """All problems, then all notes."""
    return (*(problem.finding for problem in self.problems), *self.notes)

  def to_json(self) -> dict[str, Any]:
    sizes = Counter(map(tuple, self.sizes_wh_px.tolist()))
    classes = zip(
      self.names, self.category_ids, self.objects_per_class.tolist(), self.images_per_class.tolist(), strict=True
    )
    result: dict[str, Any] = {
      "spec": self.spec,
      "task": str(self.task),
      "images": len(self.image_ids),
      "classes": [
        {"name": name, "category_id": category, "objects": objects, "images": images}
        for name, category, objects, images in classes
      ],
      "image_sizes": [[w, h, number] for (w, h), number in sizes.most_common(20)],
      "image_width": _quantiles(self.sizes_wh_px[:, 0]),
      "image_height": _quantiles(self.sizes_wh_px[:, 1]),
    }
    if not self.is_classification:
      result |= {
        "objects": len(self.classes),
        "crowd": int(self.is_crowd.sum()),
        "difficult": int(self.is_difficult.sum()),
        "ignored_regions": len(self.ignored_of),
        "images_with_ignored_regions": len(np.unique(self.ignored_of)),
        "images_without_objects": int((self.objects_per_image == 0).sum()),
        "objects_per_image": _quantiles(self.objects_per_image),
        "box_sizes": self.coco_sizes,
        "box_width_px": _quantiles(self.box_sizes_wh_px[:, 0]),
        "box_height_px": _quantiles(self.box_sizes_wh_px[:, 1]),
        "box_side_rel": _quantiles(self.sides_rel),
        "box_aspect": _quantiles(self.aspects),
      }
    return result | {
      "decoded": self.was_decoded,
      "findings": [finding.to_json() for finding in self.findings],
      "notes": [str(note) for note in self.notes],
      "same_files": self.same_files,
      "problem_counts": count_problems(self.problems),
      "problems": [str(problem) for problem in self.problems],
    }


def _quantiles(values: NDArray[Any]) -> dict[str, float] | None:
  if not len(values):
    return None
  names = ("min", "p5", "p25", "median", "p75", "p95", "max")
  result = dict(zip(names, np.quantile(values, QUANTILES).tolist(), strict=True))
  return result | {"mean": float(values.mean())}


# -- looking at everything ---------------------------------------------------------------------------------------------


class _Image(NamedTuple):
  """Width and height in pixels, and the digest of the file where it was decoded."""

  size_wh_px: tuple[int, int]
  digest: bytes | None


def summarize(
  dataset: Dataset,
  spec: str,
  *,
  decode: bool = True,
  on_bad_data: OnBadData | str = "skip",
  num_threads: int | None = None,
  progress: Progress | None = None,
) -> Summary:
  """Looks at every annotation and every image.

  Args:
    dataset: any data set.
    spec: what it is called in messages.
    decode: decode the pixels, which alone finds images that are damaged behind their header, compare files, and the
      checksums of prepared data; else only headers are read.
    on_bad_data: "stop" raises at the first problem; "skip" leaves it out and lists it.
    num_threads: number of decoding threads; by default one per core.
    progress: passes images on, to show how far they are; also gets their number.

  Raises:
    DataError: a problem (policy stop), or no image can be used.
  """
  log = ProblemLog(on_bad_data)
  see = functools.partial(_see, decode=decode)
  seen: list[Seen[_Image]] = []
  shards = log if decode else None
  looked = looked_at(dataset, spec, see, shards=shards, num_threads=num_threads, progress=progress)
  with closing(looked):
    for item, problem in looked:
      if problem is not None:
        log.report(problem.path, problem.line, problem.reason, problem.check, "the image is left out")
      elif item is not None:
        seen.append(item)
  if not seen:
    first = (*dataset.problems, *log.problems)[0]
    raise DataError(f"data '{spec}': none of {len(dataset)} images can be used; the first because of {first}")
  return _collected(dataset, spec, seen, log.problems, decode)


def _see(record: Record, decode: bool) -> _Image:
  name, data = named_bytes(record)
  size = checked_size(record, name, data)
  if decode:
    read_image(data, name=name)
  return _Image(size, hashlib.blake2b(data, digest_size=16).digest() if decode else None)


def _collected(
  dataset: Dataset, spec: str, seen: Sequence[Seen[_Image]], problems: Sequence[Problem], decode: bool
) -> Summary:
  records, images = [item.record for item in seen], [item.image for item in seen if item.image is not None]
  by_digest: dict[bytes, list[int | str]] = defaultdict(list)
  for record, image in zip(records, images, strict=True):
    if image.digest is not None:
      by_digest[image.digest].append(record.image_id)
  common = columns(spec, dataset, seen, problems)
  boxes = common["boxes_xyxy_px"]
  areas = np.concatenate(
    [record.area_px if record.area_px is not None else np.full(len(record.classes), np.nan) for record in records]
  )
  return Summary(
    **common,
    category_ids=dataset.category_ids,
    sizes_wh_px=np.array([image.size_wh_px for image in images]),
    areas_px=np.where(np.isnan(areas), (boxes[:, 2:] - boxes[:, :2]).prod(1), areas),
    ignored_of=np.repeat(np.arange(len(records)), [len(record.ignored_xyxy_px) for record in records]),
    same_files=tuple(tuple(ids) for ids in by_digest.values() if len(ids) > 1),
    was_decoded=decode,
    source_notes=source_notes(dataset),
  )


# -- what is worth a look ----------------------------------------------------------------------------------------------


def _notes(summary: Summary) -> Iterable[Finding]:
  yield from summary.source_notes
  for check, text in (*_class_notes(summary), *_image_notes(summary), *_box_notes(summary)):
    yield Finding(check, summary.spec, text)


def _class_notes(summary: Summary) -> Iterable[tuple[Check, str]]:
  examples = summary.images_per_class if summary.is_classification else summary.objects_per_class
  what = "images" if summary.is_classification else "objects"
  none = [name for name, number in zip(summary.names, examples, strict=True) if number == 0]
  few = [f"{name} ({number})" for name, number in zip(summary.names, examples, strict=True) if 0 < number < FEW]
  if none:
    yield Check.CLASS_UNUSED, f"{_count(none, 'class', 'classes')} without {what}: {_named(none)}"
  if few:
    yield Check.CLASS_FEW, f"{_count(few, 'class', 'classes')} with fewer than {FEW} {what}: {_named(few)}"


def _image_notes(summary: Summary) -> Iterable[tuple[Check, str]]:
  repeated = [str(key) for key, number in Counter(summary.image_ids).items() if number > 1]
  if repeated:
    text = f"{_count(repeated, 'image id', 'image ids')} not unique, which an evaluation needs: {_named(repeated)}"
    yield Check.IMAGE_REPEATED_ID, text
  if summary.same_files:
    extra = sum(len(ids) - 1 for ids in summary.same_files)
    shown = _named([" = ".join(map(str, ids)) for ids in summary.same_files])
    yield (
      Check.IMAGE_COPIES,
      f"{extra} image {'files are copies' if extra > 1 else 'file is a copy'} of another: {shown}",
    )
  empty = [str(summary.image_ids[i]) for i in np.flatnonzero(summary.objects_per_image == 0)]
  if empty and not summary.is_classification:
    yield Check.IMAGE_EMPTY, f"{_count(empty, 'image', 'images')} without objects: {_named(empty)}"


def _box_notes(summary: Summary) -> Iterable[tuple[Check, str]]:
  rows = np.column_stack([summary.image_of, summary.classes, summary.boxes_xyxy_px])
  _, first, number = np.unique(rows, axis=0, return_index=True, return_counts=True)
  repeated = [str(summary.image_ids[summary.image_of[i]]) for i in sorted(first[number > 1])]
  if repeated:
    text = f"{int((number - 1).sum())} boxes repeat another of their image exactly: {_named(repeated)}"
    yield Check.BOX_REPEATED, text
  tiny = np.flatnonzero(summary.box_sizes_wh_px.min(1) < TINY_SIDE_PX) if len(rows) else np.array([], int)
  if len(tiny):
    ids = dict.fromkeys(str(summary.image_ids[summary.image_of[i]]) for i in tiny)
    text = f"{_count(tiny, 'box', 'boxes')} with a side below {TINY_SIDE_PX} px, in {_named(list(ids))}"
    yield Check.BOX_TINY, text


def _count(items: Sequence[Any] | NDArray[Any], one: str, many: str) -> str:
  return f"{len(items):,} {one if len(items) == 1 else many}"


def _named(names: Sequence[str]) -> str:
  more = f", ... ({len(names) - MOST_NAMED:,} more)" if len(names) > MOST_NAMED else ""
  return ", ".join(names[:MOST_NAMED]) + more
