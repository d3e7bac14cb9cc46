"""How long the deletion of a person takes in a store of many.

    python -m benchmarks.privacy [--users 1e5] [--events 1e6] [--deleted 300] [--engine PostgreSQL]
                                 [--writers] [--json FILE]

A store is filled by SQL with events of 30 days; each person has a session, an answer, an exposure,
a decision and a transaction beside them. Then people are deleted one after the other, each with the
tombstone and all tables emptied, as `delete_user` does; --writers: while two writers store events.
PostgreSQL is a server of its own, with fsync and commits that wait for it. Everything is removed in
the end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.store import DAYS, ENGINES, fill, stores
from pbmon import privacy
from pbmon.spool.entries import encode_event
from pbmon.spool.ledger import Position
from pbmon.store import pseudonyms
from pbmon.store.access import open_deletions, open_engine, open_writer, upgrade
from pbmon.store.schema import DAY, following, micros
from pbmon.store.writer import Portion


def _t(made: Engine, table: str) -> str:
    return table if made.dialect.name == "sqlite" else f"pbmon.{table}"


def give_keys(made: Engine, users: int) -> None:
    """Make the people of the filled events those whom the store finds.

    fill() names subjects by number. Here each gets a key, and their rows its pseudonym.
    """
    with made.begin() as connection:
        names = pseudonyms.names(connection, None)
        old = [
            bytes(subject)
            for subject in connection.execute(
                text(f"SELECT DISTINCT subject FROM {_t(made, 'subject_days')} ORDER BY 1")
            ).scalars()
        ][:users]
        connection.execute(text(f"DELETE FROM {_t(made, 'subjects')}"))
        rows = []
        for n, subject in enumerate(old):
            key = n.to_bytes(32, "big")
            rows.append({"old": subject, "new": privacy.pseudonym(key, "store"), "key": key,
                         "lookup": names.user(f"user-{n}"), "id": n})  # fmt: skip
        binary = "BLOB" if made.dialect.name == "sqlite" else "bytea"
        connection.execute(text(
            f"CREATE TEMPORARY TABLE people (old {binary} PRIMARY KEY, new {binary},"
            f" key {binary}, lookup {binary}, id bigint)"
        ))  # fmt: skip
        connection.execute(text("INSERT INTO people VALUES (:old, :new, :key, :lookup, :id)"), rows)
        now = time.time_ns() // 1000
        connection.execute(
            text(
                f"INSERT INTO {_t(made, 'subjects')} (lookup, key, created_at, analytics)"
                f" SELECT lookup, key, {now}, true FROM people"
            )
        )
        for table in ("events", "subject_days"):
            connection.execute(
                text(
                    f"UPDATE {_t(made, table)} SET subject = (SELECT new FROM people WHERE old ="
                    f" {_t(made, table)}.subject) WHERE subject IN (SELECT old FROM people)"
                )
            )
        _give_the_rest(connection, made, now)
        connection.execute(text("DROP TABLE people"))
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _give_the_rest(connection: Any, made: Engine, now: int) -> None:
    """Sessions, answers, exposures, decisions, deliveries and money of each person."""
    day = dt.datetime.fromtimestamp(now / 1e6, dt.timezone.utc).date()
    for table, columns, values in (
        ("subject_activity", "subject, first_day, last_day", f"new, '{day}', '{day}'"),
        ("sessions", "session, subject, linked_at", f"lookup, new, {now}"),
        ("exposures", "experiment, subject, variant, exposed_at, assigned_by, crossed",
         f"'checkout', new, 'b', {now}, 'pbmon', false"),
        ("feedback", "id, survey, score, occurred_at, subject", f"new, 'nps', 9, {now}, new"),
        ("consents", "lookup, purpose, granted, decided_at",
         f"lookup, 'analytics', true, {now}"),
        ("transactions", _MONEY,
         f"'charge', id, 'completed', 1250, 'USD', 2, 0, 0, new, {now}, {now}, {now}, new"),
    ):  # fmt: skip
        connection.execute(
            text(f"INSERT INTO {_t(made, table)} ({columns}) SELECT {values} FROM people")
        )


_MONEY = (
    "kind, key, status, amount_minor, currency, exponent, refunded_minor, charged_back_minor,"
    " body_hash, occurred_at, reported_at, counted_at, subject"
)


class _Load:
    """Writers that store others' events, a hundred in a transaction, until the block ends."""

    def __init__(self, url: str, writers: int) -> None:
        self._url = url
        self._over = threading.Event()
        self.stored = [0] * writers
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(writers)]

    def __enter__(self) -> _Load:  # noqa: PYI034
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        writer = open_writer(self._url, "not-required")
        position, at = Position(0, 0), time.time_ns() // 1000
        while not self._over.is_set():
            payloads = [
                encode_event(at + n, "bought", f"other-{n}", None, None, None, None, None, {"n": n})
                for n in range(100)
            ]
            first = self.stored[number] + 1
            items = [(Position(1, first + n), each) for n, each in enumerate(payloads)]
            end = Position(1, first + 100)
            writer.write([Portion(f"{number}-load", position, items, end)])
            position = end
            self.stored[number] += 100
        writer.close()


def measure(engine: str, users: int, events: int, deleted: int, writers: int) -> dict[str, Any]:
    """Times in s, sorted, and what was removed."""
    with stores(engine) as make:
        url = make()
        made = open_engine(url)
        upgrade(made)
        start = micros(following(dt.datetime.now(dt.timezone.utc).date()))
        assert start + DAYS * DAY
        fill(made, engine, events, start)
        give_keys(made, users)
        deletions = open_deletions(url)
        times: list[float] = []
        removed = 0
        step = max(1, users // deleted)
        with _Load(url, writers) as load:
            for n in range(0, min(users, deleted * step), step):
                begin = time.perf_counter()
                receipt_id, _ = deletions.begin(f"user-{n}", ("segment",), has_outbox=True)
                counts = deletions.sweep(receipt_id) or {}
                times.append(time.perf_counter() - begin)
                removed += counts.get("events", 0)
        deletions.close()
        made.dispose()
    return {
        "engine": engine, "users": users, "events": events, "deleted": len(times),
        "events_of_each": removed / len(times), "writers": writers, "stored": sum(load.stored),
        "median_s": statistics.median(times),
        "p95_s": sorted(times)[int(0.95 * len(times))], "longest_s": max(times),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.privacy", description=__doc__)
    parser.add_argument("--users", type=float, default=1e5)
    parser.add_argument("--events", type=float, default=1e6)
    parser.add_argument("--deleted", type=int, default=300)
    parser.add_argument("--engine", choices=ENGINES, default="PostgreSQL")
    parser.add_argument("--writers", action="store_true", help="while two others store events")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(
        args.engine, int(args.users), int(args.events), args.deleted, 2 if args.writers else 0
    )
    print(
        f"{found['engine']}, {found['users']:,} users, {found['events']:,} events: "
        f"{found['deleted']} deletions of {found['events_of_each']:.1f} events each, median "
        f"{found['median_s'] * 1e3:.1f} ms, p95 {found['p95_s'] * 1e3:.1f} ms, longest "
        f"{found['longest_s'] * 1e3:.1f} ms"
        + (f", {found['stored']:,} events stored meanwhile" if found["writers"] else "")
    )
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
