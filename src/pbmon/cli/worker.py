"""`pbmon worker`: what goes on behind the application, as a process of its own."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from pbmon import wiring
from pbmon.cli.place import Place, in_place
from pbmon.telemetry.providers import release
from pbmon.worker.leader import Leader
from pbmon.worker.roles import Roles, build
from pbmon.worker.shipper import LARGE_PORTION, Shipper

NAME = "worker"
HELP = "bring events into the store, so that no process of the application does"

_END_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="end when everything that waits is in the store"
    )


def run(args: argparse.Namespace) -> int:
    return in_place(lambda place: _work(place, once=args.once))


def _work(place: Place, *, once: bool) -> int:
    shipper, leader = build(
        place.settings,
        place.home,
        portion=LARGE_PORTION,
        may_change_schema=True,
        release=release(place.settings),
    )
    if once and not shipper.take_duty():
        print("pbmon: another process of this service brings its events into the store")
        return 0
    roles = Roles(shipper, leader)
    wiring.export(place.settings, roles)
    if once:
        done = roles.finish(float("inf"))
    else:
        done = True
        _serve(place, shipper, leader)
        roles.finish(_END_S)
    roles.stop()
    wiring.flush(_END_S)  # with more patience than the end of an application
    wiring.shutdown()
    print(_said(shipper))
    return 0 if done else 1


def _serve(place: Place, shipper: Shipper, leader: Leader) -> None:
    """Until a signal ends it."""

    def stop(_signum: int, _frame: Any) -> None:
        shipper.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    print(f"pbmon worker of {place.home.service}: {place.home.path} to {place.shown}", flush=True)
    leader.start()
    shipper.run()


def _said(shipper: Shipper) -> str:
    dropped = "".join(f", {count} {why}" for why, count in sorted(shipper.dropped.items()))
    return f"{shipper.delivered} events stored{dropped}"
