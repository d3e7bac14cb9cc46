"""From "the last month in Berlin" to two instants. Pure.

A span is two aware datetimes in UTC, the start within it and the end not. It is counted by the wall
clock of a zone, which at a change of the offset skips times and has others twice:

- a rolling day over a change lasts 23 or 25 hours, and its start is read as the earlier of the two
  instants it could be, where that time came twice or never;
- a calendar period begins at the first instant that belongs to it. That is midnight, or the end of
  the gap in which midnight lies. An hour that comes twice is two hours.
"""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Literal, get_args
from zoneinfo import ZoneInfo

Period = Literal["hour", "day", "week", "month"]
Kind = Literal["rolling", "calendar"]
Span = tuple[datetime, datetime]

_TICK = timedelta(microseconds=1)


def span(period: Period, kind: Kind, tz: str, now: datetime) -> Span:
    """The period that ends now, in UTC: start (within) and end (not within).

    rolling: the last hour; from the same wall-clock time of yesterday, of seven days ago, of the
        same day of the month before (31 March: of 28 or 29 February).
    calendar: the current hour, day, week (ISO, from Monday) or month so far; empty in its first
        instant.

    Raises ValueError for an unknown period, kind or zone, and for a naive datetime.
    """
    zone = _checked(period, kind, tz, now)
    end = now.astimezone(timezone.utc)
    start = _rolling(period, zone, end) if kind == "rolling" else _calendar(period, zone, end)
    return start, end


def previous(period: Period, kind: Kind, tz: str, now: datetime) -> Span:
    """What the span is compared with: the one that ends where it begins.

    rolling: the same reckoned from there. calendar: the whole period before the current one.
    """
    start, _ = span(period, kind, tz, now)
    within = start if kind == "rolling" else start - _TICK
    return span(period, kind, tz, within)[0], start


def _checked(period: str, kind: str, tz: str, now: datetime) -> tzinfo:
    if period not in get_args(Period):
        raise ValueError(f"period {period!r} is not one of {', '.join(get_args(Period))}")
    if kind not in get_args(Kind):
        raise ValueError(f"kind {kind!r} is not one of {', '.join(get_args(Kind))}")
    if now.utcoffset() is None:
        raise ValueError("now needs a time zone, such as UTC")
    if tz == "UTC":  # known without a database of zones
        return timezone.utc
    try:
        return ZoneInfo(tz)
    except (ValueError, OSError, LookupError):
        raise ValueError(
            f"{tz!r} is no time zone that is known here; write one such as Europe/Berlin"
        ) from None


def _rolling(period: Period, zone: tzinfo, end: datetime) -> datetime:
    if period == "hour":
        return end - timedelta(hours=1)
    wall = end.astimezone(zone).replace(tzinfo=None)
    if period == "month":
        return min(_readings(_month_before(wall), zone))
    return min(_readings(wall - timedelta(days=7 if period == "week" else 1), zone))


def _month_before(wall: datetime) -> datetime:
    last = wall.replace(day=1) - timedelta(days=1)
    return last.replace(day=min(wall.day, last.day))


def _calendar(period: Period, zone: tzinfo, end: datetime) -> datetime:
    local = end.astimezone(zone)
    wall = local.replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if period == "hour":
        return _first_instant(wall, zone, second_time=bool(local.fold))
    wall = wall.replace(hour=0)
    if period == "week":
        wall -= timedelta(days=wall.weekday() - calendar.MONDAY)
    elif period == "month":
        wall = wall.replace(day=1)
    return _first_instant(wall, zone)


def _readings(wall: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The instants a wall-clock time can mean: two different ones if it came twice or never."""
    first, second = (wall.replace(tzinfo=zone, fold=n).astimezone(timezone.utc) for n in (0, 1))
    return first, second


def _first_instant(wall: datetime, zone: tzinfo, *, second_time: bool = False) -> datetime:
    """When the clock first showed this time or, if it skipped it, a later one. second_time: of a
    time that came twice, the second."""
    first, second = _readings(wall, zone)
    if first <= second:
        return second if second_time else first
    # Skipped: the change is in between, at a whole second.
    before, after = second, first
    while (middle := before + timedelta(seconds=(after - before) // timedelta(seconds=2))) > before:
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            before = middle
        else:
            after = middle
    return after
