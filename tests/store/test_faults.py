"""Each cause is made for real where it can be, and said in words that hold no secret."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy.exc import SQLAlchemyError

from pbmon.store import access, engine, faults
from pbmon.store.engine import open_store
from tests.stack import postgres
from tests.stack.process import unused_port
from tests.store.conftest import new_database

SECRET = "hunter2"


def raised_by(do):
    with pytest.raises((SQLAlchemyError, sqlite3.Error, OSError)) as caught:
        do()
    said = faults.explain(caught.value)
    assert SECRET not in said
    assert "\n" not in said
    return caught.value


# --- SQLite ---------------------------------------------------------------------------------


def _locked(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path, timeout=0)) as ours:
            ours.execute("INSERT INTO t VALUES (1)")


def _read_only(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ours:
        ours.execute("INSERT INTO t VALUES (1)")


def _full(path):
    with closing(sqlite3.connect(path)) as ours:
        ours.execute("PRAGMA max_page_count = 3")
        ours.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)


def _no_database(path):
    path.write_bytes(b"this is a diary, and none of your business " * 200)
    with closing(sqlite3.connect(path)) as ours:
        ours.execute("SELECT * FROM t")


def _corrupt(path):
    with closing(sqlite3.connect(path)) as ours:
        ours.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
        ours.commit()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as ours:
        ours.execute("SELECT * FROM t").fetchall()


def _no_directory(path):
    sqlite3.connect(path.parent / "nowhere" / "x")


def _no_table(path):
    with closing(sqlite3.connect(path)) as ours:
        ours.execute(f"SELECT '{SECRET}' FROM nowhere")


def _no_column(path):
    with closing(sqlite3.connect(path)) as ours:
        ours.execute(f"SELECT nowhere, '{SECRET}' FROM t")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (_locked, faults.LOCKED),
        (_read_only, faults.NOT_WRITABLE),
        (_full, faults.FULL),
        (_no_database, faults.NO_DATABASE_FILE),
        (_corrupt, faults.CORRUPT),
        (_no_directory, faults.NO_FILE_ACCESS),
        (_no_table, faults.NO_TABLES),
        (_no_column, faults.OTHER_TABLES),
    ],
)
def test_sqlite(tmp_path, make, fault):
    path = tmp_path / "x.sqlite3"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (a)")
    error = raised_by(lambda: make(path))
    assert faults.find(error) is fault
    # Python 3.10 tells no code: such an error is known by its words.
    assert faults.find(type(error)(*error.args)) is fault


def test_a_file_that_was_removed_is_not_written_to_any_more(tmp_path):
    made = open_store(f"sqlite:///{tmp_path}/x.sqlite3")
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
    os.rename(tmp_path / "x.sqlite3", tmp_path / "y.sqlite3")  # noqa: PTH104
    assert faults.find(raised_by(made.connect)) is faults.REMOVED
    sqlite3.connect(tmp_path / "x.sqlite3").close()
    with made.connect() as connection:  # another one in its place, opened anew
        assert connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar() == 0
    made.dispose()


@pytest.mark.parametrize(("mode", "fault"), [("ro", faults.NOT_WRITABLE), ("full", faults.FULL)])
def test_a_volume_that_is_read_only_or_full(volume, mode, fault):
    place = volume(256 * 1024)
    url = f"sqlite:///{place}/deep/x.sqlite3"
    if mode == "ro":
        assert os.system(f"mount -o remount,ro {place}") == 0  # noqa: S605
    else:
        (place / "ballast").write_bytes(bytes(200 * 1024))
    with pytest.raises(access.StoreError, match=fault.cause):
        access.open_writer(url, "opt-out")


# --- PostgreSQL -----------------------------------------------------------------------------


@pytest.fixture
def url(stack_postgres):
    return new_database(stack_postgres.url)


def run(url, *statements):
    made = open_store(url)
    try:
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        made.dispose()


def user(url, name, *, password=SECRET):
    place = url.split("@", 1)[1]
    return f"postgresql://{name}:{password}@{place}"


@pytest.fixture
def somebody(url):
    """Name of a role without any right."""
    name = f"role_{os.urandom(4).hex()}"
    run(url, f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    yield name
    run(url, f"DROP ROLE {name}")


def test_nobody_listens():
    error = raised_by(lambda: run(f"postgresql://a:{SECRET}@127.0.0.1:{unused_port()}/x"))
    assert faults.find(error) is faults.REFUSED


def test_a_host_that_nobody_knows():
    error = raised_by(lambda: run(f"postgresql://a:{SECRET}@no..where/x"))
    assert faults.find(error) is faults.UNKNOWN_HOST


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(engine, "TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = raised_by(lambda: run(f"postgresql://a:{SECRET}@127.0.0.1:{port}/x"))
    assert faults.find(error) is faults.NO_ANSWER


@pytest.mark.server
def test_who_may_not_connect(url, somebody):
    wrong = raised_by(lambda: run(user(url, somebody, password="no" + SECRET)))
    assert faults.find(wrong) is faults.PASSWORD
    missing = raised_by(lambda: run(url + "_" + SECRET))
    assert faults.find(missing) is faults.NO_DATABASE
    no_ssl = raised_by(lambda: run(url + "?sslmode=require"))
    assert faults.find(no_ssl) is faults.NO_SSL
    run(url, f"ALTER ROLE {somebody} CONNECTION LIMIT 0")
    assert faults.find(raised_by(lambda: run(user(url, somebody)))) is faults.TOO_MANY


@pytest.mark.server
def test_rights_tables_and_modes(url, somebody):
    absent = raised_by(lambda: run(url, f"SELECT '{SECRET}' FROM pbmon.events"))
    assert faults.find(absent) is faults.NO_TABLES
    run(url, "CREATE SCHEMA pbmon", "CREATE TABLE pbmon.events (a int)")
    other = raised_by(lambda: run(url, f"SELECT b, '{SECRET}' FROM pbmon.events"))
    assert faults.find(other) is faults.OTHER_TABLES
    forbidden = raised_by(lambda: run(user(url, somebody), "SELECT * FROM pbmon.events"))
    assert faults.find(forbidden) is faults.PERMISSION
    set_read_only = "SET default_transaction_read_only = on"
    read_only = raised_by(lambda: run(url, set_read_only, "INSERT INTO pbmon.events VALUES (1)"))
    assert faults.find(read_only) is faults.READ_ONLY


@pytest.mark.server
def test_time_and_locks(url):
    late = raised_by(lambda: run(url, "SET statement_timeout = 20", "SELECT pg_sleep(60)"))
    assert faults.find(late) is faults.TOO_LONG
    run(url, "CREATE TABLE t (a int)")
    made = open_store(url)
    with made.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE t")
        locked = raised_by(lambda: run(url, "SET lock_timeout = 20", "SELECT * FROM t"))
    made.dispose()
    assert faults.find(locked) is faults.LOCKED


@pytest.mark.server
def test_a_connection_that_the_server_ends(url):
    made = open_store(url)
    with made.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        run(url, f"SELECT pg_terminate_backend({pid})")
        ended = raised_by(lambda: connection.exec_driver_sql("SELECT 1"))
        connection.invalidate()
    made.dispose()
    assert faults.find(ended) in (faults.STARTING, faults.LOST)


@pytest.mark.server
def test_a_disk_of_the_server_that_is_full(url, volume):
    place = volume(512 * 1024)
    account = postgres._account()
    if account is not None:
        os.chown(place, account.pw_uid, account.pw_gid)
    name = place.name.replace("-", "_")
    run(url, f"CREATE TABLESPACE {name} LOCATION '{place}'")
    try:
        run(url, f"CREATE TABLE t (a text) TABLESPACE {name}")
        fill = f"INSERT INTO t SELECT repeat('{SECRET}', 100) FROM generate_series(1, 2000)"
        assert faults.find(raised_by(lambda: run(url, fill))) is faults.FULL
    finally:
        run(url, "DROP TABLE IF EXISTS t", f"DROP TABLESPACE {name}")


# --- what can't be made here ----------------------------------------------------------------


class ServerError(Exception):
    """As libpq says it: without a SQLSTATE where no connection was made."""

    def __init__(self, text="", sqlstate=None):
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("FATAL:  the database system is starting up", faults.STARTING),
        ("FATAL:  the database system is shutting down", faults.STARTING),
        ("FATAL:  the database system is in recovery mode", faults.STARTING),
        ("FATAL:  sorry, too many clients already", faults.TOO_MANY),
        ("FATAL:  remaining connection slots are reserved for roles with", faults.TOO_MANY),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "a", database "x", no encryption',
         faults.NEEDS_SSL),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "a", database "x", SSL encryption',
         faults.PASSWORD),
        ("fe_sendauth: no password supplied", faults.PASSWORD),
        ("session is read-only", faults.READ_ONLY),
        ("server closed the connection unexpectedly", faults.LOST),
        ("something new", None),
    ],
)  # fmt: skip
def test_words_of_libpq(text, fault):
    assert faults.find(ServerError(f"connection to server failed: {text}\n")) is fault


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("08006", faults.LOST), ("28P01", faults.PASSWORD), ("40001", faults.CONFLICT),
        ("40P01", faults.CONFLICT), ("53100", faults.FULL), ("53200", faults.MEMORY),
        ("57P03", faults.STARTING), ("58030", faults.IO_ERROR), ("XX001", faults.CORRUPT),
        ("42601", None),
    ],
)  # fmt: skip
def test_states(state, fault):
    assert faults.find(ServerError(f"{SECRET} Connection refused", state)) is fault


def test_of_what_is_not_known_the_class_is_said_and_the_state():
    kind = f"{__name__}.ServerError"
    assert faults.explain(ServerError(SECRET)) == kind
    assert faults.explain(ServerError(SECRET, "42601")) == f"{kind}, SQLSTATE 42601"
    assert faults.explain(ServerError(SECRET, SECRET)) == kind
