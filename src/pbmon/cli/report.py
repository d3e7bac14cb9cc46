"""`pbmon report`: what the store knows, written for people."""

from __future__ import annotations

import argparse
import datetime as dt
import errno
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from pbmon import privacy
from pbmon.cli.place import Place, in_place
from pbmon.reports import html, markdown, release, week, weekly
from pbmon.reports.page import Page
from pbmon.store.access import open_reader
from pbmon.telemetry.providers import environment, service_name

NAME = "report"
HELP = "write a report of what the store knows"

_WRITERS = {"markdown": markdown.write, "html": html.write}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="REPORT", required=True)
    review = actions.add_parser("weekly", help="one week beside the week before")
    review.add_argument(
        "--week", type=_monday, metavar="YYYY-Www", help="an ISO week (the last one that is over)"
    )
    deployed = actions.add_parser(
        "release", help="errors, budgets and slow queries since a deploy, and before it"
    )
    deployed.add_argument("release", metavar="RELEASE", nargs="?", help="(the newest)")
    for each in (review, deployed):
        each.add_argument("--format", choices=_WRITERS, default="markdown", help="(markdown)")
        each.add_argument(
            "--output", type=Path, metavar="FILE",
            help="that only its owner can read; written whole or not at all (standard output)",
        )  # fmt: skip


def _monday(name: str) -> dt.date:
    try:
        return week.parse(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(args: argparse.Namespace) -> int:
    if args.format == "html" and args.output is None and sys.stdout.isatty():
        return _fail("HTML is nothing for a terminal; add --output FILE, or redirect it")
    do = _weekly if args.action == "weekly" else _release
    return in_place(lambda place: do(place, args))


def _weekly(place: Place, args: argparse.Namespace) -> int:
    now = _now()
    zone = place.settings.timezone
    newest = week.newest(zone, now)
    chosen = week.Week(args.week, zone) if args.week is not None else newest
    if chosen.begin > newest.begin:
        return _fail(f"{chosen.name} is not over; the newest week that is: {newest.name}")
    with closing(open_reader(place.url)) as reader:
        service, where = _of_service(place)
        page = weekly.build(reader, place.settings, service, chosen, now, where)
    return _write(page, args.format, args.output)


def _release(place: Place, args: argparse.Namespace) -> int:
    with closing(open_reader(place.url)) as reader:
        deployed = reader.deployment(args.release)
        if deployed is None:
            which = f"of release {args.release}" if args.release is not None else "yet"
            return _fail(f"no deploy is noted {which}; see `pbmon mark list`, `pbmon mark deploy`")
        page = release.build(reader, place.settings, *_of_service(place), deployed, _now())
    return _write(page, args.format, args.output)


def _of_service(place: Place) -> tuple[str, str | None]:
    """Its name and its environment, as its metrics have them."""
    return service_name(place.settings), environment(place.settings)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _write(page: Page, form: str, output: Path | None) -> int:
    try:
        content = _WRITERS[form](page).encode()
    except html.ExtraMissingError as error:
        return _fail(str(error))
    if output is None:
        sys.stdout.buffer.write(content)  # UTF-8, whatever the terminal's encoding is
        return 0
    try:
        _replace(output, content)
    except OSError as error:
        return _fail(f"{output}: {error.strerror or error}")
    return 0


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all; with mode 0600, as comments of people are in it."""
    path = path.resolve()
    if path.exists() and not path.is_file():  # never in the place of /dev/null
        raise FileExistsError(errno.EEXIST, "is there, and is no file")
    fd, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _fail(text: str) -> int:
    print(f"pbmon: {privacy.escape(text)}", file=sys.stderr)
    return 1
