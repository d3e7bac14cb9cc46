"""What errors there were in a time, for reports; how they are kept is the writer's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, func, select

from pbmon.alerting.rules import SLOT
from pbmon.privacy import K
from pbmon.store import schema
from pbmon.store.tables import error_hours, error_people, error_slots, errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, Connection, Table


class ErrorFigure(NamedTuple):
    """One fingerprint. errors, before: in the time asked about, and in the one before it.

    people: whom it met since that time began, as far as they are known; None: they are few. is_new:
    it was seen for the first time then. Times are µs since the epoch, UTC.
    """

    error_type: str
    place: str
    route: str | None
    errors: int
    before: int
    people: int | None
    is_new: bool
    first_at: int
    first_release: str | None


class ErrorFigures(NamedTuple):
    """errors, before: of all fingerprints, of which there are `kinds`, `new` of them seen for the
    first time. top: those asked for."""

    errors: int
    before: int
    kinds: int
    new: int
    top: Sequence[ErrorFigure]


def read(
    connection: Connection, before: int, start: int, end: int, *, limit: int, new_first: bool
) -> ErrorFigures:
    """Of the time from start to end beside the one from before to start.

    Exact to ten seconds where all of it is within the last day, else to the hour. new_first: of the
    errors with the highest counts, those that are new before all others.
    """
    counts = _counts(connection, before, start, end)
    is_new = errors.c.first_at >= start
    happened = counts.c.errors > 0
    joined = select().select_from(counts.join(errors, errors.c.fingerprint == counts.c.fingerprint))
    sums = joined.with_only_columns(
        func.coalesce(func.sum(counts.c.errors), 0),
        func.coalesce(func.sum(counts.c.before), 0),
        func.count().filter(happened),
        func.count().filter(happened, is_new),
    )
    order = [case((is_new, 0), else_=1)] if new_first else []
    people = (
        select(func.count())
        .where(error_people.c.fingerprint == errors.c.fingerprint, error_people.c.last_at >= start)
        .scalar_subquery()
    )
    top = joined.with_only_columns(
        errors.c.error_type, errors.c.place, errors.c.route, counts.c.errors, counts.c.before,
        people.label("people"), errors.c.first_at, errors.c.first_release,
    ).where(happened)  # fmt: skip
    rows = connection.execute(
        top.order_by(*order, counts.c.errors.desc(), errors.c.fingerprint).limit(limit)
    )
    total, previous, kinds, new = connection.execute(sums).one()
    return ErrorFigures(
        int(total),
        int(previous),
        kinds,
        new,
        [
            ErrorFigure(
                row.error_type, row.place, row.route, int(row.errors), int(row.before),
                row.people if not 0 < row.people < K else None,
                row.first_at >= start, row.first_at, row.first_release,
            )
            for row in rows
        ],
    )  # fmt: skip


def _counts(connection: Connection, before: int, start: int, end: int) -> Any:
    """Fingerprint → errors, before; as a part of a query."""
    table, at = _table(connection, before)
    count = table.c.errors

    def within(since: int, until: int) -> Any:
        return func.coalesce(func.sum(count).filter(at >= since, at < until), 0)

    grain = schema.HOUR if table is error_hours else SLOT
    edges = [edge // grain * grain for edge in (before, start, end - 1)]
    since, middle, until = edges[0], edges[1], edges[2] + grain
    return (
        select(
            table.c.fingerprint,
            within(middle, until).label("errors"),
            within(since, middle).label("before"),
        )
        .where(at >= since, at < until)
        .group_by(table.c.fingerprint)
        .subquery()
    )


_SLOTS_KEPT = 23 * schema.HOUR
"""They are of the last day: less than it, as what is old is deleted meanwhile."""


def _table(connection: Connection, oldest: int) -> tuple[Table, Column[int]]:
    if oldest >= schema.clock(connection) - _SLOTS_KEPT:
        return error_slots, error_slots.c.slot
    return error_hours, error_hours.c.hour
