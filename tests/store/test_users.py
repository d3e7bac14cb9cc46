"""Growth figures by the application's own table of users, on both engines: a mapping is checked and
quoted, nothing is changed, what is not known is NULL, and what goes wrong is one line."""

from __future__ import annotations

import datetime as dt
import random
import sqlite3
from collections import Counter
from urllib.parse import urlsplit

import pytest

from pbmon import growth
from pbmon.parsing import Users
from pbmon.store import engine, schema, users
from pbmon.store.application import ApplicationError, connected
from pbmon.store.users import snapshot
from pbmon.testing import capture
from tests.stack.process import unused_port
from tests.store.conftest import BOTH, new_database

DAY = dt.date(2026, 10, 25)
"""Has 25 hours in Berlin."""

BERLIN = growth.zone("Europe/Berlin")
END = growth.start_of(DAY + dt.timedelta(days=1), BERLIN)
HOUR = 3_600_000_000
ODD = 'Registered "at", ;--'


class Database:
    """The application's, on either engine."""

    def __init__(self, url):
        self.url = url

    def execute(self, statement, *rows):
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(self.url.removeprefix("sqlite:///"))
            statement = statement.replace("%s", "?")
        else:
            import psycopg2

            connection = psycopg2.connect(self.url)
        cursor = connection.cursor()
        if rows:
            cursor.executemany(statement, rows)
        else:
            cursor.execute(statement)
        found = cursor.fetchall() if statement.startswith("SELECT") else []
        connection.commit()
        connection.close()
        return found


@pytest.fixture(scope="module")
def server(stack_postgres):
    """URL of a database of the application's."""
    return new_database(stack_postgres.url)


@pytest.fixture
def postgresql(server):
    """With nothing in it."""
    database = Database(server)
    database.execute("DROP SCHEMA IF EXISTS crm CASCADE")
    database.execute("DROP SCHEMA public CASCADE")
    database.execute("CREATE SCHEMA public")
    return database


@pytest.fixture(params=BOTH)
def database(request, tmp_path):
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path}/app.db")
    return request.getfixturevalue("postgresql")


@pytest.fixture(autouse=True)
def now(monkeypatch):
    """Five minutes after the day, in µs; to be set by the test."""
    at = [END + HOUR // 12]
    monkeypatch.setattr(schema, "now", lambda: at[0])
    return at


def moment(at, form):
    """A time in µs as the column has it."""
    found = dt.datetime.fromtimestamp(at / 1e6, dt.timezone.utc)
    if form == "aware":
        return found.isoformat()
    if form == "naive":
        return found.replace(tzinfo=None).isoformat(" ")
    if form == "epoch":
        return int(at // 1_000_000)
    return found.astimezone(BERLIN).date().isoformat()


TYPES = {"aware": "timestamptz", "naive": "timestamp", "epoch": "bigint", "date": "date"}


def people(seed=3, count=400):
    """(id, created, seen, status) with times in µs, None where the application has none."""
    chance = random.Random(seed)
    days = [0, 1, 6, 7, 8, 29, 30, 31, 59, 60, 61, 90]
    edges = [growth.start_of(DAY - dt.timedelta(days=n - 1), BERLIN) for n in days]
    found = []
    for n in range(count):
        created = chance.choice(edges) + chance.choice([-HOUR, -1_000_000, 0, HOUR])
        seen = max(created, chance.choice(edges) + chance.choice([-HOUR, -1_000_000, 0, HOUR]))
        status = chance.choice(["active", "trial", "closed", None])
        found.append((
            n * 7 + 1,
            created if chance.random() < 0.95 else None,
            min(seen, END + 60_000_000) if chance.random() < 0.9 else None,
            status,
        ))  # fmt: skip
    return found


def truth(rows, statuses=None):
    """One user at a time, by local days."""
    counts = Counter()
    for _, created, seen, status in rows:
        if statuses is not None and status not in statuses:
            continue
        age = (DAY - growth.day_of(created, BERLIN)).days if created is not None else None
        if age is not None and age < 0:
            continue
        counts["total"] += 1
        counts["new"] += age == 0
        if seen is not None:
            since = (DAY - growth.day_of(seen, BERLIN)).days
            counts["active_24h"] += since < 1
            counts["active_7d"] += since < 7
            counts["active_30d"] += since < 30
            counts["churned"] += 30 <= since < 60
    return counts


def figures(found):
    names = ("total", "new", "active_24h", "active_7d", "active_30d", "churned")
    return {name: getattr(found, name) for name in names}


def mapping(database, **columns):
    named = {"table": "users", "id": "id", "created_at": "created", "last_seen_at": "seen"}
    return Users(url=database.url, **named | columns)


def make(database, rows, form="aware", table="users", created="created"):
    kind = TYPES[form]
    database.execute(
        f'CREATE TABLE {table} (id bigint PRIMARY KEY, "{created}" {kind}, seen {kind},'
        " status text, email text)"
    )
    if not rows:
        return
    database.execute(
        f"INSERT INTO {table} VALUES (%s, %s, %s, %s, 'ann@example.com')",
        *(
            (
                id_,
                moment(created, form) if created is not None else None,
                moment(seen, form) if seen is not None else None,
                status,
            )
            for id_, created, seen, status in rows
        ),
    )


def taken(users, day=DAY):
    return snapshot(users, users.url, day, "Europe/Berlin")


@pytest.mark.parametrize("form", TYPES)
def test_every_figure_is_the_naive_one_whatever_holds_the_time(database, form, monkeypatch):
    monkeypatch.setattr(users, "BATCH", 37)
    rows = people()
    make(database, rows, form)
    found = taken(mapping(database))
    assert figures(found) == truth(rows)
    assert (found.source, found.timezone, found.day) == ("users", "Europe/Berlin", DAY)
    assert found.reactivated is None and found.before is None


def test_only_some_statuses_count(database):
    rows = people()
    make(database, rows)
    found = taken(mapping(database, status="status", active=("active", "trial")))
    assert figures(found) == truth(rows, {"active", "trial"})


def test_batches_that_end_with_the_table_count_nobody_twice(database, monkeypatch):
    monkeypatch.setattr(users, "BATCH", 50)
    rows = people(count=100)
    make(database, rows)
    assert figures(taken(mapping(database))) == truth(rows)


def test_an_empty_table_has_nobody(database):
    make(database, [])
    assert set(figures(taken(mapping(database))).values()) == {0}


def test_odd_names_are_quoted(database):
    rows = people(count=50)
    quoted = ODD.replace('"', '""')
    make(database, rows, table='"Us ers"', created=quoted)
    found = taken(mapping(database, table="Us ers", created_at=ODD))
    assert figures(found) == truth(rows)


def test_ids_may_be_texts(database):
    rows = people(count=60)
    database.execute("CREATE TABLE users (id varchar(36) PRIMARY KEY, created date, seen date)")
    database.execute(
        "INSERT INTO users VALUES (%s, %s, %s)",
        *(
            (f"u-{n}", moment(created or END + HOUR, "date"), moment(seen or 0, "date"))
            for n, created, seen, _ in rows
        ),
    )
    mended = [(n, created or END + HOUR, seen or 0, None) for n, created, seen, _ in rows]
    assert figures(taken(mapping(database))) == truth(mended)


@pytest.mark.server
def test_a_schema_and_ids_without_an_order_of_max(postgresql, monkeypatch):
    monkeypatch.setattr(users, "BATCH", 10)
    database = postgresql
    database.execute("CREATE SCHEMA crm")
    database.execute(
        "CREATE TABLE crm.people (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
        " created timestamptz)"
    )
    database.execute(
        "INSERT INTO crm.people (created) VALUES (%s)",
        *((moment(END - HOUR * n, "aware"),) for n in range(1, 101)),
    )
    found = taken(mapping(database, table="crm.people", last_seen_at=None))
    assert (found.total, found.new) == (100, 25)  # the day has 25 hours
    assert (found.active_24h, found.churned) == (None, None)


def test_of_a_missed_day_it_is_known_who_came_and_not_who_was_active(database, now):
    rows = people()
    make(database, rows)
    now[0] = END + HOUR
    found = taken(mapping(database))
    assert (found.new, found.total) == (truth(rows)["new"], truth(rows)["total"])
    assert found.active_24h is found.active_7d is found.active_30d is found.churned is None


# --- what it may do ---


def test_it_may_only_read(database):
    make(database, people(count=20))
    with (
        connected(database.url, "[users]") as connection,
        pytest.raises(Exception, match=r"(?i)read.?only"),
    ):
        connection.exec_driver_sql("DELETE FROM users")
    assert database.execute("SELECT count(*) FROM users") == [(20,)]


def test_its_statements_are_not_traced(database):
    make(database, people(count=20))
    with capture() as seen:
        taken(mapping(database))
        assert seen.spans == []


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"table": "nobody"}, "has no table nobody; check `table` in [users]"),
        ({"table": "nowhere.users"}, "has no table nowhere.users"),
        ({"created_at": "born"}, "has no column born in users; check `created_at`"),
        ({"last_seen_at": "Seen"}, "has no column Seen in users; check `last_seen_at`"),
        ({"id": "id; DROP TABLE users"}, "has no column id; DROP TABLE users in users"),
    ],
    ids=["table", "schema", "created_at", "case", "injection"],
)
def test_a_mapping_that_does_not_fit_is_one_line(database, columns, said):
    make(database, people(count=20))
    if columns["table" if "table" in columns else next(iter(columns))] == "nowhere.users" and (
        database.url.startswith("sqlite")
    ):
        said = "can't be read"  # there a schema is another file
    with pytest.raises(ApplicationError) as raised:
        taken(mapping(database, **columns))
    assert said in str(raised.value)
    assert_no_password(database.url, str(raised.value))
    assert database.execute("SELECT count(*) FROM users") == [(20,)]


def assert_no_password(url, text):
    password = urlsplit(url).password
    assert password is None or password not in text


@pytest.mark.server
def test_a_column_that_holds_no_time_is_said(postgresql):
    make(postgresql, [])
    with pytest.raises(ApplicationError, match="holds no times in email of users"):
        taken(mapping(postgresql, created_at="email"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is no SQLAlchemy URL"),
        (f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x", "can't be read (psycopg2."),
        ("mysql+nosuchdriver://app:hunter2@h/x", "needs a driver that is not installed"),
    ],
    ids=["url", "away", "driver"],
)
def test_a_database_that_can_t_be_asked_is_said_without_its_password(url, said):
    with pytest.raises(ApplicationError) as raised:
        taken(mapping(Database(url)))
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.server
def test_a_statement_that_hangs_is_cut_off(postgresql, monkeypatch):
    monkeypatch.setattr(engine, "TIMEOUT_S", 1)
    database = postgresql
    database.execute(
        "CREATE VIEW users AS SELECT 1 AS id, now() AS created, now() AS seen FROM pg_sleep(3600)"
    )
    with pytest.raises(ApplicationError, match="QueryCanceled"):
        taken(mapping(database))
