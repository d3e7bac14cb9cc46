"""Growth figures of a day: computed from activity, kept as snapshots, read for people and metrics.

What each figure means is in pbmon.growth.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable, Select, and_, case, exists, func, select, text

from pbmon import catalog
from pbmon.growth import ACTIVITY, LOOK_BACK, MONTH, UserGrowth
from pbmon.runtime import Figure
from pbmon.store import schema
from pbmon.store.tables import growth_snapshots, insert_of, meta, subject_activity, subject_days

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SOURCE = "growth_source"


def snapshot(connection: Connection, day: dt.date) -> UserGrowth:
    """From the days on which people were active, as far as they are still kept."""
    if connection.dialect.name == "postgresql":
        # A group for each person: beyond its default, sorted on the disk.
        connection.execute(text("SET LOCAL work_mem = '256MB'"))
    people = connection.execute(_people(day)).one()
    return UserGrowth(
        day=day,
        source=ACTIVITY,
        timezone=schema.timezone(connection),
        new=people.new,
        active_24h=people.active_24h,
        active_7d=people.active_7d,
        active_30d=people.active_30d,
        churned=people.churned,
        before=connection.execute(_before(day)).scalar_one(),
        total=people.total,
        reactivated=connection.execute(_reactivated(day)).scalar_one(),
        computed_at=schema.now(),
    )


def _people(day: dt.date) -> Executable:
    """By the newest of each person's days up to this one: their last, but for those who have been
    active since, few where it was yesterday."""
    known = subject_activity.c
    back = _back(day)
    at = subject_days.c.day
    earlier = (
        select(func.max(at))
        .where(subject_days.c.subject == known.subject, at <= day)
        .scalar_subquery()
    )
    people = (
        select(
            known.first_day,
            case((known.last_day <= day, known.last_day), else_=earlier).label("newest"),
        )
        .where(known.first_day <= day)
        .offset(0)  # else PostgreSQL looks for the earlier one in each of the counts
        .subquery()
    )
    newest = people.c.newest
    return select(
        func.count().filter(people.c.first_day == day).label("new"),
        func.count().filter(newest == day).label("active_24h"),
        func.count().filter(newest > back(7)).label("active_7d"),
        func.count().filter(newest > back(MONTH)).label("active_30d"),
        func.count().filter(newest > back(LOOK_BACK), newest <= back(MONTH)).label("churned"),
        func.count().label("total"),
    )


def _before(day: dt.date) -> Select[Any]:
    at, back = subject_days.c.day, _back(day)
    within = and_(at > back(LOOK_BACK), at <= back(MONTH))
    people = select(subject_days.c.subject).where(within).distinct().subquery()
    return select(func.count()).select_from(people)


def _reactivated(day: dt.date) -> Select[Any]:
    at, earlier = subject_days.c, subject_days.alias().c
    was_active = exists().where(
        earlier.subject == at.subject, earlier.day >= _back(day)(MONTH), earlier.day < day
    )
    return (
        select(func.count())
        .select_from(subject_days)
        .join(subject_activity, subject_activity.c.subject == at.subject)
        .where(at.day == day, subject_activity.c.first_day < day, ~was_active)
    )


def _back(day: dt.date) -> Callable[[int], dt.date]:
    return lambda days: day - dt.timedelta(days=days)


def keep(connection: Connection, growth: UserGrowth) -> None:
    """In place of what there is of its day and source."""
    insert = insert_of(connection.engine)
    row = dataclasses.asdict(growth)
    add = insert(growth_snapshots).values(row)
    connection.execute(
        add.on_conflict_do_update(
            index_elements=["day", "source"],
            set_={name: add.excluded[name] for name in row if name not in ("day", "source")},
        )
    )


def rely_on(connection: Connection, source: str) -> None:
    """Whose figures are told from now on."""
    insert = insert_of(connection.engine)
    add = insert(meta).values(key=_SOURCE, value=source)
    connection.execute(add.on_conflict_do_update(index_elements=["key"], set_={"value": source}))


def find(connection: Connection, day: dt.date | None = None) -> UserGrowth | None:
    """Of the source in force: the figures of a day, of the newest there is by default."""
    query = _in_force()
    if day is not None:
        query = query.where(growth_snapshots.c.day == day)
    newest = query.order_by(growth_snapshots.c.day.desc()).limit(1)
    found = connection.execute(newest).mappings().one_or_none()
    if found is None:
        return None
    day = found["day"] - dt.timedelta(days=MONTH)
    return _knowing_before(UserGrowth(**found), _active_30d(connection, day, day))


def of_days(connection: Connection, first: dt.date, last: dt.date) -> list[UserGrowth]:
    """As find(), of those days from the first to the last, both within, that have figures."""
    days = growth_snapshots.c.day
    found = connection.execute(_in_force().where(days.between(first, last)).order_by(days))
    month = dt.timedelta(days=MONTH)
    earlier = _active_30d(connection, first - month, last - month)
    return [_knowing_before(UserGrowth(**row), earlier) for row in found.mappings()]


def _in_force() -> Select[Any]:
    source = select(meta.c.value).where(meta.c.key == _SOURCE).scalar_subquery()
    return select(growth_snapshots).where(
        growth_snapshots.c.source == func.coalesce(source, ACTIVITY)
    )


def _active_30d(
    connection: Connection, first: dt.date, last: dt.date
) -> Mapping[dt.date, int | None]:
    found = _in_force().where(growth_snapshots.c.day.between(first, last))
    return {row.day: row.active_30d for row in connection.execute(found)}


def _knowing_before(growth: UserGrowth, earlier: Mapping[dt.date, int | None]) -> UserGrowth:
    """The table of users can't tell it; its figures of 30 days before do."""
    if growth.before is not None or growth.churned is None:
        return growth
    before = earlier.get(growth.day - dt.timedelta(days=MONTH))
    return dataclasses.replace(growth, before=before)


def figures(connection: Connection) -> list[Figure]:
    """The newest day's, for the metrics; what is not known has none."""
    growth = find(connection)
    if growth is None:
        return []
    told = [
        Figure(catalog.USERS_ACTIVE, active, {catalog.WINDOW.name: window})
        for window, active in zip(
            catalog.WINDOW.values,
            (growth.active_24h, growth.active_7d, growth.active_30d),
            strict=True,
        )
        if active is not None
    ]
    told += [
        Figure(metric, value, {})
        for metric, value in (
            (catalog.USERS_NEW, growth.new),
            (catalog.USERS_CHURNED, growth.churned),
            (catalog.USERS_REACTIVATED, growth.reactivated),
            (catalog.USERS_REGISTERED, growth.total),
            (catalog.USERS_RETENTION, growth.retention),
            (catalog.USERS_STICKINESS, growth.stickiness),
        )
        if value is not None
    ]
    return told
