"""`pbmon store`: the tables that events are kept in, and what is in them."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from typing import TYPE_CHECKING

from pbmon import privacy
from pbmon.cli.place import Place, in_place
from pbmon.outbound import url_of
from pbmon.store.access import make_outbox, open_engine, open_reader, read, upgrade
from pbmon.worker.peppers import pepper_of
from pbmon.worker.waiting import waiting_since

if TYPE_CHECKING:
    from pbmon.store.queries import Queries
    from pbmon.store.reader import Reader
    from pbmon.surveys import Survey

NAME = "store"
HELP = "make, upgrade and read the store of events"

_DAY = 86_400_000_000
_FIGURES = (
    "new", "active_24h", "active_7d", "active_30d", "churned", "reactivated", "total", "retention",
    "stickiness",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser(
        "upgrade", help="make the tables, or bring them to this version; add months of events"
    )
    actions.add_parser(
        "status", help="say whether the tables are those of this version, and what waits for them"
    )
    events = actions.add_parser("events", help="list events and features by how many used them")
    events.add_argument("--days", type=int, default=7, help="days back from now (7)")
    growth = actions.add_parser("growth", help="show the growth figures of a day that is over")
    growth.add_argument(
        "--day", type=dt.date.fromisoformat, help="YYYY-MM-DD (the newest there is)"
    )
    feedback = actions.add_parser("feedback", help="say what people answered to a survey")
    feedback.add_argument("--survey", default="nps", help="nps, csat, text or another (nps)")
    feedback.add_argument("--days", type=int, default=7, help="days back from now (7)")


def run(args: argparse.Namespace) -> int:
    def work(place: Place) -> int:
        if args.action == "growth":
            return _show_growth(open_reader(place.url), args.day)
        engine = open_engine(place.url)
        if args.action == "upgrade":
            pepper = pepper_of(place.settings.pepper)
            done = upgrade(engine, place.settings.timezone, pepper=pepper)
            print(f"store {place.shown} {done}")
            _make_outbox(url_of("outbox_url", place.settings.outbox_url))
        elif args.action == "status":
            _print_status(place, read(engine))
        elif args.action == "events":
            _list_events(read(engine), args.days)
        elif args.survey in place.settings.surveys:
            _tell_feedback(
                open_reader(place.url), args.days, args.survey, place.settings.surveys[args.survey]
            )
        else:
            print(
                f"pbmon: there is no survey {args.survey}; there are "
                + ", ".join(sorted(place.settings.surveys)),
                file=sys.stderr,
            )
            return 1
        return 0

    return in_place(work)


def _make_outbox(url: str | None) -> None:
    if url is not None:
        print(f"database {privacy.mask_url(url)}", make_outbox(open_engine(url, ours=False)))


def _print_status(place: Place, queries: Queries) -> None:
    count = queries.count(0, _now())
    since = waiting_since(place.home, queries.positions())
    waits = f", others wait for {max(0, _now() - since) / 1e6:,.0f} s" if since is not None else ""
    print(f"store {place.shown} is up to date: {count:,} events stored{waits}")


def _show_growth(reader: Reader, day: dt.date | None) -> int:
    found = reader.user_growth(day)
    reader.close()
    if found is None:
        print(f"no figures of {day or 'any day'}; `pbmon run growth` takes them")
        return 1
    print(f"{found.day} ({found.timezone}), by {found.source}")
    for name in _FIGURES:
        print(f"{name:<12} {_figure(getattr(found, name)):>12}")
    return 0


def _figure(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}"


def _list_events(queries: Queries, days: int) -> None:
    end = _now()
    start = end - days * _DAY
    for name, count, people in queries.uses(start, end):
        print(f"{name:<40} {count:>12,} {_people(people)}")
    for feature, viewed, clicked, completed, people in queries.adoption(start, end):
        print(
            f"feature {feature:<32} {viewed:>12,} viewed {clicked:>10,} clicked "
            f"{completed:>10,} completed {_people(people)}"
        )


def _tell_feedback(reader: Reader, days: int, name: str, survey: Survey) -> None:
    end = _now()
    told = reader.feedback(end - days * _DAY, end, name, survey, None)
    reader.close()
    if told.responses is None:
        print(f"{name}: answers of few people")
        return
    figures = (("figure", told.figure), ("mean", told.mean))
    said = "".join(f", {what} {value:.1f}" for what, value in figures if value is not None)
    print(f"{name}: {told.responses:,} answers{said}")
    for score, count in told.distribution.items():
        print(f"{score:>4} {f'{count:>10,}' if count is not None else '       few'}")
    for comment in told.comments:
        day = dt.datetime.fromtimestamp(comment.occurred_at / 1e6, dt.timezone.utc)
        mark = str(comment.score) if comment.score is not None else "–"
        print(f"{day:%Y-%m-%d} {mark:>4} {privacy.escape(comment.text)}")


def _people(people: int | None) -> str:
    return f"{people:>10,} people" if people is not None else "  few people"


def _now() -> int:
    return time.time_ns() // 1000 + 1
