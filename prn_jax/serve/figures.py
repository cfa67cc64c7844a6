"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Figures:
  """Counters of one server."""

  def __init__(self) -> None:
    self._all = CollectorRegistry()
    self._requests = Counter("prn_requests", "Requests answered", ["path", "status"], registry=self._all)
    self._seconds = Histogram(
      "prn_predict_seconds", "From a request's first byte to its answer", buckets=_SECONDS, registry=self._all
    )
    self._batches = Histogram("prn_batch_images", "Images per run of the network", buckets=_IMAGES, registry=self._all)
    self._open = Gauge("prn_open_requests", "Photos that are being worked on", registry=self._all)
    self._waiting = Gauge("prn_waiting_images", "Photos that wait for the network", registry=self._all)

  def waiting_is(self, count: Callable[[], float]) -> None:
    """`count` tells how many wait, whenever somebody asks."""
    self._waiting.set_function(count)

  def answered(self, path: str, status: int, seconds: float) -> None:
    """One request; `path` is one of the server's own, or "other"."""
    self._requests.labels(path, str(status)).inc()
    if path == "/predict" and status == 200:
      self._seconds.observe(seconds)

  def batch(self, images: int) -> None:
    """One run of the network."""
    self._batches.observe(images)

  def opened(self, change: int) -> None:
    """1 where a photo arrives, -1 where it is answered."""
    self._open.inc(change)

  def text(self) -> bytes:
    """All of it in Prometheus' text format."""
    return generate_latest(self._all)
