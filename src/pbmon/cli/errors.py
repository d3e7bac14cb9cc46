"""`pbmon errors`: which errors the application has, the most frequent first."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime

from pbmon.business.reading import micros
from pbmon.cli import arguments
from pbmon.cli.place import Place, in_place
from pbmon.errors import ErrorSummary
from pbmon.store.access import open_reader

NAME = "errors"
HELP = "list the most frequent errors"

_MAX_LIMIT = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=arguments.whole(1, _MAX_LIMIT), default=10, metavar="N",
        help="how many (default 10)",
    )  # fmt: skip
    parser.add_argument(
        "--since",
        type=arguments.since,
        metavar="TIME",
        help="how long ago, as 15m, 72h or 7d; or 2026-11-25T12:00+00:00",
    )
    parser.add_argument("--release", help="of this release alone")
    parser.add_argument("--json", action="store_true", help="as JSON: a list of errors")


def run(args: argparse.Namespace) -> int:
    return in_place(lambda place: _list(place, args))


def _list(place: Place, args: argparse.Namespace) -> int:
    reader = open_reader(place.url)
    since = micros(args.since) if args.since is not None else None
    found = reader.errors(args.limit, since, args.release)
    reader.close()
    if args.json:
        print(json.dumps([asdict(each) for each in found], indent=2, default=datetime.isoformat))
    else:
        print("\n".join(_lines(found)) if found else "no errors")
    return 0


def _lines(found: list[ErrorSummary]) -> list[str]:
    rows = [("ERRORS", "USERS", "LAST (UTC)", "SINCE RELEASE", "ERROR", "PLACE", "ROUTE")]
    for each in found:
        of_release = each.errors_since_release
        rows.append((
            f"{each.errors:,}",
            f"{each.users:,}",
            f"{each.last_at:%Y-%m-%d %H:%M:%S}",
            f"{of_release:,}" if of_release is not None else "–",
            each.error_type,
            each.place or "–",
            each.route or "–",
        ))  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    numbers = (0, 1, 3)
    return [
        "  ".join(
            cell.rjust(width) if at in numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
