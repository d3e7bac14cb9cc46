"""`pbmon pseudonyms`: new names for people, and the pepper by which the store finds them."""

from __future__ import annotations

import argparse
import sys

from pbmon.cli.place import Place, in_place
from pbmon.parsing import TARGETS
from pbmon.store.access import open_rotation
from pbmon.store.pseudonyms import SPANS
from pbmon.worker.peppers import pepper_of

NAME = "pseudonyms"
HELP = "change the pseudonyms of people, so that what has left can't be linked to them"

DESTINATIONS = (*TARGETS, SPANS)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    rotate = actions.add_parser(
        "rotate",
        help="give a person, everybody or a destination other pseudonyms; what has left stays "
        "where it is under the old ones, and can't be deleted there by person any more",
    )
    which = rotate.add_mutually_exclusive_group(required=True)
    which.add_argument("--user", metavar="USER_ID", help="a new key for this person")
    which.add_argument("--all", action="store_true", help="a new key for everybody")
    which.add_argument(
        "--destination", choices=DESTINATIONS, help="other pseudonyms there, for everybody"
    )
    actions.add_parser(
        "pepper", help="bring the store under the pepper that the setting `pepper` gives"
    )


def run(args: argparse.Namespace) -> int:
    return in_place(lambda place: _work(place, args))


def _work(place: Place, args: argparse.Namespace) -> int:
    rotation = open_rotation(place.url, pepper_of(place.settings.pepper))
    try:
        if args.action == "pepper":
            print(f"{rotation.adopt():,} people are known by the pepper from outside now")
        elif args.destination is not None:
            waiting = rotation.destination(args.destination)
            print(f"{args.destination}: other pseudonyms from now on, {waiting:,} waiting events")
        elif args.all:
            people, rows = rotation.everybody()
            print(f"{people:,} people have new pseudonyms, in {rows:,} rows")
        else:
            found = rotation.person(args.user)
            if found is None:
                print("pbmon: nothing is known of this person", file=sys.stderr)
                return 1
            print(f"the person has new pseudonyms, in {found:,} rows")
    finally:
        rotation.close()
    return 0
