"""`pbmon store`: the tables that events are kept in."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pbmon import privacy, settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import StoreError, asking, open_engine
from pbmon.telemetry import providers
from pbmon.worker.embedded import store_url

if TYPE_CHECKING:
    from sqlalchemy import Engine

NAME = "store"
HELP = "make, upgrade and look at the store of events"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser(
        "upgrade", help="make the tables, or bring them to this version; add months of events"
    )
    actions.add_parser("status", help="say what version the tables are of and what is in them")


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
        said = asking(lambda: (_upgrade if args.action == "upgrade" else _status)(engine))
    except StoreError as error:
        print(f"pbmon: the {where} {error}", file=sys.stderr)
        return 1
    print(f"{where} {said}")
    return 0


def _upgrade(engine: Engine) -> str:
    from pbmon.store import schema
    from pbmon.store.schema import State

    before = schema.upgrade(engine)
    if before is State.NEWER:
        raise StoreError(f"{before.value}; upgrade pbmon on this machine")
    if before is State.CURRENT:
        return str(before.value)
    return f"was made (version {schema.VERSIONS[-1]})" if before is State.ABSENT else "was upgraded"


def _status(engine: Engine) -> str:
    from sqlalchemy import func, select

    from pbmon.store import schema
    from pbmon.store.schema import State
    from pbmon.store.tables import event_totals

    with engine.connect() as connection:
        state = schema.state(connection)
        if state is not State.CURRENT:
            raise StoreError(f"{state.value}; run `pbmon store upgrade`")
        events = connection.execute(select(func.sum(event_totals.c.events))).scalar() or 0
    return f"{state.value} (version {schema.VERSIONS[-1]}): {events:,} events stored"
