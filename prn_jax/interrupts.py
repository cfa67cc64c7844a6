"""Ctrl-C in the `prn` command: one line and exit code 130, at any instant.

Python answers a signal between two of its own instructions. A compilation, an import or a step keeps it from that for
seconds, and when it does, a traceback of everything that was going on comes out. So a thread learns of the signal at
once (`signal.set_wakeup_fd`), gives the command a moment to end in order (`KeyboardInterrupt`: files are closed, what was
found is written), and then ends the process. Every file is written beside and renamed, so that nothing is half-written.

Nothing here acts before `install` is called, and only the command does that: in a notebook, signals stay the notebook's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
GRACE_SEC = 2.0  # from the first Ctrl-C to the end, whatever the command does
FLUSH_SEC = 0.5

_MODULES = ("-m prn_jax", "-m prn_jax.cli.main")

is_installed = False
_in_order = False  # whether somebody catches KeyboardInterrupt
_patient: list[Callable[[], None]] = []  # of bodies with a handler of their own
_holds = 0  # bodies of `hold`
_said = threading.Lock()


def install_in_command() -> None:
  """Takes over Ctrl-C if this process is the command `prn`, or `python -m prn_jax`, and no worker of it.

  The package calls it before it imports anything else, since a quarter of a second of imports is a long time.
  """
  words, name = sys.orig_argv, os.path.basename(sys.argv[0]) if sys.argv else ""
  is_module = name == "-m" and any(f"{a} {b}" in _MODULES for a, b in itertools.pairwise(words))
  if (is_module or name in ("prn", "prn.exe")) and "--multiprocessing-fork" not in words:
    install()


def install() -> None:
  """Takes over Ctrl-C in this process. Only the main thread may call it; again does nothing."""
  global is_installed
  if threading.current_thread() is not threading.main_thread():
    return
  if signal.getsignal(signal.SIGINT) is _handle or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    return  # ignored: started in the background by a shell, or by nohup
  signal.signal(signal.SIGINT, _handle)
  is_installed = True
  sys.unraisablehook = _raise_again
  if os.name == "nt":
    return  # no file descriptors to wait for; the handler alone
  open_closed_descriptors()
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(reader,), name="ctrl-c", daemon=True).start()


def open_closed_descriptors() -> None:
  """Opens those of stdin, stdout and stderr that the caller closed on nothing: the next file that is opened would get
  their number, and every message with it."""
  for number in (0, 1, 2):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def in_order() -> Iterator[None]:
  """The body, or its caller, ends by KeyboardInterrupt; outside of it, the first Ctrl-C ends the process at once."""
  global _in_order
  _in_order = True
  try:
    yield
  finally:
    _in_order = False


@contextlib.contextmanager
def patient(notice: Callable[[], None]) -> Iterator[None]:
  """For a body that has a handler of its own for the first Ctrl-C, which may take its time; the second ends the process.

  Args:
    notice: says at once what the first Ctrl-C does; called by another thread.
  """
  _patient.append(notice)
  try:
    yield
  finally:
    _patient.remove(notice)


@contextlib.contextmanager
def hold() -> Iterator[None]:
  """Time to write down what there is after a Ctrl-C, however long it takes; the second one ends the process."""
  global _holds
  _holds += 1
  try:
    yield
  finally:
    _holds -= 1


@contextlib.contextmanager
def hasty() -> Iterator[None]:
  """A part of a `patient` body that has nothing to save."""
  kept = _patient[:]
  _patient.clear()
  try:
    yield
  finally:
    _patient[:] = kept


def leave(text: str = "interrupted") -> None:
  """Says one line and ends the process with 130, whatever its other threads do. Does not return."""
  if _said.acquire(timeout=FLUSH_SEC + 0.5):  # for good: a second thread waits until the first has ended the process
    flush = threading.Thread(target=_flush, daemon=True)
    with contextlib.suppress(RuntimeError):  # no new threads while Python ends
      flush.start()
      flush.join(FLUSH_SEC)
    with contextlib.suppress(OSError):
      os.write(2, f"prn: {text}\n".encode())
  os._exit(INTERRUPTED)


def _handle(number: int, frame: FrameType | None) -> None:
  if not _in_order or _is_importing(frame):
    leave()
  raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
  """Whether an import is under way, where an exception is no way out: jaxlib, while it starts, answers one by SIGSEGV."""
  while frame is not None:
    if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
      return True
    frame = frame.f_back
  return False


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
  """A KeyboardInterrupt that hit a destructor or a callback of the collector, where Python drops it, is raised again."""
  if unraisable.exc_type is not KeyboardInterrupt:
    sys.__unraisablehook__(unraisable)
    return
  import ctypes

  def raise_again() -> None:
    main = threading.main_thread().ident or 0
    if _is_importing(sys._current_frames().get(main)):
      leave()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(KeyboardInterrupt))

  threading.Timer(0.05, raise_again).start()  # not in here, where it would be lost


def _watch(reader: int) -> None:
  """Waits for signals in a thread of its own."""
  while True:
    if signal.SIGINT not in os.read(reader, 64):
      continue
    if _patient:
      for notice in _patient[:]:
        notice()
      _wait(reader, None)
    else:
      _wait(reader, GRACE_SEC if _in_order else 0.0)
    leave()


def _wait(reader: int, limit_sec: float | None) -> None:
  """Until the next Ctrl-C, or so long and until nothing holds it."""
  end = None if limit_sec is None else time.monotonic() + limit_sec
  while end is None or _holds or time.monotonic() < end:
    if select.select([reader], [], [], 0.1)[0] and signal.SIGINT in os.read(reader, 64):
      return


def _flush() -> None:
  with contextlib.suppress(Exception):
    sys.stdout.flush()


install_in_command()
