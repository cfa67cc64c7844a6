"""A detector on the frames of a video, for the commands that follow objects."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prn_jax.cli.common import open_model, program_name, start_computing
from prn_jax.cli.predict import detection_options, parse_classes
from prn_jax.compiling import first_is_compiled
from prn_jax.errors import PrnError

if TYPE_CHECKING:
  from prn_jax.detect.detections import Detections
  from prn_jax.track.trackers.named import TrackerSettings


class NetworkFrames:
  """What a detector finds in each frame of a source; a frame that cannot be read is said, and passed over.

  Args:
    command: who says so.
    args: options of `add_weights`, `add_tracking` and, where pictures are made, `add_privacy`, with
      `model`, the detector.
    source: a video, a folder of frames, a stream.
    settings: those of the tracker, which decides how low scores go.

  Raises:
    PrnError: source or model cannot be opened.

  Attributes:
    fps, count: frames a second and in all, as the source has them; a count of 0 is not known.
    names: names of the classes.
    options: which boxes are asked for.
    failures: "path" and "reason" of the frames that could not be read.
  """

  def __init__(self, command: str, args: argparse.Namespace, source: str, settings: TrackerSettings) -> None:
    from prn_jax.run.detector import Detector
    from prn_jax.run.privacy import with_privacy
    from prn_jax.track.source import Together, open_source

    self._command, self._place = command, source
    self._source = open_source(source, args.fps, self._say)
    self._together = Together([self._source])
    self.fps, self.count = self._source.fps, self._source.count
    options = _options(args, settings)
    start_computing(command)
    model, engine = open_model(args)
    blur = parse_classes(getattr(args, "blur_classes", None), "--blur-classes")
    self.options, self._privacy = with_privacy(model, options, blur)
    self._network = Detector(model, self.options, args.batch, engine)
    self._program = program_name(model, args.batch)
    self.names = tuple(model.names)
    self.failures: list[dict[str, Any]] = []

  def results(self, *, keep_images: bool = False) -> Iterator[tuple[Detections | None, str | None, float | None]]:
    """What is found (None: the frame could not be read), the name of the frame's file, and its time."""
    from prn_jax.run.images import Failure
    from prn_jax.track.follow import detections_in

    found = detections_in(self._network, self._together.images(), keep_images=keep_images)
    for result in first_is_compiled(found, self._program):
      _, (_, name, time_sec) = self._together.taken()
      if isinstance(result, Failure):
        self.failures.append({"path": result.path, "reason": result.reason})
        self._say(result.reason)
        yield None, name, time_sec
      else:
        yield self._privacy.hide(result) if self._privacy else result, name, time_sec

  def check(self, num_frames: int) -> None:
    """Says what was wrong with the source, which has ended; raises where nothing could be read."""
    for error in self._together.failures.values():
      raise error
    if self._source.shortfall:
      self._say(self._source.shortfall)
    if len(self.failures) == num_frames:
      raise PrnError(f"none of the {num_frames} frames of '{self._place}' could be read.")

  def _say(self, text: str) -> None:
    print(f"prn {self._command}: {text}", file=sys.stderr)


def _options(args: argparse.Namespace, settings: TrackerSettings) -> Any:
  """Which boxes of a network are asked for. One object that looks like a car and like a truck would be followed, and
  counted, twice: so boxes of different classes suppress each other."""
  is_agnostic = args.class_agnostic or not args.per_class
  return dataclasses.replace(detection_options(args), conf=settings.lowest_score, class_agnostic=is_agnostic)
