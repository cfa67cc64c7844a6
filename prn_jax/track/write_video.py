"""Videos written through OpenCV, at a fixed rate, with the times of their frames kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from prn_jax.files.disk import written_beside
from prn_jax.files.places import is_remote, make_folder
from prn_jax.track.video import VideoError, opencv

CODECS = {"avc1": "H.264", "mp4v": "MPEG-4"}  # the first that this OpenCV can write is taken
SLACK = 0.75  # frames by which one may be early or late: files round their times, and their mean rate
MOST_GAP_SEC = 60.0  # a longer pause between two frames is shortened to this


class VideoWriter:
  """An .mp4 file. Without sound: OpenCV writes none.

  The file has a fixed rate, and the times of the frames decide where they stand in it: each is shown until the next one's
  time. Of frames that come faster than the rate the last is taken, and where they come slower one is repeated; of a video
  of that rate every frame is there once. Pictures of another size than the first are scaled to it.

  Args:
    path: the file; it appears when it is closed, whole.
    fps: frames a second.

  Raises:
    VideoError: OpenCV is not installed.

  Attributes:
    codec: the name of what was taken; "" before the first frame.
    num_written, num_repeated, num_left_out: frames in the file, those of them that are there again, and those that are not.
    cut_sec: how much shorter the file is because of pauses.
  """

  def __init__(self, path: Path, fps: float) -> None:
    self.path, self.fps = path, fps
    self.codec = ""
    self.num_written = self.num_repeated = self.num_left_out = 0
    self.cut_sec = 0.0
    self._cv2 = opencv(f"writing '{path}'")
    self._writer: Any = None
    self._size = (0, 0)
    self._begin_sec = 0.0
    self._waiting: np.ndarray | None = None  # the newest picture, whose time to end is not known yet
    self._slot = 0  # of it
    self._beside = Path()

  def add(self, image_u8: np.ndarray, time_sec: float) -> None:
    """Takes a picture, (h, w, 3) uint8 RGB, and its time, which rises.

    Raises:
      VideoError: this OpenCV can write none of `CODECS`, or there is no place for the file.
    """
    picture = self._cv2.cvtColor(image_u8, self._cv2.COLOR_RGB2BGR)
    if self._waiting is None:
      self._open(picture.shape[1], picture.shape[0])
      self._begin_sec, self._waiting = time_sec, picture
      return
    pause = time_sec - self._begin_sec - self._slot / self.fps
    if pause > MOST_GAP_SEC:
      self.cut_sec += pause - MOST_GAP_SEC
      self._begin_sec += pause - MOST_GAP_SEC
    exact = (time_sec - self._begin_sec) * self.fps
    slot = self._slot + 1 if abs(exact - self._slot - 1) < SLACK else round(exact)
    if slot <= self._slot:
      self.num_left_out += 1
    else:
      self._write(slot - self._slot)
      self._slot = slot
    self._waiting = picture

  def close(self) -> None:
    """Writes the end of the file, and puts it in its place. Without a frame there is no file.

    Raises:
      VideoError: what was written cannot be read: the disk is full, for instance.
    """
    if self._writer is None:
      return
    try:
      self._write(1)
      self._writer.release()
      self._writer = None
      self._check()
      if is_remote(self.path):
        with open(self._beside, "rb") as source, written_beside(self.path) as file:
          shutil.copyfileobj(source, file)
      else:
        os.replace(self._beside, self.path)
    finally:
      with contextlib.suppress(OSError):
        self._beside.unlink()

  @property
  def account(self) -> str:
    """One sentence: codec, size, rate, sound, and what became of the times."""
    width, height = self._size
    instead = "" if self.codec == CODECS["avc1"] else " (this OpenCV writes no H.264)"
    parts = [f"{self.codec}{instead}", f"{width}x{height}", f"{self.fps:.6g} frames a second", "no sound"]
    if self.num_repeated or self.num_left_out:
      parts.append(f"{self.num_repeated} frames repeated and {self.num_left_out} left out to keep their times")
    if self.cut_sec:
      parts.append(f"{self.cut_sec:.0f} s of pauses left out")
    return f"{self.path}: {', '.join(parts)}"

  def _open(self, width: int, height: int) -> None:
    folder = tempfile.gettempdir() if is_remote(self.path) else self.path.parent
    if not is_remote(self.path):
      make_folder(self.path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{self.path.stem}.", suffix=".mp4", dir=folder)
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)  # mkstemp gives 0600
    self._beside, self._size = Path(name), (width // 2 * 2, height // 2 * 2)  # of these codecs both are even
    for letters, codec in CODECS.items():
      writer = self._cv2.VideoWriter(
        name, self._cv2.CAP_FFMPEG, self._cv2.VideoWriter_fourcc(*letters), self.fps, self._size
      )
      if writer.isOpened():
        self._writer, self.codec = writer, codec
        return
      writer.release()
    self._beside.unlink()
    raise VideoError(
      f"cannot write '{self.path}': this OpenCV writes neither {' nor '.join(CODECS.values())} of {width}x{height} pixels. "
      "Its wheels (pip install 'prn-jax[video]') do."
    )

  def _write(self, times: int) -> None:
    """The waiting picture, so many times."""
    picture = self._waiting
    assert picture is not None
    width, height = self._size
    if picture.shape[0] - height in (0, 1) and picture.shape[1] - width in (0, 1):
      picture = np.ascontiguousarray(picture[:height, :width])
    else:
      picture = self._cv2.resize(picture, self._size)
    for _ in range(times):
      self._writer.write(picture)
    self.num_written += times
    self.num_repeated += times - 1

  def _check(self) -> None:
    reader = self._cv2.VideoCapture(str(self._beside), self._cv2.CAP_FFMPEG)
    there = int(reader.get(self._cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if there < self.num_written:
      raise VideoError(
        f"'{self.path}' could not be written whole: {max(there, 0)} of {self.num_written} frames are there. Is the disk full?"
      )
