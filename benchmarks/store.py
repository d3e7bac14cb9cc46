"""How the store grows: time of inserts and queries, bytes of a row, events a second into it.

    python -m benchmarks.store [--rows 1e5 1e6 1e7] [--json FILE] [--write docs/performance.md]

For each engine a store is filled by SQL with events of 30 days in the order of their time, a tenth
of them uses of features, a hundredth as many people, all tables consistent. Then, at each size:

- insert   20,000 further events by the writer of `pbmon worker`, 2,000 in a transaction
- people   of the last 7 days; adoption: of features in them; count: of the 30 days, from totals
- bytes    of the whole store by its rows

and into an empty store, by the real shippers: a backlog of 20,000 events of 1,000 users, through
the thread in an application and through `pbmon worker`. PostgreSQL is a server of its own, with
fsync and commits that wait for it, or the one of PBMON_TEST_POSTGRES_URL; each store is a database
of its own there. Everything is removed in the end. A size that would not be filled within --bound
seconds is left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks import figures
from benchmarks.processes import ROOT, WITHOUT_TELEMETRY, environment
from pbmon.spool.entries import encode_event
from pbmon.spool.ledger import Position
from pbmon.store.access import open_engine, open_writer, upgrade
from pbmon.store.queries import Queries
from pbmon.store.schema import DAY, HOUR, following, micros
from pbmon.store.writer import Portion
from tests.stack.postgres import Postgres
from tests.stack.process import wait_until

ENGINES = ("SQLite", "PostgreSQL")
DAYS = 30
_CHUNK = 200_000
_INSERTED = 20_000
_PORTION = 2000
_BACKLOG = 20_000
_REPEATS = 3
_SHIP_S = 120
_PICTURE = Path("docs/images/store.svg")

Measured = dict[str, float]


class _Durable(Postgres):
    """What the tests' server does without."""

    def command(self) -> list[str]:
        return [*super().command(), "-c", "fsync=on", "-c", "full_page_writes=on"]


@contextmanager
def stores(engine: str) -> Iterator[Callable[[], str]]:
    """Makes the URL of an empty store, one at a time; nothing is left of the last one."""
    if engine == "SQLite":
        with tempfile.TemporaryDirectory(prefix="pbmon-scale-") as home:

            def make_file() -> str:
                shutil.rmtree(f"{home}/store", ignore_errors=True)
                return f"sqlite:///{home}/store/store.sqlite3"

            yield make_file
        return
    with _Durable() as server, _databases(server.url) as make_database:
        yield make_database


@contextmanager
def _databases(url: str) -> Iterator[Callable[[], str]]:
    name = f"pbmon_scale_{uuid.uuid4().hex[:12]}"
    server = open_engine(url).execution_options(isolation_level="AUTOCOMMIT")

    def drop() -> None:
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def make() -> str:
        drop()
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return f"{url.rsplit('/', 1)[0]}/{name}"

    try:
        yield make
    finally:
        drop()
        server.dispose()


# --- rows ---

_NUMBERS = {
    "SQLite": "WITH RECURSIVE numbers (n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers"
    " WHERE n < :last) ",
    "PostgreSQL": "WITH numbers (n) AS (SELECT generate_series(CAST(:first AS bigint),"
    " CAST(:last AS bigint))) ",
}
# 16 bytes of each kind and number, the same ones again for the same number.
_BYTES = {
    "SQLite": "CAST(('{kind}' || printf('%015d', {number} * 2654435761 % 9999999967)) AS BLOB)",
    "PostgreSQL": "decode(md5('{kind}' || ({number})), 'hex')",
}
_JSON = {"SQLite": "{}", "PostgreSQL": "CAST({} AS jsonb)"}
_DAY_OF = {
    "SQLite": "date(occurred_at / 1000000, 'unixepoch')",
    "PostgreSQL": "CAST(to_timestamp(occurred_at / 1000000) AT TIME ZONE 'UTC' AS date)",
}


def _name(engine: str, table: str) -> str:
    return table if engine == "SQLite" else f"pbmon.{table}"


def fill(made: Engine, engine: str, rows: int, start: int) -> None:
    """Events number 1 to `rows`, evenly over DAYS from `start` (µs) on, and what goes with them."""
    people = max(rows // 100, 100)
    step = DAYS * DAY // rows

    def of(kind: str, number: str) -> str:
        return _BYTES[engine].format(kind=kind, number=number)

    properties = _JSON[engine].format(
        "CASE WHEN n % 10 = 0 THEN '{\"feature\":\"f' || (n / 10 % 20) || '\"}'"
        ' ELSE \'{"amount":\' || (n % 10000) || \',"plan":"pro","source":"web"}\' END'
    )
    name = (
        "CASE WHEN n % 10 <> 0 THEN 'event_' || (n % 10) WHEN n % 30 = 0 THEN 'feature_viewed'"
        " WHEN n % 20 = 0 THEN 'feature_clicked' ELSE 'feature_completed' END"
    )
    events = (
        f"INSERT INTO {_name(engine, 'events')} (occurred_at, event_id, name, subject, properties,"
        f" stored_at) {_NUMBERS[engine]} SELECT :start + n * :step, {of('e', 'n')}, {name},"
        f" {of('u', 'n * 7919 % :people')}, {properties}, :start FROM numbers"
    )
    for first in range(1, rows + 1, _CHUNK):
        last = min(first + _CHUNK - 1, rows)
        with made.begin() as connection:
            given = {"first": first, "last": last, "start": start, "step": step, "people": people}
            connection.execute(text(events), given)
    totals = (
        f"INSERT INTO {_name(engine, 'event_totals')} SELECT occurred_at / {HOUR} * {HOUR}, name,"
        f" count(*) FROM {_name(engine, 'events')} GROUP BY 1, 2"
    )
    days = (
        f"INSERT INTO {_name(engine, 'subject_days')} SELECT DISTINCT {_DAY_OF[engine]}, subject"
        f" FROM {_name(engine, 'events')}"
    )
    subjects = (
        f"INSERT INTO {_name(engine, 'subjects')} (lookup, key, created_at) {_NUMBERS[engine]}"
        f" SELECT {of('l', 'n')}, {of('k', 'n')}, :start FROM numbers"
    )
    with made.begin() as connection:
        connection.execute(text(totals))
        connection.execute(text(days))
        connection.execute(text(subjects), {"first": 0, "last": people - 1, "start": start})
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def size(made: Engine) -> int:
    """Bytes of all tables and indices."""
    if made.dialect.name == "sqlite":
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        query = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c"
            " JOIN pg_namespace s ON s.oid = c.relnamespace"
            " WHERE s.nspname = 'pbmon' AND c.relkind = 'r'"
        )
    with made.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


# --- times ---


def _timed(work: Callable[[], object]) -> float:
    """The shortest of a few times, in s: of the store, not of its neighbours."""
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _insert(url: str, count: int, at: int) -> float:
    """Events a second by the writer."""
    writer = open_writer(url, "not-required")
    payloads = [
        encode_event(at + n, f"event_{n % 10}", f"new-{n % 1000}", None, None, None, None, None,
                     {"amount": n, "plan": "pro", "source": "web"})
        for n in range(count)
    ]  # fmt: skip
    begin, position = time.perf_counter(), Position(0, 0)
    for first in range(0, count, _PORTION):
        items = [
            (Position(1, first + n), each)
            for n, each in enumerate(payloads[first : first + _PORTION])
        ]
        end = Position(1, first + len(items))
        writer.write([Portion("1-scale", position, items, end)])
        position = end
    duration_s = time.perf_counter() - begin
    writer.close()
    return count / duration_s


def at_size(url: str, engine: str, rows: int) -> Measured:
    """Fill an empty store and measure it."""
    made = open_engine(url)
    upgrade(made)
    # From next month on, for which there are partitions as for every month that a store lives in.
    start = micros(following(dt.datetime.now(dt.timezone.utc).date()))
    end = start + DAYS * DAY
    begin = time.perf_counter()
    fill(made, engine, rows, start)
    found = {"rows": rows, "fill_s": time.perf_counter() - begin, "bytes": size(made) / rows}
    queries = Queries(made)
    for name, ask in (
        ("people_s", lambda: queries.people(end - 7 * DAY, end)),
        ("adoption_s", lambda: queries.adoption(end - 7 * DAY, end)),
        ("count_s", lambda: queries.count(start, end)),
    ):
        found[name] = _timed(ask)
    found["counted"] = queries.count(start, end + HOUR)
    found["inserted"] = _insert(url, _INSERTED, end)
    made.dispose()
    return found


# --- the shippers ---


def _track(count: int) -> None:
    """In a process of its own: make a backlog, then wait to be ended."""
    import pbmon

    pbmon.configure()
    for n in range(count):
        if not pbmon.track(
            "bought", {"amount": n, "plan": "pro", "source": "web"}, user_id=n % 1000
        ):
            sys.exit("an event was refused")
    print("tracked", flush=True)
    sys.stdin.read()


def shipped(url: str, engine: str, worker: str, count: int = _BACKLOG) -> float:
    """Events a second from a backlog into an empty store; worker: thread or process. From the
    beginning of the first transaction to that of the last, by the store's own times."""
    made = open_engine(url)
    upgrade(made)
    query = text(f"SELECT stored_at, count(*) FROM {_name(engine, 'events')} GROUP BY 1 ORDER BY 1")

    def transactions() -> list[Any]:
        with made.connect() as connection:
            return list(connection.execute(query).all())

    with tempfile.TemporaryDirectory(prefix="pbmon-bench-") as state:
        variables = environment(
            PBMON_STATE_DIR=state, PBMON_STORE_URL=url, PBMON_CONSENT="not-required",
            PBMON_WORKER=worker, **WITHOUT_TELEMETRY,
        )  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.store", "--track", str(count)]
        started = [_start(command, variables)]
        try:
            tracked = started[0].stdout
            assert tracked is not None
            tracked.readline()
            if worker == "process":
                started.append(_start([sys.executable, "-m", "pbmon.cli", "worker"], variables))
            wait_until(lambda: sum(n for _, n in transactions()) >= count, "all events", _SHIP_S)
            *others, last = transactions()
            duration_s = (last[0] - others[0][0]) / 1e6
            return float(sum(n for _, n in others) / duration_s)
        finally:
            for process in started:
                process.kill()
                process.communicate()
            made.dispose()


def _start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


# --- the whole ---


def measure(engine: str, sizes: list[int], bound_s: float, repeats: int) -> dict[str, Any]:
    """Of one engine: at each size, and through the shippers."""
    found: dict[str, Any] = {"sizes": [], "left_out": []}
    with stores(engine) as empty:
        for rows in sizes:
            last = found["sizes"][-1] if found["sizes"] else None
            if last is not None and last["fill_s"] * rows / last["rows"] > bound_s:
                found["left_out"].append(rows)
                continue
            found["sizes"].append(at_size(empty(), engine, rows))
        for worker in ("thread", "process"):
            found[worker] = [shipped(empty(), engine, worker) for _ in range(repeats)]
    return found


def report(found: dict[str, dict[str, Any]]) -> str:
    """The figures as tables in Markdown."""
    rows = [["", "rows", "bytes a row", "inserted a second", "people of 7 days",
             "adoption of 7 days", "count of 30 days"]]  # fmt: skip
    for engine, values in found.items():
        for at in values["sizes"]:
            rows.append([
                engine, f"{at['rows']:,}", f"{at['bytes']:.0f}", f"{at['inserted']:,.0f}",
                *(f"{at[name] * 1000:,.1f} ms" for name in ("people_s", "adoption_s", "count_s")),
            ])  # fmt: skip
        rows += [[engine, f"{left:,}", "left out: too long", "", "", "", ""]
                 for left in values["left_out"]]  # fmt: skip
    ship = [["events a second into the store", "thread in the application", "`pbmon worker`"]]
    paper = []
    for engine, values in found.items():
        ship.append(
            [engine, *(figures.spread(values[w], "{:,.0f}") for w in ("thread", "process"))]
        )
        largest = values["sizes"][-1]
        paper.append(f"{engine} {largest['bytes'] * 1e9 / 2**30:,.0f} GiB")
    return (
        f"{figures.table(rows)}\n\n{figures.table(ship)}\n\nOn paper, from the bytes a row of the "
        f"largest size measured, 10⁹ events take: {', '.join(paper)}."
    )


def draw(found: dict[str, dict[str, Any]], picture: Path) -> None:
    """Time of the queries by rows, for each engine."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "pbmon", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(7, 2.8), sharey=True, squeeze=False)
    for axis, (engine, values) in zip(axes[0], found.items(), strict=True):
        rows = [at["rows"] for at in values["sizes"]]
        for name, mark in (("people", "o"), ("adoption", "s"), ("count", "^")):
            times = [at[f"{name}_s"] for at in values["sizes"]]
            axis.loglog(rows, times, marker=mark, markersize=4, label=name)
        axis.set(title=engine, xlabel="events in the store")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("s")
    axes[0][-1].legend()
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def main() -> int:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each shipper")
    parser.add_argument("--bound", type=float, default=900.0, help="seconds to fill one store")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--write", type=Path, help="page that holds the figures, with a picture")
    parser.add_argument("--track", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.track:
        _track(args.track)
        return 0
    sizes = sorted(int(rows) for rows in args.rows)
    found = {e: measure(e, sizes, args.bound, args.repeats) for e in args.engines}
    said = report(found)
    print(said)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if args.write:
        draw(found, ROOT / _PICTURE)
        head = (
            f"{figures.machine()}; queries: the fastest of {_REPEATS}; shippers: median (min–max)"
        )
        picture = os.path.relpath(ROOT / _PICTURE, args.write.resolve().parent)
        figures.write(
            args.write, "figures of the store",
            f"{head}:\n\n{said}\n\n![Time of queries by events in the store]({picture})",
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
