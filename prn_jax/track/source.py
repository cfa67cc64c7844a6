"""Where frames come from: a video file, a folder or list of pictures, a camera or stream; one of them or several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prn_jax.data_pipelines.images import inputs
from prn_jax.data_pipelines.images.formats import is_image_name
from prn_jax.errors import PrnError
from prn_jax.files.disk import is_file, is_folder
from prn_jax.run.images import PAUSE
from prn_jax.track.clock import FPS
from prn_jax.track.follow import frames_of
from prn_jax.track.live import WEB, Live, answers_with_frames, is_live, without_password
from prn_jax.track.video import Video, is_video


class Taken(NamedTuple):
  """A frame.

  Attributes:
    image: the name of its file, or an array (h, w, 3) uint8.
    name: the name of its file, where it is one.
    time_sec: since the beginning; None where nothing but the rate says it.
  """

  image: Any
  name: str | None = None
  time_sec: float | None = None


class Source(ABC):
  """Frames in order.

  Attributes:
    place: what the user calls it.
    fps: frames a second, on the average.
    count: how many there are; 0 where that is not known.
    is_live: frames come whether or not they are wanted: those that nobody takes in time are dropped.
  """

  place: str
  fps: float
  count: int
  is_live = False

  @property
  def shortfall(self) -> str:
    """What to say of frames that should have been there; empty where none is missing."""
    return ""

  @abstractmethod
  def frames(self) -> Iterator[Taken | None]:
    """The frames; None where the next one is not there yet."""


class Pictures(Source):
  """Files of pictures, at a fixed rate."""

  def __init__(self, place: str, names: list[str], fps: float) -> None:
    self.place, self.fps, self.count, self._names = place, fps, len(names), names

  def frames(self) -> Iterator[Taken | None]:
    """See `Source.frames`."""
    for name in self._names:
      yield Taken(name, name)


class VideoFile(Source):
  """A video file, with its own times."""

  def __init__(self, path: str) -> None:
    self._video = Video(path)
    self.place, self.fps, self.count = without_password(path), self._video.fps, self._video.said_frames

  def frames(self) -> Iterator[Taken | None]:
    """See `Source.frames`."""
    for frame in self._video:
      yield Taken(frame.image, None, frame.time_sec)

  @property
  def shortfall(self) -> str:
    """See `Video.shortfall`."""
    return self._video.shortfall


class Stream(Source):
  """A camera, or a stream of the network. The newest frame wins: see `Live`."""

  is_live = True

  def __init__(self, live: Live) -> None:
    self.live = live
    self.place, self.fps, self.count = without_password(live.place), live.fps, 0

  def frames(self) -> Iterator[Taken | None]:
    """See `Source.frames`."""
    for frame in self.live:
      yield Taken(frame.image, None, frame.time_sec) if frame else None

  @property
  def shortfall(self) -> str:
    """See `Live.account`."""
    return self.live.account


class Together:
  """Frames of several sources in turn: one of each, and again. A source that fails ends, and the others go on.

  They are asked for ahead of the network, so `taken` tells afterwards which one was which.

  Attributes:
    count: how many frames there are; 0 where that is not known.
    failures: number of a source -> why it ended.
  """

  def __init__(self, sources: Sequence[Source]) -> None:
    self._sources = sources
    self._asked: deque[tuple[int, Taken]] = deque()
    self.count = sum(one.count for one in sources) if all(one.count for one in sources) else 0
    self.failures: dict[int, PrnError] = {}

  def images(self) -> Iterator[Any]:
    """Names of files, or arrays (h, w, 3) uint8; `PAUSE` where none of the sources has one at the moment."""
    running = {i: source.frames() for i, source in enumerate(self._sources)}
    while running:
      had_one = False
      for i, frames in list(running.items()):
        try:
          frame = next(frames, _END)
        except PrnError as error:
          self.failures[i], frame = error, _END
        if isinstance(frame, Taken):
          had_one = True
          self._asked.append((i, frame._replace(image=None)))
          yield frame.image
        elif frame is _END:
          del running[i]
      if running and not had_one:
        yield PAUSE

  def taken(self) -> tuple[int, Taken]:
    """Number of the source, name and time of the frames that `images` gave, the first first."""
    return self._asked.popleft()


_END = object()


def photos_and_videos(sources: Sequence[str]) -> tuple[list[str], list[str]]:
  """What sources of `prn predict` stand for: images as `inputs.expand` gives them, and videos, cameras and streams. A
  folder stands for the images and the videos in it.

  Raises:
    InputError: see `inputs.expand`.
  """
  photos: list[str] = []
  videos: list[str] = []
  for source in sources:
    is_web_page = source.startswith(WEB) and not is_image_name(source.partition("?")[0])
    if is_live(source) or (is_web_page and answers_with_frames(source)) or (is_video(source) and is_file(Path(source))):
      videos.append(source)
      continue
    here = _videos_below(source)
    videos += here
    if not here or any(is_image_name(path) for path in Path(source).rglob("*")):
      photos.append(source)
  found = inputs.expand(photos) if photos else []
  videos += [name for name in found if is_video(name)]
  return [name for name in found if not is_video(name)], list(dict.fromkeys(videos))


def _videos_below(folder: str) -> list[str]:
  if folder.startswith(WEB) or not is_folder(Path(folder)):
    return []
  return sorted(str(path) for path in Path(folder).rglob("*") if is_video(path.name) and path.is_file())


def open_source(source: str, fps: float | None, say: Callable[[str], None]) -> Source:
  """A camera or stream by its address, a video by the end of its name, else pictures.

  Args:
    source: a file, a folder, a list of pictures (.txt), the number of a camera, or the address of a stream.
    fps: frames a second of pictures; None is `FPS`.
    say: told what happens to a stream.

  Raises:
    PrnError: it cannot be read, or `fps` is given for a video.
  """
  is_far = is_live(source) or source.startswith(WEB)
  has_times = is_far or is_video(source)
  if has_times and fps is not None:
    raise PrnError(f"--fps {fps:g}: the frames of '{source}' have times of their own; leave it out.")
  if is_far:
    live = Live(source, say)
    if not live.is_recording:
      return Stream(live)
    live.close()  # a file at the other end: no frame of it need be dropped
    return VideoFile(source)
  if has_times and not Path(source).is_dir():
    return VideoFile(source)
  return Pictures(source, frames_of(source), fps or FPS)
