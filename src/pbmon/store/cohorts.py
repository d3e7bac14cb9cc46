"""Retention by cohort: one statement for each cohort, so that none has to go through everybody."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Integer, cast, extract, func, select

from pbmon.growth import Cohort, following, period_of
from pbmon.store.queries import told
from pbmon.store.tables import subject_activity, subject_days

if TYPE_CHECKING:
    from sqlalchemy import Connection

_EPOCH = dt.date(1970, 1, 1)
_DAY_S = 86_400
_MONDAY = 3
"""Days from a Monday to the epoch."""


def of(connection: Connection, start: dt.date, end: dt.date, period: str) -> list[Cohort]:
    """Of the periods from that of `start` to that of `end`, which is within."""
    begins = [period_of(start, period)]
    while (begin := following(begins[-1], period)) <= end:
        begins.append(begin)
    after = following(begins[-1], period)
    return [
        _cohort(connection, begin, after, period, len(begins) - 1 - place)
        for place, begin in enumerate(begins)
    ]


def _cohort(
    connection: Connection, begin: dt.date, after: dt.date, period: str, count: int
) -> Cohort:
    """count: of the periods that follow, up to the day `after`."""
    first, at = subject_activity.c.first_day, subject_days.c.day
    later = following(begin, period)
    came = (first >= begin, first < later)
    size = connection.execute(
        select(func.count()).select_from(subject_activity).where(*came)
    ).scalar_one()
    # Once for each period: to count different people itself, PostgreSQL would sort all the days.
    periods = (
        select(
            subject_days.c.subject,
            (_number(at, period) - _number_of(begin, period)).label("place"),
        )
        .join_from(
            subject_activity, subject_days, subject_activity.c.subject == subject_days.c.subject
        )
        .where(*came, at >= later, at < after)
        .distinct()
        .subquery()
    )
    place = periods.c.place
    query = select(place, func.count().label("active")).group_by(place)
    people = {}
    if count:
        people = {row.place: row.active for row in connection.execute(query)}
    return Cohort(begin, told(size), tuple(told(people.get(n, 0)) for n in range(1, count + 1)))


def _number(day: Any, period: str) -> ColumnElement[int]:
    """The periods from one in the past to that of a day, on any engine."""
    if period == "month":
        return cast(extract("year", day), Integer) * 12 + cast(extract("month", day), Integer)
    days = cast(extract("epoch", day), Integer) // _DAY_S
    return (days + _MONDAY) // 7 if period == "week" else days


def _number_of(day: dt.date, period: str) -> int:
    """The same of a day that is known."""
    if period == "month":
        return day.year * 12 + day.month
    days = (day - _EPOCH).days
    return (days + _MONDAY) // 7 if period == "week" else days
