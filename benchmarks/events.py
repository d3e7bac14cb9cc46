"""What tracking an event costs, and what of it survives: pbmon beside the vendors' SDKs.

    python -m benchmarks.events [--rounds 3] [--latency 0.02] [--json FILE] [--write PAGE]

The vendors' SDKs send to a receiver on this machine that takes `latency` seconds to answer, as a
vendor's would; pbmon brings its events into its store, an SQLite file, by the thread that it starts
in the application. Each measurement is a process of its own, and the rounds are interleaved:

- cost    the duration of a call, one right after the other (closed), and 1,000 a second (paced)
- lag     how late an event loop is that tracks 3,000 events a second, beside one that tracks none
- burst   calls a second that say that the event was taken, one right after the other; then the
          process is killed (SIGKILL), and what arrived of those is counted

Exit status 1 if pbmon lost anything, or has an event twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.figures import quantile, ratio, spread
from benchmarks.peers import BARE, OURS, PEERS, Send, installed
from benchmarks.processes import WITHOUT_TELEMETRY, receiving, run, take

MODES = ("cost", "lag", "burst")
_WARM = 100
_SETTLE_S = 1.5
"""For what the first events start in the background: threads, imports, connections."""

_QUIET_S = 0.5
_PROBE_S = 0.001

Round = dict[str, dict[str, Any]]
"""Peer → figure → value."""


# --- in the measured process ---


def _cost(send: Send, size: int, rate: int, settle_s: float) -> dict[str, float]:
    found = {}
    for way, pause_s in (("closed", 0.0), ("paced", 1 / rate)):
        times = []
        begin = time.perf_counter()
        for number in range(size):
            while time.perf_counter() < begin + number * pause_s:
                time.sleep(0.0002)
            before = time.perf_counter()
            send(number)
            times.append(time.perf_counter() - before)
        times.sort()
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            found[f"{way}_{name}_us"] = quantile(times, share) * 1e6
        time.sleep(settle_s)
    return found


async def _lag(send: Send, duration_s: float, rate: int) -> dict[str, float]:
    lags: list[float] = []

    async def probe() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_PROBE_S)
            lags.append(time.perf_counter() - before - _PROBE_S)

    probing = asyncio.ensure_future(probe())
    begin, number = time.perf_counter(), 0
    while (now := time.perf_counter() - begin) < duration_s:
        while number < int(now * rate):
            send(number)
            number += 1
        await asyncio.sleep(_PROBE_S)
    probing.cancel()
    lags.sort()
    return {"lag_p99_ms": quantile(lags, 0.99) * 1e3, "tracked": number}


def _burst(send: Send, size: int) -> dict[str, Any]:
    begin = time.perf_counter()
    accepted = [number for number in range(size) if send(number)]
    duration_s = time.perf_counter() - begin
    return {"rate": len(accepted) / duration_s, "accepted": accepted}


def _child(peer: str, mode: str, sink: str, size: int, rate: int, settle_s: float) -> None:
    logging.disable()  # some say of each event that the queue is full: not to be measured
    send = PEERS[peer](sink)
    for _ in range(_WARM):
        send(-1)
    time.sleep(settle_s)
    if mode == "cost":
        found: dict[str, Any] = _cost(send, size, rate, settle_s)
    elif mode == "lag":
        found = asyncio.run(_lag(send, size / rate, rate))
    else:
        found = _burst(send, size)
    print(json.dumps(found), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


# --- beside it ---


def measure(peer: str, mode: str, sink: str, size: int, rate: int) -> dict[str, Any]:
    """One process. size: events; rate: of them a second, where it is paced."""
    take(sink)
    with tempfile.TemporaryDirectory(prefix="pbmon-bench-") as home:
        store = Path(home) / "store.sqlite3"
        variables = {
            "PBMON_STATE_DIR": f"{home}/state", "PBMON_STORE_URL": f"sqlite:///{store}",
            "PBMON_CONSENT": "not-required",
        } | WITHOUT_TELEMETRY  # fmt: skip
        arguments = [
            "--child",
            peer,
            mode,
            "--sink",
            sink,
            "--size",
            str(size),
            "--rate",
            str(rate),
        ]
        arguments += ["--settle", str(_SETTLE_S)]
        status, said = run("benchmarks.events", *arguments, **variables)
        if status != -signal.SIGKILL:
            sys.exit(f"{peer}, {mode}: failed with status {status}")
        found: dict[str, Any] = json.loads(said)
        if mode == "burst":
            arrived = _stored(store, variables) if peer == OURS else _received(sink)
            accepted = set(found.pop("accepted"))
            found["accepted"] = len(accepted)
            found["arrived"] = len(accepted.intersection(arrived))
            found["twice"] = len(arrived) - len(set(arrived))
    return found


def _stored(store: Path, variables: dict[str, str]) -> list[int]:
    """The numbers that are in the store once another process has brought in what was left."""
    from pbmon.store.access import open_engine

    status, said = run("pbmon.cli", "worker", "--once", **variables)
    if status:
        sys.exit(f"pbmon worker failed: {said}")
    made = open_engine(f"sqlite:///{store}")
    with made.connect() as connection:
        query = "SELECT json_extract(properties, '$.n') FROM events"
        found = [int(number) for (number,) in connection.exec_driver_sql(query)]
    made.dispose()
    return [number for number in found if number >= 0]


def _received(sink: str) -> list[int]:
    """The numbers that the receiver has once nothing more comes."""
    found: list[int] = []
    while True:
        new = [number for number in take(sink)["numbers"] if number >= 0]
        if not new and found:
            return found
        found += new
        time.sleep(_QUIET_S)
        if not new and not take(sink)["numbers"]:
            return found


def rounds(peers: list[str], sink: str, args: argparse.Namespace) -> list[Round]:
    """Interleaved, so that a machine that slows down slows all of them."""
    sizes = {"cost": args.calls, "lag": int(args.seconds * 3000), "burst": args.burst}
    rates = {"cost": 1000, "lag": 3000, "burst": 1}
    found = []
    for _ in range(args.rounds):
        values: Round = defaultdict(dict)
        for mode in MODES:
            for peer in peers:
                if peer != BARE or mode == "lag":
                    values[peer] |= measure(peer, mode, sink, sizes[mode], rates[mode])
        found.append(dict(values))
    return found


def report(found: list[Round]) -> str:
    """The figures as tables in Markdown: medians over the rounds, with their ranges."""
    peers = [peer for peer in found[0] if peer != BARE]

    def of(peer: str, figure: str) -> list[float]:
        return [values[peer][figure] for values in found]

    calls = [["µs of a call", "closed p50", "p99", "p99.9", "paced p50", "p99", "p99.9"]]
    names = [f"{way}_{name}_us" for way in ("closed", "paced") for name in ("p50", "p99", "p99.9")]
    for peer in peers:
        calls.append([peer, *(spread(of(peer, name)) for name in names)])
    rest = [
        ["", "accepted a second", "arrived of the accepted", "event loop's p99 lag",
         "of pbmon's closed p50", "of pbmon's paced p50"]
    ]  # fmt: skip
    bare = of(BARE, "lag_p99_ms")
    for peer in peers:
        arrived = [100 * v[peer]["arrived"] / v[peer]["accepted"] for v in found]
        rest.append([
            peer,
            spread(of(peer, "rate"), "{:,.0f}"),
            f"{spread(arrived, '{:.4g}')} %",
            f"{spread(of(peer, 'lag_p99_ms'), '{:.2f}')} ms",
            *(f"{ratio(of(OURS, name), of(peer, name)):.1f}"
              for name in ("closed_p50_us", "paced_p50_us")),
        ])  # fmt: skip
    rest.append(["no events at all", "", "", f"{spread(bare, '{:.2f}')} ms", "", ""])
    return f"{figures.table(calls)}\n\n{figures.table(rest)}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.02, help="of the receiver, in seconds")
    parser.add_argument("--calls", type=int, default=3000, help="timed, closed and paced each")
    parser.add_argument("--burst", type=int, default=20_000, help="events of a burst")
    parser.add_argument("--seconds", type=float, default=4.0, help="for which lag is measured")
    parser.add_argument("--json", type=Path, help="file for the figures of each round")
    parser.add_argument("--write", type=Path, help="page that holds the figures")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--sink", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--settle", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the rounds, print the tables."""
    args = _parse()
    if args.child:
        _child(*args.child, args.sink, args.size, args.rate, args.settle)
    peers = installed()
    for missing in PEERS.keys() - set(peers):
        print(f"{missing}: its SDK is not installed (make bench installs it)")
    with receiving(args.latency) as sink:
        found = rounds(peers, sink, args)
    said = report(found)
    print(said)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if args.write:
        head = (
            f"{args.rounds} rounds, {figures.machine()}; the receiver answers after "
            f"{args.latency * 1000:g} ms; median (min–max):"
        )
        figures.write(args.write, "figures of events", f"{head}\n\n{said}")
    ours = [values[OURS] for values in found]
    kept = statistics.fmean(o["arrived"] == o["accepted"] and o["twice"] == 0 for o in ours)
    return int(kept < 1)


if __name__ == "__main__":
    sys.exit(main())
