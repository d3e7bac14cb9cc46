"""What waits for a rate: converted when there is one, once, with what went back of it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from pbmon import signals
from pbmon.money import Rate
from pbmon.store import conversion
from pbmon.store.access import StoreError, open_conversions, open_engine, open_writer
from pbmon.store.schema import DAY, day_of
from pbmon.worker.conversion import convert_waiting
from tests.store.money import TableOfRates, check_books, earned, figures, refund, rows, transaction
from tests.store.test_writer import NOON, portion

TODAY = day_of(NOON)


class RatesOfDays:
    """value: of each day, by its ordinal; fetched: those that refresh() has fetched."""

    def __init__(self):
        self.fetched = set()

    def rate(self, currency, base, day):
        assert base == "USD"
        if (currency, day) not in self.fetched:
            return None
        return Rate(Decimal(day.day), day - dt.timedelta(days=1), "fetched")

    def refresh(self, wanted):
        assert signals.reraise
        self.fetched.update((currency, day) for currency, day in wanted if currency != "VND")


@pytest.fixture
def url(quick_url):
    return quick_url


@pytest.fixture
def write(url):
    writer = open_writer(url, "opt-in")
    journals = iter(range(100))

    def write(*payloads):
        return writer.write([portion(*payloads, source=f"j-{next(journals)}")])

    yield write
    writer.close()


@pytest.fixture
def conversions(url):
    made = open_conversions(url)
    yield made
    made.close()


def test_of_a_store_in_which_nothing_is(conversions):
    assert conversions.wanted() == []
    assert conversions.convert(TableOfRates(EUR="2"), 10) == 0


def test_each_is_converted_by_the_rate_of_its_day_and_never_again(write, conversions, engine):
    write(
        transaction(key="a", amount=100, currency="EUR"),
        transaction(key="b", amount=100, currency="EUR", at=NOON + DAY),
        transaction(key="c", amount=100, currency="JPY"),
        transaction(key="d", amount=100, currency="VND"),
        transaction(key="e", amount=100),
        transaction("adjustment", "f", -100, "EUR"),
        transaction(key="g", amount=100, currency="EUR", status="pending"),
    )
    tomorrow = TODAY + dt.timedelta(days=1)
    assert conversions.wanted() == [
        ("EUR", TODAY), ("EUR", tomorrow), ("JPY", TODAY), ("VND", TODAY),
    ]  # fmt: skip
    rates = RatesOfDays()
    assert convert_waiting(conversions, rates) == 4
    found = {row.key: (row.base_minor, row.fx_rate, row.fx_date) for row in rows(engine)}
    assert found == {
        "a": (2500, "25", dt.date(2026, 11, 24)), "b": (2600, "26", TODAY),
        "c": (250_000, "25", dt.date(2026, 11, 24)), "d": (None, None, None),
        "e": (100, "1", TODAY), "f": (-2500, "25", dt.date(2026, 11, 24)), "g": (None, None, None),
    }  # fmt: skip
    assert earned(engine) == (2500 + 2600 + 250_000 + 100, 2500)
    assert figures(engine)["pbmon.revenue.unconverted"] == {
        ("EUR",): 0, ("JPY",): 0, ("USD",): 0, ("VND",): 1,
    }  # fmt: skip
    check_books(engine)
    assert convert_waiting(conversions, TableOfRates(EUR="7", JPY="7")) == 0
    assert found == {row.key: (row.base_minor, row.fx_rate, row.fx_date) for row in rows(engine)}


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_what_went_back_is_converted_with_its_charge_and_nets_to_nothing(
    write, conversions, engine, limit
):
    write(transaction(amount=1001, currency="EUR"), transaction(key="c2", currency="EUR"))
    write(*(refund(f"r{n}", part, "EUR") for n, part in enumerate([333, 333, 335])))
    write(refund("b", 1000, "EUR", kind="chargeback", at=NOON + 9 * DAY), refund("h", charge="c9"))
    rates = TableOfRates(EUR="1.0825")
    while conversions.convert(rates, limit):
        check_books(engine)
    # €10.01 × 1.0825 = $10.835825, €10.00 = $10.825
    assert earned(engine) == (1084 + 1082, 1084 + 1083)
    parts = [row.base_minor for row in rows(engine) if row.kind == "refund" and row.charge == "c1"]
    assert sum(parts) == 1084
    assert write(refund("b2", 1, "EUR", kind="chargeback")).stored == 1
    assert earned(engine) == (2166, 2 * 1084)
    check_books(engine)


def test_what_has_no_rate_does_not_stand_before_what_has_one(write, conversions, engine):
    write(*(transaction(key=f"v{n}", currency="VND") for n in range(5)))
    write(transaction(key="e", amount=100, currency="EUR", at=NOON + DAY))
    assert conversions.convert(TableOfRates(EUR="2"), 1) == 1
    assert earned(engine) == (200, 0)


def test_more_than_one_portion(write, conversions, engine, monkeypatch):
    monkeypatch.setattr("pbmon.worker.conversion._AT_ONCE", 3)
    write(*(transaction(key=f"e{n}", amount=1, currency="EUR") for n in range(7)))
    assert convert_waiting(conversions, TableOfRates(EUR="2")) == 7
    assert earned(engine) == (14, 0)


def test_rates_are_fetched_outside_of_any_transaction(write, conversions, url):
    """A fetch may take long: meanwhile others write."""
    write(transaction(currency="EUR"))
    rates = RatesOfDays()
    refresh = rates.refresh

    def refresh_while_others_write(wanted):
        assert write(transaction(key="other")).stored == 1
        refresh(wanted)

    rates.refresh = refresh_while_others_write
    assert convert_waiting(conversions, rates) == 1


def test_a_killed_one_is_done_again(write, conversions, engine, monkeypatch):
    write(transaction(amount=100, currency="EUR"))
    store = conversion.Totals.store
    monkeypatch.setattr(conversion.Totals, "store", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        conversions.convert(TableOfRates(EUR="2"), 10)
    monkeypatch.setattr(conversion.Totals, "store", store)
    assert earned(engine) == (0, 0)
    assert conversions.convert(TableOfRates(EUR="3"), 10) == 1
    assert earned(engine) == (300, 0)
    check_books(engine)


def test_a_store_that_is_not_there_is_one_line(empty_url):
    with pytest.raises(StoreError, match="no tables of pbmon yet"):
        open_conversions(empty_url)


def test_the_leader_converts_what_waits(write, url, engine):
    from pbmon import settings
    from pbmon.worker.leader import Leader

    write(transaction(amount=100, currency="EUR"))
    resolved, _ = settings.resolve({})
    without, leader = Leader(url, resolved, []), Leader(url, resolved, [], rates=RatesOfDays())
    without.convert()
    assert earned(engine) == (0, 0)
    leader.convert()
    assert earned(engine) == (2500, 0)
    assert set(leader.succeeded_at) == {"conversions"}
    write(transaction(key="c2", amount=100, currency="EUR"))
    leader.convert()  # what is new, at once
    assert earned(engine) == (5000, 0)
    write(transaction(key="c3", amount=100, currency="VND"))
    leader.convert()
    leader._rates = TableOfRates(VND="1")
    leader.convert()  # what had no rate, only now and then
    assert earned(engine) == (5000, 0)
    leader._conversions_at_s = 0.0
    leader.convert()
    assert earned(engine) == (15000, 0)
    leader._close()


def test_what_waits_is_found_by_its_index(file):
    made = open_engine(f"sqlite:///{file}")
    query = (
        "SELECT DISTINCT currency, occurred_at / 1 FROM transactions"
        " WHERE base_minor IS NULL AND counted_at IS NOT NULL"
    )
    with made.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert "transactions_unconverted" in str(plan)
    made.dispose()
