"""Growth figures from the application's own table of users, by the mapping in the settings.

Only numbers are read. The table is gone through in order of its id, a batch at a time, each in a
transaction of its own, so that a large one is neither loaded nor held.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any

from pbmon import growth
from pbmon.growth import USERS, UserGrowth
from pbmon.parsing import Users
from pbmon.store import application, schema

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, FromClause

BATCH = 50_000
"""Rows that one statement looks at."""

PROMPT_US = 3600 * 1_000_000
"""For so long after a day it is still known who was active on it: later, those who came back are
seen on a later day."""


def snapshot(users: Users, url: str, day: dt.date, timezone: str) -> UserGrowth:
    """Figures of a day that is over. Raises ApplicationError."""
    zone = growth.zone(timezone)
    now = schema.now()
    with application.connected(url, "[users]") as connection:
        counts = _Table(users, connection, zone).count(day)
    is_known = (
        users.last_seen_at is not None
        and now - growth.start_of(day + dt.timedelta(days=1), zone) < PROMPT_US
    )
    return UserGrowth(
        day=day,
        source=USERS,
        timezone=timezone,
        new=counts["new"],
        total=counts["total"],
        active_24h=counts["active_24h"] if is_known else None,
        active_7d=counts["active_7d"] if is_known else None,
        active_30d=counts["active_30d"] if is_known else None,
        churned=counts["churned"] if is_known else None,
        before=None,
        reactivated=None,
        computed_at=now,
    )


class _Table:
    """The table as it is there: names are compared with the database's and quoted, never pasted."""

    def __init__(self, users: Users, connection: Connection, zone: dt.tzinfo) -> None:
        """Raises ValueError where the mapping does not fit."""
        from sqlalchemy import column, inspect, table
        from sqlalchemy.exc import NoSuchTableError
        from sqlalchemy.sql import quoted_name

        self._users = users
        self._connection = connection
        self._zone = zone
        place, _, name = users.table.rpartition(".")
        try:
            found = {
                each["name"]: each["type"]
                for each in inspect(connection).get_columns(name, schema=place or None)
            }
        except NoSuchTableError:
            found = {}
        if not found:
            raise ValueError(f"has no table {users.table}; check `table` in [users]")
        for field in ("id", "created_at", "last_seen_at", "status"):
            wanted = getattr(users, field)
            if wanted is not None and wanted not in found:
                raise ValueError(f"has no column {wanted} in {users.table}; check `{field}`")
        self._columns = {
            name: column(quoted_name(name, quote=True), kind) for name, kind in found.items()
        }
        self._from: FromClause = table(
            quoted_name(name, quote=True),
            *self._columns.values(),
            schema=quoted_name(place, quote=True) if place else None,
        )

    def count(self, day: dt.date) -> Counter[str]:
        """Users by figure; of those with another status none."""
        from sqlalchemy import func, select

        within = self._is_registered()
        figures = [
            func.count().filter(within, condition).label(name)
            for name, condition in self._figures(day).items()
        ]
        id_ = self._columns[self._users.id]
        counts: Counter[str] = Counter()
        after: list[ColumnElement[bool]] = []
        while True:
            ids = select(id_).select_from(self._from).where(*after).order_by(id_)
            last = self._connection.execute(ids.offset(BATCH - 1).limit(1)).scalar()
            batch = [*after, id_ <= last] if last is not None else after
            row = self._connection.execute(
                select(*figures).select_from(self._from).where(*batch)
            ).one()
            counts.update(row._asdict())
            self._connection.rollback()
            if last is None:
                return counts
            after = [id_ > last]

    def _is_registered(self) -> ColumnElement[bool]:
        from sqlalchemy import String, cast, true

        users = self._users
        if users.status is None:
            return true()
        return cast(self._columns[users.status], String).in_(users.active)

    def _figures(self, day: dt.date) -> dict[str, ColumnElement[bool]]:
        """Figure → who counts. Those who came since the day's end are not there yet; those who were
        seen since then were there before, as far as this table knows."""
        from sqlalchemy import and_, or_

        created = self._columns[self._users.created_at]
        end = day + dt.timedelta(days=1)
        was_there = or_(created.is_(None), self._before(created, end))
        figures = {
            "new": and_(self._since(created, day), self._before(created, end)),
            "total": was_there,
        }
        if self._users.last_seen_at is not None:
            seen = self._columns[self._users.last_seen_at]

            def seen_in(days: int) -> ColumnElement[bool]:
                return and_(was_there, self._since(seen, end - dt.timedelta(days=days)))

            last, before = growth.MONTH, growth.LOOK_BACK
            figures |= {
                "active_24h": seen_in(1),
                "active_7d": seen_in(7),
                "active_30d": seen_in(last),
            }
            gone = self._before(seen, end - dt.timedelta(days=last))
            figures["churned"] = and_(seen_in(before), gone)
        return figures

    def _since(self, column: Any, day: dt.date) -> ColumnElement[bool]:
        moment, bound = self._comparable(column, day)
        return moment >= bound  # type: ignore[no-any-return]

    def _before(self, column: Any, day: dt.date) -> ColumnElement[bool]:
        moment, bound = self._comparable(column, day)
        return moment < bound  # type: ignore[no-any-return]

    def _comparable(self, column: Any, day: dt.date) -> tuple[Any, Any]:
        """A column of times, and the start of a local day as it compares with it. Without a zone
        they are UTC; dates are local days; numbers are seconds since the epoch.

        Raises ValueError for a column that holds no times.
        """
        from sqlalchemy import Date, DateTime, Integer, Numeric, bindparam, case, cast, func

        kind = column.type
        start_s = growth.start_of(day, self._zone) // 1_000_000
        if isinstance(kind, Date):
            return column, bindparam(None, day, type_=Date)
        if self._connection.dialect.name == "sqlite":  # the type is each value's own
            seconds = cast(func.strftime("%s", column), Integer)
            return case((func.typeof(column) == "text", seconds), else_=column), start_s
        if isinstance(kind, (Integer, Numeric)):
            return column, start_s
        if isinstance(kind, DateTime):
            start = dt.datetime.fromtimestamp(start_s, dt.timezone.utc)
            bound = start if kind.timezone else start.replace(tzinfo=None)
            return column, bindparam(None, bound, type_=DateTime(timezone=kind.timezone))
        raise ValueError(f"holds no times in {column.name} of {self._users.table}")
