"""What others are compared with: the ledger by the time counted, as its metrics rise, and the
application's own payments as its database has them."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select, text

from pbmon import money
from pbmon.parsing import Payments
from pbmon.store import application, engine
from pbmon.store.lines import COMPLETED
from pbmon.store.revenue import SIGN, base
from pbmon.store.schema import MADE_AT
from pbmon.store.tables import ledger_totals, meta, transactions

if TYPE_CHECKING:
    from sqlalchemy import Connection

PATIENCE_S = 60.0
"""How long the application's database may take."""

_MOST_ROWS = 100_000


class Counted(NamedTuple):
    """What counted within a time, as the metrics have it; amounts in the base currency. others: of
    transactions in other currencies, which join the metrics when there is a rate."""

    revenue_minor: int = 0
    refunds_minor: int = 0
    transactions: int = 0
    others_revenue_minor: int = 0
    others_refunds_minor: int = 0


class Books(NamedTuple):
    """What a store counted between each two of the edges that were asked for, just before each of
    them, and ever. made_at: µs since the epoch."""

    store_id: str
    made_at: int
    currency: str
    exponent: int
    spans: tuple[Counted, ...]
    tails: tuple[Counted, ...]
    ever: Counted


class Paid(NamedTuple):
    """Payments of a day in one currency."""

    day: dt.date
    currency: str
    amount_minor: int
    payments: int


def read(connection: Connection, edges: Sequence[int], tail: int, base_currency: str) -> Books:
    """edges: two or more times, µs since the epoch, in their order. tail: how long before each of
    them is "just before", µs. base_currency: of a store that has none yet."""
    known = {row.key: row.value for row in connection.execute(meta.select())}
    currency, exponent = base(connection, base_currency)
    return Books(
        known["store_id"],
        int(known[MADE_AT]),
        currency,
        exponent,
        tuple(
            _counted(connection, currency, start, end)
            for start, end in zip(edges, edges[1:], strict=False)
        ),
        tuple(_counted(connection, currency, edge - tail, edge) for edge in edges),
        _ever(connection, currency),
    )


def _counted(connection: Connection, currency: str, start: int, end: int) -> Counted:
    t = transactions.c
    is_other = t.currency != currency
    return _sum(
        connection.execute(
            select(SIGN, is_other, func.coalesce(func.sum(func.abs(t.base_minor)), 0), func.count())
            .where(t.counted_at >= start, t.counted_at < end)
            .group_by(SIGN, is_other)
        )
    )


def _ever(connection: Connection, currency: str) -> Counted:
    t = ledger_totals.c
    return _sum(
        connection.execute(
            select(t.sign, t.currency != currency, t.base_minor, t.transactions).where(
                t.status == COMPLETED
            )
        )
    )


def _sum(rows: Iterable[Sequence[Any]]) -> Counted:
    """rows: sign, whether it is of another currency, amount in the base, transactions."""
    amounts = dict.fromkeys(((1, False), (1, True), (-1, False), (-1, True)), 0)
    count = 0
    for sign, is_other, amount, of_it in rows:
        amounts[sign, bool(is_other)] += int(amount)
        count += of_it
    revenue, refunds = amounts[1, True], amounts[-1, True]
    return Counted(
        amounts[1, False] + revenue, amounts[-1, False] + refunds, count, revenue, refunds
    )


def payments(
    asked: Payments, url: str, days: Sequence[dt.date], edges: Sequence[int]
) -> list[Paid]:
    """What the application's database says of these days, which begin and end at the edges (µs
    since the epoch). Raises ApplicationError."""
    start, end = edges[0], edges[-1]
    sums: defaultdict[tuple[dt.date, str], list[int]] = defaultdict(lambda: [0, 0])
    with (
        application.connected(url, "[reconcile]", PATIENCE_S) as connection,
        engine.within(connection, PATIENCE_S),
    ):
        as_text = connection.dialect.name == "sqlite"  # it has no times of its own
        found = connection.execute(
            text(asked.query), {"start": _bound(start, as_text), "end": _bound(end, as_text)}
        )
        columns = [name.lower() for name in tuple(found.keys())]
        for name in ("day", "currency", "amount", "count"):
            if columns.count(name) != 1:
                raise ValueError(
                    f"gives no column {name}; let `query` in [reconcile] select day, currency, "
                    "amount and count, once each"
                )
        for row in _rows(found):
            paid = _paid(dict(zip(columns, row, strict=True)))
            if paid.day not in days:
                raise ValueError(
                    f"gives the day {paid.day}, which was not asked for; see that `query` in "
                    "[reconcile] keeps to :start and :end and has days of the zone `timezone`"
                )
            sums[paid.day, paid.currency][0] += paid.amount_minor
            sums[paid.day, paid.currency][1] += paid.payments
    return [Paid(*place, *of_it) for place, of_it in sorted(sums.items())]


def _bound(at: int, as_text: bool) -> Any:
    moment = dt.datetime.fromtimestamp(at // 1_000_000, dt.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S") if as_text else moment


def _rows(found: Any) -> Iterator[Any]:
    for number, row in enumerate(found):
        if number == _MOST_ROWS:
            raise ValueError("gives a great many rows; let `query` in [reconcile] group by day")
        yield row


def _paid(row: dict[str, Any]) -> Paid:
    """No value of a row is repeated in a message, but a currency."""
    currency = row["currency"]
    if isinstance(currency, str):
        currency = currency.strip()
    try:
        minor = money.minor_units(row["amount"], currency, signed=True)
    except (TypeError, money.AmountError) as error:
        raise ValueError(
            f"gives what can't be counted: {error}. Let `query` in [reconcile] give NUMERIC, whole "
            "numbers or text such as 12.50, in major units"
        ) from None
    return Paid(_day(row["day"]), currency, minor, _count(row["count"]))


def _day(value: Any) -> dt.date:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return dt.date.fromisoformat(value)
    if isinstance(value, dt.datetime) and value.time() == dt.time():  # as date_trunc gives it
        return value.date()
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    raise ValueError("gives a day that is none; let `query` in [reconcile] give a date")


def _count(value: Any) -> int:
    if isinstance(value, (int, Decimal)) and value == int(value) and value >= 0:
        return int(value)
    raise ValueError("gives a count that is none; let `query` in [reconcile] give count(*)")
