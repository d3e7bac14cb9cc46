"""`pbmon worker`: brings events into the store, as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any

from pbmon import privacy, settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.telemetry import providers
from pbmon.worker.embedded import build
from pbmon.worker.shipper import LARGE_PORTION, Shipper
from pbmon.worker.urls import store_url

NAME = "worker"
HELP = "bring events into the store, so that no process of the application does"

_END_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="end when everything that waits is in the store"
    )


def run(args: argparse.Namespace) -> int:
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    service = providers.service_name(resolved)
    try:
        home = journal.open_home(resolved.state_dir, service)
    except UnusableError as error:
        print(f"pbmon: no state directory: {error}", file=sys.stderr)
        return 1
    url = store_url(resolved, home)
    shipper, leader = build(resolved, home, portion=LARGE_PORTION, may_change_schema=True)
    if args.once:
        return _once(shipper)

    def stop(_signum: int, _frame: Any) -> None:
        shipper.stop()
        leader.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    print(f"pbmon worker of {service}: {home.path} to {privacy.mask_url(url)}", flush=True)
    leader.start()
    shipper.run()
    shipper.finish(time.monotonic() + _END_S)
    print(_said(shipper))
    return 0


def _once(shipper: Shipper) -> int:
    if not shipper.take_duty():
        print("pbmon: another process of this service brings its events into the store")
        return 0
    done = shipper.finish(float("inf"))
    print(_said(shipper))
    return 0 if done else 1


def _said(shipper: Shipper) -> str:
    dropped = "".join(f", {count} {why}" for why, count in sorted(shipper.dropped.items()))
    return f"{shipper.delivered} events stored{dropped}"
