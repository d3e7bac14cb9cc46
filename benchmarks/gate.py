"""How often the gate is right: the same application beside itself, and beside one 30 % slower.

    python -m benchmarks.gate [--comparisons 100] [--raw FILE]

Three processes serve the same Starlette application by uvicorn: one the baseline, one the same
again, one with 30 % more to do in each request (arithmetic and a query of SQLite, a few ms, no two
requests alike). Each comparison takes turns of short blocks with two of them, as docs/testing.md
advises, and reads what pbmon recorded in `requests_file`. The machine is left as noisy as it is.

Also judged: a p95 budget at 1.15 times what the baseline showed in the beginning, which is what a
budget alone can see.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
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
from pbmon.gate import runs

_SLOWER = 1.3
_PAIRS = 400
_WORK = 20_000


def _application(more: float) -> Any:
    import sqlite3

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    books = sqlite3.connect(":memory:", check_same_thread=False)
    books.execute("CREATE TABLE sales (number INTEGER PRIMARY KEY, amount INTEGER)")
    books.executemany("INSERT INTO sales VALUES (?, ?)", [(n, n * 7 % 1000) for n in range(40_000)])

    async def sales(request: Request) -> JSONResponse:
        size = request.path_params["size"] * more
        total = sum(n * n % 7 for n in range(int(size)))
        (sold,) = books.execute(
            "SELECT sum(amount * number % 13) FROM sales WHERE number < ?", (int(size),)
        ).fetchone()
        return JSONResponse({"total": total, "sold": sold})

    return Starlette(routes=[Route("/sales/{size:int}", sales)])


def _serve(more: float, port_file: str) -> None:
    import uvicorn

    import pbmon

    pbmon.configure(service_name="bench")
    config = uvicorn.Config(
        _application(more), host="127.0.0.1", port=0, log_level="warning", timeout_keep_alive=600
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
def _serving(directory: Path, name: str, more: float) -> Iterator[Server]:
    port_file, recorded = directory / f"{name}.port", directory / f"{name}.jsonl"
    variables = WITHOUT_TELEMETRY | {
        "PBMON_REQUESTS_FILE": str(recorded), "PBMON_STATE_DIR": str(directory / name),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gate", "--serve", str(more), str(port_file)]
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


def _take(directory: Path, comparisons: int) -> dict[str, Any]:
    """Durations: of the beginning, and for each comparison of both sides."""
    chance = random.Random(1)
    taken: dict[str, Any] = {"same": [], "slower": []}
    with ExitStack() as stack:
        base, same, slower = (
            stack.enter_context(_serving(directory, name, more))
            for name, more in (("base", 1.0), ("same", 1.0), ("slower", _SLOWER))
        )
        for server in (base, same, slower):
            _alternate(chance, 50, server)  # warm-up
        (taken["beginning"],) = _alternate(chance, 5 * _PAIRS, base)
        start_s = time.monotonic()
        for number in range(comparisons):
            for name, other in (("same", same), ("slower", slower)):
                taken[name].append(_alternate(chance, _PAIRS, base, other))
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {comparisons}", end="", file=sys.stderr)
        taken["seconds"] = time.monotonic() - start_s
    return taken


def _alternate(chance: random.Random, times: int, *servers: Server) -> list[list[float]]:
    """The same requests to each server in turns, and who is first in turns as well."""
    for number in range(times):
        size = chance.randint(_WORK // 2, _WORK + _WORK // 2)
        for server in servers if number % 2 else reversed(servers):
            server.ask(size)
    return [server.take(times) for server in servers]


def main() -> int:
    """Take the comparisons, judge them, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--raw", type=Path, help="keep the durations in this file")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        _serve(float(args.serve[0]), args.serve[1])
        return 0
    with tempfile.TemporaryDirectory(prefix="pbmon-bench-") as directory:
        taken = _take(Path(directory), args.comparisons)
    if args.raw:
        args.raw.write_text(json.dumps(taken), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
