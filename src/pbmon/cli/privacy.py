"""`pbmon privacy`: what a person may ask for, deletion and export, and how far deletions are."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict

from pbmon import identity, privacy, settings
from pbmon.cli.place import Place, in_place
from pbmon.erasure import Receipt
from pbmon.reports import data_map
from pbmon.reports.markdown import write_table
from pbmon.store.access import open_deletions, open_reader, open_runs
from pbmon.worker import erasure
from pbmon.worker.leader import Leader
from pbmon.worker.peppers import pepper_of
from pbmon.worker.roles import build
from pbmon.worker.shipper import LARGE_PORTION, Shipper
from pbmon.worker.targets import targets
from pbmon.worker.urls import outbox_url

NAME = "privacy"
HELP = "delete a person or export what is held of them, and say how far deletions are"

_TIMEOUT_S = 10.0
_ID = "the application's own id of the user; - reads it from standard input"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    delete = actions.add_parser("delete", help="delete all that is held of a person, for good")
    delete.add_argument("user_id", help=_ID)
    delete.add_argument(
        "--timeout", type=float, default=_TIMEOUT_S, metavar="S",
        help="how long journals of other processes are waited for (10)",
    )  # fmt: skip
    delete.add_argument(
        "--erase", action="store_true", help="have nothing left in the database's files either"
    )
    export = actions.add_parser("export", help="write all that is held of a person, as JSON")
    export.add_argument("user_id", help=_ID)
    export.add_argument("--out", metavar="FILE", help="where to, for its owner alone (else stdout)")
    overview = actions.add_parser(
        "map", help="what is held and sent of people with these settings, why and for how long"
    )
    overview.add_argument("--json", action="store_true", help="(Markdown)")
    actions.add_parser("status", help="list what is outstanding of deletions, by place")
    vacuum = actions.add_parser("vacuum", help="have nothing left of deletions in the files")
    vacuum.add_argument(
        "--full", action="store_true",
        help="PostgreSQL: write the tables anew, each locked meanwhile",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.action == "map":
        return _map(as_json=args.json)
    if args.action == "status":
        return in_place(_tell)
    if args.action == "vacuum":
        return in_place(lambda place: _vacuum(place, full=args.full))
    given = sys.stdin.read().strip() if args.user_id == "-" else args.user_id
    user_id = identity.id_text(given)
    if user_id is None:
        print("pbmon privacy: a user's id has 1 to 255 characters", file=sys.stderr)
        return 2
    if args.action == "export":
        return in_place(lambda place: _export(place, user_id, args.out))
    return in_place(lambda place: _delete(place, user_id, args.timeout, erase=args.erase))


def _map(*, as_json: bool) -> int:
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    if as_json:
        held = [asdict(each) for each in data_map.holdings_of(resolved)]
        print(json.dumps(held, ensure_ascii=False, indent=2))
    else:
        print("\n".join(write_table(data_map.table_of(resolved))), end="")
    return 0


def _delete(place: Place, user_id: str, timeout_s: float, *, erase: bool) -> int:
    pepper = pepper_of(place.settings.pepper)
    with closing(open_reader(place.url, makes=place.settings.timezone, pepper=pepper)):
        pass  # one in SQLite is there from here on
    opened = closing(open_deletions(place.url, pepper))
    with _roles(place) as (shipper, leader), opened as deletions:
        receipt = erasure.delete(
            deletions,
            user_id,
            tuple(targets(place.settings)),
            has_outbox=outbox_url(place.settings, place.url) is not None,
            deadline_s=time.monotonic() + timeout_s,
            ship=shipper.finish,
        )
        if leader.lead():
            leader.erase(at_once=True)
        if erase:
            _vacuum(place, full=False)
        print(_said(deletions.receipt(uuid.UUID(receipt.receipt_id).bytes)))
    return 0


@contextmanager
def _roles(place: Place) -> Iterator[tuple[Shipper, Leader]]:
    """What the processes of the application do, for where none of them is there to do it."""
    shipper, leader = build(place.settings, place.home, portion=LARGE_PORTION)
    try:
        yield shipper, leader
    finally:
        leader.end()
        shipper.end()


def _export(place: Place, user_id: str, out: str | None) -> int:
    with _roles(place) as (shipper, _leader):
        shipper.finish(time.monotonic() + _TIMEOUT_S)
    pepper = pepper_of(place.settings.pepper)
    opened = closing(open_reader(place.url, makes=place.settings.timezone, pepper=pepper))
    with opened as reader:
        found = reader.export(user_id, place.settings.consent["sharing"])
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        os.fchmod(fd, 0o600)  # one that was there may be open to others
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    if not found["known"]:
        print("pbmon privacy: nothing is held of this user", file=sys.stderr)
    return 0


def _tell(place: Place) -> int:
    with closing(open_deletions(place.url)) as deletions:
        found = deletions.outstanding()
    for each in found:
        waits_s = max(0.0, time.time() - each.since / 1e6)
        why = f" ({privacy.escape(each.fault)})" if each.fault else ""
        print(f"{each.place:<10} {each.deletions:,} outstanding, for up to {waits_s:,.0f} s{why}")
    if not found:
        print("nothing is outstanding of any deletion")
    return 0


def _vacuum(place: Place, *, full: bool) -> int:
    with closing(open_runs(place.url)) as runs:
        runs.vacuum(rewrites=full, anyway=True)
    print(f"store {place.shown} was vacuumed")
    return 0


def _said(receipt: Receipt) -> str:
    lines = [f"receipt {receipt.receipt_id}: deleted at {receipt.deleted_at:%Y-%m-%dT%H:%M:%SZ}"]
    lines += [f"  {table:<20} {rows:>10,}" for table, rows in receipt.counts.items()]
    lines += [f"outstanding: {place}: {why}" for place, why in receipt.outstanding.items()]
    return "\n".join(lines)
