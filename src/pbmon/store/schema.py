"""The version of a store's tables: asked at the start, changed by `pbmon store upgrade`.

A store in SQLite makes and upgrades itself. PostgreSQL changes by the command alone.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfoNotFoundError

from sqlalchemy import inspect, select, text

from pbmon import growth, signals
from pbmon.runtime import StoreError
from pbmon.store import outbox, pseudonyms
from pbmon.store.engine import SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

VERSION_TABLE = "schema_version"
VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Of the steps in migrations/versions, the oldest first."""

PEOPLE_VERSION = "people_version"
"""In `meta`: another one after every change of what `subjects` says of people that were known."""

MADE_AT = "made_at"
"""In `meta`: when the store was made, µs since the epoch. Its totals count since then."""

HOUR = 3_600_000_000
DAY = 24 * HOUR


TIMEZONE = "timezone"
"""In `meta`: the zone in which days of people are counted."""

MONTHS_AHEAD = 13
_LOCK = 0x70626D6F6E  # "pbmon": of pg_advisory_xact_lock
_PEOPLE_LOCK = 0x70626D6F6E50  # "pbmonP", likewise


class State(Enum):
    ABSENT = "has no tables of pbmon yet"
    OLDER = "has tables of an older version"
    CURRENT = "is up to date"
    NEWER = "has tables of a newer version"


def state(connection: Connection) -> State:
    found = version(connection)
    if found is None:
        return State.ABSENT
    if found not in VERSIONS:
        return State.NEWER
    return State.CURRENT if found == VERSIONS[-1] else State.OLDER


def version(connection: Connection) -> str | None:
    """The step at which a store is."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    place = f"{schema}.{VERSION_TABLE}" if schema else VERSION_TABLE
    found: str | None = connection.execute(text(f"SELECT version_num FROM {place}")).scalar()
    return found


def upgrade(engine: Engine, timezone: str = "UTC", *, pepper: bytes | None = None) -> State:
    """Bring the tables to the newest version, one process at a time; what they were before.

    A newer version than this one's is left alone. timezone: of the days of people, for a store that
    has none yet; it never changes. pepper: from outside, by which people are known in one that is
    made.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = state(connection)
        if found in (State.ABSENT, State.OLDER):
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            _migrate(connection)
        if found is not State.NEWER:
            _set_up(connection, timezone)
        if found is State.ABSENT and pepper is not None:
            pseudonyms.adopt(connection, pepper)
        if found is not State.NEWER and connection.dialect.name == "postgresql":
            add_months(connection, dt.datetime.now(dt.timezone.utc).date())
            outbox.create(connection)
    return found


def _migrate(connection: Connection, to: str = "head") -> None:
    with _quiet_alembic():
        with signals.importing:
            from alembic import command
            from alembic.config import Config
        config = Config()
        config.set_main_option(
            "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
        )
        config.attributes["connection"] = connection
        command.upgrade(config, to)


@contextmanager
def _quiet_alembic() -> Iterator[None]:
    """Its running commentary, at INFO, is no business of the application's log. In this thread
    only: the application may use Alembic too."""
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or record.thread != thread

    loggers = [logging.getLogger(f"alembic.runtime.{name}") for name in ("migration", "plugins")]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)


def _set_up(connection: Connection, timezone: str) -> None:
    """What a store has once and for all."""
    from pbmon.store.tables import meta

    there = set(connection.execute(meta.select().with_only_columns(meta.c.key)).scalars())
    made = {
        "store_id": str(uuid.uuid4()),
        "pepper": secrets.token_hex(32),
        PEOPLE_VERSION: str(uuid.uuid4()),
        MADE_AT: str(clock(connection)),
        TIMEZONE: timezone,
    }
    rows = [{"key": key, "value": value} for key, value in made.items() if key not in there]
    if rows:
        connection.execute(meta.insert(), rows)


def add_months(connection: Connection, today: dt.date) -> list[str]:
    """Partitions of `events` from this month on, where there are none; the names of the new ones.

    An event of a month without one goes to `events_rest`.
    """
    there = set(partitions(connection))
    added = []
    month = today.replace(day=1)
    for _ in range(MONTHS_AHEAD):
        name = f"events_{month:%Y_%m}"
        if name not in there:
            bounds = f"FROM ({micros(month)}) TO ({micros(following(month))})"
            connection.execute(
                text(
                    f"CREATE TABLE {SCHEMA}.{name} PARTITION OF {SCHEMA}.events FOR VALUES {bounds}"
                )
            )
            added.append(name)
        month = following(month)
    return added


def partitions(connection: Connection) -> list[str]:
    """Of `events` in PostgreSQL, by name."""
    query = (
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = CAST(:parent AS regclass) ORDER BY 1"
    )
    found = connection.execute(text(query), {"parent": f"{SCHEMA}.events"})
    return [str(name) for name in found.scalars()]


def month_of(partition: str) -> dt.date | None:
    """The first day of a partition's month; None for `events_rest`."""
    found = re.fullmatch(r"events_(\d{4})_(\d{2})", partition)
    return dt.date(int(found[1]), int(found[2]), 1) if found else None


def following(month: dt.date) -> dt.date:
    """The first day of the next month."""
    return (month + dt.timedelta(days=32)).replace(day=1)


def hold_people(connection: Connection, *, changes: bool = False) -> str:
    """First of all in a transaction that stores or removes rows of people: the version of what
    `subjects` says of them, which nobody changes until its end. changes: of one that does, nobody
    else stores any meanwhile; who comes later finds the change. In SQLite there is one writer at a
    time.

    Before any row, and once: so two transactions never wait for each other.
    """
    from pbmon.store.tables import meta

    if connection.dialect.name == "postgresql":
        kind = "" if changes else "_shared"
        connection.execute(text(f"SELECT pg_advisory_xact_lock{kind}(:key)"), {"key": _PEOPLE_LOCK})
    query = select(meta.c.value).where(meta.c.key == PEOPLE_VERSION)
    return str(connection.execute(query).scalar_one())


def note_change_of_people(connection: Connection) -> str:
    """In the transaction of the change: nobody relies on what they remember any more. The new
    version."""
    from pbmon.store.tables import meta

    version = str(uuid.uuid4())
    connection.execute(meta.update().where(meta.c.key == PEOPLE_VERSION).values(value=version))
    return version


def zone(connection: Connection) -> dt.tzinfo:
    """In which days of people are counted. Raises StoreError."""
    name = timezone(connection)
    try:
        return growth.zone(name)
    except ZoneInfoNotFoundError:
        raise StoreError(
            f"counts days in {name}, a time zone that is not known here; pip install tzdata"
        ) from None


def timezone(connection: Connection) -> str:
    """Its name."""
    from pbmon.store.tables import meta

    query = meta.select().with_only_columns(meta.c.value).where(meta.c.key == TIMEZONE)
    return str(connection.execute(query).scalar_one())


def micros(day: dt.date) -> int:
    """Its beginning in UTC, µs since the epoch."""
    start = dt.datetime(day.year, day.month, day.day, tzinfo=dt.timezone.utc)
    return int(start.timestamp()) * 1_000_000


def day_of(at: int) -> dt.date:
    """The day in UTC of a time in µs since the epoch."""
    return dt.datetime.fromtimestamp(at // 1_000_000, dt.timezone.utc).date()


def now() -> int:
    """µs since the epoch, UTC."""
    return time.time_ns() // 1000


def clock(connection: Connection) -> int:
    """The same by the store's clock: one for all hosts that share it."""
    if connection.dialect.name != "postgresql":
        return now()
    asked = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
    return int(connection.execute(asked).scalar_one())
