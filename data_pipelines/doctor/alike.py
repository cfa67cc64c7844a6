"""Pictures that are the same: equal files, the same picture stored anew, and neighbours of one film.

Two signs make a near copy: fingerprints (dHash and pHash, 128 bits) that differ in a few bits, and small pictures that
correlate. For a scene the names must say it too: they differ in a number alone, as frames of a film do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prn_jax.data_pipelines.doctor.photos import Photo, stacked
from prn_jax.data_pipelines.doctor.split import Split

MAX_BITS = 16  # of 128 in which the fingerprints of near copies differ
MIN_CORRELATION = 0.95  # of near copies: 0.998 of those stored anew or scaled, 0.97 of brighter ones and film frames
MIN_SCENE_CORRELATION = 0.9
MIN_CONTRAST = 3.0  # deviation of 255; flatter pictures look like any other
_NEIGHBOURS = 3  # frames on each side that are compared
_CHUNK = 512


@dataclass(frozen=True)
class Pair:
  """Two images: `first` of one split and `second` of the examined one.

  Attributes:
    is_exact: their files are equal.
    likeness: the correlation of the two pictures.
  """

  first: int
  second: int
  is_exact: bool
  likeness: float = 1.0


def copies_within(split: Split) -> list[Pair]:
  """For every image that is a copy or a near copy of an earlier one, the one that is most like it."""
  return _pairs(split.photos, split.photos, is_within=True)


def copies_between(other: Split, split: Split) -> list[Pair]:
  """For every image of `split` that is a copy or near copy of one of `other`, the one that is most like it."""
  return _pairs(other.photos, split.photos, is_within=False)


def _pairs(first: Sequence[Photo | None], second: Sequence[Photo | None], *, is_within: bool) -> list[Pair]:
  equal: dict[int, Pair] = {}
  by_digest: dict[bytes, int] = {}
  if not is_within:
    by_digest = _digests(first)
  for position, photo in enumerate(second):
    if photo is None or photo.pixels is None:
      continue
    found = by_digest.get(photo.pixels.digest)
    if found is not None:
      equal[position] = Pair(found, position, True)
    elif is_within:
      by_digest[photo.pixels.digest] = position
  near = _near_pairs(first, second, is_within, frozenset(equal))
  return sorted([*equal.values(), *near], key=lambda pair: pair.second)


def _digests(photos: Sequence[Photo | None]) -> dict[bytes, int]:
  found: dict[bytes, int] = {}
  for position, photo in enumerate(photos):
    if photo is not None and photo.pixels is not None:
      found.setdefault(photo.pixels.digest, position)
  return found


def _near_pairs(
  first: Sequence[Photo | None], second: Sequence[Photo | None], is_within: bool, told: frozenset[int]
) -> Iterator[Pair]:
  """Every fingerprint is compared with every other, but for those of `second` that are told of already.

  With n images that is n * n / 2 comparisons within a split: 2 s of a core for 20,000 images.
  """
  places, hashes, thumbs = stacked(first)
  rows, row_hashes, row_thumbs = stacked(second)
  new = np.array([row not in told for row in rows.tolist()], np.bool_)
  rows, row_hashes, row_thumbs = rows[new], row_hashes[new], row_thumbs[new]
  for start in range(0, len(rows), _CHUNK):
    part = slice(start, start + _CHUNK)
    end = int(np.searchsorted(places, rows[part][-1])) if is_within else len(places)
    if not end:
      continue
    bits = np.bitwise_count(row_hashes[part, None, 0] ^ hashes[None, :end, 0]).astype(np.uint8)
    bits += np.bitwise_count(row_hashes[part, None, 1] ^ hashes[None, :end, 1])
    if is_within:
      bits[places[None, :end] >= rows[part, None]] = np.iinfo(np.uint8).max
    best = bits.argmin(1)
    for row in np.flatnonzero(bits[np.arange(len(best)), best] <= MAX_BITS).tolist():
      column = int(best[row])
      likeness = correlation(thumbs[column], row_thumbs[start + row])
      if likeness >= MIN_CORRELATION:
        yield Pair(int(places[column]), int(rows[start + row]), False, likeness)


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
  """Of two small pictures, -1 to 1; 0 where one of them is flat."""
  x, y = a.astype(np.float64) - a.mean(), b.astype(np.float64) - b.mean()
  if min(x.std(), y.std()) < MIN_CONTRAST:
    return 0.0
  return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


# -- films -------------------------------------------------------------------------------------------------------------


def scenes_within(split: Split) -> list[tuple[int, int]]:
  """Neighbours of one film that show the same scene."""
  film = _films([split])
  return [(a, b) for (_, a), (_, b) in _neighbours([split], film)]


def scenes_between(other: Split, split: Split) -> list[tuple[int, int]]:
  """Images of `other` and of `split` that are neighbours of one film and show the same scene; each of `split` once."""
  found: dict[int, int] = {}
  for (s, a), (t, b) in _neighbours([other, split], _films([other, split])):
    if s != t:
      theirs, ours = (a, b) if s == 0 else (b, a)
      found.setdefault(ours, theirs)
  return [(theirs, ours) for ours, theirs in sorted(found.items())]


Frame = tuple[int, int]  # number of the split, position in it


def _films(splits: Sequence[Split]) -> list[list[Frame]]:
  """Images whose names differ in their last number alone, in the order of that number."""
  films: dict[str, list[tuple[int, Frame]]] = defaultdict(list)
  for number, split in enumerate(splits):
    for position, path in enumerate(split.images):
      name = str(split.image_ids[position]) if path is None else path.stem
      found = re.match(r"(.*?)([0-9]+)([^0-9]*)$", name)
      if found:
        films[f"{found[1]}#{found[3]}"].append((int(found[2]), (number, position)))
  return [[frame for _, frame in sorted(film)] for film in films.values() if len(film) > 1]


def _neighbours(splits: Sequence[Split], films: list[list[Frame]]) -> Iterator[tuple[Frame, Frame]]:
  for film in films:
    for i, (s, a) in enumerate(film):
      for t, b in film[i + 1 : i + 1 + _NEIGHBOURS]:
        if _is_scene(splits[s].photos[a], splits[t].photos[b]):
          yield (s, a), (t, b)


def _is_scene(a: Photo | None, b: Photo | None) -> bool:
  if a is None or b is None or a.pixels is None or b.pixels is None or a.size_wh != b.size_wh:
    return False
  return correlation(a.pixels.thumb, b.pixels.thumb) >= MIN_SCENE_CORRELATION
