"""Trackers by name, with the settings that all of them share."""

from __future__ import annotations

import dataclasses
from dataclasses import field

from prn_jax.errors import PrnError, did_you_mean
from prn_jax.ranges import at_least, between, check
from prn_jax.track.trackers.bytetrack import ByteTrack, ByteTrackOptions
from prn_jax.track.trackers.ocsort import OcSort, OcSortOptions
from prn_jax.track.trackers.sort import Sort, SortOptions
from prn_jax.track.trackers.tracker import Tracker

TRACKERS = ("bytetrack", "ocsort", "sort")
_LOW_SCORE = ByteTrackOptions.low_score
_NEW_ABOVE = ByteTrackOptions.new_score - ByteTrackOptions.high_score


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackerSettings:
  """What decides who is followed.

  Attributes:
    tracker: one of `TRACKERS`.
    conf: score from which a box counts; ByteTrack also goes on with weaker ones, down to 0.1.
    max_lost_sec: time after which an object that is not seen again is given up.
    is_per_class: an object keeps to boxes of one class.

  Raises:
    PrnError: another name, or a value out of range.
  """

  tracker: str = "bytetrack"
  conf: float = field(default=0.5, metadata=between(0, 1, "weaker boxes begin no track"))
  max_lost_sec: float = field(default=1.0, metadata=at_least(0, "seconds until a lost object is given up"))
  is_per_class: bool = False

  def __post_init__(self) -> None:
    if self.tracker not in TRACKERS:
      hint = did_you_mean(self.tracker, TRACKERS)
      raise PrnError(f"unknown tracker '{self.tracker}'{hint}; expected one of {', '.join(TRACKERS)}.")
    check(self, PrnError)

  @property
  def lowest_score(self) -> float:
    """Boxes below it are not looked at, so that a detector need not give them."""
    return min(_LOW_SCORE, self.conf) if self.tracker == "bytetrack" else self.conf

  def make(self, fps: float) -> Tracker:
    """A tracker for one video.

    Args:
      fps: frames a second, which a step of the tracker stands for.
    """
    lost, apart = self.max_lost_sec * fps, self.is_per_class
    if self.tracker == "sort":
      return Sort(SortOptions(min_score=self.conf, new_score=self.conf, max_lost=lost, is_per_class=apart))
    if self.tracker == "ocsort":
      return OcSort(OcSortOptions(min_score=self.conf, new_score=self.conf, max_lost=lost, is_per_class=apart))
    new = min(self.conf + _NEW_ABOVE, 1.0)
    return ByteTrack(
      ByteTrackOptions(
        low_score=self.lowest_score, high_score=self.conf, new_score=new, max_lost=lost, is_per_class=apart
      )
    )
