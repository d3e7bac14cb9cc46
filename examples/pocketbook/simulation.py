"""Trouble on demand, so that the demo has something to show.

Exists only where POCKETBOOK_DEMO=1: elsewhere the app does not know the header. What it makes is
real: a statement that takes its time in the database, one that the database refuses, a bug.

    X-Pocketbook-Simulate: slow-query=0.45 | database-error | crash
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Header, HTTPException, Request

from examples.pocketbook.database import Database

HEADER = "X-Pocketbook-Simulate"
_DELAY = re.compile(r"slow-query=([0-2](?:\.\d{1,3})?)")

# What a lock or a cold cache does to the statement of each area of the app.
_SLOW = {
    "transactions": "SELECT id, pg_sleep(:seconds) FROM transactions WHERE user_id > 0 LIMIT 1",
    "users": "SELECT id, pg_sleep(:seconds) FROM users WHERE id > 0 LIMIT 1",
    "analytics": (
        "SELECT t.id, pg_sleep(:seconds) FROM transactions AS t "
        "JOIN users AS u ON u.id = t.user_id WHERE u.country <> 'XX' LIMIT 1"
    ),
    "export": "SELECT t.id, pg_sleep(:seconds) FROM transactions AS t ORDER BY t.id LIMIT 1",
}
_REFUSED = "SELECT rate FROM exchange_rates WHERE currency = :currency"


class ReconciliationError(Exception):
    """The books do not balance. Nobody handles it, as is the way with bugs."""


def enabled(environ: Mapping[str, str]) -> bool:
    return environ.get("POCKETBOOK_DEMO") == "1"


def simulate(
    request: Request, wish: Annotated[str | None, Header(alias=HEADER, max_length=40)] = None
) -> None:
    """A dependency of every API route: does what the header asks for, before the route runs."""
    if wish is None:
        return
    database: Database = request.app.state.database
    if wish == "crash":
        raise ReconciliationError("the balances do not add up")
    if wish == "database-error":
        with database.transaction() as cursor:
            cursor.execute(*database.statement(_REFUSED, currency="EUR"))
    elif match := _DELAY.fullmatch(wish):
        area = request.url.path.split("/")[2]
        with database.transaction() as cursor:
            cursor.execute(*database.statement(_SLOW[area], seconds=float(match[1])))
            cursor.fetchall()
    else:
        raise HTTPException(400, f"{HEADER} is slow-query=SECONDS, database-error or crash")
