"""`pbmon store`: the tables that events are kept in, and what is in them."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from typing import TYPE_CHECKING

from pbmon import privacy
from pbmon.cli.place import Place, in_place
from pbmon.store.access import make_outbox, open_engine, read, upgrade
from pbmon.worker.urls import url_of

if TYPE_CHECKING:
    from pbmon.store.queries import Queries
    from pbmon.surveys import Survey

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
    feedback = actions.add_parser("feedback", help="say what people answered to a survey")
    feedback.add_argument("--survey", default="nps", help="nps, csat, text or another (nps)")
    for action in (events, feedback):
        action.add_argument("--days", type=int, default=7, help="days back from now (7)")


def run(args: argparse.Namespace) -> int:
    def work(place: Place) -> int:
        engine = open_engine(place.url)
        if args.action == "upgrade":
            print(f"store {place.shown}", upgrade(engine))
            _make_outbox(url_of("outbox_url", place.settings.outbox_url))
        elif args.action == "status":
            count = read(engine).count(0, _now())
            print(f"store {place.shown} is up to date: {count:,} events stored")
        elif args.action == "events":
            _list_events(read(engine), args.days)
        elif args.survey in place.settings.surveys:
            _tell_feedback(
                read(engine), args.days, args.survey, place.settings.surveys[args.survey]
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
        print(f"database {privacy.mask_url(url)}", make_outbox(open_engine(url)))


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


def _tell_feedback(queries: Queries, days: int, name: str, survey: Survey) -> None:
    end = _now()
    told = queries.feedback(end - days * _DAY, end, name, survey)
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
