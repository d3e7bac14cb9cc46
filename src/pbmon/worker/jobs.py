"""The jobs that the leader does once a day, in the zone of the settings.

A day is done exactly once, whoever leads. One that was missed is made up for: by itself where each
day counts, else with the newest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pbmon import signals
from pbmon.growth import zone
from pbmon.settings import Settings
from pbmon.worker import growth

if TYPE_CHECKING:
    from pbmon.store.jobs import Runs

_ALERTS_KEPT = 90 * 86_400_000_000

Work = Callable[[Any, Settings, dt.date], None]
"""With a connection to the store."""

Take = Callable[[Any, Settings, dt.date], bool]
"""With the store's Runs."""


def _nothing(_connection: Any, _settings: Settings, _day: dt.date) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Job:
    """do: the work for one day, in a transaction that notes it as done. each_day: whether every
    missed day is made up for. changes_schema: with PostgreSQL it is left to `pbmon worker` and
    `pbmon run`. take: in the place of `do`, for what must not hold the store while it reads: the
    figures of a day that is over, in the zone of the store; whether it was done now. apart: what no
    transaction can hold; always left to `pbmon worker` and `pbmon run`. needs: a setting without
    which there is nothing to do."""

    name: str
    meaning: str
    do: Work = _nothing
    each_day: bool = False
    changes_schema: bool = False
    take: Take | None = None
    apart: Callable[[Any], object] | None = None
    needs: str | None = None


def _retention(connection: Any, settings: Settings, day: dt.date) -> None:
    from pbmon.store import alerts, jobs, schema

    if settings.events_retention_days is not None:
        oldest = day - dt.timedelta(days=settings.events_retention_days)
        jobs.forget_events(connection, schema.micros(oldest))
    for name, time in jobs.BY_AGE.items():
        days = getattr(settings, f"{name}_retention_days")
        if days is not None:
            jobs.forget(connection, time, schema.micros(day - dt.timedelta(days=days)))
    if settings.activity_retention_days is not None:
        jobs.forget_activity(connection, day - dt.timedelta(days=settings.activity_retention_days))
    jobs.forget_checkpoints(connection)
    alerts.forget(connection, schema.now() - _ALERTS_KEPT)


def _errors(connection: Any, settings: Settings, day: dt.date) -> None:
    from pbmon.store import errors, schema

    oldest = day - dt.timedelta(days=settings.errors_retention_days)
    errors.forget(connection, schema.micros(oldest), schema.now() - schema.DAY)


def _months(connection: Any, _settings: Settings, day: dt.date) -> None:
    from pbmon.store import schema

    if connection.dialect.name == "postgresql":
        schema.add_months(connection, day)


def _vacuum(runs: Runs) -> bool:
    return runs.vacuum()


JOBS = {
    job.name: job
    for job in (
        Job("months", "add a partition for each month ahead", _months, changes_schema=True),
        Job(
            "retention",
            "delete what is older than events_retention_days and its like say, and alerts that "
            "were over 90 days ago",
            _retention,
            changes_schema=True,  # a month is a partition, which is dropped
        ),
        Job("errors", "delete errors that were not seen for errors_retention_days", _errors),
        Job(
            "vacuum",
            "have nothing left in the files of the database of people who were deleted",
            apart=_vacuum,
        ),
        Job(
            "growth",
            "take the growth figures of a day that is over, by activity",
            each_day=True,
            take=growth.from_activity,
        ),
        Job(
            "users",
            "the same by the application's own table of users, where there is one",
            each_day=True,
            take=growth.from_users,
            needs="users",
        ),
    )
}


def due(job: Job, last: str | None, today: dt.date) -> list[dt.date]:
    """The days to do now, the oldest first. last: the newest day that is done, as ISO text."""
    newest = dt.date.fromisoformat(last) if last is not None else today - dt.timedelta(days=1)
    if newest == today:
        return []
    # A day to come was done by a clock that was ahead; the store knows whether today is done.
    if newest > today or not job.each_day:
        return [today]
    return [newest + dt.timedelta(days=n) for n in range(1, (today - newest).days + 1)]


def applies(job: Job, settings: Settings) -> bool:
    """Whether there is anything to do with these settings."""
    return job.needs is None or getattr(settings, job.needs) is not None


def newest_day(job: Job, runs: Runs, settings: Settings, now: dt.datetime) -> dt.date:
    """For which it may be done: today, or the newest that is over. Raises StoreError."""
    if job.take is not None:
        return growth.ended_day(runs, now)
    return now.astimezone(zone(settings.timezone)).date()


def run_due(
    runs: Runs, settings: Settings, now: dt.datetime, *, may_change_schema: bool
) -> list[tuple[str, dt.date]]:
    """Do what is due; what was done. Raises StoreError."""
    last = runs.last()
    done = []
    for job in JOBS.values():
        if job.changes_schema and runs.is_postgresql and not may_change_schema:
            continue
        if job.apart is not None and not may_change_schema:
            continue
        if not applies(job, settings):
            continue
        newest = last[job.name][0] if job.name in last else None
        for day in due(job, newest, newest_day(job, runs, settings, now)):
            try:
                if run(runs, job, settings, day):
                    done.append((job.name, day))
            except growth.NotTakenError as error:
                signals.tell(job.name, "pbmon: job %s of %s: %s", job.name, day, error)
                break  # tried again at the next look
    return done


def run(runs: Runs, job: Job, settings: Settings, day: dt.date) -> bool:
    """Do a job for a day, unless it is done; whether it was done now. Raises StoreError, and
    NotTakenError where the application's own table can't be read."""
    if job.take is not None:
        return job.take(runs, settings, day)
    if job.apart is not None:
        if runs.last().get(job.name, ("", 0))[0] >= day.isoformat():
            return False
        job.apart(runs)
    return runs.run(job.name, day.isoformat(), lambda c: job.do(c, settings, day))
