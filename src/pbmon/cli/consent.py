"""`pbmon consent`: what a person has agreed to, and when."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time

from pbmon.business.consent import status_of
from pbmon.cli.place import Place, in_place
from pbmon.parsing import is_version
from pbmon.purposes import PURPOSES, ConsentStatus, terms_of
from pbmon.spool import entries
from pbmon.store.access import asking, open_reader, open_writer
from pbmon.worker.peppers import pepper_of

NAME = "consent"
HELP = "say what a person has agreed to, or note that they did or did not"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="list what is in force, and every decision")
    grant = actions.add_parser("grant", help="note that a person agrees")
    grant.add_argument("--version", help="of the text that they agreed to (as `consent_version`)")
    withdraw = actions.add_parser("withdraw", help="note that a person does not agree")
    for each in (status, grant, withdraw):
        each.add_argument("user_id", metavar="USER_ID", help="the application's own id")
    for each in (grant, withdraw):
        each.add_argument("purposes", nargs="*", metavar="PURPOSE", help=f"{_NAMES} (both)")


_NAMES = " or ".join(PURPOSES)


def run(args: argparse.Namespace) -> int:
    if not 0 < len(args.user_id) <= 255:
        return _wrong("USER_ID must have 1 to 255 characters")
    if args.action == "status":
        return in_place(lambda place: _tell(place, args.user_id))
    if wrong := [purpose for purpose in args.purposes if purpose not in PURPOSES]:
        return _wrong(f"purpose {wrong[0]!r} is not one of {', '.join(PURPOSES)}")
    version = getattr(args, "version", None)
    if version is not None and not is_version(version):
        return _wrong("VERSION must have 1 to 50 printable characters")
    purposes = args.purposes or PURPOSES
    return in_place(
        lambda place: _decide(place, args.user_id, purposes, args.action == "grant", version)
    )


def _wrong(why: str) -> int:
    print(f"pbmon: {why}", file=sys.stderr)
    return 2


def _tell(place: Place, user_id: str) -> int:
    settings = place.settings
    reader = open_reader(place.url, pepper=pepper_of(settings.pepper))
    try:
        words, said = reader.decisions(user_id), reader.consents(user_id)
    finally:
        reader.close()
    if words is None:
        print("this person was deleted; nothing is kept of them")
    now = time.time_ns() // 1000
    for purpose, terms in terms_of(settings.consent, settings.consent_version).items():
        print(_line(status_of(purpose, terms, words, now)))
    for each in said:
        word = "granted" if each.granted else "withdrawn"
        version = f", version {each.version}" if each.version is not None else ""
        print(f"  {_moment(each.decided_at)}  {each.purpose} {word}{version}")
    return 0


def _line(found: ConsentStatus) -> str:
    word = {None: "not asked", True: "granted", False: "withdrawn"}[found.decision]
    if found.version is not None:
        word += f" (version {found.version})"
    required = f", version {found.required} required" if found.required is not None else ""
    kept = "kept" if found.is_kept else "not kept"
    return f"{found.purpose:<10} {word}; basis {found.basis}{required}: {kept}"


def _moment(at: int) -> str:
    return dt.datetime.fromtimestamp(at / 1e6, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _decide(
    place: Place, user_id: str, purposes: tuple[str, ...], granted: bool, version: str | None
) -> int:
    settings = place.settings
    current = settings.consent_version if granted else {}
    at = time.time_ns() // 1000
    said = [
        entries.Consent(at + n, user_id, purpose, granted, version or current.get(purpose))
        for n, purpose in enumerate(purposes)
    ]
    writer = open_writer(
        place.url,
        settings.consent["analytics"],
        sharing=settings.consent["sharing"],
        versions=settings.consent_version,
        pepper=pepper_of(settings.pepper),
        timezone=settings.timezone,
    )
    try:
        # As rows of an outbox: each is stored once, and belongs to no journal.
        written = asking(
            lambda: writer.write_outbox(
                [(n.to_bytes(16, "big"), entries.encode(each)) for n, each in enumerate(said)]
            )
        )
    finally:
        writer.close()
    if written.dropped:
        print("pbmon: this person was deleted; nothing is noted of them", file=sys.stderr)
        return 1
    return _tell(place, user_id)
