"""Revenue: track_revenue() and the counters it moves."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, money, runtime, signals
from pbmon.business.refusals import refuse
from pbmon.runtime import NOT_CONFIGURED, Accepted, Verdict

_MAX_ID = 255


class ProcessTotals:
    """Revenue counted by this process, as exact integers of minor units per currency.

    The counters sum over processes. They give way to the store's ledger under the same names:
    wiring sets one RevenueSink, so a figure never has two sources.
    """

    def __init__(self, meter: Meter) -> None:
        self._lock = threading.Lock()
        self._minor: dict[str, int] = {}
        self._transactions = signals.Counts(catalog.TRANSACTIONS, meter)
        signals.observe(catalog.REVENUE, self._observe, meter=meter, instant=True)
        signals.enlist(self)

    def charge(self, minor: int, currency: str, transaction_id: str, status: str) -> Verdict:
        if status == "completed":
            with self._lock:
                self._minor[currency] = self._minor.get(currency, 0) + minor
        self._transactions.cell(
            (
                (catalog.TRANSACTION_KIND.name, "charge"),
                (catalog.TRANSACTION_STATUS.name, status),
            )
        ).up()
        return Accepted()

    def forget(self) -> None:
        """In a forked child: start every currency at 0."""
        self._lock = threading.Lock()
        self._minor = dict.fromkeys(self._minor, 0)

    def _observe(self) -> Iterable[Observation]:
        with self._lock:
            totals = list(self._minor.items())
        for currency, minor in totals:
            yield Observation(money.major_units(minor, currency), {catalog.CURRENCY.name: currency})


def track_revenue(
    amount: Decimal | int | str,
    currency: str,
    *,
    transaction_id: str,
    status: str = "completed",
    occurred_at: datetime | None = None,
) -> Verdict:
    """Record a charge.

    amount: Decimal, int or str in major units, 0 or more, with no more decimals than the
        currency's ISO 4217 exponent. A float raises TypeError.
    currency: ISO 4217 code, such as USD.
    transaction_id: the application's own id, 1 to 255 characters; it never becomes a metric
        attribute.
    status: pending, completed, failed or cancelled. Only completed counts as revenue.
    occurred_at: aware datetime; now if left out. Counters count by arrival.

    Returns Accepted, or a falsy Refused: unknown_currency, invalid_amount, negative_amount,
    too_precise, too_large, bad_transaction_id, bad_status, naive_datetime; not_configured
    before configure(). Under strict a refusal is raised as ValueError. Never raises for a
    backend's fault.
    Goes to the metrics pbmon.revenue (completed only) and pbmon.transactions. Each call counts:
    calling twice for one transaction counts it twice until the store keeps the ids.
    """
    sink = runtime.active.revenue
    if sink is None:
        return NOT_CONFIGURED
    for name, value in (("transaction_id", transaction_id), ("status", status)):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if occurred_at is not None and not isinstance(occurred_at, datetime):
        raise TypeError(f"occurred_at must be datetime, not {type(occurred_at).__name__}")
    call = "track_revenue"
    if not 0 < len(transaction_id) <= _MAX_ID:
        return refuse(call, "bad_transaction_id", "transaction_id must have 1 to 255 characters")
    if status not in catalog.TRANSACTION_STATUS.values:
        known = ", ".join(catalog.TRANSACTION_STATUS.values)
        return refuse(call, "bad_status", f"status {status[:32]!r} is not one of {known}")
    if occurred_at is not None and occurred_at.utcoffset() is None:
        return refuse(call, "naive_datetime", "occurred_at needs a time zone, such as UTC")
    try:
        minor = money.minor_units(amount, currency)
    except money.AmountError as error:
        return refuse(call, error.reason, str(error))
    return sink.charge(minor, currency, transaction_id, status)
