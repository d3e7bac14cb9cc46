"""Tables and first data, made when the app starts; several workers may start at once."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any

from examples.pocketbook.database import Database
from examples.pocketbook.money import PLACES

MARKER = "pocketbook_schema"
VERSION = 2
USERS = 48
TRANSACTIONS = 400
CATEGORIES = ("groceries", "rent", "travel", "salary", "utilities", "leisure")

_TABLES = (
    "CREATE TABLE pocketbook_schema (version INTEGER PRIMARY KEY)",
    f"INSERT INTO pocketbook_schema (version) VALUES ({VERSION})",
    """
    CREATE TABLE users (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        email TEXT NOT NULL UNIQUE,
        country TEXT NOT NULL,
        plan TEXT NOT NULL,
        created_at {time_type} NOT NULL,
        last_seen {time_type} NOT NULL
    )
    """,
    "CREATE INDEX users_last_seen ON users (last_seen)",
    """
    CREATE TABLE transactions (
        id TEXT PRIMARY KEY,
        user_id INTEGER NOT NULL REFERENCES users (id),
        amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
        returned_minor BIGINT NOT NULL DEFAULT 0 CHECK (returned_minor BETWEEN 0 AND amount_minor),
        currency TEXT NOT NULL,
        status TEXT NOT NULL,
        merchant TEXT NOT NULL,
        category TEXT NOT NULL,
        created_at {time_type} NOT NULL
    )
    """,
    "CREATE INDEX transactions_created ON transactions (created_at, id)",
    "CREATE INDEX transactions_user ON transactions (user_id)",
)
_ADD_USER = """
INSERT INTO users (id, name, email, country, plan, created_at, last_seen)
VALUES (:id, :name, :email, :country, :plan, :created_at, :last_seen)
"""
ADD_TRANSACTION = """
INSERT INTO transactions
    (id, user_id, amount_minor, currency, status, merchant, category, created_at)
VALUES
    (:id, :user_id, :amount_minor, :currency, :status, :merchant, :category, :created_at)
"""

_FIRST = ("Ada", "Bo", "Chloe", "Dmitri", "Elif", "Femi", "Grace", "Hugo")
_LAST = ("Ndiaye", "Okafor", "Petrov", "Quist", "Rossi", "Sato")
_COUNTRIES = ("DE", "FR", "GB", "JP", "KW", "US")
_MERCHANTS = ("Corner Market", "Northline Rail", "City Power", "Harbour Books", "Studio Nine")


class SchemaError(RuntimeError):
    """The database holds something that is not Pocketbook's."""


def prepare(database: Database) -> None:
    """Create the tables and fill them, unless another start has done so. Idempotent."""
    with database.transaction() as cursor:
        cursor.execute(database.setup_lock)
        cursor.execute(database.table_names)
        present = {name for (name,) in cursor.fetchall()}
        if MARKER in present:
            cursor.execute(f"SELECT version FROM {MARKER}")
            if cursor.fetchone() != (VERSION,):
                raise SchemaError(
                    "the tables are those of another version of Pocketbook; let DATABASE_URL name "
                    "an empty database"
                )
            return
        if taken := present & {"users", "transactions"}:
            raise SchemaError(
                f"the database already has a table {' and '.join(sorted(taken))} that is not "
                "Pocketbook's; let DATABASE_URL name an empty database"
            )
        for text in _TABLES:
            cursor.execute(text.format(time_type=database.time_type))
        _fill(cursor, database)


def _fill(cursor: Any, database: Database) -> None:
    now = datetime.now(timezone.utc)
    chance = random.Random(20)  # the same people and purchases at every start
    for number in range(1, USERS + 1):
        cursor.execute(*database.statement(_ADD_USER, **_user(number, now)))
    for number in range(TRANSACTIONS):
        values = _transaction(number, chance, now)
        cursor.execute(*database.statement(ADD_TRANSACTION, **values))


def _user(number: int, now: datetime) -> dict[str, Any]:
    first = _FIRST[number % len(_FIRST)]
    last = _LAST[number // len(_FIRST) % len(_LAST)]
    return {
        "id": number,
        "name": f"{first} {last}",
        "email": f"{first}.{last}@pocketbook.example".lower(),
        "country": _COUNTRIES[number % len(_COUNTRIES)],
        "plan": "pro" if number % 3 == 0 else "free",
        # The first three came yesterday, the others since then and a year ago.
        "created_at": now - timedelta(days=max(1, 8 * (number - 3))),
        # Some came today, most within the month, the last ones not for longer.
        "last_seen": now - timedelta(minutes=20 * number * number),
    }


def _transaction(number: int, chance: random.Random, now: datetime) -> dict[str, Any]:
    currency = chance.choice(tuple(PLACES))
    return {
        "id": f"txn_{chance.getrandbits(128):032x}",
        "user_id": chance.randint(1, USERS),
        "amount_minor": chance.randint(1, 400) * 10 ** PLACES[currency] + (number % 10),
        "currency": currency,
        "status": "completed" if chance.random() < 0.9 else "pending",
        "merchant": chance.choice(_MERCHANTS),
        "category": chance.choice(CATEGORIES),
        "created_at": now - timedelta(minutes=chance.randint(1, 60 * 24 * 60)),
    }
