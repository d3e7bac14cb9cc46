"""What an experiment has brought: exposed people by variant, and those who converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CompoundSelect,
    Select,
    and_,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)

from pbmon.experiments import Arm, Exposed
from pbmon.store.queries import told
from pbmon.store.tables import PERSON, WITH_SESSIONS, events, exposures, sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection


def exposed(connection: Connection, key: str, goal: str, window: int | None) -> Exposed:
    """An experiment's people by their first variant, and who of them did `goal` after it, within
    the window (µs)."""
    rows = connection.execute(by_variant(key, goal, window)).all()
    crossed = sum(row[3] for row in rows)
    return Exposed(
        {variant: Arm(told(people), told(done)) for variant, people, done, _ in rows},
        told(crossed) if crossed else 0,
    )


def by_variant(key: str, goal: str, window: int | None) -> Select[Any]:
    """Variant, people, of them converted, of them exposed to another variant too. window: µs.

    A person is the user, and whatever sessions turned out to be theirs: the first exposure of all
    counts. Converted is who did what the event `goal` says at their exposure or after it, within
    the window.

    Exposures and goals are put in one row behind each other for each person, so that it takes one
    sorting: a join of the two would compare everybody with everybody where there is no index.
    """
    steps = _steps(key, goal).subquery("steps")
    # A person's exposures stand before the goals, which have no exposed_at.
    order = (case((steps.c.exposed_at.is_(None), 1), else_=0), steps.c.exposed_at, steps.c.subject)
    first = {
        name: func.first_value(steps.c[name]).over(partition_by=steps.c.person, order_by=order)
        for name in ("variant", "exposed_at")
    }
    row = (
        select(
            steps, first["variant"].label("first_variant"), first["exposed_at"].label("first_at")
        )
        .subquery("ordered")
        .c
    )
    in_time = row.done_at < row.first_at + window if window is not None else true()
    converted = and_(row.done_at >= row.first_at, in_time)
    crossed = or_(func.max(row.crossed) == 1, func.min(row.variant) != func.max(row.variant))
    people = (
        select(
            row.first_variant.label("variant"),
            func.max(case((converted, 1), else_=0)).label("converted"),
            case((crossed, 1), else_=0).label("crossed"),
        )
        .where(row.first_at.is_not(None))
        .group_by(row.person, row.first_variant)
        .subquery("people")
    )
    return select(
        people.c.variant,
        func.count(),
        func.sum(people.c.converted),
        func.sum(people.c.crossed),
    ).group_by(people.c.variant)


def _steps(key: str, goal: str) -> CompoundSelect[Any]:
    """Every exposure, and every goal that was reached since the first one, with whose it is."""
    exposed = (
        select(
            func.coalesce(sessions.c.subject, exposures.c.subject).label("person"),
            exposures.c.subject,
            exposures.c.variant,
            exposures.c.exposed_at,
            case((exposures.c.crossed, 1), else_=0).label("crossed"),
            null().cast(events.c.occurred_at.type).label("done_at"),
        )
        .select_from(exposures.outerjoin(sessions, sessions.c.session == exposures.c.subject))
        .where(exposures.c.experiment == key)
    )
    earliest = (
        select(func.min(exposures.c.exposed_at))
        .where(exposures.c.experiment == key)
        .scalar_subquery()
    )
    nothing: list[Any] = [
        null().cast(exposures.c[name].type) for name in ("subject", "variant", "exposed_at")
    ]
    reached = (
        select(PERSON, *nothing, literal_column("0"), events.c.occurred_at)
        .select_from(WITH_SESSIONS)
        .where(events.c.name == goal, events.c.occurred_at >= earliest)
    )
    return exposed.union_all(reached)
