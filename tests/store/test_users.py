"""Active users: the three windows on real databases, and a query that fails or hangs."""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import datetime, timedelta, timezone

import pytest

from pbmon import signals
from pbmon.store import users
from pbmon.store.users import UsersTable
from pbmon.testing import capture

ACTIVE = "SELECT count(*) FROM people WHERE seen >= :since"
AGES = [timedelta(hours=1), timedelta(hours=23), timedelta(days=2), timedelta(days=6),
        timedelta(days=8), timedelta(days=29), timedelta(days=31)]  # fmt: skip
COUNTS = {"24h": 2, "7d": 4, "30d": 6}


@pytest.fixture
def now(monkeypatch):
    """The store's monotonic clock, to be set by the test."""
    clock = [1000.0]
    monkeypatch.setattr(users.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(signals, "_last_told", {})
    # The first answer may take an import of SQLAlchemy on a busy machine.
    monkeypatch.setattr(users, "_FIRST_WAIT_S", 60.0)
    return clock


@pytest.fixture
def database(tmp_path):
    """An SQLite file with one person of each age."""
    path = tmp_path / "app.db"
    today = datetime.now(timezone.utc).replace(tzinfo=None)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, seen TIMESTAMP)")
        for age in AGES:
            connection.execute(
                "INSERT INTO people (seen) VALUES (?)", [(today - age).isoformat(" ")]
            )
    connection.close()
    return f"sqlite:///{path}"


def settle(table):
    """Wait for the refresh that runs."""
    if table._worker is not None:
        table._worker.join(30)
        assert not table._worker.is_alive()


def execute(database, statement):
    connection = sqlite3.connect(database.removeprefix("sqlite:///"))
    with connection:
        connection.execute(statement)
    connection.close()


# --- SQLite ---


def test_the_three_windows(database, now):
    assert UsersTable(database, ACTIVE).active_users() == COUNTS


def test_without_since_it_is_the_day_alone(database, now):
    table = UsersTable(database, r"SELECT count(*), '\:since' FROM people")
    assert table.active_users() == {"24h": 7}


def test_asked_once_a_minute(database, now):
    table = UsersTable(database, ACTIVE)
    table.active_users()
    execute(database, "DELETE FROM people")
    now[0] += 59.9
    assert table.active_users() == COUNTS
    settle(table)
    assert table.active_users() == COUNTS
    now[0] += 0.1
    table.active_users()  # starts the query and does not wait for it
    settle(table)
    assert table.active_users() == {"24h": 0, "7d": 0, "30d": 0}


def test_a_failing_query_has_no_figures_says_so_and_recovers(database, now, caplog):
    execute(database, "ALTER TABLE people RENAME TO others")
    table = UsersTable(database, ACTIVE)
    assert table.active_users() == {}
    assert caplog.messages == [
        (
            f"pbmon: users_query on {database} failed with sqlalchemy.exc.OperationalError; "
            "pbmon.users.active has no value until it works. Check the settings users_url and "
            "users_query."
        )
    ]
    execute(database, "ALTER TABLE others RENAME TO people")
    now[0] += 4.9
    table.active_users()
    settle(table)
    assert table.active_users() == {}
    now[0] += 0.1  # sooner than a minute: the application was only just starting
    table.active_users()
    settle(table)
    assert table.active_users() == COUNTS
    execute(database, "DROP TABLE people")
    now[0] += 60
    table.active_users()
    settle(table)
    assert table.active_users() == {}  # old figures are not shown for new ones


@pytest.mark.parametrize(
    "query",
    ["SELECT NULL", "SELECT 'many'", "SELECT count(*) FROM people WHERE seen >= :other", "nonsense",
     "SELECT id FROM people", "SELECT 1 WHERE 1 = 0"],
)  # fmt: skip
def test_a_query_that_gives_no_number_has_no_figures(database, now, caplog, query):
    assert UsersTable(database, query).active_users() == {}
    assert "users_query on sqlite:///" in caplog.text


def test_it_changes_nothing(database, now):
    table = UsersTable(database, "DELETE FROM people RETURNING 1")
    table.active_users()
    assert UsersTable(database, "SELECT count(*) FROM people").active_users() == {"24h": 7}


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://app:hunter2@localhost:port/x", "unknown://app:hunter2@h/x"]
)
def test_a_wrong_url_is_told_without_its_password(now, caplog, url):
    assert UsersTable(url, ACTIVE).active_users() == {}
    assert len(caplog.records) == 1
    assert "hunter2" not in caplog.text


def test_a_missing_driver_is_named_with_the_remedy(now, caplog, monkeypatch):
    def absent(table):
        raise ImportError("No module named 'psycopg2'", name="psycopg2")

    monkeypatch.setattr(UsersTable, "_ask", absent)
    assert UsersTable("postgresql://app:hunter2@h/x", ACTIVE).active_users() == {}
    assert caplog.messages == [
        (
            "pbmon: users_url postgresql://REDACTED@h/x needs a driver that is not installed "
            "(psycopg2); for PostgreSQL: pip install 'pbmon[postgres]'"
        )
    ]


def test_a_driver_that_sqlalchemy_does_not_know_is_missing_too(now, caplog):
    url = "mysql+nosuchdriver://app:hunter2@h/x"
    assert UsersTable(url, ACTIVE).active_users() == {}
    assert caplog.messages == [
        (
            "pbmon: users_url mysql+nosuchdriver://REDACTED@h/x needs a driver that is not "
            "installed (mysql+nosuchdriver); for PostgreSQL: pip install 'pbmon[postgres]'"
        )
    ]


# --- a query that hangs ---


class Hanging(UsersTable):
    def __init__(self):
        super().__init__("sqlite://", ACTIVE)
        self.release = threading.Event()
        self.asked = 0

    def _ask(self):
        self.asked += 1
        assert self.release.wait(30)
        return {"24h": self.asked}


@pytest.fixture
def hanging(monkeypatch, now):
    monkeypatch.setattr(users, "_FIRST_WAIT_S", 0.01)
    table = Hanging()
    yield table
    table.release.set()
    settle(table)


def test_the_first_query_is_waited_for_a_bounded_time(hanging):
    assert hanging.active_users() == {}  # comes back although it hangs
    assert hanging._worker.is_alive()


def test_a_hanging_query_is_not_asked_again_and_its_answer_is_taken(hanging, now):
    hanging.active_users()
    now[0] += 3600
    assert hanging.active_users() == {}
    assert hanging.asked == 1
    hanging.release.set()
    settle(hanging)
    now[0] += 30
    hanging.active_users()
    settle(hanging)
    assert hanging.active_users() == {"24h": 2}


def test_figures_older_than_a_hanging_query_are_dropped(hanging, now):
    hanging.release.set()
    hanging.active_users()
    settle(hanging)
    hanging.release.clear()
    now[0] += 60
    assert hanging.active_users() == {"24h": 1}  # the new query has only begun
    now[0] += 60
    assert hanging.active_users() == {}
    hanging.release.set()
    settle(hanging)
    assert hanging.active_users() == {"24h": 2}


def test_where_no_thread_can_start_there_is_no_figure(now, monkeypatch, database):
    """As at the exit of Python 3.12."""

    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    table = UsersTable(database, ACTIVE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert table.active_users() == {}
    now[0] += 60
    table.active_users()
    settle(table)
    assert table.active_users() == COUNTS


# --- not observed ---


def test_its_queries_are_not_traced(database, now):
    with capture() as seen:
        assert UsersTable(database, ACTIVE).active_users() == COUNTS
        assert seen.spans == []
        assert "db.client.operation.duration" not in seen.metrics
        execute(database, "SELECT 1")  # while the application's are
        assert [span.name for span in seen.spans][:1] == ["SELECT"]


# --- PostgreSQL ---


@pytest.fixture
def people(stack_postgres):
    """URL of a PostgreSQL with one person of each age."""
    import psycopg2

    connection = psycopg2.connect(stack_postgres.url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS people")
    cursor.execute("CREATE TABLE people (id serial PRIMARY KEY, seen timestamptz)")
    for age in AGES:
        cursor.execute("INSERT INTO people (seen) VALUES (now() - %s)", [age])
    yield stack_postgres.url
    cursor.execute("DROP TABLE people")
    connection.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_the_three_windows_of_postgresql(people, now, scheme):
    url = people.replace("postgresql://", f"{scheme}://", 1)
    assert UsersTable(url, ACTIVE).active_users() == COUNTS


def test_a_cast_is_no_parameter(people, now):
    query = "SELECT count(*)::int FROM people WHERE seen::timestamptz >= :since"
    assert UsersTable(people, query).active_users() == COUNTS


def test_postgresql_is_read_only_and_its_password_is_not_told(people, now, caplog):
    query = "DELETE FROM people RETURNING 1"
    with caplog.at_level(logging.WARNING):
        assert UsersTable(people, query).active_users() == {}
    assert UsersTable(people, "SELECT count(*) FROM people").active_users() == {"24h": 7}
    from urllib.parse import urlsplit

    assert len(caplog.records) == 1
    assert urlsplit(people).password not in caplog.text


def test_a_slow_query_of_postgresql_is_cut_off(people, now, caplog, monkeypatch):
    monkeypatch.setattr(users.engine, "TIMEOUT_S", 1)
    table = UsersTable(people, "SELECT 1 FROM pg_sleep(3600)")
    table.active_users()
    settle(table)
    assert table.active_users() == {}
    assert "failed with sqlalchemy.exc.OperationalError" in caplog.text


def test_an_unreachable_postgresql_recovers(people, now, caplog):
    from tests.telemetry.receiver import closed_port

    table = UsersTable(closed_port().replace("http://", "postgresql://app:hunter2@"), ACTIVE)
    assert table.active_users() == {}
    assert "postgresql://REDACTED@127.0.0.1:" in caplog.text
    table._url = people
    table._engine = None
    now[0] += 60
    table.active_users()
    settle(table)
    assert table.active_users() == COUNTS
