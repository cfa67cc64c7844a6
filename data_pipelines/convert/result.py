"""What a conversion did, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prn_jax.data_pipelines.convert.layouts import LAYOUTS
from prn_jax.data_pipelines.convert.losses import loss_texts


@dataclass(frozen=True)
class Converted:
  """What `convert` did.

  Attributes:
    spec: opens the split.
    to, split: its format and name.
    num_images, num_objects: what it holds.
    lost: number of everything that the format cannot hold, by the id of its `Loss`.
    images: how many images were copied, linked, written (they were in memory) or turned.
    max_difference_px: largest difference of a corner after reading it again.
    problems, left_out: what was bad (policy skip), and its number of each kind.
    notes: what was understood, but is worth a look.
    is_kept: it was there already, whole.
  """

  spec: str
  to: str
  split: str
  num_images: int
  num_objects: int
  lost: dict[str, int]
  images: dict[str, int]
  max_difference_px: float
  problems: tuple[str, ...]
  left_out: dict[str, int]
  notes: tuple[str, ...] = ()
  is_kept: bool = False

  def text(self) -> str:
    """What was done, what the format cannot hold, and how to open it."""
    places = ", ".join(f"{number:,} {what}" for what, number in self.images.items())
    there = " (was there already, whole and unchanged)" if self.is_kept else ""
    lines = [f"split {self.split}{there}: images {self.num_images:,} ({places}), objects {self.num_objects:,}"]
    if self.lost:
      lines += [f"not held by {self.to}, or changed:"]
    lines += [f"  {text}" for text in loss_texts(self.lost, self.to, LAYOUTS[self.to].loses)]
    lines += [
      f"read again and compared: corners differ by at most {self.max_difference_px:g} px",
      f"use it as {self.spec}",
    ]
    return "\n".join(lines)

  def to_json(self) -> dict[str, Any]:
    """What `--json` prints."""
    return {
      "spec": self.spec,
      "to": self.to,
      "split": self.split,
      "images": self.num_images,
      "objects": self.num_objects,
      "lost": self.lost,
      "image_files": self.images,
      "max_difference_px": self.max_difference_px,
      "kept": self.is_kept,
      "left_out": self.left_out,
      "problems": self.problems,
      "notes": self.notes,
    }
