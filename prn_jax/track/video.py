"""Frames of video files, with the times that the file gives them.

OpenCV reads them (its wheels bring FFmpeg under the LGPL; those of PyAV bring x264 and x265, which are GPL). A thread
decodes ahead of the network. Times are the file's own: frames of a phone's video come at odd times, and counting by a
fixed rate would make wrong speeds of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prn_jax.errors import PrnError

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp")
SILENT = 0  # of OpenCV's levels
AHEAD = 8  # frames that are decoded before they are asked for
USUAL_FPS = 25.0  # where a video does not say
_LEAST_STEP_SEC = 1e-4  # of frames whose times do not rise


class VideoError(PrnError):
  """A video that cannot be read."""


class Frame(NamedTuple):
  """One frame.

  Attributes:
    time_sec: since the beginning of the video; rises from frame to frame.
    image: (h, w, 3) uint8 RGB, upright.
  """

  time_sec: float
  image: np.ndarray


def is_video(name: str) -> bool:
  """Whether a name ends as those of videos do."""
  return Path(name).suffix.lower() in SUFFIXES


def opencv(what: str) -> Any:
  """OpenCV, which prints nothing: what it and FFmpeg would say comes as an error of ours.

  Raises:
    VideoError: it is not installed; `what` says what it is needed for.
  """
  try:
    import cv2
  except ModuleNotFoundError:
    raise VideoError(f"{what} needs OpenCV: pip install 'prn-jax[video]'.") from None
  logs: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # it has moved between versions
  logs.setLogLevel(SILENT)
  os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
  return cv2


def said_fps(reader: Any) -> float:
  """Frames a second as an open `cv2.VideoCapture` says; `USUAL_FPS` where that cannot be."""
  import cv2

  fps = float(reader.get(cv2.CAP_PROP_FPS))
  return fps if 0 < fps <= 1000 else USUAL_FPS


class Video:
  """A video file that is read once, from its beginning to its end.

  Args:
    path: the file, or the address of one.

  Raises:
    VideoError: there is no such file, OpenCV is not installed, or the file is no video that it can read.

  Attributes:
    fps: frames per second on the average, as the file says.
    said_frames: how many frames the file says that it has; 0 where it does not.
    num_frames: frames that were read so far.
  """

  def __init__(self, path: str) -> None:
    if "://" not in path and not Path(path).is_file():
      raise VideoError(f"'{path}' does not exist, or is no file.")
    self._path, self._cv2 = path, opencv(f"reading '{path}'")
    self._reader = self._cv2.VideoCapture(path, self._cv2.CAP_FFMPEG)
    if not self._reader.isOpened():
      raise VideoError(
        f"'{path}' is no video that OpenCV can read, or is damaged: an .mp4 of a recording that was cut off lacks its index, "
        "which stands at the end. Programs that repair videos can make one; .mkv and .ts need none."
      )
    self.fps = said_fps(self._reader)
    self.said_frames = max(0, int(self._reader.get(self._cv2.CAP_PROP_FRAME_COUNT)))
    self.num_frames = 0
    self._is_read = False  # to its end; else whoever asked has stopped

  def __iter__(self) -> Iterator[Frame]:
    """The frames. What cannot be decoded at the end is left out: `shortfall` says so."""
    frames: queue.Queue[Frame | Exception | None] = queue.Queue(AHEAD)
    stop = threading.Event()
    thread = threading.Thread(target=self._decode, args=(frames, stop), name="video", daemon=True)
    thread.start()
    try:
      while (frame := frames.get()) is not None:
        if isinstance(frame, Exception):
          raise frame
        self.num_frames += 1
        yield frame
      self._is_read = True
    finally:
      stop.set()
      while thread.is_alive():  # it may wait for room in the queue
        with contextlib.suppress(queue.Empty):
          frames.get(timeout=0.05)
      self._reader.release()
    if not self.num_frames:
      raise VideoError(f"'{self._path}' holds no frame that can be read.")

  @property
  def shortfall(self) -> str:
    """What to say of frames that the file promised and does not have; empty where there are none.

    Files without an index state their length only roughly; a twentieth less is no fault.
    """
    if not self._is_read or self.num_frames >= 0.95 * self.said_frames:
      return ""
    return f"'{self._path}' ends after {self.num_frames} of {self.said_frames} frames: it is cut off or damaged; what was read counts."

  def _decode(self, frames: queue.Queue[Frame | Exception | None], stop: threading.Event) -> None:
    last = -_LEAST_STEP_SEC
    try:
      while not stop.is_set():
        is_read, image = self._reader.read()
        if not is_read:
          break
        told = float(self._reader.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000
        last = max(told, last + _LEAST_STEP_SEC)
        _put(frames, Frame(last, np.ascontiguousarray(image[..., ::-1])), stop)
      _put(frames, None, stop)
    except Exception as error:  # whoever waits for frames must learn of it
      _put(frames, error, stop)


def _put(frames: queue.Queue[Any], item: Any, stop: threading.Event) -> None:
  while not stop.is_set():
    with contextlib.suppress(queue.Full):
      frames.put(item, timeout=0.1)
      return
