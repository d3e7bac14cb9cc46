"""The database behind Pocketbook: PostgreSQL through psycopg2, or an SQLite file.

Statements are written once, with `:name` parameters, and translated for the driver in use.
"""

from __future__ import annotations

import queue
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

POOL_SIZE = 10
WAIT_S = 10.0
_SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"  # sorts as text in the order of time
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")  # `::` is PostgreSQL's cast

Statement = tuple[str, dict[str, Any]]


class Database(Protocol):
    """A pool of connections. Cursors are those of the driver, so its errors are too."""

    time_type: str
    setup_lock: str
    """Statement that makes other workers wait until this transaction is over."""
    table_names: str
    """Statement giving the names of the tables there are."""

    def transaction(self) -> AbstractContextManager[Any]:
        """A cursor in a transaction: committed at the end, rolled back on an error."""

    def statement(self, text: str, **values: Any) -> Statement:
        """Text and values as the driver's `execute` takes them."""

    def close(self) -> None: ...


def connect(environ: Mapping[str, str]) -> Database:
    """The database that DATABASE_URL names (postgresql://… or sqlite:///file).

    Without it, the SQLite file POCKETBOOK_DB, or one in the directory for temporary files.
    """
    url = environ.get("DATABASE_URL", "")
    demo = environ.get("POCKETBOOK_DEMO") == "1"
    if url.startswith(("postgresql://", "postgres://")):
        return PostgreSQL(url)
    if url.startswith("sqlite:///"):
        return SQLite(Path(url.removeprefix("sqlite:///")), demo=demo)
    if url:
        raise ValueError("DATABASE_URL must start with postgresql:// or sqlite:///")
    default = Path(tempfile.gettempdir()) / "pocketbook.sqlite3"
    return SQLite(Path(environ.get("POCKETBOOK_DB") or default), demo=demo)


def read_time(value: Any) -> datetime:
    """A time column's value as an aware datetime, whichever database it came from."""
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc)
    return datetime.strptime(value, _SQLITE_TIME).replace(tzinfo=timezone.utc)


@lru_cache(maxsize=64)
def _pyformat(text: str) -> str:
    return _PARAMETER.sub(r"%(\1)s", text)


class PostgreSQL:
    """POOL_SIZE connections by psycopg2, opened at the start."""

    time_type = "TIMESTAMPTZ"
    setup_lock = "SELECT pg_advisory_xact_lock(7076463)"
    table_names = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
    )

    def __init__(self, url: str) -> None:
        from psycopg2.pool import ThreadedConnectionPool  # only PostgreSQL needs the driver

        # Of the connections given back the pool keeps its minimum only, so that is the maximum.
        self._pool = ThreadedConnectionPool(POOL_SIZE, POOL_SIZE, url, connect_timeout=5)
        # The pool refuses the eleventh caller; a request would rather wait its turn.
        self._free = threading.BoundedSemaphore(POOL_SIZE)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        if not self._free.acquire(timeout=WAIT_S):
            raise TimeoutError("no database connection became free")
        try:
            connection = self._pool.getconn()
            try:
                with connection, connection.cursor() as cursor:
                    yield cursor
            finally:
                self._pool.putconn(connection, close=bool(connection.closed))
        finally:
            self._free.release()

    def statement(self, text: str, **values: Any) -> Statement:
        return _pyformat(text), values

    def close(self) -> None:
        self._pool.closeall()


class SQLite:
    """Connections to one file, each used by one thread at a time."""

    time_type = "TEXT"
    setup_lock = "BEGIN IMMEDIATE"
    table_names = "SELECT name FROM sqlite_master WHERE type = 'table'"

    def __init__(self, path: Path, *, demo: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._demo = demo
        self._idle: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(POOL_SIZE):
            self._idle.put(None)  # opened at first use
        # Readers then don't wait for the writer. Another worker may be doing this just now.
        with closing(self._open()) as connection, suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=WAIT_S, isolation_level="IMMEDIATE", check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        if self._demo:  # what PostgreSQL has by itself, so that the demo's statements are the same
            connection.create_function("pg_sleep", 1, _sleep)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        try:
            connection = self._idle.get(timeout=WAIT_S)
        except queue.Empty:
            raise TimeoutError("no database connection became free") from None
        try:
            connection = connection or self._open()
            with connection, closing(connection.cursor()) as cursor:
                yield cursor
        finally:
            self._idle.put(connection)

    def statement(self, text: str, **values: Any) -> Statement:
        return text, {name: _sqlite_value(value) for name, value in values.items()}

    def close(self) -> None:
        with suppress(queue.Empty):
            while True:
                if (connection := self._idle.get_nowait()) is not None:
                    connection.close()


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).strftime(_SQLITE_TIME)
    return value


def _sleep(seconds: float) -> None:
    time.sleep(seconds)
