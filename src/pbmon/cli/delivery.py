"""`pbmon delivery`: what the destinations have got, and what they refused."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from pbmon.cli.place import Place, in_place
from pbmon.store.access import open_deliveries

if TYPE_CHECKING:
    from pbmon.store.deliveries import Deliveries, State

NAME = "delivery"
HELP = "say how the deliveries to destinations go, and try dead letters again"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", help="list the destinations with what waits, and why")
    retry = actions.add_parser("retry", help="let a destination's dead letters be sent again")
    retry.add_argument("destination", help="webhook, segment, mixpanel or amplitude")


def run(args: argparse.Namespace) -> int:
    return in_place(_list if args.action == "status" else lambda p: _retry(p, args.destination))


def _list(place: Place) -> int:
    states = _deliveries(place).states()
    for state in states:
        print(_line(state))
    if not states:
        print("no destination has got, or is to get, anything")
    return 0


def _retry(place: Place, destination: str) -> int:
    count = _deliveries(place).retry(destination)
    print(f"{destination}: {count} dead letters wait to be sent again")
    return 0


def _deliveries(place: Place) -> Deliveries:
    return open_deliveries(
        place.url,
        place.settings.consent["sharing"],
        place.settings.consent_version.get("sharing"),
    )


def _line(state: State) -> str:
    text = (
        f"{state.destination:<10} {state.delivered:,} delivered, {state.waiting:,} waiting, "
        f"{state.dead:,} dead letters"
    )
    if state.fault:
        wait_s = max(0.0, state.again_at / 1e6 - time.time())
        text += f"; failed {state.failures} times ({state.fault}), again in {wait_s:.0f} s"
    return text
