"""Sums of the ledger by the time counted against the rows one by one, and payments as the
application's database gives them; on both engines."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter

import pytest

from pbmon import growth
from pbmon.parsing import Payments
from pbmon.store import lines, reconciliation, tables
from pbmon.store.access import open_engine, open_reader
from pbmon.store.application import ApplicationError
from pbmon.store.lines import Line
from pbmon.store.reconciliation import Counted, Paid, payments
from pbmon.testing import capture
from tests.store.conftest import BOTH
from tests.store.test_ledger import Books, TableOfRates, refund, transaction
from tests.store.test_users import Database, postgresql, server

__all__ = ["postgresql", "server"]

US = 1_000_000
MINUTE = 60 * US
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Beirut"]
FIRST = dt.date(2026, 10, 24)
DAYS = [FIRST + dt.timedelta(days=n) for n in range(10)]
"""With the ends of summer time in Europe and America."""


@pytest.fixture
def url(quick_url):
    return quick_url


def edges(zone, days=DAYS):
    where = growth.zone(zone)
    return [growth.start_of(day, where) for day in (*days, days[-1] + dt.timedelta(days=1))]


def line(key, kind, amount, currency, at):
    return Line(
        kind, key, None, "completed", amount, currency, 2, key.encode().ljust(16), at, at, None,
        None, base_minor=amount * 2 if currency == "EUR" else amount, counted_at=at,
    )  # fmt: skip


def ledger(zone, seed=5, count=400):
    """Rows that count, many of them within two minutes of a midnight."""
    chance = random.Random(seed)
    found = []
    for n in range(count):
        at = chance.choice(edges(zone)) + chance.choice([-120, -61, -1, 0, 1, 3600]) * US
        at += chance.choice([-1, 0, 1])
        kind = chance.choice(["charge", "charge", "refund", "chargeback", "adjustment"])
        sign = chance.choice([1, -1]) if kind == "adjustment" else 1
        currency = chance.choice(["USD", "EUR"])
        found.append(line(f"k{n}", kind, sign * chance.randint(0, 10**12), currency, at))
    return found


def naive(rows, start, end):
    sums = Counter(dict.fromkeys(Counted._fields, 0))
    for row in rows:
        if start <= row.counted_at < end:
            side = "revenue" if row.sign == 1 else "refunds"
            sums[f"{side}_minor"] += abs(row.base_minor)
            sums[f"others_{side}_minor"] += abs(row.base_minor) * (row.currency != "USD")
            sums["transactions"] += 1
    return Counted(**sums)


def book(url, rows):
    engine = open_engine(url)
    with engine.begin() as connection:
        waiting = line("waiting", "charge", 5, "USD", rows[0].counted_at)
        waiting.status, waiting.counted_at = "pending", None
        lines.add(connection, [*rows, waiting])
    engine.dispose()


def read(url, at, tail):
    reader = open_reader(url)
    try:
        return reader.books(at, tail, "USD")
    finally:
        reader.close()


@pytest.mark.parametrize("zone", ZONES)
def test_every_sum_is_the_naive_one_in_every_zone(url, zone):
    rows = ledger(zone)
    book(url, rows)
    at = edges(zone)
    books = read(url, at, MINUTE)
    assert list(books.spans) == [
        naive(rows, start, end) for start, end in zip(at, at[1:], strict=False)
    ]
    assert list(books.tails) == [naive(rows, edge - MINUTE, edge) for edge in at]
    assert sum(each.transactions for each in books.spans) > 300
    assert sum(each.transactions for each in books.tails) > 20


def test_the_books_of_a_store_that_the_writer_wrote(url):
    made = Books(url)
    made.writer.rates = TableOfRates(EUR="2")
    made.write(
        transaction(amount=1000), transaction(key="c2", amount=300, currency="EUR"), refund(),
        transaction(key="c3", amount=50, currency="JPY"),
        transaction("adjustment", "a1", -30),
    )  # fmt: skip
    made.writer.close()
    books = read(url, [0, 2**62], MINUTE)
    expected = Counted(1000 + 600, 100 + 30, 5, 600, 0)
    assert (books.spans, books.ever) == ((expected,), expected)
    engine = open_engine(url)
    with engine.connect() as connection:
        known = {row.key: row.value for row in connection.execute(tables.meta.select())}
    engine.dispose()
    assert (books.store_id, books.made_at) == (known["store_id"], int(known["made_at"]))
    assert (books.currency, books.exponent) == ("USD", 2)


def test_a_store_without_a_transaction_has_the_currency_that_is_set(url):
    reader = open_reader(url)
    books = reader.books([0, 1], 1, "JPY")
    reader.close()
    assert (books.currency, books.exponent, books.ever) == ("JPY", 0, Counted())


# --- the application's own ---


@pytest.fixture(params=BOTH)
def database(request, tmp_path):
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path}/app.db")
    return request.getfixturevalue("postgresql")


QUERIES = {
    "sqlite": "SELECT date(paid_at) AS day, currency, printf('%.2f', sum(amount)) AS amount,"
    " count(*) AS count FROM payments WHERE paid_at >= :start AND paid_at < :end GROUP BY 1, 2",
    "postgresql": "SELECT paid_at::date AS day, currency, sum(amount) AS amount, count(*) AS count"
    " FROM payments WHERE paid_at >= :start AND paid_at < :end GROUP BY 1, 2;",
}


def kind(database):
    return database.url.partition(":")[0]


def asked(database, query=None):
    return Payments(database.url, (query or QUERIES[kind(database)]).rstrip("; "))


def pay(database, *rows):
    """rows: time (UTC), currency, amount."""
    database.execute("CREATE TABLE payments (paid_at timestamp, currency text, amount numeric)")
    if rows:
        database.execute("INSERT INTO payments VALUES (%s, %s, %s)", *rows)


def test_payments_of_each_day_and_currency(database):
    pay(
        database,
        ("2026-10-23 23:59:59", "EUR", 1), ("2026-10-24 00:00:00", "EUR", "12.50"),
        ("2026-10-24 23:59:59", "EUR", "0.75"), ("2026-10-25 10:00:00", "USD", "3.00"),
        ("2026-10-26 00:00:00", "USD", 1),
    )  # fmt: skip
    days = DAYS[:2]
    assert payments(asked(database), database.url, days, edges("UTC", days)) == [
        Paid(days[0], "EUR", 1325, 2), Paid(days[1], "USD", 300, 1),
    ]  # fmt: skip


@pytest.mark.server
@pytest.mark.parametrize("zone", ZONES)
def test_days_of_a_zone_by_the_database(postgresql, zone):
    rows = [
        (dt.datetime.fromtimestamp(row.counted_at / 1e6, dt.timezone.utc), "USD", n)
        for n, row in enumerate(ledger(zone))
    ]
    postgresql.execute("CREATE TABLE payments (paid_at timestamptz, currency text, amount int)")
    postgresql.execute("INSERT INTO payments VALUES (%s, %s, %s)", *rows)
    query = (
        f"SELECT date_trunc('day', paid_at AT TIME ZONE '{zone}') AS \"Day\", currency,"
        " sum(amount) AS amount, count(*)::numeric AS count FROM payments"
        " WHERE paid_at >= :start AND paid_at < :end GROUP BY 1, 2"
    )
    where, expected = growth.zone(zone), Counter()
    for at, _, amount in rows:
        expected[at.astimezone(where).date(), "amount"] += amount * 100
        expected[at.astimezone(where).date(), "count"] += 1
    found = payments(asked(postgresql, query), postgresql.url, DAYS, edges(zone))
    assert found == [
        Paid(day, "USD", expected[day, "amount"], expected[day, "count"]) for day in DAYS
    ]


GOOD = "SELECT '2026-10-24' AS day, 'EUR' AS currency, '1.5' AS amount, 1 AS count"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 AS day, 'EUR' AS currency, 1 AS amount", "gives no column count; let `query`"),
        (GOOD + ", 2 AS count", "gives no column count"),
        (GOOD.replace("'1.5'", "CAST(1.5 AS double precision)"), "Decimal, int or str, not float"),
        (GOOD.replace("'1.5'", "NULL"), "Decimal, int or str, not NoneType"),
        (GOOD.replace("1.5", "1.555"), "amount has more decimals than the 2 that EUR has"),
        (GOOD.replace("EUR", "Gold"), "currency 'Gold' is not in ISO 4217"),
        (GOOD.replace("2026-10-24", "24.10.2026"), "gives a day that is none"),
        (GOOD.replace("-24", "-23"), "gives the day 2026-10-23, which was not asked for"),
        (GOOD.replace("1 AS count", "-1 AS count"), "gives a count that is none"),
        (GOOD + " FROM nowhere", "check [reconcile] and what it may read there"),
        (GOOD + ", :other AS other", "check [reconcile]"),
    ],
)
def test_what_can_t_be_used_is_one_line(database, query, said):
    pay(database)
    with pytest.raises(ApplicationError) as raised:
        payments(asked(database, query), database.url, DAYS[:1], edges("UTC", DAYS[:1]))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "postgres:" not in str(raised.value).replace("REDACTED", "")


def test_it_changes_nothing_and_is_not_traced(database):
    pay(database, ("2026-10-24 10:00:00", "EUR", 1))
    with capture() as seen:
        payments(asked(database), database.url, DAYS, edges("UTC"))
        assert seen.spans == []
    changing = "WITH gone AS (DELETE FROM payments RETURNING 1) SELECT * FROM gone"
    with pytest.raises(ApplicationError):
        payments(asked(database, changing), database.url, DAYS, edges("UTC"))
    assert database.execute("SELECT count(*) FROM payments") == [(1,)]


def test_a_query_without_an_end_is_cut_off(database, monkeypatch):
    monkeypatch.setattr(reconciliation, "PATIENCE_S", 0.3)
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    pay(database)
    with pytest.raises(ApplicationError, match=r"QueryCanceled|OperationalError"):
        payments(asked(database, endless), database.url, DAYS, edges("UTC"))


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    url = f"sqlite:///{tmp_path}/app.db"
    with pytest.raises(ApplicationError, match=r"not there; check `url` in \[reconcile\]"):
        payments(Payments(url, GOOD), url, DAYS, edges("UTC"))
    assert not (tmp_path / "app.db").exists()
