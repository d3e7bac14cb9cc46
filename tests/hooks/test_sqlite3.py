"""sqlite3: the contract, and what is its own: lazy rows, shortcuts, factories."""

from __future__ import annotations

import gc
import sqlite3
import sys
import warnings
from functools import partial

import pytest

from pbmon import signals
from pbmon.hooks import dbapi
from pbmon.hooks.sqlite3 import Sqlite3Hook
from tests.hooks.contract import DriverContract, active, recording_sink  # noqa: F401 - a fixture

early_connect = sqlite3.connect
THREE = "SELECT 1 UNION SELECT 2 UNION SELECT 3"


class TestContract(DriverContract):
    hook = Sqlite3Hook
    system = "sqlite"
    namespace = ":memory:"
    place = "?"
    duplicate = "SQLITE_CONSTRAINT_PRIMARYKEY" if sys.version_info >= (3, 11) else None

    @pytest.fixture
    def connect(self):
        opened = []

        def connect():
            opened.append(sqlite3.connect(":memory:"))
            return opened[-1]

        yield connect
        for connection in opened:
            connection.close()


@pytest.fixture
def hooked(sink):
    yield from active(Sqlite3Hook())


@pytest.fixture
def connection(hooked):
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def test_shortcuts_of_the_connection_are_measured(connection, sink):
    connection.execute("CREATE TABLE t (a)")
    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    connection.executescript("INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)")
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (2,), (3,), (4,)]
    assert sink.taken() == [
        ("CREATE TABLE t (a)", {}),
        ("INSERT INTO t VALUES (?)", {"affected": 2}),
        ("INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)", {}),
        ("SELECT a FROM t", {"returned": 4}),
    ]


def test_a_shortcut_fails_as_without_us(connection, sink):
    with pytest.raises(sqlite3.OperationalError, match="no such table: missing"):
        connection.execute("SELECT * FROM missing")
    assert sink.taken()[0][1].get("status_code") == (
        "SQLITE_ERROR" if sys.version_info >= (3, 11) else None
    )


def test_the_record_covers_the_fetch(connection, sink):
    clocks = []
    connection.create_function("look", 1, lambda x: clocks.append(sink.records[-1].running) or x)
    cursor = connection.execute("SELECT look(column1) FROM (VALUES (1), (2), (3))")
    record = sink.records[0]
    between = []
    for _ in cursor:
        between.append(record.running)
    assert clocks == [True, True, True]
    assert between == [False, False, False]
    assert record.seen[1] == {"returned": 3}


@pytest.mark.parametrize(
    ("read", "returned"),
    [
        (lambda c: [c.fetchone() for _ in range(4)], 3),
        (lambda c: [c.fetchmany(2), c.fetchmany(2)], 3),
        (lambda c: [c.fetchmany(3), c.fetchmany(3)], 3),
        (lambda c: c.fetchall(), 3),
        (list, 3),
        (lambda c: [next(c), c.close()], 1),
        (lambda c: [next(c), c.execute("SELECT 9")], 1),
        (lambda c: [next(c), c.executemany("UPDATE t SET a = ?", [(1,)])], 1),
        (lambda c: [next(c), c.executescript("SELECT 9")], 1),
    ],
)
def test_a_record_ends_with_its_rows(connection, sink, read, returned):
    connection.execute("CREATE TABLE t (a)")
    cursor = connection.execute(THREE)
    assert sink.records[1].outcome is None
    read(cursor)
    assert sink.records[1].seen == (THREE, {"returned": returned})


def test_an_empty_result_returned_no_row(connection, sink):
    assert connection.execute("SELECT 1 WHERE 0").fetchone() is None
    assert sink.taken() == [("SELECT 1 WHERE 0", {"returned": 0})]


def test_a_dropped_cursor_ends_its_record(connection, sink):
    assert connection.execute(THREE).fetchone() == (1,)
    assert sink.taken() == [(THREE, {"returned": 1})]


def test_a_cursor_freed_by_the_collector_ends_at_the_next_statement(connection, sink):
    class Holder:
        pass

    holder = Holder()
    holder.itself, holder.cursor = holder, connection.execute(THREE)
    del holder
    gc.collect()
    # Ending a record inside the collector could wait for a lock that this thread holds.
    assert sink.records[0].outcome is None
    connection.execute("CREATE TABLE t (a)")
    assert sink.records[0].seen == (THREE, {"returned": 0})
    assert not dbapi._abandoned


def test_an_interrupted_row_is_an_error_of_the_statement(connection, sink):
    def interrupted(cursor, row):
        raise KeyboardInterrupt

    connection.row_factory = interrupted
    with pytest.raises(KeyboardInterrupt):
        next(connection.execute(THREE))
    assert isinstance(sink.records[0].outcome["error"], KeyboardInterrupt)


def test_a_failing_row_is_an_error_of_the_statement(connection, sink):
    def odd(value):
        if value == 2:
            raise ValueError("odd")
        return value

    connection.create_function("odd", 1, odd)
    cursor = connection.execute("SELECT odd(column1) FROM (VALUES (1), (2), (3))")
    with pytest.raises(sqlite3.OperationalError) as caught:
        list(cursor)
    record = sink.records[0]
    assert record.outcome["error"] is caught.value
    assert record.outcome["returned"] in (0, 1)  # CPython 3.10 steps one row ahead


def test_backup_works_to_and_from_ours(connection, hooked):
    connection.execute("CREATE TABLE t (a)")
    target = early_connect(":memory:")
    connection.backup(target)
    target.backup(connection)
    assert target.execute("SELECT name FROM sqlite_master").fetchall() == [("t",)]
    target.close()


def test_dump_and_context_manager_work(connection):
    with connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(LookupError), connection:
        connection.execute("INSERT INTO t VALUES (2)")
        raise LookupError
    assert 'INSERT INTO "t" VALUES(1);' in list(connection.iterdump())
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_row_factories_work(connection):
    connection.row_factory = sqlite3.Row
    assert connection.execute("SELECT 1 AS a").fetchone()["a"] == 1
    cursor = connection.cursor()
    cursor.row_factory = lambda cursor, row: row[0]
    assert cursor.execute("SELECT 7").fetchone() == 7


def test_classes_of_the_application_are_kept(hooked, sink):
    class Cursor(sqlite3.Cursor):
        __slots__ = ("label",)

        def execute(self, *args):
            self.label = "mine"
            return super().execute(*args)

    class Connection(sqlite3.Connection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.execute("PRAGMA user_version = 3")

        def cursor(self, factory=Cursor):
            return super().cursor(factory)

    connection = sqlite3.connect(":memory:", factory=Connection)
    cursor = connection.cursor()
    assert isinstance(connection, Connection)
    assert isinstance(cursor, Cursor)
    assert type(cursor).__qualname__ == Cursor.__qualname__
    assert cursor.execute("SELECT 1").fetchone() == (1,)
    assert cursor.label == "mine"
    assert [statement for statement, _ in sink.taken()] == ["PRAGMA user_version = 3", "SELECT 1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as a position, since Python 3.13
        other = sqlite3.connect(":memory:", 5.0, 0, None, True, Connection)
    assert type(other) is type(connection)  # made once
    connection.close()
    other.close()


class Strict:
    """Takes no attributes but its own."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


def test_classes_that_take_no_attributes_work_and_are_measured(hooked, sink):
    class Connection(Strict, sqlite3.Connection):
        pass

    class Cursor(Strict, sqlite3.Cursor):
        pass

    connection = sqlite3.connect(":memory:", factory=Connection)
    cursor = connection.cursor(Cursor)
    assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert list(cursor.execute("SELECT 2")) == [(2,)]
    cursor.execute(THREE).close()
    assert {record.database.namespace for record in sink.records} == {":memory:"}
    assert [end["returned"] for _, end in sink.taken()] == [1, 1, 0]
    connection.close()


def test_shortcuts_call_the_applications_cursor_as_without_us(hooked):
    class Counting(sqlite3.Connection):
        calls = 0

        def cursor(self, *args):
            self.calls += 1
            return super().cursor(*args)

    plain, ours = (c(":memory:", factory=Counting) for c in (early_connect, sqlite3.connect))
    for connection in (plain, ours):
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [(1,)])
        connection.executescript("SELECT 1")
        connection.close()
    assert ours.calls == plain.calls


def test_what_is_no_class_is_left_as_it_is(connection, sink):
    cursor = connection.cursor(partial(sqlite3.Cursor))
    assert cursor.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(TypeError, match="factory must return a cursor"):
        connection.cursor(lambda connection: None)
    assert sink.records == []


@pytest.mark.parametrize(
    ("database", "uri", "namespace"),
    [
        ("{}/shop.db", False, "shop.db"),
        ("file:{}/my%20shop.db?mode=rwc", True, "my shop.db"),
        ("file::memory:", True, ":memory:"),
        ("file:shared?mode=memory&cache=shared", True, ":memory:"),
        ("", False, None),
    ],
)
def test_the_namespace_is_the_files_base_name(hooked, sink, tmp_path, database, uri, namespace):
    connection = sqlite3.connect(database.format(tmp_path), uri=uri)
    connection.execute("SELECT 1")
    assert sink.records[0].database.namespace == namespace
    connection.close()


def test_paths_and_bytes_are_names_too(hooked, sink, tmp_path):
    for database in (tmp_path / "a.db", str(tmp_path / "b.db").encode()):
        connection = sqlite3.connect(database)
        connection.execute("SELECT 1").fetchone()
        connection.close()
    assert [r.database.namespace for r in sink.records] == ["a.db", "b.db"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text")
def test_a_file_name_that_is_no_text_can_be_sent(hooked, sink, tmp_path):
    connection = sqlite3.connect(bytes(tmp_path) + b"/caf\xe9.db")
    connection.execute("SELECT 1").fetchone()
    assert sink.records[0].database.namespace == "caf?.db"
    connection.close()


def test_connect_fails_as_without_us(hooked):
    with pytest.raises(TypeError) as plain:
        early_connect()
    with pytest.raises(TypeError) as ours:
        sqlite3.connect()
    assert type(ours.value) is type(plain.value)


def test_connect_of_the_inner_module_is_measured(hooked, sink):
    connection = sqlite3.dbapi2.connect(":memory:")
    connection.execute("SELECT 1")
    assert len(sink.records) == 1
    connection.close()


def test_a_fault_while_connecting_leaves_a_plain_connection(hooked, monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr("pbmon.hooks.sqlite3.measured", lambda *_: 1 / 0)
    connection = sqlite3.connect(":memory:")
    assert type(connection) is sqlite3.Connection
    connection.close()
