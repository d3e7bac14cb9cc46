"""What the hooks of DB-API drivers share.

A driver's connections and cursors become real subclasses of the classes the application asked
for, so C types, `isinstance` and the driver's own registries keep working. In the method
resolution order our methods stand just before the driver's class: an application's cursor that
calls `super().execute()` reaches us, and what we measure is the driver.

The driver's call happens exactly once whatever happens to us; its result and its exception are
handed on as they are.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from pbmon import runtime, signals
from pbmon.runtime import Database, QueryRecord

Base: Any = object
"""Base of method classes; the driver's class takes its place in built()."""

StatusCode = Callable[[BaseException], "str | None"]

Known = tuple[Database, "str | None", "int | None"]
"""What is known of a statement before it runs: where, its text, the size of the batch."""

keep = object.__setattr__
"""Put an attribute of ours on a connection or cursor, also where the application's class takes
only its own."""

_BUILT = "_pbmon_measured"
# The driver's own classes take no attributes; there are few and they live for ever.
_built_of_drivers: dict[tuple[type, type], type] = {}


def built(methods: type, driver: type) -> type:
    """The driver's class with our methods before it, as a base for measured()."""
    return type(driver.__name__, (methods, driver), {"__doc__": driver.__doc__})


def measured(cls: Any, ours: type) -> Any:
    """The subclass of `cls` in which `ours` stands just before the driver's class.

    Made once per class and kept on it, so that both are freed together. What is not such a
    class, or can't have a subclass, is returned as it is.
    """
    driver = ours.__bases__[-1]
    if not isinstance(cls, type) or not issubclass(cls, driver) or issubclass(cls, ours):
        return cls
    found = _built_of_drivers.get((cls, ours)) or vars(cls).get(_BUILT, {}).get(ours)
    if found is not None:
        return found
    bases = (ours,) if cls is driver else (cls, ours)
    namespace = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    try:
        metaclass: Any = type(cls)
        found = metaclass(cls.__name__, bases, namespace)
    except Exception as error:
        signals.tell(f"class:{cls.__qualname__}", "pbmon: %s.%s can't be measured: %s",
                     cls.__module__, cls.__qualname__, type(error).__name__)  # fmt: skip
        return cls
    try:
        setattr(cls, _BUILT, {**vars(cls).get(_BUILT, {}), ours: found})
    except TypeError:
        _built_of_drivers[cls, ours] = found
    return found


def swap(
    position: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the one at `position`, or called `name`, replaced."""
    if len(args) > position:
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, name: value}


def argument(position: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def size(items: Any) -> int | None:
    """How many statements a batch makes, where that can be known without consuming it."""
    try:
        count = len(items)
    except Exception:
        return None  # an iterator
    return count if count > 1 else None


# --- one statement -----------------------------------------------------------------------------


def begin(known: Callable[..., Known], *given: Any) -> QueryRecord | None:
    """Ask the sink about known(*given), which may fail; None means that nobody wants to know."""
    try:
        if _abandoned:
            end_abandoned()
        database, statement, batch_size = known(*given)
        return runtime.active.queries.query(database, statement, batch_size=batch_size)
    except Exception as error:
        signals.failed("query hook", error)
        return None


def finish(
    record: QueryRecord,
    *,
    returned: int | None = None,
    affected: int | None = None,
    error: BaseException | None = None,
    status_code: StatusCode | None = None,
) -> None:
    """Tell the record that the statement is over."""
    try:
        code = status_code(error) if error is not None and status_code is not None else None
        record.finish(returned=returned, affected=affected, error=error, status_code=code)
    except Exception as fault:
        signals.failed("query hook", fault)


def observe(
    record: QueryRecord | None,
    call: Callable[..., Any],
    args: Iterable[Any],
    kwargs: dict[str, Any],
    status_code: StatusCode,
    after: Callable[[QueryRecord, Any], None],
) -> Any:
    """The driver's call. A failure ends the record; after(record, result) follows a success."""
    if record is None:
        return call(*args, **kwargs)
    try:
        result = call(*args, **kwargs)
    except BaseException as error:
        finish(record, error=error, status_code=status_code)
        raise
    try:
        after(record, result)
    except Exception as fault:
        finish(record)
        signals.failed("query hook", fault)
    return result


# --- rows that come later ------------------------------------------------------------------------


class Rows:
    """A statement whose rows are fetched later. Its clock stands while the driver is idle.

    It ends when the rows are exhausted, at the cursor's next statement, when the cursor is
    closed, or when nobody can fetch from it any more.
    """

    __slots__ = ("_record", "_status_code", "returned")

    def __init__(self, record: QueryRecord, status_code: StatusCode) -> None:
        self._record: QueryRecord | None = record
        self._status_code = status_code
        self.returned = 0
        _watch_collector()
        self.pause()

    def pause(self) -> None:
        try:
            if self._record is not None:
                self._record.pause()
        except Exception as fault:
            signals.failed("query hook", fault)

    def resume(self) -> None:
        try:
            if self._record is not None:
                self._record.resume()
        except Exception as fault:
            signals.failed("query hook", fault)

    def end(self, *, affected: int | None = None, error: BaseException | None = None) -> None:
        record, self._record = self._record, None
        if record is not None:
            finish(record, returned=self.returned, affected=affected, error=error,
                   status_code=self._status_code)  # fmt: skip

    def __del__(self) -> None:
        if self._record is None:
            return
        if _collecting:
            # The collector runs anywhere, also where this thread holds a lock that ending the
            # record needs: left to the next statement.
            _abandoned.append((self._record, self.returned))
        else:
            self.end()


_abandoned: deque[tuple[QueryRecord, int]] = deque()
_collecting = False


def _collector(phase: str, _info: dict[str, int]) -> None:
    global _collecting
    _collecting = phase == "start"


def _watch_collector() -> None:
    if _collector not in gc.callbacks:
        gc.callbacks.append(_collector)


def end_abandoned() -> None:
    """End the records whose cursors the collector freed. For the next statement, in any thread,
    and for whoever is about to send what was recorded."""
    while True:
        try:
            record, returned = _abandoned.popleft()
        except IndexError:
            return
        finish(record, returned=returned)


class FetchMethods(Base):
    """The methods of a cursor that fetches while the application reads."""

    _pbmon_rows: Rows | None = None

    def fetchone(self, *args: Any, **kwargs: Any) -> Any:
        return _fetch(self, super().fetchone, args, kwargs, _one)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return _fetch(self, super().fetchmany, args, kwargs, _many)

    def fetchall(self, *args: Any, **kwargs: Any) -> Any:
        return _fetch(self, super().fetchall, args, kwargs, _all)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        rows = self._pbmon_rows
        if rows is None:
            return super().__next__()
        rows.resume()
        try:
            row = super().__next__()
        except StopIteration:
            end_rows(self, exhausted=True)
            raise
        except BaseException as error:
            end_rows(self, error=error)
            raise
        rows.pause()
        rows.returned += 1
        return row

    def close(self) -> Any:
        rows = self._pbmon_rows
        if rows is None:
            return super().close()
        rows.resume()
        try:
            return super().close()
        finally:
            end_rows(self)


def end_rows(cursor: Any, *, exhausted: bool = False, error: BaseException | None = None) -> None:
    """End the statement that `cursor` is fetching from, if there is one."""
    try:
        rows = cursor._pbmon_rows  # noqa: SLF001 - ours
        if rows is not None:
            keep(cursor, "_pbmon_rows", None)
            # A write that returns rows (RETURNING) knows its count at the end only.
            count = cursor.rowcount if exhausted and type(rows) is WrittenRows else -1
            rows.end(affected=count if count >= 0 else None, error=error)
    except Exception as fault:
        signals.failed("query hook", fault)


class WrittenRows(Rows):
    """Rows that a write gives back."""

    __slots__ = ()


def _fetch(
    cursor: Any,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    count: Callable[[Any, Any, Any], tuple[int, bool]],
) -> Any:
    rows: Rows | None = cursor._pbmon_rows  # noqa: SLF001 - ours
    if rows is None:
        return call(*args, **kwargs)
    rows.resume()
    try:
        result = call(*args, **kwargs)
    except BaseException as error:
        end_rows(cursor, error=error)
        raise
    rows.pause()
    try:
        got, done = count(result, cursor, argument(0, "size", args, kwargs))
        rows.returned += got
        if done:
            end_rows(cursor, exhausted=True)
    except Exception as fault:
        signals.failed("query hook", fault)
    return result


# Each: (rows got, whether there are no more) from a fetch's result.


def _one(result: Any, _cursor: Any, _wanted: Any) -> tuple[int, bool]:
    return (0, True) if result is None else (1, False)


def _many(result: Any, cursor: Any, wanted: Any) -> tuple[int, bool]:
    return len(result), len(result) < (wanted if wanted is not None else cursor.arraysize)


def _all(result: Any, _cursor: Any, _wanted: Any) -> tuple[int, bool]:
    return len(result), True
