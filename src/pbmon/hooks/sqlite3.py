"""sqlite3: one record per statement, by subclasses of the connection and cursor classes.

SQLite steps through a result while it is fetched, so a record goes on until the rows are
exhausted or dropped. `sqlite3.connect` is a C function: a name bound to it before the hook was
active can't be reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pbmon import signals
from pbmon.hooks import dbapi
from pbmon.hooks.dbapi import (
    Base,
    Rows,
    WrittenRows,
    argument,
    begin,
    end_rows,
    finish,
    keep,
    measured,
    observe,
    swap,
)
from pbmon.hooks.patches import Hook, Patch
from pbmon.runtime import Database, QueryRecord

_SYSTEM = "sqlite"
_MEMORY = ":memory:"
_UNKNOWN = Database(_SYSTEM)


def _status_code(error: BaseException) -> str | None:
    """`SQLITE_CONSTRAINT_UNIQUE` and such; Python 3.10 does not tell it."""
    code = getattr(error, "sqlite_errorname", None)
    return code if isinstance(code, str) else None


def _namespace(database: Any) -> str | None:
    """Base name of the file, never its directories; None for an unnamed temporary database."""
    name = os.fsdecode(database)
    if name.startswith("file:"):
        url = urlsplit(name)
        if parse_qs(url.query).get("mode") == ["memory"]:
            return _MEMORY
        name = unquote(url.path)
    # Bytes that are no text can't be sent.
    name = name.encode("utf-8", "replace").decode()
    return name if name == _MEMORY else Path(name).name or None


def _known(cursor: Any, args: tuple[Any, ...]) -> dbapi.Known:
    text = args[0] if args and isinstance(args[0], str) else None
    return getattr(cursor.connection, "_pbmon_database", _UNKNOWN), text, None


def _known_of_many(cursor: Any, args: tuple[Any, ...]) -> dbapi.Known:
    database, text, _ = _known(cursor, args)
    return database, text, dbapi.size(args[1]) if len(args) > 1 else None


class CursorMethods(dbapi.FetchMethods):
    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if self._pbmon_rows is not None:
            end_rows(self)
        record = begin(_known, self, args)
        return observe(record, super().execute, args, kwargs, _status_code, self._pbmon_settle)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        if self._pbmon_rows is not None:
            end_rows(self)
        record = begin(_known_of_many, self, args)
        return observe(record, super().executemany, args, kwargs, _status_code, self._pbmon_settle)

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        if self._pbmon_rows is not None:
            end_rows(self)
        record = begin(_known, self, args)
        return observe(record, super().executescript, args, kwargs, _status_code, _finish_script)

    def _pbmon_settle(self, record: QueryRecord, result: Any) -> None:
        count = self.rowcount
        if self.description is None:
            finish(record, affected=count if count >= 0 else None)
        else:
            # A SELECT's row count is -1; a write with RETURNING has one.
            rows = (Rows if count < 0 else WrittenRows)(record, _status_code)
            keep(self, "_pbmon_rows", rows)


def _finish_script(record: QueryRecord, _result: Any) -> None:
    finish(record)


class ConnectionMethods(Base):
    _pbmon_database = _UNKNOWN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            # Before the driver's: a factory's own __init__ may execute statements.
            name = _namespace(argument(0, "database", args, kwargs))
            keep(self, "_pbmon_database", Database(_SYSTEM, name))
        except Exception:  # noqa: S110 - not a path: the driver will say so
            pass
        super().__init__(*args, **kwargs)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        try:
            ours = _ours()
            given = args or kwargs
            wanted = argument(0, "factory", args, kwargs) if given else ours.driver_cursor
            args, kwargs = swap(0, "factory", args, kwargs, measured(wanted, ours.cursor))
        except Exception as error:
            signals.failed("sqlite3 hook", error)
        return super().cursor(*args, **kwargs)

    # The driver's shortcuts make their cursor in C and would bypass cursor() (since 3.11).

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self._pbmon_cursor().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        return self._pbmon_cursor().executemany(*args, **kwargs)

    def executescript(self, *args: Any, **kwargs: Any) -> Any:
        return self._pbmon_cursor().executescript(*args, **kwargs)

    def _pbmon_cursor(self) -> Any:
        """The cursor of a shortcut: the application's cursor() counts only where it did."""
        return self.cursor() if sys.version_info < (3, 11) else ConnectionMethods.cursor(self)


class _Ours:
    """Our classes over the driver's."""

    def __init__(self) -> None:
        import sqlite3

        self.driver_connection = sqlite3.Connection
        self.driver_cursor = sqlite3.Cursor
        self.connection = dbapi.built(ConnectionMethods, sqlite3.Connection)
        self.cursor = dbapi.built(CursorMethods, sqlite3.Cursor)


@cache
def _ours() -> _Ours:
    """Made when sqlite3 is there, not before."""
    return _Ours()


_FACTORY = 5  # its position among the arguments of connect()


def _connect(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        try:
            ours = _ours()
            given = len(args) > _FACTORY or "factory" in kwargs
            wanted = argument(_FACTORY, "factory", args, kwargs) if given else None
            factory = measured(wanted if given else ours.driver_connection, ours.connection)
            args, kwargs = swap(_FACTORY, "factory", args, kwargs, factory)
        except Exception as error:
            signals.failed("sqlite3 hook", error)
        return original(*args, **kwargs)

    return connect


class Sqlite3Hook(Hook):
    library = "sqlite3"
    system = _SYSTEM
    tested = "Python 3.10 to 3.13"
    # Both through the package: `sqlite3.dbapi2` is imported on the way to it, and what
    # `sqlite3` copies from there must be the original.
    patches = (
        Patch("sqlite3", "connect", _connect),
        Patch("sqlite3", "dbapi2.connect", _connect),
    )
