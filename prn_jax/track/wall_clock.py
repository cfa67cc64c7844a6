"""What time of day a second of a video is, also across a change to or from daylight-saving time."""

from __future__ import annotations

import dataclasses
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo


@dataclasses.dataclass(frozen=True)
class WallClock:
  """When a video began, and where.

  Attributes:
    start: the moment of the first frame, with its distance from UTC.
    zone: the name of the time zone, as "Europe/Berlin"; None: the distance of `start` all the time.
  """

  start: datetime
  zone: str | None = None

  def at(self, time_sec: float) -> str:
    """ISO 8601, to thousandths, of a second of the video."""
    place: tzinfo | None = zoneinfo.ZoneInfo(self.zone) if self.zone else self.start.tzinfo
    moment = self.start.astimezone(UTC) + timedelta(milliseconds=round(1000 * time_sec))
    return moment.astimezone(place).isoformat(timespec="milliseconds")


def wall_clock(start: str, zone: str | None) -> WallClock:
  """Reads both.

  Args:
    start: "2026-05-01T08:00:00", with or without the distance from UTC at its end.
    zone: a name of the IANA time zone database.

  Raises:
    ValueError: what is wrong, going on after the name of the key; `zone` has been checked by `check_zone`.
  """
  try:
    begin = datetime.fromisoformat(start)
  except ValueError:
    begin = None
  if begin is None or len(start) <= len("2026-05-01"):
    raise ValueError(f"is '{start}'; expected a day and a time, as 2026-05-01T08:00:00+02:00")
  if zone is None:
    if begin.tzinfo is None:
      raise ValueError(
        f"is '{start}', which is another moment in every time zone; add +02:00 or the like, or time_zone: Europe/Berlin"
      )
    return WallClock(begin)
  place = zoneinfo.ZoneInfo(zone)
  if begin.tzinfo is None:
    return WallClock(_in_zone(begin, zone, place), zone)
  there = begin.astimezone(place)
  if there.utcoffset() != begin.utcoffset():
    raise ValueError(
      f"is '{start}', but in {zone} that moment is {there.isoformat()}; make them agree, or leave one out"
    )
  return WallClock(begin, zone)


def _in_zone(plain: datetime, zone: str, place: tzinfo) -> datetime:
  """A time that is said without its distance from UTC; ValueError where it comes twice, or not at all."""
  first, second = plain.replace(tzinfo=place, fold=0), plain.replace(tzinfo=place, fold=1)
  if first.utcoffset() == second.utcoffset():
    return first
  if first.astimezone(UTC).astimezone(place).replace(tzinfo=None) != plain:
    raise ValueError(f"is '{plain.isoformat()}', which does not exist in {zone}: clocks went forward over it")
  raise ValueError(
    f"is '{plain.isoformat()}', which comes twice in {zone}; say which: {first.isoformat()} or {second.isoformat()}"
  )


def check_zone(zone: str) -> None:
  """ValueError, going on after the name of the key, for a time zone that this machine does not know."""
  try:
    zoneinfo.ZoneInfo(zone)
  except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
    raise ValueError(
      f"is '{zone}', which is no time zone that is known here; expected a name as Europe/Berlin"
    ) from None
