"""psycopg2: one record per statement, by subclasses of the connection and cursor classes.

Patched is `psycopg2._connect`, which every `psycopg2.connect` calls however early it was bound.
Asynchronous connections (`async_=True`) are left alone: their calls return before the server
has answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from pbmon import runtime, signals
from pbmon.hooks import dbapi
from pbmon.hooks.dbapi import (
    Base,
    Known,
    Rows,
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

_SYSTEM = "postgresql"
_CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")
_COPY_OUT = re.compile(r"\bTO\s+STDOUT\b", re.IGNORECASE)


def _status_code(error: BaseException) -> str | None:
    code = getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def _text(query: Any, cursor: Any) -> str | None:
    """The statement as text: it may be bytes, or composed with psycopg2.sql."""
    if isinstance(query, str):
        return query
    try:
        if isinstance(query, bytes):
            return query.decode("utf-8", "surrogateescape")
        return str(query.as_string(cursor))
    except Exception:
        return None  # the driver will say what is wrong with it


def _database(cursor: Any) -> Database:
    """What the cursor is connected to; asked of libpq once per connection."""
    found: Database | None = cursor._pbmon_database  # noqa: SLF001 - ours
    if found is not None:
        return found
    connection = cursor.connection
    found = getattr(connection, "_pbmon_database", None)
    if found is None:
        try:
            info = connection.info
            found = Database(_SYSTEM, info.dbname or None, info.host or None, info.port)
            keep(connection, "_pbmon_database", found)
        except Exception:  # closed
            found = Database(_SYSTEM)
    keep(cursor, "_pbmon_database", found)
    return found


# Each: what is known of a statement from the arguments of the driver's method.


def _known(cursor: Any, query: Any) -> Known:
    return _database(cursor), _text(query, cursor), None


def _known_of_many(cursor: Any, query: Any, items: Any) -> Known:
    return _database(cursor), _text(query, cursor), dbapi.size(items)


def _known_of_call(cursor: Any, name: Any, parameters: Any) -> Known:
    places = ", ".join(["%s"] * _length(parameters))
    text = f"SELECT * FROM {name}({places})"  # noqa: S608 - for the record, not to be run
    return _database(cursor), text, None


def _known_of_copy(cursor: Any, table: Any, where: str) -> Known:
    quoted = '"' + str(table).replace('"', '""') + '"'  # as the driver does
    return _database(cursor), f"COPY {quoted} {where}", None


def _length(items: Any) -> int:
    try:
        return len(items or ())
    except Exception:
        return 0  # the driver will say what is wrong with it


def _by_upstream() -> bool:
    """Whether upstream's instrumentor makes the spans and ours only adds to them."""
    state = runtime.active.hooks.get(Psycopg2Hook.library)
    return state is not None and state.mode == "upstream"


class _Batch:
    """execute_values or execute_batch under way on a cursor: its pages are one statement."""

    def __init__(self, *, counted: bool) -> None:
        self._counted = counted
        self.affected: int | None = None

    def count(self, cursor: Any) -> None:
        changed = cursor.rowcount >= 0 and (cursor.statusmessage or "").startswith(_CHANGES)
        if self._counted and changed:
            self.affected = (self.affected or 0) + cursor.rowcount


class CursorMethods(Base):
    """A cursor on the client's side: all rows are here when a statement returns."""

    _pbmon_database: Database | None = None
    _pbmon_batch: _Batch | None = None

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if self._pbmon_batch is not None:
            result = super().execute(*args, **kwargs)
            with signals.guard("psycopg2 hook"):
                self._pbmon_batch.count(self)
            return result
        record = begin(_known, self, argument(0, "query", args, kwargs))
        return observe(record, super().execute, args, kwargs, _status_code, self._pbmon_settle)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        query, items = argument(0, "query", args, kwargs), argument(1, "vars_list", args, kwargs)
        record = begin(_known_of_many, self, query, items)
        return observe(record, super().executemany, args, kwargs, _status_code, self._pbmon_settle)

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        name = argument(0, "procname", args, kwargs)
        record = begin(_known_of_call, self, name, argument(1, "parameters", args, kwargs))
        return observe(record, super().callproc, args, kwargs, _status_code, self._pbmon_settle)

    def copy_from(self, *args: Any, **kwargs: Any) -> Any:
        table = argument(1, "table", args, kwargs)
        record = begin(_known_of_copy, self, table, "FROM STDIN")
        return observe(record, super().copy_from, args, kwargs, _status_code, self._pbmon_copied_in)

    def copy_to(self, *args: Any, **kwargs: Any) -> Any:
        table = argument(1, "table", args, kwargs)
        record = begin(_known_of_copy, self, table, "TO STDOUT")
        return observe(record, super().copy_to, args, kwargs, _status_code, self._pbmon_copied_out)

    def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
        query = argument(0, "sql", args, kwargs)

        def after(record: QueryRecord, result: Any) -> None:
            out = _COPY_OUT.search(_text(query, self) or "") is not None
            (self._pbmon_copied_out if out else self._pbmon_copied_in)(record, result)

        record = begin(_known, self, query)
        return observe(record, super().copy_expert, args, kwargs, _status_code, after)

    def _pbmon_settle(self, record: QueryRecord, result: Any) -> None:
        count = self.rowcount
        if count < 0:
            finish(record)
            return
        changed = (self.statusmessage or "").startswith(_CHANGES)
        finish(
            record,
            returned=count if self.description is not None else None,
            affected=count if changed else None,
        )

    def _pbmon_copied_in(self, record: QueryRecord, result: Any) -> None:
        finish(record, affected=self.rowcount if self.rowcount >= 0 else None)

    def _pbmon_copied_out(self, record: QueryRecord, result: Any) -> None:
        finish(record, returned=self.rowcount if self.rowcount >= 0 else None)


class NamedCursorMethods(dbapi.FetchMethods, CursorMethods):
    """A cursor on the server's side: each fetch goes to the server."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        end_rows(self)
        return super().execute(*args, **kwargs)

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        rows = self._pbmon_rows
        if rows is None:
            return super().scroll(*args, **kwargs)
        rows.resume()
        try:
            return super().scroll(*args, **kwargs)
        finally:
            rows.pause()

    def _pbmon_settle(self, record: QueryRecord, result: Any) -> None:
        if _by_upstream():  # its span ends with the call
            finish(record)
        else:
            keep(self, "_pbmon_rows", Rows(record, _status_code))


class ConnectionMethods(Base):
    _pbmon_database: Database | None = None

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if not self.async_:
                args, kwargs = _measured_cursor(self, args, kwargs)
        except Exception as error:
            signals.failed("psycopg2 hook", error)
        return super().cursor(*args, **kwargs)


def _measured_cursor(
    connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ours = _ours()
    wanted = argument(1, "cursor_factory", args, kwargs) or connection.cursor_factory
    named = argument(0, "name", args, kwargs) is not None
    factory = measured(wanted or ours.driver_cursor, ours.named if named else ours.cursor)
    return swap(1, "cursor_factory", args, kwargs, factory)


class _Ours:
    """Our classes over the driver's."""

    def __init__(self) -> None:
        from psycopg2 import extensions

        self.driver_connection = extensions.connection
        self.driver_cursor = extensions.cursor
        self.connection = dbapi.built(ConnectionMethods, extensions.connection)
        self.cursor = dbapi.built(CursorMethods, extensions.cursor)
        self.named = dbapi.built(NamedCursorMethods, extensions.cursor)


@cache
def _ours() -> _Ours:
    """Made when psycopg2 is there, not before."""
    return _Ours()


def _connect(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def connect(*args: Any, **kwargs: Any) -> Any:
        try:
            asynchronous = kwargs.get("async") or argument(2, "async_", args, kwargs)
            if not asynchronous:
                wanted = argument(1, "connection_factory", args, kwargs)
                ours = _ours()
                factory = measured(wanted or ours.driver_connection, ours.connection)
                args, kwargs = swap(1, "connection_factory", args, kwargs, factory)
        except Exception as error:
            signals.failed("psycopg2 hook", error)
        return original(*args, **kwargs)

    return connect


def _execute_values(original: Callable[..., Any]) -> Callable[..., Any]:
    return _batched(original, counted=True)


def _execute_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    # A page is many statements in one text; the driver knows the row count of the last only.
    return _batched(original, counted=False)


def _batched(original: Callable[..., Any], *, counted: bool) -> Callable[..., Any]:
    @wraps(original)
    def execute(cur: Any, sql: Any, argslist: Any, *args: Any, **kwargs: Any) -> Any:
        batch = _Batch(counted=counted)
        record = _begin_batch(batch, cur, sql, argslist)
        if record is None:
            return original(cur, sql, argslist, *args, **kwargs)

        def after(record: QueryRecord, result: Any) -> None:
            rows = len(result) if isinstance(result, list) else None
            finish(record, returned=rows, affected=batch.affected)

        given = (cur, sql, argslist, *args)
        try:
            return observe(record, original, given, kwargs, _status_code, after)
        finally:
            keep(cur, "_pbmon_batch", None)

    return execute


def _begin_batch(batch: _Batch, cursor: Any, sql: Any, argslist: Any) -> QueryRecord | None:
    """None where each page is to be a statement of its own, or nothing is wanted."""
    try:
        if not isinstance(cursor, CursorMethods) or cursor._pbmon_batch or _by_upstream():  # noqa: SLF001 - ours
            return None
        record = begin(_known_of_many, cursor, sql, argslist)
        if record is not None:
            keep(cursor, "_pbmon_batch", batch)
    except Exception as error:
        signals.failed("psycopg2 hook", error)
        return None
    return record


class Psycopg2Hook(Hook):
    library = "psycopg2"
    system = _SYSTEM
    tested = "2.9"
    upstream = "opentelemetry.instrumentation.psycopg2:Psycopg2Instrumentor"
    patches = (
        Patch("psycopg2", "_connect", _connect),
        Patch("psycopg2.extras", "execute_values", _execute_values),
        Patch("psycopg2.extras", "execute_batch", _execute_batch),
    )
