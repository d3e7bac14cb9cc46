"""`pbmon delivery`: what the destinations have got, and what they refused."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from pbmon import privacy, settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import StoreError, open_deliveries
from pbmon.telemetry import providers
from pbmon.worker.urls import store_url

if TYPE_CHECKING:
    from pbmon.store.deliveries import State

NAME = "delivery"
HELP = "say how the deliveries to destinations go, and try dead letters again"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", help="list the destinations with what waits, and why")
    retry = actions.add_parser("retry", help="let a destination's dead letters be sent again")
    retry.add_argument("destination", help="webhook, segment, mixpanel or amplitude")


def run(args: argparse.Namespace) -> int:
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    try:
        home = journal.open_home(resolved.state_dir, providers.service_name(resolved))
    except UnusableError as error:
        print(f"pbmon: no state directory: {error}", file=sys.stderr)
        return 1
    url = store_url(resolved, home)
    try:
        deliveries = open_deliveries(url, resolved.consent["sharing"])
        if args.action == "retry":
            count = deliveries.retry(args.destination)
            print(f"{args.destination}: {count} dead letters wait to be sent again")
            return 0
        states = deliveries.states()
    except StoreError as error:
        print(f"pbmon: the store {privacy.mask_url(url)} {error}", file=sys.stderr)
        return 1
    for state in states:
        print(_line(state))
    if not states:
        print("no destination has got, or is to get, anything")
    return 0


def _line(state: State) -> str:
    text = (
        f"{state.destination:<10} {state.delivered:,} delivered, {state.waiting:,} waiting, "
        f"{state.dead:,} dead letters"
    )
    if state.fault:
        wait_s = max(0.0, state.again_at / 1e6 - time.time())
        text += f"; failed {state.failures} times ({state.fault}), again in {wait_s:.0f} s"
    return text
