"""A process of its own that tracks events, to be killed: python -m tests.worker.processes

    LOG FIRST FORKS [APP]    track numbers, a thousand a second, also in forked children, ship them
                             too, and note in LOG each one that was accepted

An even number is an event, an odd one a charge of as many cents as its last three digits say.

With APP, the URL of the application's database, each number is tracked in a transaction of it, of
which some are rolled back: LOG has the numbers that were committed, LOG.gone those that were not.
A number is eight bytes. Each process that tracks has its own range of 10**9 numbers.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from collections.abc import Iterator
from decimal import Decimal

import pbmon
from pbmon.runtime import Verdict

NUMBER = struct.Struct("<Q")
RANGE = 10**9
_AT_ONCE = 5
_GONE = 0.3


def main(log: str, first: str, forks: str, app: str = "") -> None:
    number = int(first)
    pbmon.configure()
    pbmon.track("begun")  # so that a forked child has a journal of its parent's
    for child in range(1, int(forks) + 1):
        if os.fork() == 0:
            number += child * RANGE
            break
    kept, gone = (
        os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in (log, f"{log}.gone")
    )
    outcomes = _transactions(app, number) if app else _events(number)
    print("ready", flush=True)
    for count, (number, is_kept) in enumerate(outcomes):
        os.write(kept if is_kept else gone, NUMBER.pack(number))
        if count % _AT_ONCE == 0:
            time.sleep(_AT_ONCE / 1000)


def _track(number: int) -> Verdict:
    if number % 2:
        amount = Decimal(number % 1000).scaleb(-2)
        return pbmon.track_revenue(amount, "USD", transaction_id=str(number))
    return pbmon.track("numbered", {"n": number}, user_id=number % 100)


def _events(number: int) -> Iterator[tuple[int, bool]]:
    while True:
        if _track(number):
            yield number, True
        number += 1


def _transactions(app: str, number: int) -> Iterator[tuple[int, bool]]:
    """Of one whose end is not known, as the database went away, nothing is said."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from pbmon.store.engine import parse
    from pbmon.store.outbox import OutboxError

    generator = random.Random(number)
    engine = create_engine(parse(app), poolclass=NullPool)
    while True:
        number += 1
        is_kept = generator.random() > _GONE
        try:
            with engine.connect() as connection:
                with pbmon.outbox(connection):
                    _track(number)
                if is_kept:
                    connection.commit()
                else:
                    connection.rollback()
        except (SQLAlchemyError, OutboxError):
            continue
        yield number, is_kept


if __name__ == "__main__":
    main(*sys.argv[1:])
