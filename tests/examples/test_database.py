"""Where the data is, and who may put it there."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack

import pytest

from examples.pocketbook import database, schema
from examples.pocketbook.database import PostgreSQL, SQLite
from examples.pocketbook.server import ROOT
from tests.examples.apps import new_database, opened, rows

PREPARE = (
    "import sys; from examples.pocketbook import database, schema;"
    "d = database.connect({'DATABASE_URL': sys.argv[1]}); schema.prepare(d); d.close()"
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'app.sqlite3'}"
    return new_database(request.getfixturevalue("stack_postgres").url, "pocketbook_start")


def test_workers_that_start_at_once_fill_the_database_once(url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, url], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    problems = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], problems
    counts = rows(url, "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM transactions)")
    assert tuple(counts[0]) == (schema.USERS, schema.TRANSACTIONS)


def test_tables_of_somebody_else_are_left_alone(url):
    opened_ = database.connect({"DATABASE_URL": url})
    with opened_.transaction() as cursor:
        cursor.execute("CREATE TABLE users (secret TEXT)")
    with pytest.raises(schema.SchemaError, match="table users that is not Pocketbook's"):
        schema.prepare(opened_)
    opened_.close()
    assert rows(url, "SELECT * FROM users") == []


def test_an_error_rolls_back_and_gives_the_connection_back(url):
    opened_ = database.connect({"DATABASE_URL": url})
    schema.prepare(opened_)
    for _ in range(database.POOL_SIZE + 1):
        with pytest.raises(RuntimeError), opened_.transaction() as cursor:
            cursor.execute("DELETE FROM transactions")
            raise RuntimeError
    with opened_.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM transactions")
        assert tuple(cursor.fetchone()) == (schema.TRANSACTIONS,)
    opened_.close()


def test_one_more_than_there_are_connections_waits_its_turn(url):
    opened_ = database.connect({"DATABASE_URL": url})
    waiter = Future()

    def ask():
        try:
            with opened_.transaction() as cursor:
                cursor.execute("SELECT 7")
                waiter.set_result(cursor.fetchone()[0])
        except BaseException as error:
            waiter.set_exception(error)

    thread = threading.Thread(target=ask)
    with ExitStack() as taken:
        for _ in range(database.POOL_SIZE):
            taken.enter_context(opened_.transaction())
        thread.start()
        with pytest.raises(FutureTimeout):
            waiter.result(0.3)
    assert waiter.result(10) == 7
    thread.join()
    opened_.close()


def test_a_pool_that_stays_empty_is_an_error(url, monkeypatch):
    monkeypatch.setattr(database, "WAIT_S", 0.05)
    opened_ = database.connect({"DATABASE_URL": url})
    with ExitStack() as taken:
        for _ in range(database.POOL_SIZE):
            taken.enter_context(opened_.transaction())
        with pytest.raises(TimeoutError, match="no database connection"):
            taken.enter_context(opened_.transaction())
    opened_.close()


def test_the_file_named_by_pocketbook_db_is_used(tmp_path):
    path = tmp_path / "deep" / "book.sqlite3"
    with opened(POCKETBOOK_DB=str(path)) as client:
        assert client.get("/healthz").status_code == 200
    assert path.exists()


def test_another_kind_of_database_is_refused():
    with pytest.raises(ValueError, match="DATABASE_URL must start with"):
        database.connect({"DATABASE_URL": "mysql://localhost/x"})


def test_parameters_of_a_statement_are_the_drivers():
    sqlite = SQLite.statement(SQLite.__new__(SQLite), "SELECT :one, '::text'", one=1)
    assert sqlite == ("SELECT :one, '::text'", {"one": 1})
    postgres = PostgreSQL.statement(PostgreSQL.__new__(PostgreSQL), "SELECT :one::int", one=1)
    assert postgres == ("SELECT %(one)s::int", {"one": 1})
