"""Videos, cameras and streams of `prn predict`: side by side, each with files of its own."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prn_jax import interrupts
from prn_jax.cli import streams
from prn_jax.cli.common import progress
from prn_jax.compiling import first_is_compiled
from prn_jax.errors import PrnError

if TYPE_CHECKING:
  from prn_jax.model import Model
  from prn_jax.run.classifier import Classifier
  from prn_jax.run.detector import Detector
  from prn_jax.run.privacy import Privacy
  from prn_jax.track.record import Recorder


@dataclasses.dataclass(frozen=True)
class Work:
  """What `prn predict` is to do: which sources, and what to save of them."""

  model: Model
  photos: list[str]
  videos: list[str]
  kinds: tuple[str, ...]
  network: Any = None  # what computes the heads; None is JAX


@dataclasses.dataclass
class Watched:
  """What came of the videos: a row of JSON for each that could be read, and why others could not."""

  rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  failures: list[dict[str, str]] = dataclasses.field(default_factory=list)
  num_files: int = 0

  def fail(self, place: str, error: PrnError) -> None:
    """A video that could not be read is said, and counted."""
    self.failures.append({"path": place, "reason": str(error)})
    print(f"prn predict: {error}", file=sys.stderr)


def watch_all(
  network: Detector | Classifier, work: Work, folder: Path, privacy: Privacy | None, *, is_json: bool, program: str
) -> Watched:
  """Looks at all videos, frame by frame in turn; those that cannot be opened are said and passed over."""
  from prn_jax.run.save import VIDEO_KINDS
  from prn_jax.track.record import Recorder, stems
  from prn_jax.track.source import open_source

  watched, recorders = Watched(), []
  kinds = [kind for kind in work.kinds if kind in VIDEO_KINDS]
  began = time.perf_counter()
  try:
    for place, stem in zip(work.videos, stems(work.videos), strict=True):
      try:
        source = open_source(place, None, _say)
      except PrnError as error:
        watched.fail(place, error)
        continue
      if source.is_live:
        print(
          f"prn predict: {source.place} is live, until Ctrl-C; frames are dropped where they come too fast",
          file=sys.stderr,
        )
      recorders.append(Recorder(source, folder, stem, kinds))
    _watch(network, recorders, watched, privacy, prints_frames=not work.kinds and not is_json, program=program)
  finally:  # also what was found before a Ctrl-C
    with interrupts.hold():
      _finish(recorders, watched, time.perf_counter() - began, is_json=is_json)
  return watched


def _watch(
  network: Detector | Classifier,
  recorders: list[Recorder],
  watched: Watched,
  privacy: Privacy | None,
  *,
  prints_frames: bool,
  program: str,
) -> None:
  from prn_jax.run.images import Failure, stream
  from prn_jax.track.source import Together

  frames = Together([one.source for one in recorders])
  keeps = any(one.is_drawn for one in recorders)
  results = first_is_compiled(stream(network, frames.images(), keep_images=keeps), program)
  for result in progress(results, frames.count, "frames"):
    index, taken = frames.taken()
    if isinstance(result, Failure):  # a frame in memory can be read
      raise PrnError(result.reason)
    recorder = recorders[index]
    result = privacy(result) if privacy else result
    recorder.add(result, taken.time_sec or 0.0)
    if prints_frames:
      print(line_of(f"{recorder.source.place} {recorder.last_sec:.2f} s", result))
      if streams.reader_is_gone():
        return
  for index, error in frames.failures.items():
    watched.fail(recorders[index].source.place, error)


def _finish(recorders: list[Recorder], watched: Watched, seconds: float, *, is_json: bool) -> None:
  """Closes the files, and says what there is."""
  folders: set[str] = set()
  for one in recorders:
    files = one.finish()
    if not one.num_frames:
      continue
    watched.rows.append(one.to_dict() | {"files": [str(file) for file in files]})
    watched.num_files += len(files)
    folders |= {str(file.parent) for file in files}
    for line in one.account:
      print(f"prn predict: {line}", file=sys.stderr)
    if not is_json:
      print(one)
  count = sum(one.num_frames for one in recorders)
  where = f", in {' and '.join(sorted(folders))}/" if folders else ""
  rate = f" ({count / seconds:.1f} a second)" if count else ""
  print(f"{count} frames in {seconds:.1f} s{rate}{where}", file=sys.stderr)


def _say(text: str) -> None:
  print(f"prn predict: {text}", file=sys.stderr)


def line_of(source: str, result: Any) -> str:
  """ "dog.jpg: 1 dog 99%, 1 bicycle 92%" or the best class."""
  from prn_jax.classify.classification import Classification

  if isinstance(result, Classification):
    return f"{source}: " + ", ".join(f"{name} {p:.1%}" for _, name, p in result.top())
  counts = Counter(int(c) for c in result.classes)
  best = {c: max(float(s) for s, k in zip(result.scores, result.classes, strict=True) if int(k) == c) for c in counts}
  parts = [f"{n} {result.name_of(c)} ({best[c]:.0%})" for c, n in counts.most_common()]
  return f"{source}: {', '.join(parts) or 'nothing found'}"
