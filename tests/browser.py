"""Headless Chromium, by its debugging pipe: no package is needed, only the browser."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page:
  """One tab. Commands go to descriptor 3 of the browser, answers come from its 4, both ended by a zero byte."""

  def __init__(self, to_browser: int, from_browser: int) -> None:
    self._to, self._from = to_browser, from_browser
    self._number, self._rest = 0, b""
    target = self._call("Target.createTarget", url="about:blank")["targetId"]
    self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    self.errors: list[str] = []
    for domain in ("Page", "Runtime", "Log"):
      self._call(f"{domain}.enable")

  _session: str | None = None

  def _call(self, method: str, **params: Any) -> Any:
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._to, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._next()
      if answer.get("id") == self._number:
        assert "error" not in answer, answer["error"]
        return answer["result"]
      if answer.get("method") == "Runtime.exceptionThrown":
        self.errors.append(str(answer["params"]["exceptionDetails"]))
      if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
        self.errors.append(str(answer["params"]["entry"]["text"]))

  def _next(self) -> Any:
    while b"\0" not in self._rest:
      part = os.read(self._from, 1 << 16)
      assert part, "the browser has ended"
      self._rest += part
    message, _, self._rest = self._rest.partition(b"\0")
    return json.loads(message)

  def open(self, url: str) -> None:
    """Goes there, and waits until it is loaded."""
    self._call("Page.navigate", url=url)
    self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

  def run(self, script: str) -> Any:
    """The value of a JavaScript expression; a promise is waited for."""
    found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def until(self, script: str, limit_sec: float = 30.0) -> None:
    """Waits until the expression is true."""
    end = time.monotonic() + limit_sec
    while not self.run(script):
      assert time.monotonic() < end, f"not so after {limit_sec} s: {script}; errors: {self.errors}"
      time.sleep(0.05)

  def picture(self) -> bytes:
    """What the tab shows, as PNG."""
    import base64

    return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Page]:
  """A tab of a new browser; the test is skipped where there is none, and fails under CI=true."""
  found = next((path for name in NAMES if (path := shutil.which(name))), None)
  if found is None:
    text = f"no browser: install one of {', '.join(NAMES)} (Debian: apt install chromium)"
    if os.environ.get("CI") == "true":
      pytest.fail(text)
    pytest.skip(text)
  read_here, write_there = os.pipe()
  read_there, write_here = os.pipe()
  command = [
    found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    f"--user-data-dir={folder}", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "about:blank",
  ]  # fmt: skip
  # Not subprocess: it cannot give a process descriptors by number without a fork, against which JAX warns.
  high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (read_there, write_there)]
  silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (1, 2)]
  given = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(high, (3, 4), strict=True)]
  browser = os.posix_spawn(found, command, os.environ, file_actions=[*silent, *given])
  for fd in (read_there, write_there, *high):
    os.close(fd)
  try:
    yield Page(write_here, read_here)
  finally:
    os.kill(browser, signal.SIGKILL)
    os.waitpid(browser, 0)
    os.close(read_here)
    os.close(write_here)
