"""Money: what is said of it goes the way of the events, and is booked in the store."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from pbmon import catalog, identity, money, runtime
from pbmon.business import reading
from pbmon.business.events import checked_ids
from pbmon.business.intake import Taker
from pbmon.business.refusals import RefusalError, refuse
from pbmon.runtime import ACCEPTED, NOT_CONFIGURED, Refused, Verdict
from pbmon.segments import keep
from pbmon.settings import Settings
from pbmon.spool import entries

_MAX_ID = 255
_EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc)
_AHEAD = timedelta(days=1)


class Cashbook:
    """The runtime.RevenueSink. apply() changes the segments that are kept while it runs."""

    def __init__(self, settings: Settings, intake: Taker) -> None:
        self._intake = intake
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        self._segments = settings.segments

    def book(
        self,
        kind: str,
        key: str,
        charge: str | None,
        status: str,
        minor: int,
        currency: str,
        occurred_at: datetime | None,
        user_id: str | None,
    ) -> Verdict:
        at = time.time_ns() // 1000
        segments = None
        person = identity.current()
        if person is not None:
            if person.consent is False:  # the money is booked, and nobody's
                user_id = None
            else:
                segments = keep(self._segments, person.segments) if person.segments else None
                if kind == "charge":
                    user_id = user_id or person.user_id
        entry = entries.Transaction(
            at,
            kind,
            key,
            charge,
            status,
            minor,
            currency,
            money.exponent(currency),
            at if occurred_at is None else reading.micros(occurred_at),
            segments or None,
            user_id,
        )
        reason = self._intake.put(entries.encode(entry))
        return Refused(reason) if reason else ACCEPTED


def track_revenue(
    amount: Decimal | int | str,
    currency: str,
    *,
    transaction_id: str,
    status: str = "completed",
    occurred_at: datetime | None = None,
    user_id: str | int | None = None,
) -> Verdict:
    """Record a charge, or its new status.

    amount: Decimal, int or str in major units, 0 or more, with no more decimals than the
        currency's ISO 4217 exponent. A float raises TypeError.
    currency: ISO 4217 code, such as USD.
    transaction_id: the application's own id, 1 to 255 characters; a charge is booked once for
        each. It never becomes a metric attribute.
    status: pending, completed, failed or cancelled. Only completed counts as revenue, and is
        final; before, the status that was said last stands.
    occurred_at: aware datetime, from the year 2000 to one day ahead; now if left out. Counters
        count by arrival, revenue_metrics() by this.
    user_id: who paid; if left out, the user of the request or of pbmon.context(). Kept, as a
        pseudonym, only with consent; the charge is booked in any case.

    Returns Accepted: it survives this process, and is booked exactly once, however often it is
    said; in pbmon.outbox() if the transaction commits. With another amount or currency than
    before it is a conflict: told, and kept in transaction_conflicts, not booked. Or a falsy
    Refused: unknown_currency, invalid_amount, negative_amount, too_precise, too_large,
    bad_transaction_id, bad_status, bad_user_id, naive_datetime, bad_occurred_at; full, io_error,
    no_state_directory, busy, shut_down; not_configured before configure(). Under strict a wrong
    value is raised as ValueError. Never raises for a backend's fault.
    Goes to the store, which gives pbmon.revenue (completed only) and pbmon.transactions.
    """
    call = "track_revenue"
    if runtime.active.revenue is not None:
        if not isinstance(status, str):
            raise TypeError(f"status must be str, not {type(status).__name__}")
        if status not in catalog.TRANSACTION_STATUS.values:
            known = ", ".join(catalog.TRANSACTION_STATUS.values)
            return refuse(call, "bad_status", f"status {status[:32]!r} is not one of {known}")
    return _book(
        call, "charge", amount, currency, occurred_at, status, user_id,
        transaction_id=transaction_id,
    )  # fmt: skip


def track_refund(
    amount: Decimal | int | str,
    currency: str,
    *,
    transaction_id: str,
    refund_id: str,
    occurred_at: datetime | None = None,
) -> Verdict:
    """Record that money of a charge went back: all of it, or a part; as often as there are parts.

    amount, currency, occurred_at: as track_revenue(); the currency is the charge's.
    transaction_id: of the charge. refund_id: the refund's own, 1 to 255 characters; a refund is
        booked once for each.

    A refund may be said before its charge: it is held until the charge is completed. It is
    converted by the charge's rate, so a full refund takes back exactly what the charge gave. What
    is more than the charge, or in another currency, is a conflict: told, and kept in
    transaction_conflicts, not booked.

    Returns as track_revenue(), with the reason bad_refund_id as well.
    Goes to the store, which gives pbmon.refunds and pbmon.transactions.
    """
    return _book(
        "track_refund", "refund", amount, currency, occurred_at,
        transaction_id=transaction_id, refund_id=refund_id,
    )  # fmt: skip


def track_chargeback(
    amount: Decimal | int | str,
    currency: str,
    *,
    transaction_id: str,
    chargeback_id: str,
    occurred_at: datetime | None = None,
) -> Verdict:
    """Record that a bank took money of a charge back.

    As track_refund(), with chargeback_id in the place of refund_id. The chargebacks of a charge
    are at most the charge, whatever was refunded of it before.

    Returns as track_revenue(), with the reason bad_chargeback_id as well.
    Goes to the store, which gives pbmon.refunds and pbmon.transactions.
    """
    return _book(
        "track_chargeback", "chargeback", amount, currency, occurred_at,
        transaction_id=transaction_id, chargeback_id=chargeback_id,
    )  # fmt: skip


def track_adjustment(
    amount: Decimal | int | str,
    currency: str,
    *,
    adjustment_id: str,
    occurred_at: datetime | None = None,
) -> Verdict:
    """Record a correction of revenue that belongs to no charge.

    amount: as track_revenue(), but it may be negative: then it counts in pbmon.refunds, else in
        pbmon.revenue.
    adjustment_id: the application's own, 1 to 255 characters; booked once for each.
    currency, occurred_at: as track_revenue().

    Returns as track_revenue(), with the reason bad_adjustment_id.
    """
    return _book(
        "track_adjustment", "adjustment", amount, currency, occurred_at,
        adjustment_id=adjustment_id,
    )  # fmt: skip


def _book(
    call: str,
    kind: str,
    amount: Decimal | int | str,
    currency: str,
    occurred_at: datetime | None,
    status: str = "completed",
    user_id: str | int | None = None,
    **ids: str,
) -> Verdict:
    """ids: of the charge, if it is another transaction, and its own."""
    sink = runtime.active.revenue
    if sink is None:
        return NOT_CONFIGURED
    try:
        _check_ids(ids)
        if occurred_at is not None:
            _check_time(occurred_at)
        minor = money.minor_units(amount, currency, signed=kind == "adjustment")
        known = checked_ids(user_id, None)
    except (RefusalError, money.AmountError) as error:
        return refuse(call, error.reason, str(error), depth=3)
    *charge, key = ids.values()
    return sink.book(
        kind, key, charge[0] if charge else None, status, minor, currency, occurred_at, known
    )


def _check_ids(ids: dict[str, str]) -> None:
    for name, value in ids.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} must be str, not {type(value).__name__}")
        if not 0 < len(value) <= _MAX_ID:
            raise RefusalError(f"bad_{name}", f"{name} must have 1 to {_MAX_ID} characters")


def _check_time(occurred_at: datetime) -> None:
    if not isinstance(occurred_at, datetime):
        raise TypeError(f"occurred_at must be datetime, not {type(occurred_at).__name__}")
    if occurred_at.utcoffset() is None:
        raise RefusalError("naive_datetime", "occurred_at needs a time zone, such as UTC")
    if not _EARLIEST <= occurred_at <= datetime.now(timezone.utc) + _AHEAD:
        raise RefusalError(
            "bad_occurred_at",
            "occurred_at is before the year 2000 or more than a day ahead; give the time at which "
            "it happened",
        )
