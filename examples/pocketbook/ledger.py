"""What Pocketbook asks its database: one method for each question, parametrised SQL only."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from examples.pocketbook.database import Database, read_time
from examples.pocketbook.money import to_major
from examples.pocketbook.schema import ADD_TRANSACTION

EXPORT_ROWS = 5_000

_TRANSACTION = "id, user_id, amount_minor, currency, status, merchant, category, created_at"
_LIST = f"""
SELECT {_TRANSACTION} FROM transactions
WHERE (:currency IS NULL OR currency = :currency)
  AND lower(merchant) LIKE :merchant ESCAPE '!'
ORDER BY created_at DESC, id
LIMIT :limit OFFSET :offset
"""
_ONE = f"SELECT {_TRANSACTION} FROM transactions WHERE id = :id"
_SEEN = "UPDATE users SET last_seen = :now WHERE id = :user_id"
_USERS = "SELECT id, name, country, last_seen FROM users ORDER BY id LIMIT :limit OFFSET :offset"
_USER = "SELECT id, name, country, last_seen FROM users WHERE id = :user_id"
_BALANCES = """
SELECT currency, sum(amount_minor) FROM transactions
WHERE user_id = :user_id AND status = 'completed'
GROUP BY currency ORDER BY currency
"""
_BY_CURRENCY = """
SELECT currency, count(*), sum(amount_minor) FROM transactions
WHERE created_at >= :since AND status = 'completed'
GROUP BY currency ORDER BY currency
"""
_BY_CATEGORY = """
SELECT category, count(*) FROM transactions
WHERE created_at >= :since AND status = 'completed'
GROUP BY category ORDER BY count(*) DESC, category
"""
_SEEN_SINCE = "SELECT count(*) FROM users WHERE last_seen >= :since"


@dataclass(frozen=True)
class Transaction:
    id: str
    user_id: int
    amount: Decimal
    currency: str
    status: str
    merchant: str
    category: str
    created_at: datetime


@dataclass(frozen=True)
class User:
    id: int
    name: str
    country: str
    last_seen: datetime


@dataclass(frozen=True)
class Dashboard:
    days: int
    active_users: int
    revenue: dict[str, Decimal]
    transactions: int
    categories: dict[str, int]


class Ledger:
    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self) -> None:
        """Raise if the database does not answer."""
        with self._database.transaction() as cursor:
            cursor.execute("SELECT 1")

    def transactions(
        self, *, limit: int, offset: int = 0, currency: str | None = None, search: str = ""
    ) -> list[Transaction]:
        """Newest first."""
        pattern = "".join(f"!{c}" if c in "!%_" else c for c in search.lower())
        with self._database.transaction() as cursor:
            cursor.execute(
                *self._database.statement(
                    _LIST, currency=currency, merchant=f"%{pattern}%", limit=limit, offset=offset
                )
            )
            return [_transaction(row) for row in cursor.fetchall()]

    def transaction(self, transaction_id: str) -> Transaction | None:
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_ONE, id=transaction_id))
            row = cursor.fetchone()
        return _transaction(row) if row is not None else None

    def add(self, user_id: int, amount_minor: int, **fields: str) -> Transaction | None:
        """Write a transaction and note that its user was here. None: there is no such user.

        fields: currency, status, merchant, category.
        """
        now = datetime.now(timezone.utc)
        values = {"id": f"txn_{uuid.uuid4().hex}", "user_id": user_id, **fields}
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_SEEN, now=now, user_id=user_id))
            if cursor.rowcount == 0:
                return None
            cursor.execute(
                *self._database.statement(
                    ADD_TRANSACTION, amount_minor=amount_minor, created_at=now, **values
                )
            )
        amount = to_major(amount_minor, fields["currency"])
        return Transaction(amount=amount, created_at=now, **values)  # type: ignore[arg-type]

    def users(self, *, limit: int, offset: int) -> list[User]:
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_USERS, limit=limit, offset=offset))
            return [_user(row) for row in cursor.fetchall()]

    def user(self, user_id: int) -> User | None:
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_USER, user_id=user_id))
            row = cursor.fetchone()
        return _user(row) if row is not None else None

    def balances(self, user_id: int) -> dict[str, Decimal]:
        """Currency → completed transactions of this user, added up."""
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_BALANCES, user_id=user_id))
            return {currency: to_major(int(minor), currency) for currency, minor in cursor}

    def dashboard(self, days: int) -> Dashboard:
        since = datetime.now(timezone.utc) - timedelta(days=days)
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_BY_CURRENCY, since=since))
            totals = cursor.fetchall()
            cursor.execute(*self._database.statement(_BY_CATEGORY, since=since))
            categories = dict(cursor.fetchall())
            cursor.execute(*self._database.statement(_SEEN_SINCE, since=since))
            (active,) = cursor.fetchone()
        return Dashboard(
            days=days,
            active_users=active,
            revenue={currency: to_major(int(minor), currency) for currency, _, minor in totals},
            transactions=sum(count for _, count, _ in totals),
            categories=categories,
        )


def _transaction(row: tuple[Any, ...]) -> Transaction:
    id_, user_id, minor, currency, status, merchant, category, created_at = row
    return Transaction(
        id_, user_id, to_major(minor, currency), currency, status, merchant, category,
        read_time(created_at),
    )  # fmt: skip


def _user(row: tuple[Any, ...]) -> User:
    id_, name, country, last_seen = row
    return User(id_, name, country, read_time(last_seen))
