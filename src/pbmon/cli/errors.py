"""`pbmon errors`: which errors the application has, the most frequent first."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime, timedelta, timezone

from pbmon import budgets
from pbmon.business.reading import micros
from pbmon.cli.place import Place, in_place
from pbmon.errors import ErrorSummary
from pbmon.store.access import open_reader

NAME = "errors"
HELP = "list the most frequent errors"

_MAX_LIMIT = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_limit, default=10, help="how many (default 10)")
    parser.add_argument(
        "--since",
        type=_age,
        metavar="TIME",
        help="how long ago, as 15m or 72h; or 2026-11-25T12:00+00:00",
    )
    parser.add_argument("--release", help="of this release alone")
    parser.add_argument("--json", action="store_true", help="as JSON: a list of errors")


def _limit(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MAX_LIMIT:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MAX_LIMIT}")
    return number


def _age(text: str) -> datetime:
    now = datetime.now(timezone.utc)
    try:
        return now - timedelta(seconds=budgets.seconds(text))
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no length of time, such as 15m, and no time, such as "
            "2026-11-25T12:00+00:00"
        ) from None
    return at if at.utcoffset() is not None else at.replace(tzinfo=timezone.utc)


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
    rows = [("ERRORS", "USERS", "LAST", "SINCE RELEASE", "ERROR", "PLACE", "ROUTE")]
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
