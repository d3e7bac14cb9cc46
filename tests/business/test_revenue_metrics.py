"""revenue_metrics(): from the totals what a plain sum over the transactions says, at every edge."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pbmon
from pbmon import periods, runtime
from pbmon.business.revenue_metrics import CurrencyRevenue
from pbmon.store import tables
from pbmon.store.access import open_engine, open_reader, open_writer
from tests.patience import patiently
from tests.store.conftest import emptied
from tests.store.money import PLACES, TableOfRates, in_usd, refund, transaction
from tests.store.test_writer import portion

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RATES = {"EUR": "1.0825", "JPY": "0.0064385", "KWD": "3.2541"}


def micros(at):
    return (at - EPOCH) // timedelta(microseconds=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def store(request, tmp_path, monkeypatch):
    """The store of this application: its writer."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("file"), tmp_path)
        url = f"sqlite:///{tmp_path}/store.sqlite3"
    else:
        url = emptied(request.getfixturevalue("emptied_database"))
    reader, writer = open_reader(url), open_writer(url, "opt-in", rates=TableOfRates(**RATES))
    monkeypatch.setattr(runtime.active, "reader", lambda: reader)
    yield writer
    reader.close()
    writer.close()


def fill(writer, *payloads):
    fill.journals += 1
    source = f"j-{fill.journals}"
    assert writer.write([portion(*payloads, source=source)]).dropped == {}


fill.journals = 0


def test_of_a_store_in_which_nothing_is(store):
    now = datetime(2026, 3, 31, 12, 30, tzinfo=UTC)
    found = pbmon.revenue_metrics(now=now)
    assert found == pbmon.RevenueMetrics(
        datetime(2026, 2, 28, 12, 30, tzinfo=UTC), now, "USD",
        gross=Decimal(0), refunds=Decimal(0), net=Decimal(0), count=0, average=Decimal(0),
        unconverted=0, held=0, by_currency={},
    )  # fmt: skip
    assert str(found.gross) == str(found.average) == "0.00"


def test_each_kind_in_its_place(store):
    at = micros(datetime(2026, 3, 31, 12, tzinfo=UTC))
    fill(
        store,
        transaction(key="a", amount=1000, at=at),
        transaction(key="b", amount=501, at=at + 1),
        transaction(key="c", amount=10_000, currency="EUR", at=at),
        transaction(key="d", amount=5_000, currency="VND", at=at),
        transaction(key="e", amount=1, at=at, status="pending"),
        refund("r", 200, charge="a", at=at),
        refund("b", 501, charge="b", kind="chargeback", at=at),
        refund("held", 5, charge="later", at=at),
        transaction("adjustment", "u", 50, at=at),
        transaction("adjustment", "d", -30, at=at),
    )
    found = pbmon.revenue_metrics("day", now=datetime(2026, 3, 31, 13, 5, tzinfo=UTC))
    # 10.00 + 5.01 + €100 × 1.0825 + 0.50, and 2.00 + 5.01 + 0.30
    assert (found.gross, found.refunds) == (Decimal("123.76"), Decimal("7.31"))
    assert found.net == Decimal("116.45")
    assert (found.count, found.unconverted, found.held) == (4, 1, 1)
    assert found.average == Decimal("41.09")  # 123.26 / 3 = 41.0866…
    assert found.by_currency == {
        "EUR": CurrencyRevenue(Decimal("100.00"), Decimal("0.00"), Decimal("100.00"), 1),
        "USD": CurrencyRevenue(Decimal("15.51"), Decimal("7.31"), Decimal("8.20"), 2),
        "VND": CurrencyRevenue(Decimal(5000), Decimal(0), Decimal(5000), 1),
    }
    assert str(found.by_currency["VND"].gross) == "5000"


EDGES = [
    # 31 March's month begins on the last of February; in a leap year on the 29th.
    ("month", "rolling", "UTC", datetime(2026, 3, 31, 10, 20, tzinfo=UTC)),
    ("month", "rolling", "UTC", datetime(2028, 3, 31, 10, 20, 0, 1, tzinfo=UTC)),
    ("month", "rolling", "UTC", datetime(2028, 2, 29, tzinfo=UTC)),
    ("month", "calendar", "UTC", datetime(2028, 2, 29, 23, 30, tzinfo=UTC)),
    ("month", "calendar", "UTC", datetime(2028, 3, 1, 0, 0, 0, 5, tzinfo=UTC)),
    ("month", "calendar", "Asia/Kathmandu", datetime(2026, 4, 1, 3, 7, tzinfo=UTC)),
    # Days of 23 and 25 hours.
    ("day", "calendar", "Europe/Berlin", datetime(2026, 3, 29, 21, 59, 59, tzinfo=UTC)),
    ("day", "calendar", "Europe/Berlin", datetime(2026, 10, 25, 22, 59, 59, tzinfo=UTC)),
    ("day", "rolling", "Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=UTC)),
    ("day", "rolling", "America/New_York", datetime(2026, 3, 8, 12, 0, 0, 7, tzinfo=UTC)),
    ("week", "rolling", "UTC", datetime(2026, 1, 3, 23, 59, tzinfo=UTC)),
    ("hour", "rolling", "UTC", datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)),
    ("hour", "rolling", "UTC", datetime(2026, 1, 1, tzinfo=UTC)),
    ("hour", "calendar", "Asia/Kathmandu", datetime(2026, 1, 1, 0, 10, tzinfo=UTC)),
]


def naive(sold, start, end):
    """Gross and refunds of each currency and in USD, by Decimal, over every transaction."""
    currencies, usd = defaultdict(lambda: [Decimal(0), Decimal(0), 0]), [Decimal(0), Decimal(0)]
    charges = []
    with localcontext() as context:
        context.prec = 60
        for at, kind, currency, minor in sold:
            if not start <= at < end:
                continue
            side = int(kind == "refund" or minor < 0)
            currencies[currency][side] += abs(Decimal(minor)).scaleb(-PLACES[currency])
            amount = Decimal(in_usd(abs(minor), currency, RATES.get(currency, "1"))) / 100
            usd[side] += amount
            if kind == "charge":
                currencies[currency][2] += 1
                charges.append(amount)
        mean = sum(charges) / len(charges) if charges else Decimal(0)
        return currencies, usd, mean.quantize(Decimal("0.01"), ROUND_HALF_EVEN), len(charges)


@pytest.mark.parametrize(("period", "kind", "tz", "now"), EDGES)
def test_at_the_edges_it_is_what_a_plain_sum_says(store, period, kind, tz, now):
    """Something every few minutes, and at each edge a microsecond before, on and after it."""
    start, end = periods.span(period, kind, tz, now)
    step = max((end - start) / 90, timedelta(seconds=11))
    moments = [start + step * n for n in range(-5, int((end - start) / step) + 6)]
    hour = timedelta(hours=1)
    for edge in (start, end):
        whole = edge.replace(minute=0, second=0, microsecond=0)
        moments += [
            around + timedelta(microseconds=n)
            for around in (edge, whole, whole + hour)
            for n in (-1, 0, 1)
        ]
    sold, payloads = [], []
    for n, at in enumerate(moments):
        currency = ("USD", "EUR", "JPY", "KWD")[n % 4]
        minor = 1_001 + 37 * n
        if n % 7 == 6:
            minor, what = (-minor if n % 2 else minor), "adjustment"
        else:
            what = "charge"
        sold.append((at, what, currency, minor))
        payloads.append(transaction(what, f"t{n}", minor, currency, at=micros(at)))
        if n % 5 == 0 and what == "charge":
            sold.append((at + hour / 3, "refund", currency, minor))
            payloads.append(
                refund(f"r{n}", minor, currency, charge=f"t{n}", at=micros(at + hour / 3))
            )
    fill(store, *payloads)
    found = pbmon.revenue_metrics(period, kind=kind, tz=tz, now=now)
    currencies, (gross, refunds), average, count = naive(sold, start, end)
    assert (found.start, found.end) == (start, end)
    assert (found.gross, found.refunds, found.net) == (gross, refunds, gross - refunds)
    assert (found.count, found.average, found.unconverted) == (count, average, 0)
    assert found.by_currency == {
        currency: CurrencyRevenue(gross, refunds, gross - refunds, count)
        for currency, (gross, refunds, count) in currencies.items()
    }
    assert count > 0


def test_whole_hours_are_not_read_from_the_rows(store):
    """What keeps it fast: only the two hours that are cut are looked at row by row."""
    noon = datetime(2026, 3, 31, 12, tzinfo=UTC)
    times = [micros(noon - timedelta(hours=n)) for n in range(1, 9)]
    fill(store, *(transaction(key=str(at), at=at) for at in times))
    with store._engine.begin() as connection:
        connection.execute(tables.transactions.delete())
    assert pbmon.revenue_metrics("day", now=noon).gross == Decimal("80.00")
    assert pbmon.revenue_metrics("day", now=noon - timedelta(microseconds=1)).count == 7


@patiently(max_examples=30)
@given(st.integers(0, 4 * 3600), st.integers(0, 4 * 3600))
def test_any_span_is_what_the_rows_say(filled, one, other):
    from pbmon.store import revenue

    start, end = sorted((one, other))
    origin = micros(datetime(2026, 1, 1, tzinfo=UTC))
    with filled.connect() as connection:
        found = revenue.read(connection, origin + start * 10**6, origin + end * 10**6, "USD")
    wanted = [n for n in range(0, 4 * 3600, 97) if start <= n < end]
    assert sum(row.transactions for row in found.sums) == len(wanted)
    assert sum(row.base_minor for row in found.sums) == sum(n + 1 for n in wanted)


@pytest.fixture(scope="module")
def filled(file, tmp_path_factory):
    path = shutil.copy(file, tmp_path_factory.mktemp("filled"))
    origin = micros(datetime(2026, 1, 1, tzinfo=UTC))
    writer = open_writer(f"sqlite:///{path}", "opt-in")
    seconds = range(0, 4 * 3600, 97)
    fill(writer, *(transaction(key=str(n), amount=n + 1, at=origin + n * 10**6) for n in seconds))
    writer.close()
    made = open_engine(f"sqlite:///{path}")
    yield made
    made.dispose()


def test_in_async_code_by_a_thread(store):
    fill(store, transaction(at=micros(datetime(2026, 1, 1, tzinfo=UTC))))

    async def ask():
        now = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
        return await asyncio.to_thread(pbmon.revenue_metrics, "hour", now=now)

    assert asyncio.run(ask()).gross == Decimal("10.00")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"period": "year"}, "period 'year' is not one of hour, day, week, month"),
        ({"kind": "fiscal"}, "kind 'fiscal' is not one of rolling, calendar"),
        ({"tz": "Mars/Olympus"}, "is no time zone that is known here"),
        ({"now": datetime(2026, 1, 1)}, "needs a time zone"),
    ],
)
def test_a_wrong_question_is_a_value_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        pbmon.revenue_metrics(**wrong)


def test_before_configure_the_remedy_is_said():
    with pytest.raises(pbmon.StoreError, match=r"call pbmon.configure\(\) first"):
        pbmon.revenue_metrics()
