"""What revenue_metrics("month") costs over so many transactions: python -m benchmarks.ledger

    --rows 1e5 --rows 1e6    transactions of the last 60 days, evenly spread, with their totals
    --url URL                a PostgreSQL database in which no store is; else a file of SQLite
    --json FILE              write the results there as well

The rows are made by the database itself, and the totals from them by one statement, as the ledger
would have left them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbmon import runtime
from pbmon.business.revenue_metrics import RevenueMetrics, revenue_metrics
from pbmon.store import schema
from pbmon.store.access import open_engine, open_reader
from pbmon.store.schema import DAY, HOUR

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TIMES = 20
DAYS = 60
_CURRENCIES = ("USD", "EUR", "GBP", "JPY")

# Every fifth is a refund of a tenth of the charge before it. Rates are 1, so that sums are known.
_ROWS = """
INSERT INTO {place}transactions (
    kind, key, charge, status, amount_minor, currency, exponent, base_minor, fx_rate, fx_date,
    fx_source, refunded_minor, charged_back_minor, body_hash, occurred_at, reported_at, counted_at)
SELECT CASE WHEN n % 5 = 0 THEN 'refund' ELSE 'charge' END, 'key-' || n,
    CASE WHEN n % 5 = 0 THEN 'key-' || (n - 1) END, 'completed',
    CASE WHEN n % 5 = 0 THEN 100 ELSE 1000 END, {currency}, CASE n / 5 % 4 WHEN 3 THEN 0 ELSE 2 END,
    CASE WHEN n % 5 = 0 THEN 100 ELSE 1000 END, '1', {day}, 'benchmark',
    CASE WHEN n % 5 = 4 THEN 100 ELSE 0 END, 0, {hash}, {at}, {at}, {at}
FROM {numbers}
"""
_SUMS = "count(*), sum(amount_minor), sum(base_minor), 0"
_GROUP = "CASE kind WHEN 'charge' THEN 1 ELSE -1 END, currency, exponent"
_TOTALS = (
    "INSERT INTO {place}revenue_totals SELECT occurred_at / {hour} * {hour}, kind, " + _GROUP
    + ", " + _SUMS + " FROM {place}transactions GROUP BY 1, 2, 3, 4, 5",
    "INSERT INTO {place}counted_totals SELECT counted_at / {hour} * {hour}, kind, " + _GROUP
    + ", " + _SUMS + " FROM {place}transactions GROUP BY 1, 2, 3, 4, 5",
    "INSERT INTO {place}ledger_totals SELECT kind, status, " + _GROUP + ", " + _SUMS
    + " FROM {place}transactions GROUP BY 1, 2, 3, 4, 5",
)  # fmt: skip


def fill(engine: Engine, rows: int, now: int) -> None:
    """now: µs since the epoch, the time of the last one."""
    from sqlalchemy import text

    is_postgresql = engine.dialect.name == "postgresql"
    start, step = now - DAYS * DAY, DAYS * DAY // rows
    series = "SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows"
    parts = {
        "place": f"{schema.SCHEMA}." if is_postgresql else "",
        "hour": HOUR,
        "at": f"({start} + n * {step})",
        "currency": "CASE n / 5 % 4 "
        + " ".join(f"WHEN {i} THEN '{code}'" for i, code in enumerate(_CURRENCIES))
        + " END",
        "day": "DATE '2026-01-01'" if is_postgresql else "'2026-01-01'",
        "hash": "'\\x00'::bytea" if is_postgresql else "x'00'",
        "numbers": "generate_series(CAST(1 AS bigint), :rows) AS n"
        if is_postgresql
        else f"(WITH RECURSIVE numbers (n) AS ({series}) SELECT n FROM numbers)",
    }
    with engine.begin() as connection:
        _set_base(connection)
        connection.execute(text(_ROWS.format(**parts)), {"rows": rows})
        for statement in _TOTALS:
            connection.execute(text(statement.format(**parts)))
    if is_postgresql:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _set_base(connection: Connection) -> None:
    from pbmon.store.conversion import claim_base
    from pbmon.store.tables import insert_of

    claim_base(connection, insert_of(connection.engine), "USD")


def measure(url: str, rows: int) -> dict[str, Any]:
    """The store is made, filled and asked."""
    engine = open_engine(url)
    schema.upgrade(engine)
    now = time.time_ns() // 1000
    began_s = time.monotonic()
    fill(engine, rows, now)
    filled_s = time.monotonic() - began_s
    with _reading(url):
        moment = dt.datetime.fromtimestamp(now / 1e6, dt.timezone.utc)
        found = revenue_metrics("month", now=moment)
        _check(found, rows, now)
        took_ms, cpu_ms = [], []
        for _ in range(TIMES):
            began_s, cpu_s = time.perf_counter(), time.process_time()
            revenue_metrics("month", now=moment)
            took_ms.append((time.perf_counter() - began_s) * 1000)
            cpu_ms.append((time.process_time() - cpu_s) * 1000)
    name = engine.dialect.name
    engine.dispose()
    return {
        "engine": name,
        "rows": rows,
        "filled_s": round(filled_s, 1),
        "median_ms": round(statistics.median(took_ms), 2),
        "slowest_ms": round(max(took_ms), 2),
        "cpu_ms": round(statistics.median(cpu_ms), 2),
        "charges": found.count,
    }


def _check(found: RevenueMetrics, rows: int, now: int) -> None:
    """What is measured is right as well."""
    start = int(found.start.timestamp() * 1e6)
    step = DAYS * DAY // rows
    origin = now - DAYS * DAY
    first, last = -(-(start - origin) // step), min(rows, (now - 1 - origin) // step)
    refunds = last // 5 - (first - 1) // 5
    charges = last - first + 1 - refunds
    wanted = (charges, charges * 10, refunds)
    if (found.count, found.gross, found.refunds) != wanted:
        raise AssertionError(f"{found} is not {wanted}")


@contextmanager
def _reading(url: str) -> Iterator[None]:
    reader, before = open_reader(url), runtime.active.reader
    runtime.active.reader = lambda: reader
    try:
        yield
    finally:
        runtime.active.reader = before
        reader.close()


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=float, action="append", help="transactions (1e5)")
    parser.add_argument("--url", help="PostgreSQL in which no store is; else a file of SQLite")
    parser.add_argument("--json", type=Path, help="where the results are written as well")
    args = parser.parse_args()
    results = []
    for rows in args.rows or [1e5]:
        with tempfile.TemporaryDirectory(prefix="pbmon-ledger-") as directory:
            url = args.url or f"sqlite:///{directory}/store.sqlite3"
            results.append(measure(url, int(rows)))
        shown = (
            "{engine}, {rows:,} transactions: {median_ms} ms (median of {times}), slowest "
            "{slowest_ms} ms, of this process's CPU {cpu_ms} ms; filled in {filled_s} s"
        )
        print(shown.format(times=TIMES, **results[-1]))
        if args.url:
            break  # the database is full now
    if args.json:
        machine = {"python": platform.python_version(), "system": platform.platform()}
        args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
