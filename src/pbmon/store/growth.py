"""Growth figures of a day: computed from activity, kept as snapshots, read for people and metrics.

What each figure means is in pbmon.growth.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text

from pbmon import catalog
from pbmon.growth import ACTIVITY, LOOK_BACK, MONTH, UserGrowth
from pbmon.runtime import Figure
from pbmon.store import schema
from pbmon.store.tables import growth_snapshots, insert_of, meta, subject_days, subject_firsts

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SOURCE = "growth_source"


def snapshot(connection: Connection, day: dt.date) -> UserGrowth:
    """From the days on which people were active, as far as they are still kept."""
    if connection.dialect.name == "postgresql":
        # A group for each person: beyond its default, sorted on the disk.
        connection.execute(text("SET LOCAL work_mem = '256MB'"))
    recent = connection.execute(_recent(day)).one()
    first = subject_firsts.c.day
    new, total = connection.execute(
        select(func.count().filter(first == day), func.count()).where(first <= day)
    ).one()
    return UserGrowth(
        day=day,
        source=ACTIVITY,
        timezone=schema.timezone(connection),
        new=new,
        active_24h=recent.active_24h,
        active_7d=recent.active_7d,
        active_30d=recent.active_30d,
        churned=recent.churned,
        before=recent.before,
        total=total,
        reactivated=recent.came - new,
        computed_at=schema.now(),
    )


def _recent(day: dt.date) -> Any:
    """By three days of each person: the newest, the oldest, the newest but for this one."""

    def back(days: int) -> dt.date:
        return day - dt.timedelta(days=days)

    at = subject_days.c.day
    people = (
        select(
            func.max(at).label("newest"),
            func.min(at).label("oldest"),
            func.max(at).filter(at < day).label("previous"),
        )
        .where(at > back(LOOK_BACK), at <= day)
        .group_by(subject_days.c.subject)
        .subquery()
    )
    newest, previous = people.c.newest, people.c.previous
    return select(
        func.count().filter(newest == day).label("active_24h"),
        func.count().filter(newest > back(7)).label("active_7d"),
        func.count().filter(newest > back(MONTH)).label("active_30d"),
        func.count().filter(newest <= back(MONTH)).label("churned"),
        func.count().filter(people.c.oldest <= back(MONTH)).label("before"),
        func.count()
        .filter(newest == day, (previous.is_(None)) | (previous < back(MONTH)))
        .label("came"),
    )


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
    snapshots = growth_snapshots
    source = select(meta.c.value).where(meta.c.key == _SOURCE).scalar_subquery()
    query = select(snapshots).where(snapshots.c.source == func.coalesce(source, ACTIVITY))
    if day is not None:
        query = query.where(snapshots.c.day == day)
    newest = query.order_by(snapshots.c.day.desc()).limit(1)
    found = connection.execute(newest).mappings().one_or_none()
    if found is None:
        return None
    growth = UserGrowth(**found)
    if growth.before is None and growth.churned is not None:
        # The table of users can't tell; its figures of 30 days before do.
        earlier = select(snapshots.c.active_30d).where(
            snapshots.c.source == growth.source,
            snapshots.c.day == growth.day - dt.timedelta(days=MONTH),
        )
        growth = dataclasses.replace(growth, before=connection.execute(earlier).scalar())
    return growth


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
