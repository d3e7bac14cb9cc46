"""The outbox: events that are stored if, and only if, the application's own transaction commits.

They are rows of a table in the application's database: `pbmon.outbox` in PostgreSQL,
`pbmon_outbox` in SQLite. The shipper brings them into the store and removes them; killed in
between it does so again, and the store knows them by their key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import runtime
from pbmon.store import faults
from pbmon.store.engine import SCHEMA, reading

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_NAMES = {"postgresql": f"{SCHEMA}.outbox", "sqlite": f"{SCHEMA}_outbox"}
_TYPES = {
    "postgresql": "id bigserial PRIMARY KEY, key bytea NOT NULL, payload bytea NOT NULL",
    "sqlite": "id integer PRIMARY KEY AUTOINCREMENT, key blob NOT NULL, payload blob NOT NULL",
}
_DRIVERS = {"psycopg2": "postgresql", "psycopg": "postgresql", "sqlite3": "sqlite"}


class OutboxError(Exception):
    """The events could not be written in the application's transaction; it should not commit."""


class Outbox:
    """The block of outbox()."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._taken: list[bytes] = []
        self._token: Token[list[bytes] | None] | None = None

    def __enter__(self) -> None:
        self._token = runtime.outbox.set(self._taken)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if rows := self._end(kind):
            try:
                with suppress_instrumentation():
                    _insert(self._connection, rows)
            except Exception as failure:
                raise _failed(failure) from failure

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if rows := self._end(kind):
            try:
                with suppress_instrumentation():
                    await self._connection.run_sync(_insert, rows)
            except Exception as failure:
                raise _failed(failure) from failure

    def _end(self, kind: type[BaseException] | None) -> list[tuple[bytes, bytes]]:
        """What there is to write; nothing where the block failed, as its transaction will."""
        if self._token is not None:
            runtime.outbox.reset(self._token)
        return [] if kind is not None else [(os.urandom(16), p) for p in self._taken]


def outbox(connection: Any) -> Outbox:
    """Store what is tracked in the block if, and only if, the transaction of this connection
    commits.

        with engine.begin() as connection:
            connection.execute(...)
            with pbmon.outbox(connection):
                pbmon.track("transaction_created", {"amount": 1999})

    connection: with a transaction under way; of SQLAlchemy a Connection or Session (`async with`
        for AsyncConnection and AsyncSession), or of psycopg2, psycopg or sqlite3. It is neither
        committed nor rolled back.

    At the end of the block the events are written to the table that `pbmon store upgrade` makes, in
    one statement; a block that raises writes nothing. If they can't be written, OutboxError:
    the transaction should not commit without them. They are delivered from the database that
    `outbox_url` names, or the store's own.
    """
    return Outbox(connection)


def _failed(error: Exception) -> OutboxError:
    return OutboxError(
        f"pbmon.outbox: the events could not be written: {faults.explain(error)}. If it is their "
        "table that is missing, set outbox_url to this database and run `pbmon store upgrade`"
    )


def _insert(connection: Any, rows: Sequence[tuple[bytes, bytes]]) -> None:
    if hasattr(connection, "get_bind") and hasattr(connection, "connection"):  # a Session
        connection = connection.connection()
    if hasattr(connection, "exec_driver_sql"):
        driver = connection.dialect.name
        connection.exec_driver_sql(_statement(driver, connection.dialect.paramstyle), list(rows))
        return
    driver, style = _of_dbapi(connection)
    cursor = connection.cursor()
    try:
        cursor.executemany(_statement(driver, style), rows)
    finally:
        cursor.close()


def _statement(dialect: str, paramstyle: str) -> str:
    marks = {"qmark": "?, ?", "numeric_dollar": "$1, $2"}.get(paramstyle, "%s, %s")
    return f"INSERT INTO {_NAMES[dialect]} (key, payload) VALUES ({marks})"


def _of_dbapi(connection: Any) -> tuple[str, str]:
    """Database and paramstyle. Raises TypeError."""
    for cls in type(connection).__mro__:
        name = cls.__module__.partition(".")[0].lstrip("_")
        if name in _DRIVERS:
            return _DRIVERS[name], sys.modules[name].paramstyle
    raise TypeError(f"{type(connection).__name__} is no connection that is known here")


# --- the shipper's side -----------------------------------------------------------------------


def create(connection: Connection) -> None:
    """Make the table in the application's database, where it is not there."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {_NAMES[dialect]} ({_TYPES[dialect]})")


class Drain:
    """The outbox of one database, as it is emptied."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._name = _NAMES[engine.dialect.name]

    def close(self) -> None:
        self._engine.dispose()

    def let_go(self) -> None:
        """In a forked child: the connections are the parent's."""
        self._engine.dispose(close=False)

    def newest(self) -> int:
        """Number of the newest row; 0: there is none. Raises SQLAlchemyError."""
        return self._ask(f"SELECT coalesce(max(id), 0) FROM {self._name}")

    def has_upto(self, row: int) -> bool:
        """Whether a row up to this number is still there. Raises SQLAlchemyError."""
        return bool(self._ask(f"SELECT count(*) FROM {self._name} WHERE id <= {row}"))

    def _ask(self, query: str) -> int:
        with reading(self._engine).connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def take(self, limit: int, store: Callable[[list[tuple[bytes, bytes]]], object]) -> int:
        """Hand up to `limit` rows of key and payload to `store`, remove them; how many.

        In PostgreSQL they are locked meanwhile, and those that another takes are left to it. In
        SQLite the lock would be on all of the application's database: there two may take the same
        rows. Raises SQLAlchemyError.
        """
        from sqlalchemy import text

        locks = self._engine.dialect.name == "postgresql"
        query = f"SELECT id, key, payload FROM {self._name} ORDER BY id LIMIT :limit"
        with self._engine.connect() as connection:
            found = connection.execute(
                text(f"{query} FOR UPDATE SKIP LOCKED" if locks else query), {"limit": limit}
            ).all()
            if not locks:
                connection.commit()
            if found:
                store([(bytes(key), bytes(payload)) for _, key, payload in found])
                connection.execute(
                    # By the key too: an id may have become another row's meanwhile.
                    text(f"DELETE FROM {self._name} WHERE id = :id AND key = :key"),
                    [{"id": row.id, "key": row.key} for row in found],
                )
            connection.commit()
        return len(found)
