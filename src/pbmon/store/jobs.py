"""What is done once for each period, whoever is asked to do it and however often."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import func, select, text

from pbmon.store import schema, vacuum
from pbmon.store.access import asking
from pbmon.store.engine import SCHEMA, reading
from pbmon.store.erasure import Deletions
from pbmon.store.schema import DAY
from pbmon.store.tables import (
    checkpoints,
    dead_letters,
    deliveries,
    event_keys,
    events,
    exposures,
    feedback,
    insert_of,
    job_runs,
    sessions,
    subject_days,
)  # fmt: skip

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Engine

_T = TypeVar("_T")

_ABANDONED = 30 * DAY


class Runs:
    """Which periods of a job are done. Each method raises StoreError."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"
        self._insert = insert_of(engine)

    def last(self) -> dict[str, tuple[str, int]]:
        """Job → the newest period that is done, and when that was (µs since the epoch)."""
        query = select(
            job_runs.c.job, func.max(job_runs.c.period), func.max(job_runs.c.finished_at)
        )

        found = self.read(
            lambda connection: connection.execute(query.group_by(job_runs.c.job)).all()
        )
        return {job: (period, finished_at) for job, period, finished_at in found}

    def run(self, job: str, period: str, do: Callable[[Connection], None]) -> bool:
        """Do it in a transaction, unless it is done; whether it was done now."""

        def attempt() -> bool:
            with self._engine.begin() as connection:
                claimed = connection.execute(
                    self._insert(job_runs).on_conflict_do_nothing().returning(job_runs.c.job),
                    {"job": job, "period": period, "finished_at": schema.now()},
                ).first()
                if claimed is None:
                    return False
                do(connection)
            return True

        return asking(attempt)

    def read(self, ask: Callable[[Connection], _T]) -> _T:
        """In a transaction that keeps no writer waiting."""

        def attempt() -> _T:
            with reading(self._engine).connect() as connection:
                return ask(connection)

        return asking(attempt)

    def write(self, do: Callable[[Connection], _T]) -> _T:
        """What is no period of a job, in a transaction."""

        def attempt() -> _T:
            with self._engine.begin() as connection:
                return do(connection)

        return asking(attempt)

    def vacuum(self, *, rewrites: bool = False, anyway: bool = False) -> bool:
        """As vacuum.vacuum(), if somebody was deleted since the last time, or anyway; whether it
        was done."""
        deletions = Deletions(self._engine)
        newest = deletions.waits_for_disk()
        if newest is None and not anyway:
            return False
        asking(lambda: vacuum.vacuum(self._engine, rewrites=rewrites))
        if newest is not None:
            deletions.note_vacuumed(newest)
        return True

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)


def forget_events(connection: Connection, before: int) -> None:
    """Delete what is older than this (µs since the epoch), but for the totals: a month at a time
    where it is a partition of its own, which only PostgreSQL has."""
    if connection.dialect.name == "postgresql":
        for name in months_before(connection, before):
            connection.execute(text(f"DROP TABLE {SCHEMA}.{name}"))
    for table in (events, event_keys, deliveries, dead_letters):
        connection.execute(table.delete().where(table.c.occurred_at < before))


BY_AGE = {
    "feedback": feedback.c.occurred_at,
    "exposures": exposures.c.exposed_at,
    "sessions": sessions.c.linked_at,
    "dead_letters": dead_letters.c.died_at,
}
"""Table → the time by which its rows are forgotten, after the setting <table>_retention_days."""


def forget(connection: Connection, time: Column[int], before: int) -> None:
    """Delete the rows of a table that are older than this (µs since the epoch)."""
    connection.execute(time.table.delete().where(time < before))


def forget_activity(connection: Connection, before: dt.date) -> None:
    """Delete older days on which people were active, but for their first ones."""
    connection.execute(subject_days.delete().where(subject_days.c.day < before))


def months_before(connection: Connection, before: int) -> list[str]:
    """The partitions of which all is older than this."""
    return [
        name
        for name in schema.partitions(connection)
        if (month := schema.month_of(name)) is not None
        and schema.micros(schema.following(month)) <= before
    ]


def forget_checkpoints(connection: Connection) -> None:
    """Those of journals that nobody has seen for a month: they are gone.

    First they are marked, with the time below zero, and a day later forgotten: a clock that jumps
    may make any of them look old, and whose journal is there is touched meanwhile by its shipper.
    Without it the journal would be stored a second time.
    """
    now, changed_at = schema.now(), checkpoints.c.changed_at
    connection.execute(checkpoints.delete().where(changed_at < 0, changed_at > -(now - DAY)))
    connection.execute(
        checkpoints.update().where(changed_at.between(0, now - _ABANDONED)).values(changed_at=-now)
    )
