"""What the hook of every database driver promises. A driver's test class inherits it.

The subclass gives the hook and a `connect` fixture, and says how the driver writes things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from pbmon import runtime, signals
from pbmon.hooks.patches import Hook, Patch
from pbmon.runtime import Database
from pbmon.telemetry import statements

SECRET = "s3cr3t-Müller"


@dataclass
class Recorded:
    """One statement as the sink saw it. running: whether its clock runs."""

    database: Database
    statement: str | None
    batch_size: int | None
    running: bool = True
    stretches: int = 1
    outcome: dict[str, Any] | None = None

    def pause(self) -> None:
        self.running = False

    def resume(self) -> None:
        self.running = True
        self.stretches += 1

    def finish(self, **outcome: Any) -> None:
        assert self.outcome is None, "ended twice"
        self.running = False
        self.outcome = outcome

    @property
    def seen(self) -> tuple[str | None, dict[str, Any] | None]:
        """(statement, what is known of its end)."""
        if self.outcome is None:
            return self.statement, None
        return self.statement, {k: v for k, v in self.outcome.items() if v is not None}


@dataclass
class Recording:
    """A QuerySink that keeps what it is told."""

    records: list[Recorded] = field(default_factory=list)

    def prepare(self, system: str) -> None: ...

    def query(
        self,
        database: Database,
        statement: str | None,
        *,
        operation: str | None = None,
        batch_size: int | None = None,
    ) -> Recorded | None:
        self.records.append(Recorded(database, statement, batch_size))
        return self.records[-1]

    def taken(self) -> list[tuple[str | None, dict[str, Any] | None]]:
        """What was recorded since the last call."""
        seen = [record.seen for record in self.records]
        self.records.clear()
        return seen


class Suppressing:
    def prepare(self, system: str) -> None: ...

    def query(self, *args: Any, **kwargs: Any) -> None:
        return None


class FailingAtOnce:
    def prepare(self, system: str) -> None: ...

    def query(self, *args: Any, **kwargs: Any) -> Recorded:
        raise RuntimeError("a fault of ours")


class FailingRecord(Recorded):
    def pause(self) -> None:
        raise RuntimeError("a fault of ours")

    resume = pause

    def finish(self, **outcome: Any) -> None:
        raise RuntimeError("a fault of ours")


class FailingLater(Recording):
    def query(self, database: Database, statement: str | None, **kwargs: Any) -> Recorded:
        return FailingRecord(database, statement, None)


@pytest.fixture(name="sink")
def recording_sink(monkeypatch: pytest.MonkeyPatch) -> Recording:
    recording = Recording()
    monkeypatch.setattr(runtime.active, "queries", recording)
    return recording


def active(hook: Hook) -> Iterator[None]:
    """Put the hook in for a test; the body of a fixture."""
    hook.instrument(skip_dep_check=True)
    try:
        yield
    finally:
        hook.uninstrument()


def owner_and_name(patch: Patch) -> tuple[Any, str]:
    """Where a patch goes."""
    owner: Any = __import__(patch.module, fromlist=["_"])
    *path, name = patch.attribute.split(".")
    for step in path:
        owner = getattr(owner, step)
    return owner, name


def current(hook: Hook) -> list[Any]:
    """What stands at each patch point of the hook."""
    return [getattr(*owner_and_name(patch)) for patch in hook.patches]


class DriverContract:
    hook: ClassVar[type[Hook]]
    system: ClassVar[str]
    namespace: ClassVar[str | None]
    place: ClassVar[str]
    """How a parameter is written."""
    duplicate: ClassVar[str | None]
    """Status code of a duplicate key."""

    @pytest.fixture
    def hooked(self, sink: Recording) -> Iterator[None]:
        yield from active(self.hook())

    @pytest.fixture
    def cursor(self, hooked: None, connect: Callable[[], Any], sink: Recording) -> Any:
        connection = connect()
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE accounts (id integer PRIMARY KEY, name text)")
        cursor.execute("INSERT INTO accounts VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        sink.records.clear()
        return cursor

    def test_one_record_for_each_statement(self, cursor, sink):
        cursor.execute("SELECT id FROM accounts")
        assert cursor.fetchall() == [(1,), (2,), (3,)]
        cursor.execute(f"UPDATE accounts SET name = {self.place} WHERE id > 1", (SECRET,))
        cursor.execute("DELETE FROM accounts WHERE id = 99")
        assert sink.taken() == [
            ("SELECT id FROM accounts", {"returned": 3}),
            (f"UPDATE accounts SET name = {self.place} WHERE id > 1", {"affected": 2}),
            ("DELETE FROM accounts WHERE id = 99", {"affected": 0}),
        ]

    def test_the_database_is_named(self, cursor, sink):
        cursor.execute("SELECT 1")
        database = sink.records[0].database
        assert (database.system, database.namespace) == (self.system, self.namespace)

    def test_rows_that_a_write_returns_count_as_both(self, cursor, sink):
        cursor.execute("INSERT INTO accounts VALUES (7, 'x'), (8, 'y') RETURNING id")
        assert cursor.fetchall() == [(7,), (8,)]
        assert [end for _, end in sink.taken()] == [{"returned": 2, "affected": 2}]

    def test_many_are_one_batch(self, cursor, sink):
        cursor.executemany(
            f"INSERT INTO accounts VALUES ({self.place}, {self.place})", [(10, "x"), (11, SECRET)]
        )
        assert sink.records[0].batch_size == 2
        assert [end for _, end in sink.taken()] == [{"affected": 2}]

    def test_one_of_many_is_no_batch(self, cursor, sink):
        cursor.executemany(f"DELETE FROM accounts WHERE id = {self.place}", [(1,)])
        assert sink.records[0].batch_size is None

    def test_many_from_an_iterator_consume_it_once(self, cursor, sink):
        parameters = iter([(10, "x"), (11, "y")])
        cursor.executemany(f"INSERT INTO accounts VALUES ({self.place}, {self.place})", parameters)
        cursor.execute("SELECT count(*) FROM accounts")
        assert cursor.fetchone() == (5,)

    def test_an_error_reaches_the_application_as_it_is(self, cursor, sink):
        with pytest.raises(Exception) as caught:
            cursor.execute(f"INSERT INTO accounts VALUES (1, {self.place})", (SECRET,))
        error = caught.value
        assert type(error).__module__.partition(".")[0] == self.hook.library
        assert error.__context__ is None
        assert error.__cause__ is None
        assert len(sink.records) == 1
        outcome = sink.records[0].outcome
        assert outcome["error"] is error
        assert outcome["status_code"] == self.duplicate

    @pytest.mark.parametrize("arguments", [(), (1,), (None,), ("SELECT 1", (), (), ())])
    def test_wrong_arguments_fail_as_without_us(self, connect, sink, arguments):
        with pytest.raises(Exception) as plain:
            connect().cursor().execute(*arguments)
        for _ in active(self.hook()):
            with pytest.raises(Exception) as ours:
                connect().cursor().execute(*arguments)
        assert (type(ours.value), str(ours.value)) == (type(plain.value), str(plain.value))

    def test_what_is_told_holds_no_literal(self, cursor, sink):
        cursor.execute(f"SELECT name FROM accounts WHERE name = '{SECRET}' OR id = 4711")
        told = statements.describe(sink.records[0].statement, self.system)
        assert told == statements.Statement(
            "SELECT name FROM accounts WHERE name = ? OR id = ?",
            "SELECT accounts",
            "SELECT",
            "accounts",
        )

    @pytest.mark.parametrize("blank", ["", " ", "-- nothing", "/* nothing */", "\n"])
    def test_blank_statements_behave_as_without_us(self, connect, sink, blank):
        plain = _outcome(connect().cursor(), blank)
        for _ in active(self.hook()):
            assert _outcome(connect().cursor(), blank) == plain
        assert len(sink.records) == 1

    def test_a_lone_surrogate_behaves_as_without_us(self, connect, sink):
        statement = "SELECT '\ud800'"
        plain = _outcome(connect().cursor(), statement)
        for _ in active(self.hook()):
            assert _outcome(connect().cursor(), statement) == plain
        assert sink.records[0].outcome["error"] is not None

    def test_uninstrument_restores_each_attribute(self, sink):
        hook = self.hook()
        before = current(hook)
        for _ in active(hook):
            assert all(a is not b for a, b in zip(before, current(hook), strict=True))
        assert all(a is b for a, b in zip(before, current(hook), strict=True))

    def test_instrumenting_twice_counts_once(self, hooked, connect, sink):
        patched = current(self.hook())
        self.hook().instrument(skip_dep_check=True)
        assert all(a is b for a, b in zip(patched, current(self.hook()), strict=True))
        connect().cursor().execute("SELECT 1")
        assert len(sink.records) == 1

    def test_after_uninstrument_nothing_is_recorded(self, connect, sink):
        for _ in active(self.hook()):
            pass
        connect().cursor().execute("SELECT 1")
        assert sink.records == []

    @pytest.mark.parametrize("failing", [Suppressing, FailingAtOnce, FailingLater])
    def test_statements_run_once_whatever_the_sink_does(self, cursor, monkeypatch, failing):
        monkeypatch.setattr(signals, "reraise", False)
        monkeypatch.setattr(runtime.active, "queries", failing())
        place = self.place
        cursor.execute(f"INSERT INTO accounts VALUES (4, {place})", ("d",))
        cursor.executemany(f"INSERT INTO accounts VALUES ({place}, {place})", [(5, "e"), (6, "f")])
        cursor.execute("SELECT id FROM accounts WHERE id > 3 ORDER BY id")
        assert [cursor.fetchone(), *cursor.fetchmany(1), *cursor] == [(4,), (5,), (6,)]
        with pytest.raises(Exception) as caught:
            cursor.execute("INSERT INTO accounts VALUES (1, 'again')")
        assert type(caught.value).__name__ in ("IntegrityError", "UniqueViolation")
        cursor.close()

    def test_a_fault_of_ours_is_told(self, cursor, monkeypatch, caplog):
        monkeypatch.setattr(signals, "reraise", False)
        monkeypatch.setattr(signals, "_last_told", {})
        monkeypatch.setattr(runtime.active, "queries", FailingAtOnce())
        cursor.execute("SELECT 1")
        cursor.execute("SELECT 2")
        told = [r.getMessage() for r in caplog.records if r.name == signals.INTERNAL_LOGGER]
        assert told == [
            (
                "pbmon: query hook failed with RuntimeError; the application is not affected. "
                "Please report it."
            )
        ]

    def test_the_sink_is_read_at_each_statement(self, cursor, monkeypatch):
        later = Recording()
        monkeypatch.setattr(runtime.active, "queries", later)
        cursor.execute("SELECT 1")
        assert len(later.records) == 1


def _outcome(cursor: Any, statement: str) -> tuple[str, str]:
    """What running a statement leads to."""
    try:
        cursor.execute(statement)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", str(cursor.description)
