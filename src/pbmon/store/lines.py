"""Rows of `transactions`, as they are and as one transaction of the store leaves them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from pbmon.store.tables import transactions

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

HELD = "held"
"""The status of a refund or chargeback whose charge has not completed."""

COMPLETED = "completed"


@dataclass(slots=True)
class Line:
    """The columns of a row."""

    kind: str
    key: str
    charge: str | None
    status: str
    amount_minor: int
    currency: str
    exponent: int
    body_hash: bytes
    occurred_at: int
    reported_at: int
    subject: bytes | None
    segments: Mapping[str, str] | None
    base_minor: int | None = None
    fx_rate: str | None = None
    fx_date: dt.date | None = None
    fx_source: str | None = None
    refunded_minor: int = 0
    charged_back_minor: int = 0
    counted_at: int | None = None

    @property
    def sign(self) -> int:
        """1: it is revenue. -1: it takes from it."""
        is_revenue = self.kind == "charge" or (self.kind == "adjustment" and self.amount_minor >= 0)
        return 1 if is_revenue else -1


_FIELDS = tuple(field.name for field in dataclasses.fields(Line))
_COLUMNS = select(*(transactions.c[name] for name in _FIELDS))
_CHANGING = (
    "status", "occurred_at", "reported_at", "subject", "base_minor", "fx_rate", "fx_date",
    "fx_source", "refunded_minor", "charged_back_minor", "counted_at",
)  # fmt: skip
_CHANGE = (
    update(transactions)
    .where(transactions.c.kind == bindparam("kind_"), transactions.c.key == bindparam("key_"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGING})
)
_DELETE = transactions.delete().where(
    transactions.c.kind == bindparam("kind_"), transactions.c.key == bindparam("key_")
)


def find(
    connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Line]:
    """In the order in which they were booked."""
    query = _COLUMNS.where(*conditions).limit(limit)
    found = connection.execute(
        query.order_by(transactions.c.counted_at, transactions.c.reported_at, transactions.c.key)
    )
    return [Line(*row) for row in found]


def by_key(connection: Connection, keys: Mapping[str, Iterable[str]]) -> list[Line]:
    """Those of these keys; keys: by kind."""
    return [
        line
        for kind, wanted in keys.items()
        for line in find(connection, transactions.c.kind == kind, transactions.c.key.in_(wanted))
    ]


def add(connection: Connection, lines: Sequence[Line]) -> None:
    if lines:
        connection.execute(
            transactions.insert(),
            [{name: getattr(line, name) for name in _FIELDS} for line in lines],
        )


def change(connection: Connection, lines: Sequence[Line]) -> None:
    if lines:
        connection.execute(
            _CHANGE,
            [
                {
                    "kind_": line.kind,
                    "key_": line.key,
                    **{f"new_{name}": getattr(line, name) for name in _CHANGING},
                }
                for line in lines
            ],
        )


def remove(connection: Connection, lines: Sequence[Line]) -> None:
    if lines:
        connection.execute(_DELETE, [{"kind_": line.kind, "key_": line.key} for line in lines])
