"""What growth figures mean: local days, windows of them, and ratios. Pure.

A *day* is a calendar day of one time zone, and lasts 23 or 25 hours where the clock is changed. A
person is *active* on a day on which they did anything. For a day D, all as of its end:

- **new**: active on D for the first time.
- **active** in 24h, 7d, 30d: active on D; on any of the 7, of the 30 days that end with D.
- **churned**: active in the 30 days before the last 30 (D-59 … D-30), and on none of D-29 … D.
- **reactivated**: active on D, on none of the 30 days before (D-30 … D-1), and not new.
- **total**: first active on D or before.
- **retention**: of those active on D-59 … D-30 the share that was active on D-29 … D as well.
- **stickiness**: active in 24h as a share of active in 30d.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from pbmon.moments import EPOCH, instant

MONTH = 30
"""Days of the longest window."""

LOOK_BACK = 2 * MONTH
"""Days on which a day's figures depend, itself included."""

ACTIVITY, USERS = "activity", "users"
"""Sources: the days on which people were active, the application's own table of users."""

PERIODS = ("day", "week", "month")

_US = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class UserGrowth:
    """Figures of one day, as of its end. None: the source can't tell.

    day: in the zone `timezone`. source: activity, or users (the application's own table). before:
    people active in the 30 days before the last 30. computed_at: µs since the epoch.
    """

    day: dt.date
    source: str
    timezone: str
    new: int | None
    active_24h: int | None
    active_7d: int | None
    active_30d: int | None
    churned: int | None
    before: int | None
    total: int | None
    reactivated: int | None
    computed_at: int

    @property
    def retention(self) -> float | None:
        """From 0 to 1; None where nobody was active before."""
        if self.before is None or self.churned is None:
            return None
        return share(self.before - self.churned, self.before)

    @property
    def stickiness(self) -> float | None:
        """From 0 to 1; None where nobody was active in 30 days."""
        return share(self.active_24h, self.active_30d)


@dataclass(frozen=True, slots=True)
class Cohort:
    """People who were active for the first time in the same period.

    begin: first day of the period. size: of the cohort. retained: in each following period, those
    of the cohort who were active in it. None: fewer than 10.
    """

    begin: dt.date
    size: int | None
    retained: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """people: who came as far as this step; None: fewer than 10."""

    event: str
    people: int | None


@dataclass(frozen=True, slots=True)
class FeatureAdoption:
    """Use of one feature, by people of one segment where one was asked for.

    uses: how often, whatever the action. people: who used it at all; adoption: as a share of those
    who did anything. viewed, clicked, completed: people who came as far, in this order. None: fewer
    than 10 people, or what would give them away.
    """

    feature: str
    segment: str | None
    uses: int
    people: int | None
    adoption: float | None
    viewed: int | None
    clicked: int | None
    completed: int | None


def share(part: int | None, whole: int | None) -> float | None:
    """From 0 to 1; None where one of them is unknown, or there is no whole."""
    if part is None or not whole:
        return None
    return min(max(part / whole, 0.0), 1.0)


def zone(name: str) -> dt.tzinfo:
    """UTC is known without a database of zones. Raises ZoneInfoNotFoundError."""
    return dt.timezone.utc if name == "UTC" else ZoneInfo(name)


def time_of(at: int, where: dt.tzinfo) -> dt.datetime:
    """The local time that is so many µs since the epoch. Raises OverflowError outside the
    calendar."""
    return instant(at).astimezone(where)


def day_of(at: int, where: dt.tzinfo) -> dt.date:
    """The day of time_of()."""
    return time_of(at, where).date()


def start_of(day: dt.date, where: dt.tzinfo) -> int:
    """The first moment of a local day, µs since the epoch.

    Where the clock is put forward at midnight, the day begins at that moment.
    """
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=where)
    return (midnight.astimezone(dt.timezone.utc) - EPOCH) // _US


def period_of(day: dt.date, period: str) -> dt.date:
    """The first day of the period (day, week from Monday, month) that a day belongs to."""
    if period == "month":
        return day.replace(day=1)
    return day - dt.timedelta(days=day.weekday() if period == "week" else 0)


def following(begin: dt.date, period: str) -> dt.date:
    """The first day of the next period."""
    if period == "month":
        return (begin.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
    return begin + dt.timedelta(days=7 if period == "week" else 1)
