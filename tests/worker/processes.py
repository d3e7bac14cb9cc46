"""A process of its own that tracks events, to be killed: python -m tests.worker.processes

    LOG FIRST FORKS [APP]    send numbered work (tests.worker.work), a thousand a second, also in
                             forked children, ship it too, and note in LOG each number that was
                             accepted

With APP, the URL of the application's database, each is sent in a transaction of it, of
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

import pbmon
from tests.worker.work import send

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


def _events(number: int) -> Iterator[tuple[int, bool]]:
    while True:
        if send(number):
            yield number, True
        number += 1


def _transactions(app: str, number: int) -> Iterator[tuple[int, bool]]:
    """Of one whose end is not known, as the database went away, nothing is said."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from pbmon.store.engine import parse
    from pbmon.store.outbox import OutboxError

    generator = random.Random(number)
    url = parse(app)
    # A commit is to outlive the crash of the server, which the tests' has turned off for speed.
    options = {} if url.get_backend_name() == "sqlite" else {"options": "-c synchronous_commit=on"}
    engine = create_engine(url, pool_size=1, pool_pre_ping=True, connect_args=options)
    while True:
        number += 1
        is_kept = generator.random() > _GONE
        try:
            with engine.connect() as connection:
                with pbmon.outbox(connection):
                    send(number)
                if is_kept:
                    connection.commit()
                else:
                    connection.rollback()
        except (SQLAlchemyError, OutboxError):
            continue
        yield number, is_kept


if __name__ == "__main__":
    main(*sys.argv[1:])
