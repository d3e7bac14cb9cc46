"""What an experiment has brought: exposed people by variant, and those who converted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, case, func, or_, select, true

from pbmon.store.tables import PERSON, WITH_SESSIONS, events, exposures, sessions


def by_variant(key: str, goal: str, window: int | None) -> Select[Any]:
    """Variant, people, of them converted, of them exposed to another variant too. window: µs.

    A person is the user, and whatever sessions turned out to be theirs: the first exposure of all
    counts. Converted is who did what the event `goal` says at their exposure or after it, within
    the window.
    """
    first = _first_exposures(key).cte("first_exposures")
    earliest = select(func.min(first.c.exposed_at)).scalar_subquery()
    reached = (
        select(PERSON.label("person"), events.c.occurred_at)
        .select_from(WITH_SESSIONS)
        .where(events.c.name == goal, events.c.occurred_at >= earliest)
        .subquery("reached")
    )
    in_time = reached.c.occurred_at < first.c.exposed_at + window if window else true()
    converted = (
        select(first.c.person)
        .join(
            reached,
            and_(
                reached.c.person == first.c.person,
                reached.c.occurred_at >= first.c.exposed_at,
                in_time,
            ),
        )
        .distinct()
        .subquery("converted")
    )
    return (
        select(
            first.c.variant,
            func.count(),
            func.count(converted.c.person),
            func.sum(first.c.crossed),
        )
        .select_from(first.outerjoin(converted, converted.c.person == first.c.person))
        .group_by(first.c.variant)
    )


def _first_exposures(key: str) -> Select[Any]:
    """Of each person: variant, when, and 1 where there was another variant, else 0."""
    person = func.coalesce(sessions.c.subject, exposures.c.subject)
    ranked = (
        select(
            person.label("person"),
            exposures.c.variant,
            exposures.c.exposed_at,
            func.row_number()
            .over(partition_by=person, order_by=(exposures.c.exposed_at, exposures.c.subject))
            .label("nth"),
            func.max(case((exposures.c.crossed, 1), else_=0))
            .over(partition_by=person)
            .label("crossed"),
            func.min(exposures.c.variant).over(partition_by=person).label("least"),
            func.max(exposures.c.variant).over(partition_by=person).label("greatest"),
        )
        .select_from(exposures.outerjoin(sessions, sessions.c.session == exposures.c.subject))
        .where(exposures.c.experiment == key)
        .subquery("ranked")
    )
    crossed = or_(ranked.c.crossed == 1, ranked.c.least != ranked.c.greatest)
    return select(
        ranked.c.person,
        ranked.c.variant,
        ranked.c.exposed_at,
        case((crossed, 1), else_=0).label("crossed"),
    ).where(ranked.c.nth == 1)
