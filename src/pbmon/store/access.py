"""The way into the store: what goes wrong there is one line with the remedy, never a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import signals
from pbmon.runtime import StoreError as StoreError  # noqa: PLC0414 - part of what this offers
from pbmon.store import engine, faults
from pbmon.store.engine import DriverError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pbmon.alerting.choices import AlertChoices
    from pbmon.store.alerts import Judge
    from pbmon.store.conversion import Conversions
    from pbmon.store.deliveries import Deliveries
    from pbmon.store.erasure import Deletions
    from pbmon.store.figures import Figures
    from pbmon.store.jobs import Runs
    from pbmon.store.notifications import Notifications
    from pbmon.store.outbox import Drain
    from pbmon.store.queries import Queries
    from pbmon.store.reader import Reader
    from pbmon.store.rotation import Rotation
    from pbmon.store.schema import State
    from pbmon.store.writer import Writer

_T = TypeVar("_T")

PATIENCE_S = 30.0
"""How long a statement of a writer may take, before it is tried anew."""


class Leadership(Protocol):
    """A role that one process of a store has."""

    def take(self) -> bool:
        """Whether this process has it now. Raises StoreError."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        ...


class RejectedError(Exception):
    """The database refuses the data, not the moment."""


def asking(ask: Callable[[], _T]) -> _T:
    """What a call of the store gives; no hook sees its statements. Raises RejectedError, or
    StoreError for any other failure of the database."""
    with signals.importing:
        from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
    try:
        with suppress_instrumentation():
            return ask()
    except (DataError, IntegrityError, OverflowError):
        raise RejectedError from None
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"can't be used: {faults.explain(error)}") from None


def open_engine(url: str, *, patience_s: float = 0.0, ours: bool = True) -> Engine:
    """As engine.open_store(). Raises StoreError."""
    try:
        return engine.open_store(url, patience_s=patience_s, ours=ours)
    except (ValueError, DriverError) as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise StoreError(f"can't be made: {faults.explain(error)}") from None


def open_writer(url: str, basis: str, *, timezone: str = "UTC", **options: Any) -> Writer:
    """A writer into the store; options: of Writer. One in SQLite is made or upgraded first, with
    this zone for the days of people. Raises StoreError."""
    made = open_engine(url, patience_s=PATIENCE_S)
    makes = timezone if made.dialect.name == "sqlite" else None
    _require_current(made, makes=makes, pepper=options.get("pepper"))
    with signals.importing:
        from pbmon.store.writer import Writer
    try:
        return asking(lambda: Writer(made, basis, **options))
    except StoreError:
        made.dispose()
        raise


def may_be_there(url: str) -> bool:
    """False only where it would be a file that nobody has made. Raises StoreError."""
    try:
        parsed = engine.parse(url)
    except ValueError as error:
        raise StoreError(str(error)) from None
    return parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").exists()


def status(url: str) -> str:
    """How a store is, in words; nothing is made. Raises StoreError."""
    if not may_be_there(url):
        return "is made by the first event"
    made = open_engine(url)
    read(made)
    made.dispose()
    return "is up to date"


def outstanding_deletions(url: str) -> list[tuple[str, int, str | None]]:
    """Place, how many deletions of people are not done there, and why; nothing is made. Raises
    StoreError."""
    if not may_be_there(url):
        return []
    deletions = open_deletions(url)
    try:
        return [(each.place, each.deletions, each.fault) for each in deletions.outstanding()]
    finally:
        deletions.close()


def open_deliveries(url: str, basis: str, version: str | None = None) -> Deliveries:
    """What destinations are to get; basis, version: of the purpose `sharing`. Raises StoreError."""
    from pbmon.store.deliveries import Deliveries

    made = open_engine(url)
    read(made)
    return Deliveries(made, basis, version)


def open_judge(url: str, choices: AlertChoices, **options: Any) -> Judge:
    """What opens and resolves alerts; options: of Judge. Raises StoreError."""
    from pbmon.store.alerts import Judge

    made = open_engine(url, patience_s=PATIENCE_S)
    read(made)
    return Judge(made, choices, **options)


def open_notifications(url: str, lease_s: float, **options: Any) -> Notifications:
    """What sinks of alerts are to get; as Notifications has it. Raises StoreError."""
    from pbmon.store.notifications import Notifications

    made = open_engine(url, patience_s=PATIENCE_S)
    read(made)
    return Notifications(made, lease_s, **options)


def open_runs(url: str) -> Runs:
    """What jobs are done. Raises StoreError."""
    from pbmon.store.jobs import Runs

    made = open_engine(url)
    read(made)
    return Runs(made)


def open_deletions(url: str, pepper: bytes | None = None) -> Deletions:
    """The deletions of people. Raises StoreError."""
    from pbmon.store.erasure import Deletions

    made = open_engine(url, patience_s=PATIENCE_S)
    _require_current(made)
    return Deletions(made, pepper)


def open_figures(url: str) -> Figures:
    """The figures that are exported. Raises StoreError."""
    from pbmon.store.figures import PATIENCE_S, Figures

    made = open_engine(url, patience_s=PATIENCE_S)
    read(made)
    return Figures(made)


def open_conversions(url: str) -> Conversions:
    """What waits for rates. Raises StoreError."""
    from pbmon.store.conversion import Conversions

    made = open_engine(url)
    read(made)
    return Conversions(made)


def open_reader(url: str, *, makes: str | None = None, pepper: bytes | None = None) -> Reader:
    """The figures of a store. makes: one in SQLite is made or upgraded first, with this zone for
    the days of people. pepper: the one from outside. Raises StoreError."""
    if makes is None and not may_be_there(url):
        raise StoreError("is made by the first event, and none is there yet")
    with signals.importing:
        from pbmon.store.reader import LIMIT_S, Reader

    made = open_engine(url, patience_s=LIMIT_S)
    makes = makes if made.dialect.name == "sqlite" else None
    _require_current(made, makes=makes, pepper=pepper)
    return Reader(made, pepper)


def open_rotation(url: str, pepper: bytes | None) -> Rotation:
    """New pseudonyms; pepper: from outside. Raises StoreError."""
    with signals.importing:
        from pbmon.store.rotation import Rotation

    made = open_engine(url)
    _require_current(made)
    return Rotation(made, pepper)


def open_leadership(url: str) -> Leadership:
    """The role of a store's leader. Raises StoreError."""
    from pbmon.store.leadership import FileLock, ServerLock

    made = open_engine(url)
    if made.dialect.name == "postgresql":
        return ServerLock(made)
    return FileLock(f"{made.url.database}.leader")


def open_outbox(url: str) -> Drain:
    """The outbox of a database. Raises StoreError."""
    from pbmon.store.outbox import Drain

    return Drain(open_engine(url, ours=False))


def make_outbox(made: Engine) -> str:
    """Make the table of the outbox, where it is not there; in words. Raises StoreError."""
    from pbmon.store import outbox

    def make() -> None:
        with made.begin() as connection:
            outbox.create(connection)

    asking(make)
    return "has the outbox"


def upgrade(made: Engine, timezone: str = "UTC", *, pepper: bytes | None = None) -> str:
    """Make or upgrade the tables; what was done, in words. timezone, pepper: of a store that is
    made, as of schema.upgrade(). Raises StoreError."""
    from pbmon.store import schema
    from pbmon.store.schema import State

    before = asking(lambda: schema.upgrade(made, timezone, pepper=pepper))
    if before is State.NEWER:
        _judge(before)
    done = {State.ABSENT: "was made", State.OLDER: "was upgraded"}
    return f"{done.get(before, State.CURRENT.value)} (version {schema.VERSIONS[-1]})"


def read(made: Engine) -> Queries:
    """The queries of a store that is up to date. Raises StoreError, as each of them does."""
    _require_current(made)
    with signals.importing:
        from pbmon.store.queries import Queries

    return Queries(made)


def _require_current(
    made: Engine, *, makes: str | None = None, pepper: bytes | None = None
) -> None:
    """makes: make or upgrade it first, with this zone and pepper. Raises StoreError, and leaves no
    connection then."""
    with signals.importing:
        from pbmon.store import schema

    def look() -> State:
        if makes is not None:
            schema.upgrade(made, makes, pepper=pepper)
        with engine.reading(made).connect() as connection:
            return schema.state(connection)

    try:
        _judge(asking(look))
    except StoreError:
        made.dispose()
        raise


def _judge(state: State) -> None:
    from pbmon.store.schema import State

    if state is not State.CURRENT:
        remedy = (
            "upgrade pbmon on this machine" if state is State.NEWER else "run `pbmon store upgrade`"
        )
        raise StoreError(f"{state.value}; {remedy}")
