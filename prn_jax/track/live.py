"""Cameras and streams of the network: the newest frame wins, and a connection that is lost is opened again.

A live source does not wait for the network. Its frames are read as they come; while the network is busy each new one takes
the place of the one before, which is dropped and counted. So what is seen is never older than the network's own time, and
memory does not grow.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.errors import printable
from prn_jax.track.video import Frame, VideoError, is_video, opencv, said_fps

SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://", "tcp://", "srt://", "rtp://")
WEB = ("http://", "https://")
PLAYLISTS = (".m3u8", ".mpd", ".mjpg", ".mjpeg", ".cgi")
OPEN_SEC, READ_SEC = 10, 10  # longest wait for a connection, for a frame
FIRST_WAIT_SEC, MOST_WAIT_SEC = 0.5, 8.0  # between tries; each waits twice as long as the one before
GIVE_UP_SEC = 60.0  # without a frame
TICK_SEC = 0.01  # of waiting for a frame before others have their turn


def is_live(source: str) -> bool:
  """Whether a source is a camera (0, 1, /dev/video0) or a stream. A file or folder named 0 is taken for itself; an http(s)
  address by the end of its path (.m3u8, .mjpg, .mp4, ...), and else is a photo's, see `answers_with_frames`."""
  if source.startswith(SCHEMES):
    return True
  if source.startswith(WEB):
    path = source.partition("?")[0]
    return Path(path).suffix.lower() in PLAYLISTS or is_video(path)
  return (source.isdecimal() and not Path(source).exists()) or source.startswith("/dev/video")


def answers_with_frames(url: str) -> bool:
  """Whether a server says that this http(s) address holds a video or a row of pictures; False where it does not answer,
  which whoever fetches the photo then reports."""
  import urllib.error
  import urllib.request

  try:
    with urllib.request.urlopen(url, timeout=OPEN_SEC) as response:
      kind = response.headers.get_content_type()
  except (urllib.error.URLError, OSError, ValueError):
    return False
  return kind.startswith(("video/", "multipart/x-mixed-replace")) or "mpegurl" in kind or "dash+xml" in kind


def without_password(place: str) -> str:
  """An address as it may be shown and written: rtsp://user:secret@host is rtsp://user:***@host."""
  return printable(re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", place))


class Live:
  """A camera or stream that is read until it is given up, or nobody asks any more.

  Args:
    place: number of a camera, its device, or an address.
    say: told when the connection is lost and when it is back.

  Raises:
    VideoError: it cannot be opened; a connection that was never there is not waited for.

  Attributes:
    place: the argument.
    fps: as the source says.
    num_read, num_dropped, num_lost: frames that came, those that nobody had time for, and connections that were lost.
    is_recording: the source says how long it is: it can be read like a file, and should be.
    give_up_sec: without a frame for so long it ends.
  """

  def __init__(self, place: str, say: Callable[[str], None] = lambda text: None) -> None:
    self.place, self._say = place, say
    self._cv2 = opencv(f"reading '{place}'")
    self._reader = self._opened()
    if self._reader is None:
      what = "no camera of this number answers" if place.isdecimal() else "nothing answers there that OpenCV can read"
      raise VideoError(
        f"'{without_password(place)}' cannot be opened: {what}. Is the address right, and the device on?"
      )
    self.fps = said_fps(self._reader)
    self.is_recording = self._reader.get(self._cv2.CAP_PROP_FRAME_COUNT) > 0
    self.num_read = self.num_dropped = self.num_lost = 0
    self.give_up_sec = GIVE_UP_SEC
    self._newest: Frame | None = None
    self._began = 0.0
    self._error: Exception | None = None
    self._is_over, self._stop = False, threading.Event()
    self._changed = threading.Condition()

  def __iter__(self) -> Iterator[Frame | None]:
    """The newest frame, again and again, with the seconds since the first one; None where no other has come within `TICK_SEC`."""
    thread = threading.Thread(target=self._read, name="live", daemon=True)
    thread.start()
    try:
      while True:
        with self._changed:
          if self._newest is None and not self._is_over:
            self._changed.wait(TICK_SEC)
          frame, self._newest = self._newest, None
          is_over = self._is_over
        if frame is None and is_over:
          break
        yield frame
      if self._error:
        raise self._error
    finally:
      self._stop.set()
      thread.join(1.0)  # it may wait for the network, which ends with the process

  def close(self) -> None:
    """For a source that was opened and is not read."""
    self._reader.release()

  @property
  def account(self) -> str:
    """What became of its frames: dropped ones, and lost connections."""
    parts = [f"{self.num_dropped} of {self.num_read} frames dropped (the newest wins)"]
    if self.num_lost:
      parts.append(f"connection lost {self.num_lost} time{'s' * (self.num_lost > 1)}")
    return f"'{without_password(self.place)}': {', '.join(parts)}."

  def _opened(self) -> Any:
    """A reader, or None."""
    cv2 = self._cv2
    if self.place.isdecimal() or self.place.startswith("/dev/"):
      place: Any = int(self.place) if self.place.isdecimal() else self.place
      reader = cv2.VideoCapture(place)
    else:
      limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * OPEN_SEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * READ_SEC]
      reader = cv2.VideoCapture(self.place, cv2.CAP_FFMPEG, limits)
    if reader.isOpened():
      return reader
    reader.release()
    return None

  def _read(self) -> None:
    try:
      while not self._stop.is_set():
        is_read, image = self._reader.read()
        if is_read:
          self._put(image)
        elif not self._is_back():
          break
    except Exception as error:  # whoever waits for frames must learn of it
      self._error = error
    finally:
      if self._reader is not None:
        self._reader.release()
      with self._changed:
        self._is_over = True
        self._changed.notify()

  def _put(self, image: np.ndarray) -> None:
    now = time.monotonic()
    self._began = self._began or now
    frame = Frame(now - self._began, np.ascontiguousarray(image[..., ::-1]))
    with self._changed:
      self.num_read += 1
      self.num_dropped += self._newest is not None
      self._newest = frame
      self._changed.notify()

  def _is_back(self) -> bool:
    """Opens the source again, until it gives a frame; False where that is given up."""
    self.num_lost += 1
    lost, wait = time.monotonic(), FIRST_WAIT_SEC
    place = without_password(self.place)
    self._say(
      f"'{place}': the connection is lost after {self.num_read} frames; trying again for {self.give_up_sec:g} s"
    )
    while time.monotonic() - lost < self.give_up_sec:
      self._reader.release()
      if self._stop.wait(min(wait, self.give_up_sec)):
        return False
      wait = min(2 * wait, MOST_WAIT_SEC)
      reader = self._opened()
      if reader is None:
        continue
      self._reader = reader
      is_read, image = reader.read()
      if is_read:
        self._say(f"'{place}': back after {time.monotonic() - lost:.1f} s")
        self._put(image)
        return True
    self._say(f"'{place}': given up, {self.give_up_sec:g} s without a frame")
    return False
