"""What a server allows its clients."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from pathlib import Path

from prn_jax.errors import PrnError
from prn_jax.ranges import at_least, check


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeSettings:
  """Limits of one server.

  Attributes:
    batch: images per run of the network at most; programs are compiled for 1, 2, 4, ... up to it.
    max_mb: megabytes of a request.
    timeout_sec: seconds until a request is answered, from its first byte.
    waiting: requests that are open at a time; one more is sent away with status 503.
    hosts: names by which the server may be addressed (the header Host); empty is any. Where it is reached from this
      machine alone, no page of the web can then reach it by a name of its own.
    count: folder of a count (`prn count`) whose totals are shown at /count; None shows none.
  """

  batch: int = field(default=8, metadata=at_least(1, "images per run of the network"))
  max_mb: float = field(default=20.0, metadata=at_least(0.001, "megabytes of a request"))
  timeout_sec: float = field(default=30.0, metadata=at_least(0.1, "seconds until a request is answered"))
  waiting: int = field(default=512, metadata=at_least(1, "requests that are open at a time"))
  hosts: tuple[str, ...] = ()
  count: Path | None = None

  def __post_init__(self) -> None:
    check(self, PrnError)

  @property
  def max_bytes(self) -> int:
    """`max_mb` in bytes."""
    return int(self.max_mb * 1_000_000)

  @property
  def batch_sizes(self) -> tuple[int, ...]:
    """Sizes for which programs are compiled, rising; the last one is `batch`."""
    sizes = [1]
    while sizes[-1] < self.batch:
      sizes.append(min(2 * sizes[-1], self.batch))
    return tuple(sizes)
