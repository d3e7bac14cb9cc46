"""What growth figures cost: a year of activity in PostgreSQL, the daily job and cohorts over it.

    python -m benchmarks.growth [--people 1000000] [--times 5]

People come evenly over the year and are active on a tenth of the days since. The job is to take 5 s
at most (median) for a million.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import text

from pbmon.store import growth, schema
from pbmon.store.access import open_engine, open_reader, open_runs
from tests.stack.postgres import Postgres

if TYPE_CHECKING:
    from sqlalchemy import Connection

END = dt.date(2026, 11, 24)
DAYS = 365

_PEOPLE = """
INSERT INTO pbmon.subject_activity (subject, first_day, last_day)
SELECT decode(md5(n::text), 'hex'), day, day
FROM generate_series(1, :people) n, LATERAL (SELECT :end - (n % :days)::int) first (day)
"""
# One day in ten by a hash, so that it is the same each time; the first one always.
_ACTIVE = """
INSERT INTO pbmon.subject_days (day, subject)
SELECT at::date, subject
FROM pbmon.subject_activity, generate_series(first_day, :end, interval '1 day') days (at)
WHERE at::date = first_day OR hashtext(encode(subject, 'hex') || at::date::text) % 10 = 0
ORDER BY 1
"""

_LAST = """
UPDATE pbmon.subject_activity a SET last_day = d.day
FROM (SELECT subject, max(day) AS day FROM pbmon.subject_days GROUP BY 1) d
WHERE d.subject = a.subject
"""


def fill(connection: Connection, people: int) -> int:
    """The rows of activity there are then."""
    connection.execute(text(_PEOPLE), {"people": people, "end": END, "days": DAYS})
    connection.execute(text(_ACTIVE), {"end": END})
    connection.execute(text(_LAST))
    return int(connection.execute(text("SELECT count(*) FROM pbmon.subject_days")).scalar_one())


def measure(name: str, times: int, do: Callable[[], object]) -> None:
    """Print median, shortest and longest."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        do()
        taken.append(time.perf_counter() - begin)
    print(
        f"{name:<28} median {statistics.median(taken):7.2f} s   {min(taken):.2f} … {max(taken):.2f}"
    )


def main() -> None:
    """Fill, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    with Postgres() as server:
        engine = open_engine(server.url)
        schema.upgrade(engine)
        begin = time.perf_counter()
        with engine.begin() as connection:
            rows = fill(connection, args.people)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
        spent = time.perf_counter() - begin
        print(f"{args.people:,} people, {rows:,} days of activity, filled in {spent:.0f} s")
        runs, reader = open_runs(server.url), open_reader(server.url)
        measure(
            "growth job, one day",
            args.times,
            lambda: runs.write(
                lambda c: growth.keep(c, runs.read(lambda read: growth.snapshot(read, END)))
            ),
        )
        for weeks in (12, 52):
            start = END - dt.timedelta(weeks=weeks - 1)
            measure(
                f"cohorts, {weeks} weeks",
                args.times,
                lambda start=start: reader.cohorts(start, END, "week"),
            )
        start = END - dt.timedelta(days=330)
        measure("cohorts, 12 months", args.times, lambda: reader.cohorts(start, END, "month"))
        runs.close()
        reader.close()


if __name__ == "__main__":
    main()
