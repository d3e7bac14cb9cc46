"""What the ledger says was booked in the 24 hours before a moment, to the microsecond."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from pbmon.store import revenue, schema, tables
from pbmon.store.access import open_engine, open_writer
from pbmon.store.conversion import Base, convert_waiting
from pbmon.store.schema import DAY, HOUR
from tests.store.money import TableOfRates, check_books, refund, rows, transaction
from tests.store.test_writer import NOON, portion

USD = Base("USD", 2)


@pytest.fixture
def url(quick_url):
    return quick_url


@pytest.fixture
def book(url, monkeypatch):
    """Book entries at a time, whenever they occurred."""
    writer = open_writer(url, "opt-in")
    sources = iter(range(1000))

    def book(at, *payloads):
        with monkeypatch.context() as patched:
            patched.setattr(schema, "now", lambda: at)
            writer.write([portion(*payloads, source=f"1-{next(sources)}")])

    yield book
    writer.close()


def booked(engine, now):
    """Gross and refunds."""
    with engine.connect() as connection:
        found = revenue.booked(connection, USD, now)
    assert [tuple(figure.attributes.values()) for figure in found] == [
        ("USD", "gross", "24h"), ("USD", "refunds", "24h"),
    ]  # fmt: skip
    return tuple(figure.value for figure in found)


@pytest.mark.parametrize("begin", [NOON, NOON + 1, NOON + HOUR - 1, NOON + 17 * 60_000_000])
def test_both_ends_of_the_day_are_exact(book, engine, begin):
    """Each amount is a power of two, so the sum says which were taken."""
    times = [begin - 1, begin, begin + 1, begin + HOUR - 1, begin + HOUR, begin + 5 * HOUR,
             begin + DAY - 1, begin + DAY]  # fmt: skip
    for power, at in enumerate(times):
        # It occurred when it liked: only when it was booked matters.
        book(at, transaction(key=f"c{power}", amount=2**power * 100, at=NOON - power * DAY))
    assert booked(engine, begin + DAY) == (0b1111_1110, 0)
    assert booked(engine, begin + DAY + 1) == (0b1111_1100, 0)
    assert booked(engine, begin + DAY - 1) == (0b1111_1111, 0)  # and what a faster clock booked
    assert booked(engine, begin + 3 * DAY) == (0, 0)
    check_books(engine)


def test_refunds_chargebacks_and_what_is_taken_off_are_apart(book, engine):
    book(NOON, transaction(amount=5000), transaction("adjustment", "a", 700))
    book(NOON + HOUR, refund(amount=300), refund("b", 5000, kind="chargeback"),
         transaction("adjustment", "d", -11))  # fmt: skip
    assert booked(engine, NOON + 2 * HOUR) == (57, 53.11)
    assert booked(engine, NOON + DAY + 1) == (0, 53.11)


def test_what_waits_for_a_rate_is_booked_where_it_was_counted(book, engine):
    book(NOON, transaction(amount=1000, currency="EUR"), refund(amount=100, currency="EUR"))
    assert booked(engine, NOON + DAY) == (0, 0)
    with engine.begin() as connection:
        assert convert_waiting(connection, TableOfRates(EUR="2"), 10) == 1
    assert booked(engine, NOON + DAY) == (20, 2)
    assert booked(engine, NOON + DAY + 1) == (0, 0)
    check_books(engine)


def test_the_rows_are_found_by_an_index(book, engine):
    book(NOON, transaction())
    query = str(
        revenue._booked_since(NOON + 1).compile(engine, compile_kwargs={"literal_binds": True})
    )
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = connection.execute(text(f"EXPLAIN {query}")).scalars().all()
        else:
            asked = text(f"EXPLAIN QUERY PLAN {query.replace('pbmon.', '')}")
            plan = [row.detail for row in connection.execute(asked)]
    assert any("transactions_counted" in line for line in plan), plan


def test_a_store_from_before_has_the_totals_of_what_it_booked(empty_url):
    engine = open_engine(empty_url)
    schema.upgrade(engine)
    writer = open_writer(empty_url, "opt-in", rates=TableOfRates(EUR="2"))
    writer.write([
        portion(
            transaction(amount=1000, currency="EUR"), refund(amount=100, currency="EUR"),
            transaction(key="v", currency="VND"), transaction(key="p", status="pending"),
            transaction("adjustment", "up", 5), transaction("adjustment", "down", -7),
            refund("held", charge="nothing"),
        )
    ])  # fmt: skip
    writer.close()
    wanted = rows(engine, tables.counted_totals)
    assert len(wanted) == 5
    there = (tables.meta, tables.transactions, tables.revenue_totals, tables.ledger_totals)
    books = {table: [row._asdict() for row in rows(engine, table)] for table in there}
    if engine.dialect.name == "sqlite":
        engine.dispose()
        Path(engine.url.database).unlink()
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("DROP SCHEMA pbmon CASCADE"))
            connection.execute(text("CREATE SCHEMA pbmon"))
        schema._migrate(connection, "0005")
        for table, of_before in books.items():
            connection.execute(table.insert(), of_before)
    assert schema.upgrade(engine) is schema.State.OLDER
    assert sorted(rows(engine, tables.counted_totals)) == sorted(wanted)
    check_books(engine)
    engine.dispose()
