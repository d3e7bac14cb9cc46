"""Who came how far in a sequence of steps, in one pass over the events of each person.

To each event of a step belongs the latest beginning from which that step can be reached by it:
for the first step its own time, for another one the latest of the step before it, if that is not
longer ago than the window. The latest is the best one, as the window is counted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, and_, case, func, null, select

from pbmon.growth import FunnelStep
from pbmon.store.queries import told
from pbmon.store.tables import PERSON, WITH_SESSIONS, events

if TYPE_CHECKING:
    from sqlalchemy import Connection


def of(
    connection: Connection, steps: Sequence[str], start: int, end: int, window: int
) -> list[FunnelStep]:
    """start, end: of the first step; window: µs from it to the last one."""
    found = (
        select(PERSON.label("person"), events.c.occurred_at.label("at"), events.c.name)
        .select_from(WITH_SESSIONS)
        .where(
            events.c.name.in_(set(steps)),
            events.c.occurred_at >= start,
            events.c.occurred_at < end + window,
            PERSON.is_not(None),
        )
        .subquery()
    )
    farthest = reached(found, steps, [found.c.person], end=end, window=window).subquery()
    counts = select(*(func.count(farthest.c[f"step_{n}"]) for n in range(len(steps))))
    row = connection.execute(counts).one()
    return [FunnelStep(step, told(people)) for step, people in zip(steps, row, strict=True)]


def reached(
    found: FromClause,
    steps: Sequence[str],
    whose: Sequence[ColumnElement[Any]],
    *,
    end: int | None = None,
    window: int | None = None,
) -> Select[Any]:
    """One row for each of `whose`, columns of `found`: `step_0` and so on, NULL where they did not
    come so far. found: with `name` and `at` of their events. end: of the first step."""
    names = [column.name for column in whose]
    rows: FromClause = found
    for n, step in enumerate(steps):
        if n == 0:
            begun: ColumnElement[Any] = rows.c.at
            is_it = rows.c.name == step if end is None else and_(rows.c.name == step, begun < end)
        else:
            # Strictly before: an event is not a step after itself.
            begun = func.max(rows.c[f"step_{n - 1}"]).over(
                partition_by=[rows.c[name] for name in names],
                order_by=rows.c.at,
                range_=(None, -1),
            )
            inner = select(*rows.c, begun.label("begun")).subquery()
            rows, begun = inner, inner.c.begun
            is_it = rows.c.name == step
            if window is not None:
                is_it = and_(is_it, rows.c.at <= begun + window)
        reached_by = case((is_it, begun), else_=null().cast(BigInteger)).label(f"step_{n}")
        kept = [column for column in rows.c if column.name != "begun"]
        rows = select(*kept, reached_by).subquery()
    columns = [rows.c[name] for name in names]
    farthest = [func.max(rows.c[f"step_{n}"]).label(f"step_{n}") for n in range(len(steps))]
    return select(*columns, *farthest).group_by(*columns)
