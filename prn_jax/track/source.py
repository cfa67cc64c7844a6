"""Where the frames of a video come from: a file, or a folder or list of pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from prn_jax.errors import PrnError
from prn_jax.track.clock import FPS
from prn_jax.track.follow import frames_of
from prn_jax.track.video import Video, is_video


class Source(ABC):
  """Frames in order. They are asked for ahead of the network, so `taken` tells afterwards which one was which.

  Attributes:
    fps: frames a second, on the average.
    count: how many there are, as far as that is known.
  """

  fps: float
  count: int

  @property
  def shortfall(self) -> str:
    """What to say of frames that should have been there; empty where none is missing."""
    return ""

  def __init__(self) -> None:
    self._asked: deque[tuple[str | None, float | None]] = deque()

  @abstractmethod
  def images(self) -> Iterator[Any]:
    """Names of files, or arrays (h, w, 3) uint8."""

  def taken(self) -> tuple[str | None, float | None]:
    """Name and time of the frames that `images` gave, the first first; None where there is none."""
    return self._asked.popleft()


class Pictures(Source):
  """Files of pictures, at a fixed rate."""

  def __init__(self, names: list[str], fps: float) -> None:
    super().__init__()
    self.fps, self.count, self._names = fps, len(names), names

  def images(self) -> Iterator[Any]:
    """See `Source.images`."""
    for name in self._names:
      self._asked.append((name, None))
      yield name


class VideoFile(Source):
  """A video file, with its own times."""

  def __init__(self, path: str) -> None:
    super().__init__()
    self._video = Video(path)
    self.fps, self.count = self._video.fps, self._video.said_frames

  def images(self) -> Iterator[Any]:
    """See `Source.images`."""
    for frame in self._video:
      self._asked.append((None, frame.time_sec))
      yield frame.image

  @property
  def shortfall(self) -> str:
    """See `Video.shortfall`."""
    return self._video.shortfall


def open_source(source: str, fps: float | None) -> Source:
  """A video by the end of its name, else pictures.

  Args:
    source: a file, a folder, or a list of pictures (.txt).
    fps: frames a second of pictures; None is `FPS`.

  Raises:
    PrnError: it cannot be read, or `fps` is given for a video.
  """
  if not is_video(source):
    return Pictures(frames_of(source), fps or FPS)
  if fps is not None:
    raise PrnError(f"--fps {fps:g}: the frames of '{source}' have times of their own; leave it out.")
  return VideoFile(source)
