"""psycopg2 against a real server: the contract, and each case of the facts about it."""

from __future__ import annotations

import gc
import io
import select
import uuid
import weakref
from functools import partial
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from psycopg2 import connect as early_connect
from psycopg2 import sql
from psycopg2.extras import execute_values as early_execute_values

from pbmon import runtime, signals
from pbmon.hooks.psycopg2 import Psycopg2Hook
from pbmon.settings import Settings
from pbmon.telemetry import statements
from tests.hooks.contract import (
    SECRET,
    DriverContract,
    Recorded,
    active,
    recording_sink,  # noqa: F401 - a fixture
)

FIVE = "SELECT generate_series(1, 5)"


@pytest.fixture
def opened():
    """Connections that are closed after the test."""
    connections = []
    yield connections
    for connection in connections:
        connection.close()


@pytest.fixture
def connect(stack_postgres, opened):
    def connect(*, by=None, **options):
        opened.append((by or psycopg2.connect)(stack_postgres.url, **options))
        return opened[-1]

    return connect


@pytest.fixture
def hooked(sink):
    yield from active(Psycopg2Hook())


@pytest.fixture
def connection(hooked, connect):
    return connect()


@pytest.fixture
def cursor(connection, sink):
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE t (id integer PRIMARY KEY, name text)")
    sink.records.clear()
    return cursor


class TestContract(DriverContract):
    hook = Psycopg2Hook
    system = "postgresql"
    namespace = "postgres"
    place = "%s"
    duplicate = "23505"

    @pytest.fixture
    def connect(self, connect):
        def autocommit():
            connection = connect()
            connection.autocommit = True
            return connection

        return autocommit


# --- connections and their classes ----------------------------------------------------------


def test_the_server_is_named(connection, sink, stack_postgres):
    url = urlsplit(stack_postgres.url)
    connection.cursor().execute("SELECT 1")
    database = sink.records[0].database
    assert (database.address, database.port) == (url.hostname, url.port)


def test_connect_bound_before_the_hook_is_measured(hooked, connect, sink):
    connect(by=early_connect).cursor().execute("SELECT 1")
    assert sink.taken() == [("SELECT 1", {"returned": 1})]


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("Dict", {"a": 1}),
        ("RealDict", {"a": 1}),
        ("NamedTuple", (1,)),
    ],
)
@pytest.mark.parametrize("way", ["connection_factory", "cursor_factory", "cursor", "attribute"])
@pytest.mark.parametrize("name", [None, "named"])
def test_factories_are_kept_and_measured(hooked, connect, sink, kind, row, way, name):
    connection_class = getattr(psycopg2.extras, f"{kind}Connection")
    cursor_class = getattr(psycopg2.extras, f"{kind}Cursor")
    options = {"connection_factory": connection_class, "cursor_factory": cursor_class}
    connection = connect(**{way: options[way]} if way in options else {})
    if way == "attribute":
        connection.cursor_factory = cursor_class
    cursor = connection.cursor(name, **{"cursor_factory": cursor_class} if way == "cursor" else {})
    assert isinstance(cursor, cursor_class)
    assert type(cursor).__name__ == cursor_class.__name__
    cursor.execute("SELECT 1 AS a")
    first = cursor.fetchone()
    assert cursor.fetchone() is None
    assert (dict(first) if isinstance(row, dict) else first) == row
    assert sink.taken() == [("SELECT 1 AS a", {"returned": 1})]
    if way == "cursor_factory":
        assert connection.cursor_factory is cursor_class


def test_the_positional_cursor_factory_is_measured(connection, sink):
    cursor = connection.cursor(None, psycopg2.extras.DictCursor)
    cursor.execute("SELECT 1 AS a")
    assert cursor.fetchone()["a"] == 1
    assert len(sink.records) == 1


def test_a_measured_class_is_made_once(connection):
    one, other = (connection.cursor(cursor_factory=psycopg2.extras.DictCursor) for _ in "ab")
    assert type(one) is type(other)
    assert type(one).__mro__[1] is psycopg2.extras.DictCursor


def test_an_own_cursor_sees_its_execute(connection, sink):
    class Own(psycopg2.extensions.cursor):
        __slots__ = ("calls",)

        def execute(self, query, vars=None):
            self.calls = [query]
            return super().execute(query + " + 1", vars)

    cursor = connection.cursor(cursor_factory=Own)
    cursor.execute("SELECT 1")
    assert cursor.calls == ["SELECT 1"]
    assert cursor.fetchone() == (2,)
    assert sink.taken() == [("SELECT 1 + 1", {"returned": 1})]


class Strict:
    """Takes no attributes but its own."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


def test_classes_that_take_no_attributes_work_and_are_measured(hooked, connect, sink):
    class Connection(Strict, psycopg2.extensions.connection):
        pass

    class Cursor(Strict, psycopg2.extensions.cursor):
        pass

    connection = connect(connection_factory=Connection)
    cursor = connection.cursor(cursor_factory=Cursor)
    cursor.execute("CREATE TEMPORARY TABLE s (id integer)")
    insert = "INSERT INTO s VALUES %s"
    psycopg2.extras.execute_values(cursor, insert, [(1,), (2,), (3,)], page_size=2)
    named = connection.cursor("named", cursor_factory=Cursor)
    named.execute(FIVE)
    assert len(named.fetchall()) == 5
    named.close()
    assert {record.database.namespace for record in sink.records} == {"postgres"}
    assert [end for _, end in sink.taken()] == [{}, {"affected": 3}, {"returned": 5}]


def test_a_procedure_without_a_readable_name_fails_as_without_us(cursor, sink, monkeypatch):
    class Unreadable:
        def __str__(self):
            raise ValueError

    monkeypatch.setattr(signals, "reraise", False)
    for call in (cursor.callproc, partial(cursor.copy_from, io.StringIO())):
        with pytest.raises(TypeError):
            call(Unreadable())


def test_a_factory_that_is_no_class_is_left_as_it_is(connection, sink):
    cursor = connection.cursor(cursor_factory=partial(psycopg2.extensions.cursor))
    cursor.execute("SELECT 1")
    assert sink.records == []
    with pytest.raises(TypeError):
        connection.cursor(cursor_factory=lambda c, name: 5)


def test_asynchronous_connections_work_and_are_left_alone(hooked, connect, sink):
    connection = connect(async_=1)
    _wait(connection)
    cursor = connection.cursor()
    assert type(connection) is psycopg2.extensions.connection
    cursor.execute("SELECT 1")
    _wait(connection)
    assert cursor.fetchone() == (1,)
    assert sink.records == []


def test_a_class_that_makes_itself_asynchronous_is_left_alone(hooked, connect, sink):
    class Asynchronous(psycopg2.extensions.connection):
        def __init__(self, dsn, **kwargs):
            super().__init__(dsn, async_=1)

    connection = connect(connection_factory=Asynchronous)
    _wait(connection)
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    _wait(connection)
    assert cursor.fetchone() == (1,)
    assert sink.records == []


def _wait(connection):
    for _ in range(1000):
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        reading = [connection] if state == psycopg2.extensions.POLL_READ else []
        writing = [connection] if state == psycopg2.extensions.POLL_WRITE else []
        assert any(select.select(reading, writing, [], 10))
    raise AssertionError("not ready")


def test_pools_and_registrations_work(hooked, stack_postgres, sink):
    pool = psycopg2.pool.ThreadedConnectionPool(1, 2, stack_postgres.url)
    connection = pool.getconn()
    psycopg2.extras.register_uuid(conn_or_curs=connection)
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODEARRAY, connection)
    cursor = connection.cursor()
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, cursor)
    value = uuid.UUID(int=5)
    cursor.execute("SELECT %s::uuid", (value,))
    assert cursor.fetchone() == (value,)
    cursor.execute("CREATE TYPE pg_temp.pair AS (a integer, b text)")
    psycopg2.extras.register_composite("pg_temp.pair", connection)
    cursor.execute("SELECT (1, 'x')::pg_temp.pair")
    assert cursor.fetchone()[0].b == "x"
    assert psycopg2.extensions.quote_ident('a"b', cursor) == '"a""b"'
    assert psycopg2.extensions.quote_ident('a"b', connection) == '"a""b"'
    pool.putconn(connection)
    assert pool.getconn() is connection
    pool.closeall()


def test_a_closed_connection_fails_as_without_us(connection, sink):
    cursor = connection.cursor()
    connection.close()
    with pytest.raises(psycopg2.InterfaceError, match="already closed"):
        cursor.execute("SELECT 1")
    assert sink.records[0].database.system == "postgresql"


# --- statements --------------------------------------------------------------------------------


def test_composed_statements_are_text(cursor, sink):
    cursor.execute(
        sql.SQL("SELECT {} FROM t WHERE name = {}").format(
            sql.Identifier("id"), sql.Literal(SECRET)
        )
    )
    told = statements.describe(sink.records[0].statement, "postgresql")
    assert told.text == 'SELECT "id" FROM t WHERE name = ?'
    cursor.execute(sql.SQL("SELECT 1"))
    assert sink.records[1].statement == "SELECT 1"


def test_bytes_are_text(cursor, sink):
    cursor.execute(b"SELECT 'a'")
    assert sink.taken() == [("SELECT 'a'", {"returned": 1})]


def test_bytes_that_are_no_utf8_are_told_by_their_head(connection, sink):
    connection.set_client_encoding("LATIN1")
    cursor = connection.cursor()
    cursor.execute(b"SELECT 'M\xfcller'")
    assert cursor.fetchone() == ("Müller",)
    told = statements.describe(sink.records[-1].statement, "postgresql")
    assert told.summary == "SELECT"
    assert "ller" not in (told.text or "")


def test_callproc_is_measured(cursor, sink):
    cursor.callproc("generate_series", (1, 3))
    assert cursor.fetchall() == [(1,), (2,), (3,)]
    assert sink.taken() == [("SELECT * FROM generate_series(%s, %s)", {"returned": 3})]


def test_copies_are_measured(cursor, sink):
    cursor.copy_from(io.StringIO("1\ta\n2\tb\n"), "t", columns=("id", "name"))
    out = io.StringIO()
    cursor.copy_to(out, "t")
    cursor.copy_expert("COPY t TO STDOUT WITH CSV", out)
    cursor.copy_expert("COPY t FROM STDIN WITH CSV", io.StringIO("3,c\n"))
    assert out.getvalue() == "1\ta\n2\tb\n1,a\n2,b\n"
    assert sink.taken() == [
        ('COPY "t" FROM STDIN', {"affected": 2}),
        ('COPY "t" TO STDOUT', {"returned": 2}),
        ("COPY t TO STDOUT WITH CSV", {"returned": 2}),
        ("COPY t FROM STDIN WITH CSV", {"affected": 1}),
    ]


def test_a_copy_that_fails_says_so(cursor, sink):
    with pytest.raises(psycopg2.errors.BadCopyFileFormat):
        cursor.copy_from(io.StringIO("1\ta\tb\n"), "t")
    assert sink.taken()[0][1]["status_code"] == "22P04"


def test_execute_values_is_one_statement(cursor, sink):
    rows = [(i, f"{SECRET}{i}") for i in range(250)]
    psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s", rows)
    assert sink.records[0].batch_size == 250
    assert sink.taken() == [("INSERT INTO t VALUES %s", {"affected": 250})]
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchone() == (250,)


def test_execute_values_gives_its_rows_back(cursor, sink):
    back = psycopg2.extras.execute_values(
        cursor, "INSERT INTO t VALUES %s RETURNING id", iter([(1, "a"), (2, "b")]), fetch=True
    )
    assert back == [(1,), (2,)]
    assert sink.taken() == [
        ("INSERT INTO t VALUES %s RETURNING id", {"returned": 2, "affected": 2})
    ]


def test_execute_batch_is_one_statement(cursor, sink):
    rows = [(i, SECRET) for i in range(250)]
    psycopg2.extras.execute_batch(cursor, "INSERT INTO t VALUES (%s, %s)", rows)
    assert sink.records[0].batch_size == 250
    assert sink.taken() == [("INSERT INTO t VALUES (%s, %s)", {})]


def test_a_failing_batch_frees_the_cursor(cursor, connection, sink):
    with pytest.raises(psycopg2.errors.UniqueViolation):
        psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s", [(1, "a"), (1, "b")])
    connection.rollback()
    cursor.execute("SELECT 1")
    assert [end.get("status_code") for _, end in sink.taken()] == ["23505", None]


def test_execute_values_bound_before_the_hook_tells_no_value(cursor, sink):
    early_execute_values(cursor, "INSERT INTO t VALUES %s", [(i, f"{SECRET}{i}") for i in range(3)])
    told = statements.describe(sink.records[0].statement, "postgresql")
    assert told.text == "INSERT INTO t VALUES (?,?)"
    assert len(sink.records) == 1


# --- cursors on the server ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "returned"),
    [
        (lambda c: [c.fetchone() for _ in range(6)], 5),
        (lambda c: [c.fetchmany(4), c.fetchmany(4)], 5),
        (lambda c: c.fetchall(), 5),
        (list, 5),
        (lambda c: [next(iter(c)), c.close()], 1),
        (lambda c: [c.fetchone(), c.scroll(1), c.fetchall()], 4),
    ],
)
def test_a_named_cursor_is_one_record_with_its_fetches(connection, sink, read, returned):
    cursor = connection.cursor("named")
    cursor.itersize = 2
    cursor.execute(FIVE)
    record = sink.records[0]
    assert (record.outcome, record.running) == (None, False)
    read(cursor)
    assert record.stretches > 1
    assert sink.taken() == [(FIVE, {"returned": returned})]


def test_scrolling_is_time_in_the_driver(connection, sink):
    cursor = connection.cursor("named", scrollable=True)
    cursor.execute(FIVE)
    before = sink.records[0].stretches
    cursor.scroll(3)
    assert (sink.records[0].stretches, sink.records[0].running) == (before + 1, False)


def test_a_named_cursor_closed_by_its_block_ends(connection, sink):
    with connection.cursor("named") as cursor:
        cursor.execute(FIVE)
        assert next(cursor) == (1,)
    assert sink.taken() == [(FIVE, {"returned": 1})]


def test_a_fetch_that_fails_is_an_error_of_the_statement(connection, sink):
    cursor = connection.cursor("named")
    cursor.execute("SELECT 1 / (3 - x) FROM generate_series(1, 5) AS x")
    assert [cursor.fetchone(), cursor.fetchone()] == [(0,), (1,)]
    with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
        cursor.fetchone()
    assert sink.taken()[0][1] == {"returned": 2, "error": caught.value, "status_code": "22012"}


def test_a_dropped_named_cursor_ends(connection, sink):
    cursor = connection.cursor("named")
    cursor.execute(FIVE)
    cursor.fetchmany(2)
    del cursor
    assert sink.taken() == [(FIVE, {"returned": 2})]


# --- mode upstream ----------------------------------------------------------------------------


@pytest.fixture
def finished_within(sink, monkeypatch):
    """Run with upstream's instrumentor outside; gives the span each record was finished in."""
    provider = TracerProvider()
    monkeypatch.setattr("opentelemetry.instrumentation.dbapi.get_tracer",
                        lambda *a, **k: provider.get_tracer("upstream"))  # fmt: skip
    monkeypatch.setattr(runtime.active, "settings", Settings(hooks={"psycopg2": "upstream"}))
    spans = []

    def finish(record, **outcome):
        span = trace.get_current_span()
        assert span.is_recording()
        spans.append(span)
        record.outcome = outcome

    monkeypatch.setattr(Recorded, "finish", finish)
    for _ in active(Psycopg2Hook()):
        yield spans


@pytest.mark.parametrize("name", [None, "named"])
@pytest.mark.parametrize("options", [{}, {"cursor_factory": psycopg2.extras.DictCursor}])
def test_upstreams_span_is_current_when_a_record_ends(
    finished_within, connect, sink, options, name
):
    cursor = connect(**options).cursor(name)
    cursor.execute("SELECT 1 AS a")
    assert [span.name for span in finished_within] == ["SELECT"]
    assert cursor.fetchone()[0] == 1
    assert len(sink.records) == 1


def test_upstreams_pages_stay_one_record_each(finished_within, connect, sink):
    cursor = connect().cursor()
    cursor.execute("CREATE TEMPORARY TABLE t (id integer, name text)")
    psycopg2.extras.execute_values(
        cursor, "INSERT INTO t VALUES %s", [(i, "a") for i in range(150)]
    )
    assert [end for _, end in sink.taken()] == [{}, {"affected": 100}, {"affected": 50}]
    assert len({span.context.span_id for span in finished_within}) == 3


def test_upstreams_class_of_a_connection_is_freed_with_it(finished_within, connect, opened):
    connection = connect()
    freed = weakref.ref(type(connection.cursor()))
    opened.clear()
    connection.close()
    del connection
    gc.collect()
    assert freed() is None
