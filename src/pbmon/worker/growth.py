"""The jobs that take the growth figures of each day that is over, and what makes up for days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pbmon import catalog, runtime, signals
from pbmon.growth import UserGrowth
from pbmon.outbound import url_of
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.jobs import Runs

SETTLING = dt.timedelta(minutes=5)
"""What is on its way at the end of a day is in the store by then."""


class NotTakenError(Exception):
    """The application's table can't be read now; the text says why and the remedy."""


def ended_day(runs: Runs, now: dt.datetime) -> dt.date:
    """The newest day that is over, in the zone of the store. Raises StoreError."""
    from pbmon.store import schema

    zone = runs.read(schema.zone)
    return (now - SETTLING).astimezone(zone).date() - dt.timedelta(days=1)


def from_activity(runs: Runs, settings: Settings, day: dt.date) -> bool:
    """The figures by activity of a day; whether they were taken now. Raises StoreError."""
    from pbmon.store import growth as snapshots

    taken = runs.read(lambda connection: snapshots.snapshot(connection, day))
    if taken.timezone != settings.timezone:
        signals.tell(
            "timezone",
            "pbmon: the days of growth figures are those of %s, the zone that the store was made "
            "with; `timezone` (%s) does not change them",
            taken.timezone, settings.timezone,
        )  # fmt: skip
    return _keep(runs, "growth", taken, is_source=settings.users is None)


def from_users(runs: Runs, settings: Settings, day: dt.date) -> bool:
    """The figures by the application's own table; whether they were taken now. Raises StoreError,
    NotTakenError."""
    from pbmon.store import schema
    from pbmon.store.application import ApplicationError
    from pbmon.store.users import snapshot

    assert settings.users is not None
    url = url_of("users.url", settings.users.url)
    if url is None:
        raise NotTakenError(f"url of [users] is {settings.users.url}, which is not set")
    timezone = runs.read(schema.timezone)
    try:
        taken = snapshot(settings.users, url, day, timezone)
    except ApplicationError as error:
        raise NotTakenError(str(error)) from None
    return _keep(runs, "users", taken, is_source=True)


def backfill(runs: Runs, start: dt.date, end: dt.date) -> Iterator[UserGrowth]:
    """Take the figures by activity of these days anew, both within. Raises StoreError."""
    from pbmon.store import growth as snapshots

    for n in range((end - start).days + 1):
        day = start + dt.timedelta(days=n)
        taken = runs.read(lambda c, day=day: snapshots.snapshot(c, day))  # type: ignore[misc]
        runs.write(lambda c, taken=taken: snapshots.keep(c, taken))  # type: ignore[misc]
        yield taken


def _keep(runs: Runs, job: str, taken: UserGrowth, *, is_source: bool) -> bool:
    """is_source: whether these are the figures that are told."""
    from pbmon.store import growth as snapshots

    def do(connection: Any) -> None:
        snapshots.keep(connection, taken)
        if is_source:
            snapshots.rely_on(connection, taken.source)

    done = runs.run(job, taken.day.isoformat(), do)
    if done and is_source:
        _log(runs.read(lambda connection: snapshots.find(connection, taken.day)) or taken)
    return done


def _log(figures: UserGrowth) -> None:
    record = catalog.DAILY_GROWTH
    values = dict(
        zip(
            record.fields,
            (
                figures.day.isoformat(), figures.source, figures.new, figures.active_24h,
                figures.active_7d, figures.active_30d, figures.churned, figures.reactivated,
                figures.total, figures.retention, figures.stickiness,
            ),
            strict=True,
        )
    )  # fmt: skip
    text = " ".join(f"{name}={_text(value)}" for name, value in values.items())
    runtime.logger("growth").info("%s", f"{record.message} {text}", extra=values)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
