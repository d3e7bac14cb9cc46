"""What Pocketbook asks its database: one method for each question, parametrised SQL only."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pbmon
from examples.pocketbook.database import Database, read_time
from examples.pocketbook.money import to_major, to_minor
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
_RETURNED = """
UPDATE transactions SET returned_minor = returned_minor + :minor
WHERE id = :id AND status = 'completed' AND returned_minor + :minor <= amount_minor
"""
_SEEN = "UPDATE users SET last_seen = :now WHERE id = :user_id"
_USERS = (
    "SELECT id, name, country, plan, last_seen FROM users ORDER BY id LIMIT :limit OFFSET :offset"
)
_USER = "SELECT id, name, country, plan, last_seen FROM users WHERE id = :user_id"
_BALANCES = """
SELECT currency, sum(amount_minor - returned_minor) FROM transactions
WHERE user_id = :user_id AND status = 'completed'
GROUP BY currency ORDER BY currency
"""
_BY_CURRENCY = """
SELECT currency, count(*), sum(amount_minor - returned_minor) FROM transactions
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
    plan: str
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

        pbmon hears of it in the same transaction: if, and only if, that commits.
        fields: currency, status, merchant, category.
        """
        now = datetime.now(timezone.utc)
        made = Transaction(
            id=f"txn_{uuid.uuid4().hex}",
            user_id=user_id,
            amount=to_major(amount_minor, fields["currency"]),
            created_at=now,
            **fields,
        )
        values = {"id": made.id, "user_id": user_id, "created_at": now, **fields}
        with self._database.transaction() as cursor:
            cursor.execute(*self._database.statement(_SEEN, now=now, user_id=user_id))
            if cursor.rowcount == 0:
                return None
            cursor.execute(
                *self._database.statement(ADD_TRANSACTION, amount_minor=amount_minor, **values)
            )
            with pbmon.outbox(cursor.connection):
                pbmon.track_revenue(
                    made.amount,
                    made.currency,
                    transaction_id=made.id,
                    status=made.status,
                    user_id=user_id,
                )
                pbmon.track("transaction_created", {"category": made.category}, user_id=user_id)
        return made

    def refund(self, charge: Transaction, amount: Decimal) -> str | None:
        """Give back a part of a completed transaction, or all; the refund's id. None: it has not
        that much left."""
        refund_id = f"ref_{uuid.uuid4().hex}"
        with self._database.transaction() as cursor:
            if not self._give_back(cursor, charge, amount):
                return None
            with pbmon.outbox(cursor.connection):
                pbmon.track_refund(
                    amount, charge.currency, transaction_id=charge.id, refund_id=refund_id
                )
        return refund_id

    def charge_back(self, charge: Transaction) -> str | None:
        """The bank took all of it back, by the owner's wish; the chargeback's id. None: there is
        nothing to take."""
        chargeback_id = f"cbk_{uuid.uuid4().hex}"
        with self._database.transaction() as cursor:
            if not self._give_back(cursor, charge, charge.amount):
                return None
            with pbmon.outbox(cursor.connection):
                pbmon.track_chargeback(
                    charge.amount,
                    charge.currency,
                    transaction_id=charge.id,
                    chargeback_id=chargeback_id,
                )
        return chargeback_id

    def _give_back(self, cursor: Any, charge: Transaction, amount: Decimal) -> bool:
        minor = to_minor(amount, charge.currency)
        cursor.execute(*self._database.statement(_RETURNED, id=charge.id, minor=minor))
        return bool(cursor.rowcount)

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
    id_, name, country, plan, last_seen = row
    return User(id_, name, country, plan, read_time(last_seen))
