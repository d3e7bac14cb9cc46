"""The store as the application reads it: figures alone, each within a limit of time."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pbmon.errors import ErrorSummary
from pbmon.experiments import Exposed
from pbmon.growth import Cohort, FeatureAdoption, FunnelStep, UserGrowth
from pbmon.purposes import Decision, Terms
from pbmon.runtime import Revenue
from pbmon.store import (
    adoption,
    cohorts,
    consents,
    error_figures,
    error_summary,
    experiments,
    export,
    feedback,
    funnels,
    growth,
    marks,
    reconciliation,
    revenue,
)
from pbmon.store.access import asking
from pbmon.store.consents import Keys, Said
from pbmon.store.engine import reading
from pbmon.store.error_figures import ErrorFigures
from pbmon.store.marks import Deployment
from pbmon.store.reconciliation import Books
from pbmon.surveys import FeedbackSummary, Survey

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_T = TypeVar("_T")

LIMIT_S = 10.0
"""Of a statement."""

_STEPS = 100_000
"""Of SQLite's machine between two looks at the clock: about a millisecond."""


class Reader:
    """engine: whose statements end after LIMIT_S in PostgreSQL. pepper: from outside.
    Times are µs since the epoch, UTC; of two the first is within, the second is not. Each method
    raises StoreError."""

    def __init__(self, engine: Engine, pepper: bytes | None = None) -> None:
        self._engine = engine
        self._pepper = pepper

    def revenue(self, start: int, end: int, base_currency: str) -> Revenue:
        return self._ask(lambda connection: revenue.read(connection, start, end, base_currency))

    def revenue_conflicts(self, start: int, end: int) -> dict[str, int]:
        """Reason → how many were not booked."""
        return self._ask(lambda connection: revenue.conflicts(connection, start, end))

    def books(self, edges: Sequence[int], tail: int, base_currency: str) -> Books:
        """As reconciliation.read()."""
        return self._ask(
            lambda connection: reconciliation.read(connection, edges, tail, base_currency)
        )

    def exposed(self, key: str, goal: str, window_s: float | None) -> Exposed:
        window = round(window_s * 1e6) if window_s is not None else None
        return self._ask(lambda connection: experiments.exposed(connection, key, goal, window))

    def decisions(self, user_id: str) -> dict[str, Decision | None] | None:
        """Purpose → a person's last decision; None where they were deleted."""
        return self._ask(lambda connection: consents.decisions(connection, self._pepper, user_id))

    def consents(self, user_id: str) -> list[Said]:
        """Every decision of a person, in the order in which they came in."""
        return self._ask(lambda connection: consents.history(connection, self._pepper, user_id))

    def consent_counts(self, purpose: str) -> tuple[int, int]:
        """How many people's last word is that they agree, and that they do not."""
        return self._ask(lambda connection: consents.counts(connection, purpose))

    def keys(self, user_ids: Collection[str], terms: Terms) -> Keys:
        """As consents.keys()."""
        return self._ask(lambda c: consents.keys(c, self._pepper, user_ids, terms))

    def feedback(
        self, start: int, end: int, name: str, survey: Survey, segment: str | None
    ) -> FeedbackSummary:
        return self._ask(
            lambda connection: feedback.summarize(
                lambda query: connection.execute(query).all(), start, end, name, survey, segment
            )
        )

    def error_figures(
        self, before: int, start: int, end: int, *, limit: int, new_first: bool = False
    ) -> ErrorFigures:
        """As error_figures.read()."""
        return self._ask(
            lambda connection: error_figures.read(
                connection, before, start, end, limit=limit, new_first=new_first
            )
        )

    def deployment(self, release: str | None = None) -> Deployment | None:
        """The newest of a release, or of all."""
        return self._ask(lambda connection: marks.deployment(connection, release))

    def user_growth(self, day: dt.date | None) -> UserGrowth | None:
        """Of a day, or of the newest there is."""
        return self._ask(lambda connection: growth.find(connection, day))

    def growth_of_days(self, first: dt.date, last: dt.date) -> list[UserGrowth]:
        """Of those days from the first to the last, both within, that have figures."""
        return self._ask(lambda connection: growth.of_days(connection, first, last))

    def cohorts(self, start: dt.date, end: dt.date, period: str) -> list[Cohort]:
        return self._ask(lambda connection: cohorts.of(connection, start, end, period))

    def funnel(self, steps: Sequence[str], start: int, end: int, window: int) -> list[FunnelStep]:
        return self._ask(lambda connection: funnels.of(connection, steps, start, end, window))

    def feature_adoption(self, start: int, end: int, segment: str | None) -> list[FeatureAdoption]:
        return self._ask(lambda connection: adoption.of(connection, start, end, segment))

    def errors(self, limit: int, since: int | None, release: str | None) -> list[ErrorSummary]:
        return self._ask(lambda connection: error_summary.read(connection, limit, since, release))

    def export(self, user_id: str, sharing: str) -> dict[str, Any]:
        """All of a person, as export.of_person()."""
        return self._ask(lambda c: export.of_person(c, user_id, sharing, self._pepper))

    def _ask(self, ask: Callable[[Connection], _T]) -> _T:
        def attempt() -> _T:
            with reading(self._engine).connect() as connection, _Limit(connection):
                return ask(connection)

        return asking(attempt)

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)


class _Limit:
    """Of a statement in SQLite, which has none of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._driver: Any = None
        self._until_s = 0.0

    def __enter__(self) -> None:
        if self._connection.dialect.name != "sqlite":
            return
        from sqlalchemy import event

        self._driver = self._connection.connection.driver_connection
        event.listen(self._connection, "before_cursor_execute", self._begin)
        self._driver.set_progress_handler(self._is_over, _STEPS)

    def _begin(self, *_: Any) -> None:
        self._until_s = time.monotonic() + LIMIT_S

    def _is_over(self) -> bool:
        return time.monotonic() > self._until_s

    def __exit__(self, *_: object) -> None:
        if self._driver is not None:
            self._driver.set_progress_handler(None, 0)
