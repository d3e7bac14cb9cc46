"""`pbmon mark`: what was deployed or changed, and when; for a pipeline, or by hand."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from typing import TYPE_CHECKING

from pbmon import growth, parsing, privacy
from pbmon.business.reading import micros
from pbmon.cli import arguments
from pbmon.cli.place import Place, in_place
from pbmon.reports import text
from pbmon.reports.page import Table
from pbmon.store.access import StoreError, may_be_there, open_runs
from pbmon.telemetry.providers import release

if TYPE_CHECKING:
    from pbmon.store.jobs import Runs

NAME = "mark"
HELP = "note that something was deployed or changed, and list what was"

_LISTED = 20
_MOST = 10_000


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    deploy = actions.add_parser("deploy", help="a release was deployed")
    deploy.add_argument("name", metavar="RELEASE", nargs="?", help="(that of the settings)")
    change = actions.add_parser("change", help="something else was changed")
    change.add_argument("name", metavar="TEXT", help="what was changed, in a few words")
    for action in (deploy, change):
        action.add_argument("--note", help="more about it, up to 500 characters")
        action.add_argument(
            "--at", type=arguments.moment, metavar="TIME",
            help="ISO 8601, in the zone of `timezone` unless it names one (now)",
        )  # fmt: skip
    listed = actions.add_parser("list", help="the newest marks")
    listed.add_argument("--limit", type=arguments.whole(1, _MOST), default=_LISTED, metavar="N",
                        help=f"({_LISTED})")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    do = _list if args.action == "list" else _note
    return in_place(lambda place: do(place, args))


def _note(place: Place, args: argparse.Namespace) -> int:
    from pbmon.store import marks

    try:
        name = _name(place, args)
        note = _note_of(args.note)
        at = _at(place, args.at)
    except ValueError as error:
        return _fail(str(error))
    do = marks.deploy if args.action == marks.DEPLOY else marks.change
    runs = _open(place)
    try:
        is_new = runs.write(lambda connection: do(connection, name, at, note))
    finally:
        runs.close()
    print(f"{args.action} {privacy.escape(name)}: {'noted' if is_new else 'was noted before'}")
    return 0


def _name(place: Place, args: argparse.Namespace) -> str:
    """Raises ValueError."""
    from pbmon.store import marks

    if args.action == marks.CHANGE:
        return _short(args.name, marks.MAX_NAME, "the text")
    if args.name is not None:
        return parsing.release(args.name)
    found = release(place.settings)
    if found is None:
        raise ValueError("name the RELEASE, or set the setting release")
    return found


def _note_of(note: str | None) -> str | None:
    from pbmon.store import marks

    return None if note is None else _short(note, marks.MAX_NOTE, "the note")


def _short(value: str, most: int, what: str) -> str:
    plain = " ".join(privacy.escape(" ".join(value.split())).split())
    if not 0 < len(plain) <= most:
        raise ValueError(f"{what} is to have 1 to {most} characters, not {len(plain)}")
    return plain


def _at(place: Place, at: dt.datetime | None) -> int:
    """Raises ValueError for a time to come."""
    now = dt.datetime.now(dt.timezone.utc)
    if at is None:
        at = now
    elif at.utcoffset() is None:
        at = at.replace(tzinfo=growth.zone(place.settings.timezone))
    if at > now:
        raise ValueError(f"{at.isoformat()} is to come: a mark is of what was done")
    return micros(at)


def _list(place: Place, args: argparse.Namespace) -> int:
    from pbmon.store import marks

    runs = _open(place)
    try:
        found = runs.read(lambda connection: marks.newest(connection, args.limit))
    finally:
        runs.close()
    if not found:
        print("no mark yet")
        return 0
    zone = growth.zone(place.settings.timezone)
    rows = [
        (
            growth.time_of(mark.at, zone).isoformat(timespec="seconds"),
            mark.kind,
            mark.name,
            mark.note or "",
        )
        for mark in found
    ]
    print("\n".join(text.write_table(Table(("at", "kind", "name", "note"), rows))))
    return 0


def _open(place: Place) -> Runs:
    """Raises StoreError."""
    if not may_be_there(place.url):
        raise StoreError("is made by the first event, and none is there yet")
    return open_runs(place.url)


def _fail(why: str) -> int:
    print(f"pbmon mark: {privacy.escape(why)}", file=sys.stderr)
    return 1
