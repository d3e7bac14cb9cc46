"""`pbmon store`: the tables that events are kept in, and what is in them."""

from __future__ import annotations

import argparse
import sys
import time

from pbmon import privacy, settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import StoreError, make_outbox, open_engine, read, upgrade
from pbmon.telemetry import providers
from pbmon.worker.urls import store_url, url_of

NAME = "store"
HELP = "make, upgrade and read the store of events"

_DAY = 86_400_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser(
        "upgrade", help="make the tables, or bring them to this version; add months of events"
    )
    actions.add_parser("status", help="say whether the tables are those of this version")
    events = actions.add_parser("events", help="list events and features by how many used them")
    events.add_argument("--days", type=int, default=7, help="days back from now (7)")


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
    where = f"store {privacy.mask_url(url)}"
    try:
        engine = open_engine(url)
        if args.action == "upgrade":
            print(where, upgrade(engine))
            _make_outbox(url_of("outbox_url", resolved.outbox_url))
        elif args.action == "status":
            queries = read(engine)
            print(f"{where} is up to date: {queries.count(0, _now()):,} events stored")
        else:
            _list_events(url, args.days)
    except StoreError as error:
        print(f"pbmon: the {where} {error}", file=sys.stderr)
        return 1
    return 0


def _make_outbox(url: str | None) -> None:
    if url is not None:
        print(f"database {privacy.mask_url(url)}", make_outbox(open_engine(url)))


def _list_events(url: str, days: int) -> None:
    queries = read(open_engine(url))
    end = _now()
    start = end - days * _DAY
    for name, count, people in queries.uses(start, end):
        print(f"{name:<40} {count:>12,} {_people(people)}")
    for feature, viewed, clicked, completed, people in queries.adoption(start, end):
        print(
            f"feature {feature:<32} {viewed:>12,} viewed {clicked:>10,} clicked "
            f"{completed:>10,} completed {_people(people)}"
        )


def _people(people: int | None) -> str:
    return f"{people:>10,} people" if people is not None else "  few people"


def _now() -> int:
    return time.time_ns() // 1000 + 1
