"""Figures of the events, each one statement that is the same on every engine.

A number of people below K is not told: with few enough, a figure is about somebody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import ColumnElement, Select, and_, func, select, true

from pbmon.privacy import K
from pbmon.store.access import asking
from pbmon.store.engine import reading
from pbmon.store.feedback import FeedbackSummary, summarize
from pbmon.store.tables import event_totals, events, sessions
from pbmon.store.writer import HOUR

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pbmon.surveys import Survey

_ACTIONS = ("viewed", "clicked", "completed")


class Use(NamedTuple):
    """events: how often. people: how many different ones, None if they are fewer than K; those
    who were never known count once for each session."""

    name: str
    events: int
    people: int | None


class Adoption(NamedTuple):
    """Uses of a feature by action, and people who used it at all, as in Use."""

    feature: str
    viewed: int
    clicked: int
    completed: int
    people: int | None


# Whose an event is: the user's, whom the session turned out to be, or the session's.
_WITH_SESSIONS = events.outerjoin(sessions, events.c.session == sessions.c.session)
_PERSON = func.coalesce(events.c.subject, sessions.c.subject, events.c.session)
_PEOPLE = func.count(_PERSON.distinct())


class Queries:
    """start, end: µs since the epoch, UTC; start is within, end is not. Each raises StoreError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)

    def count(self, start: int, end: int, name: str | None = None) -> int:
        """Events, also those beyond their retention; of whole hours."""
        total = func.coalesce(func.sum(event_totals.c.events), 0)
        within = and_(event_totals.c.hour >= start // HOUR * HOUR, event_totals.c.hour < end)
        named = event_totals.c.name == name if name is not None else true()
        ((count,),) = self._rows(select(total).where(within, named))
        return int(count)

    def people(self, start: int, end: int, name: str | None = None) -> int | None:
        """Different people, None if they are fewer than K."""
        named = events.c.name == name if name is not None else true()
        query = select(_PEOPLE).select_from(_WITH_SESSIONS).where(_within(start, end), named)
        ((people,),) = self._rows(query)
        return _told(people)

    def uses(self, start: int, end: int, limit: int = 100) -> list[Use]:
        """By event, the most frequent first."""
        count = func.count().label("events")
        query = (
            select(events.c.name, count, _PEOPLE)
            .select_from(_WITH_SESSIONS)
            .where(_within(start, end))
            .group_by(events.c.name)
            .order_by(count.desc(), events.c.name)
            .limit(limit)
        )
        return [Use(name, count, _told(people)) for name, count, people in self._rows(query)]

    def adoption(self, start: int, end: int, limit: int = 100) -> list[Adoption]:
        """By feature, the one with the most people first."""
        return [
            Adoption(feature, viewed, clicked, completed, _told(people))
            for feature, viewed, clicked, completed, people in self._rows(
                _adoption(start, end, limit)
            )
        ]

    def feedback(
        self, start: int, end: int, name: str, survey: Survey, segment: str | None = None
    ) -> FeedbackSummary:
        """Of a survey by its name."""
        return summarize(self._rows, start, end, name, survey, segment)

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        def ask() -> Sequence[Any]:
            with suppress_instrumentation(), self._engine.connect() as connection:
                return connection.execute(query).all()

        return asking(ask)


def _adoption(start: int, end: int, limit: int) -> Select[Any]:
    feature = events.c.properties["feature"].as_string()
    names = [f"feature_{action}" for action in _ACTIONS]
    return (
        select(
            feature.label("feature"),
            *(func.count().filter(events.c.name == name) for name in names),
            _PEOPLE.label("people"),
        )
        .select_from(_WITH_SESSIONS)
        .where(_within(start, end), events.c.name.in_(names))
        .group_by(feature)
        .order_by(_PEOPLE.desc(), feature)
        .limit(limit)
    )


def _within(start: int, end: int) -> ColumnElement[bool]:
    return and_(events.c.occurred_at >= start, events.c.occurred_at < end)


def _told(people: int) -> int | None:
    return people if people >= K else None
