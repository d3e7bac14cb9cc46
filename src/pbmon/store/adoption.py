"""Use of features: how many people, which share of all, and how far they come in a feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import FromClause, String, cast, func, literal, select

from pbmon.growth import FeatureAdoption, share
from pbmon.store import funnels
from pbmon.store.queries import FEATURE_EVENTS, told, within
from pbmon.store.tables import PERSON, WITH_SESSIONS, events

if TYPE_CHECKING:
    from sqlalchemy import Connection

FEATURES = 10
_MOST = 1000
"""Rows of features by segment."""


def of(connection: Connection, start: int, end: int, segment: str | None) -> list[FeatureAdoption]:
    """The features with the most people first; of each, the segments with the most people first."""
    uses = _uses(start, end, segment)
    people = func.count(uses.c.person.distinct())
    top = connection.execute(
        select(uses.c.feature)
        .group_by(uses.c.feature)
        .order_by(people.desc(), uses.c.feature)
        .limit(FEATURES)
    )
    features = list(top.scalars())
    everybody = _everybody(connection, start, end, segment)
    found = [
        FeatureAdoption(
            feature=row.feature,
            segment=row.segment if segment is not None else None,
            uses=row.uses,
            people=told(row.people),
            adoption=share(told(row.people), told(everybody.get(row.segment, 0))),
            viewed=told(row.viewed),
            clicked=told(row.clicked),
            completed=told(row.completed),
        )
        for row in _rows(connection, uses, features)
    ]
    by_feature = [[each for each in found if each.feature == name] for name in features]
    return [each for segments in by_feature for each in _covered(segments)]


def _covered(segments: list[FeatureAdoption]) -> list[FeatureAdoption]:
    """Of one feature. One that is not told alone would be known as what the others leave of all:
    then the smallest of them is not told either."""
    told_ones = [each for each in segments if each.people is not None]
    if len(segments) - len(told_ones) != 1 or not told_ones:
        return segments
    hidden = told_ones[-1]
    untold = replace(hidden, people=None, adoption=None, viewed=None, clicked=None, completed=None)
    return [untold if each is hidden else each for each in segments]


def _uses(start: int, end: int, segment: str | None) -> FromClause:
    return (
        select(
            PERSON.label("person"),
            events.c.occurred_at.label("at"),
            events.c.name,
            events.c.properties["feature"].as_string().label("feature"),
            _segment(segment).label("segment"),
        )
        .select_from(WITH_SESSIONS)
        .where(within(start, end), events.c.name.in_(FEATURE_EVENTS))
        .subquery()
    )


def _segment(segment: str | None) -> Any:
    """Its value; one for all where none is asked for, and where an event has none."""
    if segment is None:
        return cast(literal(""), String)
    return func.coalesce(events.c.segments[segment].as_string(), "")


def _everybody(connection: Connection, start: int, end: int, segment: str | None) -> dict[str, int]:
    """Segment → people who did anything."""
    value = _segment(segment).label("segment")
    query = (
        select(value, func.count(PERSON.distinct()).label("people"))
        .select_from(WITH_SESSIONS)
        .where(within(start, end))
        .group_by("segment")
    )
    return {row.segment: row.people for row in connection.execute(query)}


def _rows(connection: Connection, uses: FromClause, features: Sequence[str]) -> Sequence[Any]:
    each = (uses.c.feature, uses.c.segment)
    counts = (
        select(
            *each, func.count().label("uses"), func.count(uses.c.person.distinct()).label("people")
        )
        .where(uses.c.feature.in_(features))
        .group_by(*each)
        .subquery()
    )
    of_people = select(uses).where(uses.c.feature.in_(features), uses.c.person.is_not(None))
    chain = of_people.subquery()
    whose = [chain.c.feature, chain.c.segment, chain.c.person]
    farthest = funnels.reached(chain, FEATURE_EVENTS, whose).subquery()
    steps = (
        select(
            farthest.c.feature,
            farthest.c.segment,
            func.count(farthest.c.step_0).label("viewed"),
            func.count(farthest.c.step_1).label("clicked"),
            func.count(farthest.c.step_2).label("completed"),
        )
        .group_by(farthest.c.feature, farthest.c.segment)
        .subquery()
    )
    figures = [func.coalesce(steps.c[n], 0).label(n) for n in ("viewed", "clicked", "completed")]
    query = (
        select(counts, *figures)
        .outerjoin_from(
            counts,
            steps,
            (counts.c.feature == steps.c.feature) & (counts.c.segment == steps.c.segment),
        )
        .order_by(counts.c.people.desc(), counts.c.segment)
        .limit(_MOST)
    )
    return connection.execute(query).all()
