"""How often the gate is right: the same application beside itself, and beside one 30 % slower.

    python -m benchmarks.gate [--comparisons 100] [--raw FILE]

Three processes serve the same Starlette application by uvicorn: one the baseline, one the same
again, one with 30 % more to do in each request (arithmetic and a query of SQLite, a few ms, no two
requests alike). In each comparison every request goes to two of them in turns, as docs/testing.md
advises, and what pbmon recorded in `requests_file` is compared. The machine is left as it is.

Also judged: p95 budgets at 1.15 times what a baseline showed, which is what a budget alone can see.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, WITHOUT_TELEMETRY, environment
from pbmon.gate import regressions, runs
from pbmon.gate.verdicts import Outcome, is_broken

_SLOWER = 1.3
_PAIRS, _IN_A_LIFE = 300, 20
_WORK = 25_000


def _application(times: float) -> Any:
    """times: as much work as the size that is asked for."""
    import sqlite3

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    books = sqlite3.connect(":memory:", check_same_thread=False)
    books.execute("CREATE TABLE sales (number INTEGER PRIMARY KEY, amount INTEGER)")
    books.executemany("INSERT INTO sales VALUES (?, ?)", [(n, n * 7 % 1000) for n in range(60_000)])

    async def sales(request: Request) -> JSONResponse:
        size = int(request.path_params["size"] * times)
        total = sum(n * n % 7 for n in range(size))
        (sold,) = books.execute(
            "SELECT sum(amount * number % 13) FROM sales WHERE number < ?", (size,)
        ).fetchone()
        return JSONResponse({"total": total, "sold": sold})

    return Starlette(routes=[Route("/sales/{size:int}", sales)])


def _serve(times: float, port_file: str) -> None:
    import uvicorn

    import pbmon

    pbmon.configure(service_name="bench")
    config = uvicorn.Config(
        _application(times), host="127.0.0.1", port=0, log_level="warning", timeout_keep_alive=600
    )
    config.load()
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    listening.listen()
    Path(port_file).write_text(str(listening.getsockname()[1]), encoding="utf-8")
    server.run(sockets=[listening])


@dataclass
class Server:
    """One variant, and where it records its requests."""

    client: http.client.HTTPConnection
    recorded: Path
    read: int = 0

    def ask(self, size: int) -> None:
        self.client.request("GET", f"/sales/{size}")
        self.client.getresponse().read()

    def take(self, requests: int) -> list[float]:
        """Durations of the requests since the last time, which are so many."""
        while True:  # the last line is written when its answer is on the way
            lines = self.recorded.read_bytes()[self.read :].splitlines(keepends=True)
            if len(lines) == requests and lines[-1].endswith(b"\n"):
                break
            time.sleep(0.001)
        self.read += sum(map(len, lines))
        return [each.duration_s for each in runs.decode(lines, "run") if hasattr(each, "failed")]


@contextmanager
def _serving(directory: Path, name: str, times: float) -> Iterator[Server]:
    port_file, recorded = directory / f"{name}.port", directory / f"{name}.jsonl"
    variables = WITHOUT_TELEMETRY | {
        "PBMON_REQUESTS_FILE": str(recorded), "PBMON_STATE_DIR": str(directory / name),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gate", "--serve", str(times), str(port_file)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(**variables))
    try:
        while not (port_file.exists() and port_file.read_text()):
            if process.poll() is not None:
                sys.exit(f"the application did not start ({process.returncode})")
            time.sleep(0.05)
        client = http.client.HTTPConnection("127.0.0.1", int(port_file.read_text()), timeout=60)
        client.connect()
        yield Server(client, recorded)
        client.close()
    finally:
        process.terminate()
        process.wait()


def _take(comparisons: int, keep: Path | None) -> dict[str, Any]:
    """Durations of both sides of each comparison. New processes for every twenty of them: where
    things lie in its memory makes a process faster or slower than another for all its life."""
    chance = random.Random(1)
    taken: dict[str, Any] = {"same": [], "slower": []}
    start_s = time.monotonic()
    for first in range(0, comparisons, _IN_A_LIFE):
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pbmon-bench-"))
            base, same, slower = (
                stack.enter_context(_serving(Path(directory), name, times))
                for name, times in (("base", 1), ("same", 1), ("slower", _SLOWER))
            )
            _alternate(chance, 50, base, same, slower)  # warm-up
            for number in range(first, min(first + _IN_A_LIFE, comparisons)):
                for name, other in (("same", same), ("slower", slower)):
                    taken[name].append(_alternate(chance, _PAIRS, base, other))
                if keep is not None:
                    keep.write_text(json.dumps(taken), encoding="utf-8")
                print(f"{number + 1} of {comparisons}", file=sys.stderr)
    taken["seconds"] = time.monotonic() - start_s
    return taken


def _alternate(chance: random.Random, times: int, *servers: Server) -> list[list[float]]:
    """The same requests to each server in turns, and who is first in turns as well."""
    for number in range(times):
        size = chance.randint(_WORK // 2, _WORK + _WORK // 2)
        for server in servers if number % 2 else reversed(servers):
            server.ask(size)
    return [server.take(times) for server in servers]


@dataclass(frozen=True)
class Judged:
    """Of how many comparisons something failed. ratios: their middles, in order."""

    comparisons: int
    by_baseline: int
    by_budget: int
    by_first_budget: int
    ratios: list[float]


def judge(taken: list[list[list[float]]], first: list[float]) -> Judged:
    """taken: both sides of each comparison. first: the run that a fixed budget was made from."""
    route = ("GET", "/sales/{size}")
    changes = [regressions.compare({route: b}, {route: a})[0] for b, a in taken]
    return Judged(
        len(taken),
        sum(each.outcome is Outcome.FAILED for each in changes),
        sum(_is_over(before, after) for before, after in taken),
        sum(_is_over(first, after) for _, after in taken),
        sorted(each.ratio for each in changes if each.ratio is not None),
    )


def _is_over(before: list[float], after: list[float]) -> bool:
    """A budget of 1.15 times the p95 before."""
    limit_s = 1.15 * sorted(before)[int(len(before) * 0.95)]
    return is_broken(sum(each > limit_s for each in after), len(after), 0.05)


def report(taken: dict[str, Any]) -> int:
    """Print the table; 1 where the gate is not as right as docs/testing.md says."""
    first = taken["same"][0][0]
    found = {name: judge(taken[name], first) for name in ("same", "slower")}
    quiet, all_of_it = min(first), sorted(each for run in taken["same"] for each in run[0])
    print(
        f"a request: {quiet * 1e3:.1f} ms undisturbed, median "
        f"{statistics.median(all_of_it) * 1e3:.1f} ms, p95 "
        f"{all_of_it[int(len(all_of_it) * 0.95)] * 1e3:.1f} ms; {len(first)} in a run"
    )
    print("failed                          the same      30 % slower")
    rows = {
        "beside its baseline": "by_baseline",
        "p95 of that run x 1.15": "by_budget",
        "p95 of the first run x 1.15": "by_first_budget",
    }
    for title, name in rows.items():
        cells = [f"{getattr(f, name):>4} of {f.comparisons:<5}" for f in found.values()]
        print(f"  {title:<28}{'   '.join(cells)}")
    for name, each in found.items():
        print(f"ratios, {name}: {each.ratios[0]:.2f} to {each.ratios[-1]:.2f}, "
              f"middle {statistics.median(each.ratios):.2f}")  # fmt: skip
    same, slower = found["same"], found["slower"]
    right = same.by_baseline <= same.comparisons * 0.01
    return int(not right or slower.by_baseline < slower.comparisons * 0.95)


def main() -> int:
    """Take the comparisons, judge them, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--raw", type=Path, help="keep the durations in this file")
    parser.add_argument("--judge", type=Path, metavar="RAW", help="only judge those of a file")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        _serve(float(args.serve[0]), args.serve[1])
        return 0
    if args.judge:
        return report(json.loads(args.judge.read_text(encoding="utf-8")))
    return report(_take(args.comparisons, args.raw))


if __name__ == "__main__":
    sys.exit(main())
