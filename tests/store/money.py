"""Money for tests of the ledger: entries, rates, and the books compared with each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from sqlalchemy import select

from pbmon import catalog
from pbmon.money import Rate
from pbmon.spool import entries
from pbmon.store import revenue, tables
from pbmon.store.schema import HOUR
from tests.store.test_writer import NOON

PLACES = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3, "VND": 0}


class TableOfRates:
    """Rates to USD that hold on every day; asked is what refresh() was asked for."""

    def __init__(self, **values):
        self.values = {currency: Decimal(value) for currency, value in values.items()}
        self.asked = []

    def rate(self, currency, base, day):
        if base != "USD" or currency not in self.values:
            return None
        return Rate(self.values[currency], day, "table")

    def refresh(self, wanted):
        self.asked += wanted


def transaction(kind="charge", key="c1", amount=1000, currency="USD", *, charge=None,
                status="completed", at=NOON, user=None, segments=None):  # fmt: skip
    """An encoded one, which occurred when it was said."""
    return entries.encode(
        entries.Transaction(
            at, kind, key, charge, status, amount, currency, PLACES[currency], at, segments, user
        )
    )


def refund(key="r1", amount=100, currency="USD", *, charge="c1", kind="refund", **more):
    return transaction(kind, key, amount, currency, charge=charge, **more)


def rows(engine, table=tables.transactions):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def status(engine, kind="charge", key="c1"):
    """Status, and whether it counts."""
    (row,) = (row for row in rows(engine) if (row.kind, row.key) == (kind, key))
    return row.status, row.counted_at is not None


def figures(engine):
    """Metric → attributes' values → value."""
    found = defaultdict(dict)
    with engine.connect() as connection:
        for metric, value, attributes in revenue.figures(connection):
            found[metric.name][tuple(attributes.values())] = value
    return found


def earned(engine):
    """Revenue and refunds as the metrics have them, in minor units of USD."""
    found = figures(engine)
    return tuple(
        round(Decimal(str(found[metric.name]["USD",])) * 100)
        for metric in (catalog.REVENUE, catalog.REFUNDS)
    )


def check_books(engine):
    """Rows, totals of hours, totals of all time and figures say the same; rows of each charge are
    within it. Gives the rows that count."""
    found = rows(engine)
    counting = [row for row in found if row.counted_at is not None]
    hours, booked, everything = (defaultdict(Counter) for _ in range(3))
    for row in counting:
        assert row.status == "completed"
        sign = 1 if _is_revenue(row) else -1
        sums = {
            "transactions": 1, "amount_minor": abs(row.amount_minor),
            "base_minor": abs(row.base_minor or 0), "unconverted": row.base_minor is None,
        }  # fmt: skip
        place = (row.kind, sign, row.currency, row.exponent)
        hours[(row.occurred_at // HOUR * HOUR, *place)].update(sums)
        booked[(row.counted_at // HOUR * HOUR, *place)].update(sums)
        everything[place].update(sums)
    assert _sums(rows(engine, tables.revenue_totals), ("hour", "kind", "sign")) == _plain(hours)
    assert _sums(rows(engine, tables.counted_totals), ("hour", "kind", "sign")) == _plain(booked)
    completed = [r for r in rows(engine, tables.ledger_totals) if r.status == "completed"]
    assert _sums(completed, ("kind", "sign")) == _plain(everything)
    _check_charges(found)
    _check_figures(engine, counting)
    return counting


def _is_revenue(row):
    return row.kind == "charge" or (row.kind == "adjustment" and row.amount_minor >= 0)


def _sums(found, place):
    return _plain({
        (*(getattr(row, name) for name in place), row.currency, row.exponent): {
            name: getattr(row, name)
            for name in ("transactions", "amount_minor", "base_minor", "unconverted")
        }
        for row in found
    })  # fmt: skip


def _plain(sums):
    return {key: {n: int(v) for n, v in values.items() if v} for key, values in sums.items()}


def _check_charges(found):
    parts_of = defaultdict(list)
    for row in found:
        if row.charge is not None and row.status == "completed":
            parts_of[row.kind, row.charge].append(row)
    for charge in (row for row in found if row.kind == "charge"):
        for kind, gone in (("refund", charge.refunded_minor),
                           ("chargeback", charge.charged_back_minor)):  # fmt: skip
            parts = parts_of[kind, charge.key]
            assert sum(part.amount_minor for part in parts) == gone <= charge.amount_minor
            if charge.base_minor is None:
                assert all(part.base_minor is None for part in parts)
            elif gone == charge.amount_minor > 0:
                assert sum(part.base_minor for part in parts) == charge.base_minor
            assert {(p.fx_rate, p.fx_date, p.fx_source) for p in parts} <= {
                (charge.fx_rate, charge.fx_date, charge.fx_source)
            }


def _check_figures(engine, counting):
    found = figures(engine)
    for metric, is_revenue in ((catalog.REVENUE, True), (catalog.REFUNDS, False)):
        wanted = sum(abs(row.base_minor or 0) for row in counting if _is_revenue(row) == is_revenue)
        assert found[metric.name] == {("USD",): wanted / 100}
    waiting = Counter(row.currency for row in counting if row.base_minor is None)
    unconverted = found[catalog.REVENUE_UNCONVERTED.name]
    assert unconverted["USD",] == 0
    assert {c: n for (c,), n in unconverted.items() if n} == waiting
    kinds = Counter(row.kind for row in counting)
    assert {
        kind: value
        for (kind, status), value in found[catalog.TRANSACTIONS.name].items()
        if status == "completed"
    } == {kind: kinds[kind] for kind in catalog.TRANSACTION_KIND.values}


def in_usd(minor, currency, rate):
    """By Decimal, rounded half to even: the plain way."""
    with localcontext() as context:
        context.prec = 60
        amount = Decimal(minor).scaleb(-PLACES[currency]) * Decimal(rate)
        return int(amount.quantize(Decimal("0.01"), ROUND_HALF_EVEN) * 100)
