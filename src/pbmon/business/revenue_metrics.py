"""revenue_metrics(): what was earned in a period, from the ledger's totals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Literal

from pbmon import money, periods, runtime
from pbmon.business import reading
from pbmon.runtime import Revenue, RevenueSum


@dataclass(frozen=True, slots=True)
class CurrencyRevenue:
    """Of one currency, in its own major units; count: completed charges."""

    gross: Decimal
    refunds: Decimal
    net: Decimal
    count: int


@dataclass(frozen=True, slots=True)
class RevenueMetrics:
    """Revenue of a period, as revenue_metrics() gives it. Amounts are exact.

    start, end: aware datetimes in UTC; start is within, end is not.
    currency: the base currency, which gross, refunds, net and average are in.
    gross: completed charges and positive adjustments. refunds: refunds, chargebacks and negative
        adjustments. net: what is left of it.
    count: completed charges. average: of those that are converted, 0 where there is none; rounded
        half to even.
    unconverted: transactions that count, but wait for a rate and are in none of these amounts.
    held: refunds and chargebacks whose charge is not completed; they are in no figure.
    by_currency: ISO 4217 code → gross, refunds, net and count in this currency itself, whether
        converted or not.
    """

    start: datetime
    end: datetime
    currency: str
    gross: Decimal
    refunds: Decimal
    net: Decimal
    count: int
    average: Decimal
    unconverted: int
    held: int
    by_currency: Mapping[str, CurrencyRevenue]


def revenue_metrics(
    period: Literal["hour", "day", "week", "month"] = "month",
    *,
    kind: Literal["rolling", "calendar"] = "rolling",
    tz: str = "UTC",
    now: datetime | None = None,
) -> RevenueMetrics:
    """Revenue, refunds and number of charges of a period that ends now, from the store.

    period, kind: rolling is the last hour, 24 hours by the clock on the wall, seven days, or from
        the same day of the month before (31 March: from 28 or 29 February); calendar the current
        hour, day, week from Monday, or month so far.
    tz: zone of the wall's clock, such as Europe/Berlin.
    now: aware datetime at which it ends.

    By the time at which money moved (occurred_at), as far as it is in the store: what was tracked
    a moment ago may still be on its way. It asks a database: not in the way of a request; in async
    code `await asyncio.to_thread(pbmon.revenue_metrics)`.

    Raises ValueError for an unknown period, kind or zone and for a naive now; pbmon.StoreError
    where the store can't be asked, with the remedy, and before configure().
    """
    start, end = periods.span(period, kind, tz, now or datetime.now(timezone.utc))
    base_currency = runtime.active.settings.base_currency
    return metrics_of(
        start,
        end,
        reading.store().revenue(reading.micros(start), reading.micros(end), base_currency),
    )


def metrics_of(start: datetime, end: datetime, revenue: Revenue) -> RevenueMetrics:
    """From what the store says of a period, to what is told of it."""
    _, places, sums, held = revenue
    gross, refunds = (sum(s.base_minor for s in sums if s.sign == sign) for sign in (1, -1))
    charges = [s for s in sums if s.kind == "charge"]
    converted = sum(s.transactions - s.unconverted for s in charges)
    average = money.rounded(sum(s.base_minor for s in charges), converted) if converted else 0
    return RevenueMetrics(
        start,
        end,
        revenue.base_currency,
        money.major(gross, places),
        money.major(refunds, places),
        money.major(gross - refunds, places),
        sum(s.transactions for s in charges),
        money.major(average, places),
        sum(s.unconverted for s in sums),
        held,
        {
            currency: _of_currency([s for s in sums if s.currency == currency])
            for currency in sorted({s.currency for s in sums})
        },
    )


def _of_currency(sums: list[RevenueSum]) -> CurrencyRevenue:
    # A minor unit may have been another part of the currency once.
    places = max(s.exponent for s in sums)
    gross, refunds = (_minor((s for s in sums if s.sign == sign), places) for sign in (1, -1))
    return CurrencyRevenue(
        money.major(gross, places),
        money.major(refunds, places),
        money.major(gross - refunds, places),
        sum(s.transactions for s in sums if s.kind == "charge"),
    )


def _minor(sums: Iterable[RevenueSum], places: int) -> int:
    total: int = sum(s.amount_minor * 10 ** (places - s.exponent) for s in sums)
    return total
