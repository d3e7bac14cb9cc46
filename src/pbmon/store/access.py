"""The way into the store: what goes wrong there is one line with the remedy, never a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pbmon import privacy, signals
from pbmon.runtime import StoreError as StoreError  # noqa: PLC0414 - this is where it comes from
from pbmon.store import engine
from pbmon.store.engine import DriverError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pbmon.store.deliveries import Deliveries
    from pbmon.store.jobs import Runs
    from pbmon.store.outbox import Drain
    from pbmon.store.queries import Queries
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
    """What a call of the store gives. Raises RejectedError, or StoreError for any other failure
    of the database."""
    with signals.importing:
        from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
    try:
        return ask()
    except (DataError, IntegrityError, OverflowError):
        raise RejectedError from None
    except (SQLAlchemyError, OSError) as error:
        original = getattr(error, "orig", None) or error
        raise StoreError(f"can't be used ({privacy.error_type(original)})") from None


def open_engine(url: str, *, patience_s: float = 0.0) -> Engine:
    """As engine.open_store(). Raises StoreError."""
    try:
        return engine.open_store(url, patience_s=patience_s)
    except (ValueError, DriverError) as error:
        raise StoreError(str(error)) from None
    except OSError as error:
        raise StoreError(f"can't be made ({error.strerror})") from None


def open_writer(url: str, basis: str, **options: Any) -> Writer:
    """A writer into the store; options: of Writer. One in SQLite is made or upgraded first.
    Raises StoreError."""
    made = open_engine(url, patience_s=PATIENCE_S)
    _require_current(made, makes=made.dialect.name == "sqlite")
    with signals.importing:
        from pbmon.store.writer import Writer
    return asking(lambda: Writer(made, basis, **options))


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


def open_deliveries(url: str, basis: str) -> Deliveries:
    """What destinations are to get; basis: of the purpose `sharing`. Raises StoreError."""
    from pbmon.store.deliveries import Deliveries

    made = open_engine(url)
    read(made)
    return Deliveries(made, basis)


def open_runs(url: str) -> Runs:
    """What jobs are done. Raises StoreError."""
    from pbmon.store.jobs import Runs

    made = open_engine(url)
    read(made)
    return Runs(made)


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

    return Drain(open_engine(url))


def make_outbox(made: Engine) -> str:
    """Make the table of the outbox, where it is not there; in words. Raises StoreError."""
    from pbmon.store import outbox

    def make() -> None:
        with made.begin() as connection:
            outbox.create(connection)

    asking(make)
    return "has the outbox"


def upgrade(made: Engine) -> str:
    """Make or upgrade the tables; what was done, in words. Raises StoreError."""
    from pbmon.store import schema
    from pbmon.store.schema import State

    before = asking(lambda: schema.upgrade(made))
    if before is State.NEWER:
        _judge(before)
    done = {State.ABSENT: "was made", State.OLDER: "was upgraded"}
    return f"{done.get(before, State.CURRENT.value)} (version {schema.VERSIONS[-1]})"


def read(made: Engine) -> Queries:
    """The queries of a store that is up to date. Raises StoreError, as each of them does."""
    _require_current(made)
    from pbmon.store.queries import Queries

    return Queries(made)


def _require_current(made: Engine, *, makes: bool = False) -> None:
    """makes: make or upgrade it first. Raises StoreError, and leaves no connection then."""
    with signals.importing:
        from pbmon.store import schema

    def look() -> State:
        if makes:
            schema.upgrade(made)
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
