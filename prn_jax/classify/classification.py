"""The class probabilities of one image. Needs no JAX."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Classification:
  """Class probabilities of one image.

  Attributes:
    probabilities: (num_classes,) float32.
    names: class names; may be empty.
    path: the file of the image.
  """

  probabilities: np.ndarray
  names: tuple[str, ...] = ()
  path: str | None = None

  def top(self, count: int = 5) -> list[tuple[int, str, float]]:
    """The best `count` classes as (index, name, probability), best first; ties by index."""
    order = np.argsort(-self.probabilities, kind="stable")[:count]
    return [(int(i), self.name(int(i)), float(self.probabilities[i])) for i in order]

  def name(self, index: int) -> str:
    return self.names[index] if self.names else f"class {index}"

  def to_dict(self, count: int = 5) -> dict[str, Any]:
    """JSON values: path and the best classes."""
    top = [{"class": i, "name": name, "probability": p} for i, name, p in self.top(count)]
    return {"path": self.path, "top": top}

  def __repr__(self) -> str:
    """One line: where, and the best classes."""
    where = f"'{self.path}': " if self.path else ""
    best = ", ".join(f"{name} {p:.1%}" for _, name, p in self.top(3))
    return f"Classification({where}{best}; {len(self.probabilities)} classes)"

  def __str__(self) -> str:
    return "\n".join(f"{p:7.2%}  {name}" for _, name, p in self.top())
