"""What an error costs beyond building the exception, and what memory 10^5 of them take: pbmon
beside Sentry's SDK.

    python -m benchmarks.errors [--rounds 3] [--size 100000] [--json FILE] [--write PAGE]

Each exception has a type of its own and is raised in a function of its own, ten calls deep. pbmon
brings its errors into its store, an SQLite file, by the thread that it starts in the application.
Sentry's client has a transport that throws everything away. Each measurement is a process of its
own, and the rounds are interleaved:

- cost    of telling of one exception, by the wall clock and by the thread's processor time
- memory  what is left of all of them (tracemalloc), beside what one of them has started

Exit status 1 if an error is not counted, or one takes more than 30 µs or all take more than 10 MB.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.figures import quantile, spread
from benchmarks.processes import WITHOUT_TELEMETRY, run

OURS, SENTRY = "pbmon", "sentry_sdk"
MODES = ("cost", "memory")
LIMIT_US = 30.0
LIMIT_BYTES = 10 * 2**20
_WARM = 200
_SETTLE_S = 2.0
_DEPTH = 10

Tell = Callable[[BaseException], object]


# --- in the measured process ---


def exceptions(size: int, first: int = 0) -> Iterator[BaseException]:
    """Each of another type, of another function of an application."""
    for number in range(first, first + size):
        try:
            _failing(number)(_DEPTH)
        except Exception as error:
            yield error


def _failing(number: int) -> Callable[[int], None]:
    kind = type(f"Error{number}", (Exception,), {"__module__": "shop"})

    def fail(depth: int) -> None:
        if not depth:
            raise kind("of somebody")
        again(depth - 1)

    code = fail.__code__.replace(co_name=f"fail{number}", co_filename="/srv/shop/app.py")
    again = types.FunctionType(code, {"__name__": "shop"}, None, None, fail.__closure__)
    return again


def _ours() -> Tell:
    import pbmon
    from pbmon import runtime

    pbmon.configure()
    return runtime.active.errors.seen


def _sentry() -> Tell:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            return None

    sentry_sdk.init("https://key@sentry.invalid/1", transport=Nowhere)
    return sentry_sdk.capture_exception


_TELLERS = {OURS: _ours, SENTRY: _sentry}


def _cost(tell: Tell, size: int) -> dict[str, float]:
    walls, cpus = [], []
    for error in exceptions(size, _WARM):
        wall, cpu = time.perf_counter(), time.thread_time()
        tell(error)
        cpus.append(time.thread_time() - cpu)
        walls.append(time.perf_counter() - wall)
    walls.sort()
    cpus.sort()
    return {
        "p50_us": quantile(walls, 0.5) * 1e6,
        "p99_us": quantile(walls, 0.99) * 1e6,
        "cpu_mean_us": sum(cpus) / len(cpus) * 1e6,
        "cpu_p99_us": quantile(cpus, 0.99) * 1e6,
    }


def _memory(tell: Tell, size: int) -> dict[str, float]:
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for error in exceptions(size, _WARM):
        tell(error)
    del error
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"bytes": float(after - before)}


def _child(peer: str, mode: str, size: int) -> None:
    tell = _TELLERS[peer]()
    for error in exceptions(_WARM):
        tell(error)
    time.sleep(_SETTLE_S)  # for what the first ones start in the background
    found = _cost(tell, size) if mode == "cost" else _memory(tell, size)
    if peer == OURS:
        import pbmon

        pbmon.flush(60)
    print(json.dumps(found), flush=True)


# --- beside it ---


def measure(peer: str, mode: str, size: int) -> dict[str, float]:
    """One process."""
    with tempfile.TemporaryDirectory(prefix="pbmon-bench-") as home:
        store = f"sqlite:///{home}/store.sqlite3"
        variables = {"PBMON_STATE_DIR": f"{home}/state", "PBMON_STORE_URL": store}
        arguments = ["--child", peer, mode, "--size", str(size)]
        status, said = run("benchmarks.errors", *arguments, **variables, **WITHOUT_TELEMETRY)
        if status:
            sys.exit(f"{peer}, {mode}: failed with status {status}")
        found: dict[str, float] = json.loads(said)
        if peer == OURS:
            found[f"{mode}_stored"] = _stored(store, variables) - _WARM
    return found


def _stored(store: str, variables: dict[str, str]) -> int:
    """The sum in the store once another process has brought in what was left."""
    from pbmon.store.access import open_engine

    status, said = run("pbmon.cli", "worker", "--once", **variables, **WITHOUT_TELEMETRY)
    if status:
        sys.exit(f"pbmon worker failed: {said}")
    made = open_engine(store)
    with made.connect() as connection:
        total = connection.exec_driver_sql("SELECT sum(errors) FROM errors").scalar()
    made.dispose()
    return int(total or 0)


def report(found: list[dict[str, dict[str, float]]]) -> str:
    """The figures as a table in Markdown: medians over the rounds, with their ranges."""
    names = ("p50_us", "p99_us", "cpu_mean_us", "cpu_p99_us")
    rows = [["", "µs p50", "µs p99", "CPU µs mean", "CPU µs p99", "MB left", "in the store"]]
    for peer in found[0]:
        values = [each[peer] for each in found]
        cells = [spread([value[name] for value in values]) for name in names]
        cells.append(spread([value["bytes"] / 2**20 for value in values], "{:.2f}"))
        stored = [value.get("cost_stored") for value in values]
        cells.append("–" if None in stored else f"{min(map(int, filter(None, stored))):,}")
        rows.append([peer, *cells])
    return figures.table(rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=100_000, help="distinct exceptions")
    parser.add_argument("--sentry-size", type=int, default=5_000, help="of them for the peer")
    parser.add_argument("--json", type=Path, help="file for the figures of each round")
    parser.add_argument("--write", type=Path, help="page that holds the figures")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the rounds, print the table."""
    args = _parse()
    if args.child:
        _child(*args.child, args.size)
        return 0
    sizes = {OURS: args.size, SENTRY: min(args.size, args.sentry_size)}
    found = []
    for _ in range(args.rounds):
        values: dict[str, dict[str, float]] = {peer: {} for peer in sizes}
        for mode in MODES:
            for peer, size in sizes.items():
                values[peer] |= measure(peer, mode, size)
        found.append(values)
    said = report(found)
    print(said)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if args.write:
        head = (
            f"{args.rounds} rounds of {args.size:,} distinct exceptions ({sizes[SENTRY]:,} for "
            f"{SENTRY}, whose transport is off), {figures.machine()}; median (min–max):"
        )
        figures.write(args.write, "figures of errors", f"{head}\n\n{said}")
    return int(not all(map(holds, (each[OURS] for each in found), [args.size] * len(found))))


def holds(ours: dict[str, float], size: int) -> bool:
    """Whether each error is in the store, and within the limits."""
    return (
        ours["cost_stored"] == ours["memory_stored"] == size
        and ours["cpu_mean_us"] <= LIMIT_US
        and ours["p50_us"] <= LIMIT_US
        and ours["bytes"] <= LIMIT_BYTES
    )


if __name__ == "__main__":
    sys.exit(main())
