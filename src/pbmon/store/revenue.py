"""What the ledger says: of a period; of all time and of the last day for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from pbmon import catalog, money
from pbmon.runtime import Figure, Revenue, RevenueSum
from pbmon.store import conversion, schema
from pbmon.store.conversion import Base
from pbmon.store.lines import COMPLETED, HELD
from pbmon.store.schema import DAY, HOUR
from pbmon.store.tables import (
    counted_totals,
    ledger_totals,
    revenue_totals,
    transaction_conflicts,
    transactions,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_KEYS = ("kind", "sign", "currency", "exponent")
_SUMS = ("transactions", "amount_minor", "base_minor", "unconverted")
_CHARGE_STATUSES = catalog.TRANSACTION_STATUS.values
_HELD: ColumnElement[str] = literal_column(f"'{HELD}'")
"""As it stands in the index: SQLite uses that for no value that is bound."""

_T = transactions.c
SIGN: ColumnElement[int] = case(
    (or_(_T.kind == "charge", and_(_T.kind == "adjustment", _T.amount_minor >= 0)), 1), else_=-1
).label("sign")
"""Of a transaction, as Line.sign."""

_SIGNS = {catalog.REVENUE: 1, catalog.REFUNDS: -1}
_PART_SIGNS = dict(zip(catalog.REVENUE_PART.values, (1, -1), strict=True))
_LAST_DAY = catalog.WINDOW.values[0]


def read(connection: Connection, start: int, end: int, base_currency: str) -> Revenue:
    """What counts of what occurred from start (within) to end (not): whole hours from the totals,
    the rest from the rows, in one statement and so of one moment.

    base_currency: of a store that has none yet.
    """
    found = connection.execute(_of_period(start, end))
    held = select(func.count()).where(
        transactions.c.status == _HELD,
        transactions.c.occurred_at >= start,
        transactions.c.occurred_at < end,
    )
    of_base = base(connection, base_currency)
    return Revenue(
        of_base.currency,
        of_base.exponent,
        tuple(RevenueSum(*row[:4], *map(int, row[4:])) for row in found),
        connection.execute(held).scalar_one(),
    )


def conflicts(connection: Connection, start: int, end: int) -> dict[str, int]:
    """Reason → how many were not booked, of what is said to have occurred in this time."""
    refused = transaction_conflicts.c
    query = (
        select(refused.reason, func.count().label("conflicts"))
        .where(refused.occurred_at >= start, refused.occurred_at < end)
        .group_by(refused.reason)
        .order_by(refused.reason)
    )
    return {row.reason: row.conflicts for row in connection.execute(query)}


def base(connection: Connection, base_currency: str) -> Base:
    """base_currency: of a store that has none yet."""
    found = conversion.base_of(connection)
    return found or Base(base_currency, money.exponent(base_currency))


def _of_period(start: int, end: int) -> Select[Any]:
    first, last = -(-start // HOUR) * HOUR, end // HOUR * HOUR
    t = _T
    if first > last:  # within one hour
        edges = [and_(t.occurred_at >= start, t.occurred_at < end)]
        first = last
    else:
        edges = [
            and_(t.occurred_at >= since, t.occurred_at < until)
            for since, until in ((start, first), (last, end))
            if since < until
        ]
    hour = revenue_totals.c.hour
    return _together(_of_hours(revenue_totals, hour >= first, hour < last), *map(_of_rows, edges))


def _booked_since(start: int) -> Select[Any]:
    """What counts of what was booked from start (within) on: rows up to the next whole hour, and
    the totals of the hours since."""
    first = -(-start // HOUR) * HOUR
    at = transactions.c.counted_at
    return _together(
        _of_hours(counted_totals, counted_totals.c.hour >= first),
        _of_rows(and_(at >= start, at < first)),
    )


def _of_hours(totals: Table, *whole: ColumnElement[bool]) -> Select[Any]:
    return select(*(totals.c[name] for name in (*_KEYS, *_SUMS))).where(*whole)


def _of_rows(edge: ColumnElement[bool]) -> Select[Any]:
    t = _T
    return (
        select(
            t.kind,
            SIGN,
            t.currency,
            t.exponent,
            func.count().label("transactions"),
            _sum(func.abs(t.amount_minor)).label("amount_minor"),
            _sum(func.abs(t.base_minor)).label("base_minor"),
            (func.count() - func.count(t.base_minor)).label("unconverted"),
        )
        .where(t.counted_at.is_not(None), edge)
        .group_by(t.kind, SIGN, t.currency, t.exponent)
    )


def _together(*parts: Select[Any]) -> Select[Any]:
    rows = union_all(*parts).subquery()
    keys = [rows.c[name] for name in _KEYS]
    sums = [_sum(rows.c[name]).label(name) for name in _SUMS]
    return select(*keys, *sums).group_by(*keys).order_by(*keys)


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)


def figures(connection: Connection, base_currency: str = "USD") -> list[Figure]:
    """The ledger's metrics, of totals and of the rows of less than an hour; each is there from the
    beginning on, at 0.

    base_currency: of a store that has none yet.
    """
    of_base = base(connection, base_currency)
    rows = connection.execute(ledger_totals.select()).all()
    made = [
        Figure(
            metric,
            money.major_units(
                sum(row.base_minor for row in rows if row.sign == sign and row.status == COMPLETED),
                of_base.exponent,
            ),
            {catalog.CURRENCY.name: of_base.currency},
        )
        for metric, sign in _SIGNS.items()
    ]
    for kind in catalog.TRANSACTION_KIND.values:
        for status in _CHARGE_STATUSES if kind == "charge" else (COMPLETED,):
            count = sum(
                row.transactions for row in rows if (row.kind, row.status) == (kind, status)
            )
            attributes = {
                catalog.TRANSACTION_KIND.name: kind, catalog.TRANSACTION_STATUS.name: status,
            }  # fmt: skip
            made.append(Figure(catalog.TRANSACTIONS, count, attributes))
    for currency in sorted({of_base.currency, *(row.currency for row in rows)}):
        waiting = sum(row.unconverted for row in rows if row.currency == currency)
        made.append(Figure(catalog.REVENUE_UNCONVERTED, waiting, {catalog.CURRENCY.name: currency}))
    return made + booked(connection, of_base, schema.clock(connection))


def booked(connection: Connection, base: Base, now: int) -> list[Figure]:
    """What was booked in the 24 hours before now, and whatever a faster clock booked after it."""
    found = connection.execute(_booked_since(now - DAY)).all()
    return [
        Figure(
            catalog.REVENUE_BOOKED,
            money.major_units(
                sum(int(row.base_minor) for row in found if row.sign == sign), base.exponent
            ),
            {
                catalog.CURRENCY.name: base.currency,
                catalog.REVENUE_PART.name: part,
                catalog.WINDOW.name: _LAST_DAY,
            },
        )
        for part, sign in _PART_SIGNS.items()
    ]
