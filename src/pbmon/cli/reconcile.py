"""`pbmon reconcile`: whether the store, Prometheus and the application's own table say the same."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pbmon import growth, money
from pbmon.cli.place import Place, in_place
from pbmon.outbound import url_of
from pbmon.reports import text
from pbmon.reports.page import Amount, Table
from pbmon.reports.prometheus import Gained, Prometheus, PrometheusError, token_of
from pbmon.reports.reconciliation import Day, Figure, Finding, Row, compare, compare_payments
from pbmon.store.access import open_reader
from pbmon.telemetry.pipeline import interval_s

if TYPE_CHECKING:
    from pbmon.store.reader import Reader
    from pbmon.store.reconciliation import Books

NAME = "reconcile"
HELP = "compare the revenue of the store with Prometheus and with your own table, day by day"

EQUAL, DIFFERENT, UNKNOWN = 0, 1, 2
_SETTINGS = ("prometheus_url", "prometheus_token", "reconcile")
_MOST_DAYS = 400
_FEW = 0.95
"""Of the samples that a day should have: fewer are told."""

_UNDERWAY_S = 30.0
"""From being counted to being read for the metrics, at most: a statement's patience."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, help="days that are over, until yesterday (7)")
    for name, which in (("from", "start"), ("to", "end")):
        parser.add_argument(
            f"--{name}",
            dest=which,
            type=dt.date.fromisoformat,
            metavar="YYYY-MM-DD",
            help="the first of the days" if name == "from" else "the last of them (yesterday)",
        )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """0: all agrees. 1: something differs. 2: something that is set can't be compared."""
    return in_place(lambda place: _reconcile(place, args), failure=UNKNOWN)


@dataclass(slots=True)
class _Asked:
    """Days, which begin and end at the edges (µs since the epoch), and what there is of them."""

    place: Place
    days: list[dt.date]
    edges: list[int]
    now: int
    export_s: float
    reader: Reader
    books: Books
    faults: list[str] = field(default_factory=list)

    @property
    def tail(self) -> int:
        return _tail(self.export_s)


def _tail(export_s: float) -> int:
    return round((export_s + _UNDERWAY_S) * 1e6)


@dataclass(slots=True)
class _Comparison:
    title: str
    other: str
    rows: list[Row]
    notes: list[str]


def _reconcile(place: Place, args: argparse.Namespace) -> int:
    zone = growth.zone(place.settings.timezone)
    now = time.time_ns() // 1000
    yesterday = growth.day_of(now, zone) - dt.timedelta(days=1)
    days = _days(args, yesterday)
    if isinstance(days, str):
        return _fail(days)
    settings = place.settings
    faults = [f"the setting {p.name} can't be used" for p in place.problems if p.name in _SETTINGS]
    if settings.prometheus_url is None and settings.reconcile is None and not faults:
        return _fail(
            "set prometheus_url or [reconcile]: there is nothing to compare the store with"
        )
    edges = [growth.start_of(day, zone) for day in (*days, days[-1] + dt.timedelta(days=1))]
    export_s = interval_s("OTEL_METRIC_EXPORT_INTERVAL", 60_000)
    reader = open_reader(place.url)
    try:
        books = reader.books(edges, _tail(export_s), settings.base_currency)
        asked = _Asked(place, days, edges, now, export_s, reader, books, faults)
        found = [each for each in (_with_prometheus(asked), _with_application(asked)) if each]
    finally:
        reader.close()
    if args.json:
        print(_as_json(asked, found))
    elif found:
        print("\n\n".join(map(_as_text, found)))
    for fault in asked.faults:
        _fail(fault)
    rows = [row for each in found for row in each.rows]
    if any(row.is_different for row in rows):
        return DIFFERENT
    unknown = [each for each in found if each.rows and not any(r.is_compared for r in each.rows)]
    return UNKNOWN if asked.faults or unknown else EQUAL


def _fail(why: str) -> int:
    print(f"pbmon reconcile: {why}", file=sys.stderr)
    return UNKNOWN


def _days(args: argparse.Namespace, yesterday: dt.date) -> list[dt.date] | str:
    """The days asked for, or what is wrong."""
    if args.days is not None and (args.start or args.end):
        return "--days, or --from and --to"
    if args.end and not args.start:
        return "--to goes with --from"
    last = args.end or yesterday
    first = args.start or last - dt.timedelta(days=(7 if args.days is None else args.days) - 1)
    count = (last - first).days + 1
    if not 1 <= count <= _MOST_DAYS:
        return f"ask for 1 to {_MOST_DAYS} days, the first one before the last"
    return [first + dt.timedelta(days=n) for n in range(count)]


# --- Prometheus ---


def _with_prometheus(asked: _Asked) -> _Comparison | None:
    settings, books = asked.place.settings, asked.books
    if settings.prometheus_url is None:
        return None
    url = url_of("prometheus_url", settings.prometheus_url)
    if url is None:
        asked.faults.append(f"prometheus_url is {settings.prometheus_url}, which is not set")
        return None
    try:
        prometheus = Prometheus(url, token_of(settings.prometheus_token))
        try:
            keeps_s = prometheus.keeps_s()
            gained = [
                prometheus.gained(books.store_id, books.currency, books.exponent, start, end)
                if end > books.made_at and start < asked.now
                else Gained(None, None, None, 0)
                for start, end in zip(asked.edges, asked.edges[1:], strict=False)
            ]
        finally:
            prometheus.close()
    except (PrometheusError, ValueError) as error:
        asked.faults.append(str(error))
        return None
    days = [_day(asked, i, gained[i], keeps_s) for i in range(len(asked.days))]
    rows = compare(days, _figures(books, gained))
    return _Comparison(
        f"Store and Prometheus {prometheus.shown}, by the time counted",
        "Prometheus",
        rows,
        list(_few_samples(asked, days, gained)),
    )


def _day(asked: _Asked, i: int, gained: Gained, keeps_s: float | None) -> Day:
    start, end = asked.edges[i], asked.edges[i + 1]
    outside = None
    if end <= asked.books.made_at:
        outside = Finding.BEFORE_STORE
    elif end > asked.now - asked.tail:
        outside = Finding.NOT_OVER
    elif not gained.samples and keeps_s is not None and start < asked.now - keeps_s * 1e6:
        outside = Finding.NOT_KEPT
    return Day(asked.days[i], outside)


def _figures(books: Books, gained: Sequence[Gained]) -> list[Figure]:
    def figure(name: str, field: str, currency: str, others: str = "") -> Figure:
        return Figure(
            name,
            currency,
            books.exponent if currency else 0,
            [getattr(each, field) for each in books.spans],
            [getattr(each, field) for each in gained],
            [getattr(each, field) for each in books.tails],
            [getattr(each, others) for each in books.spans] if others else (),
            getattr(books.ever, others) if others else 0,
        )

    return [
        figure("revenue", "revenue_minor", books.currency, "others_revenue_minor"),
        figure("refunds", "refunds_minor", books.currency, "others_refunds_minor"),
        figure("transactions", "transactions", ""),
    ]


def _few_samples(asked: _Asked, days: Sequence[Day], gained: Sequence[Gained]) -> Iterator[str]:
    for i, day in enumerate(days):
        since = max(asked.edges[i], asked.books.made_at)
        expected = round((asked.edges[i + 1] - since) / 1e6 / asked.export_s)
        if day.outside is None and gained[i].samples < expected * _FEW:
            yield f"{day.day}: {gained[i].samples:,} of about {expected:,} samples"


# --- the application ---


def _with_application(asked: _Asked) -> _Comparison | None:
    from pbmon.store.application import ApplicationError
    from pbmon.store.reconciliation import payments

    setting = asked.place.settings.reconcile
    if setting is None:
        return None
    url = url_of("reconcile.url", setting.url)
    if url is None:
        asked.faults.append(f"url of [reconcile] is {setting.url}, which is not set")
        return None
    try:
        paid = payments(setting, url, asked.days, asked.edges)
    except ApplicationError as error:
        asked.faults.append(str(error))
        return None
    ours = _charges(asked)
    theirs = {(p.day, p.currency): (p.amount_minor, p.payments) for p in paid}
    exponents = {currency: money.exponent(currency) for _, currency in (*ours, *theirs)}
    days = [
        Day(day, Finding.NOT_OVER if end > asked.now else None)
        for day, end in zip(asked.days, asked.edges[1:], strict=True)
    ]
    zone = growth.zone(asked.place.settings.timezone)
    made_on = growth.day_of(asked.books.made_at, zone)
    rows = compare_payments(days, made_on, exponents, ours, theirs)
    notes = [] if rows else ["neither has a payment"]
    return _Comparison(f"Store and {setting}, by the time occurred", "application", rows, notes)


def _charges(asked: _Asked) -> dict[tuple[dt.date, str], tuple[int, int]]:
    """Completed charges of the store: day and currency → amount, number."""
    found: dict[tuple[dt.date, str], tuple[int, int]] = {}
    for day, start, end in zip(asked.days, asked.edges, asked.edges[1:], strict=False):
        for each in asked.reader.revenue(start, end, asked.books.currency).sums:
            if each.kind == "charge":
                places = money.exponent(each.currency)
                minor = money.converted(each.amount_minor, each.exponent, money.ONE, places)
                amount, count = found.get((day, each.currency), (0, 0))
                found[day, each.currency] = (amount + minor, count + each.transactions)
    return found


# --- for people and for programs ---


def _as_text(found: _Comparison) -> str:
    table = Table(
        ("day", "figure", "store", found.other, "difference", ""),
        [
            (
                row.day.isoformat(), row.figure, _amount(row, row.ours), _amount(row, row.theirs),
                _amount(row, row.difference if row.is_compared else None), row.finding.value,
            )
            for row in found.rows
        ],
    )  # fmt: skip
    lines = [found.title, *(text.write_table(table) if found.rows else ()), *found.notes]
    compared = sum(row.is_compared for row in found.rows)
    different = sum(row.is_different for row in found.rows)
    return "\n".join([*lines, f"{different:,} of {compared:,} figures differ"])


def _amount(row: Row, value: int | None) -> Amount:
    if value is None or not row.currency:
        return Amount(value)
    return Amount(money.major(value, row.exponent), row.currency)


def _as_json(asked: _Asked, found: Sequence[_Comparison]) -> str:
    """Amounts in minor units."""
    value: dict[str, Any] = {
        "from": asked.days[0].isoformat(),
        "to": asked.days[-1].isoformat(),
        "timezone": asked.place.settings.timezone,
        "store": asked.books.store_id,
        "faults": asked.faults,
    }
    for each in found:
        value[each.other.lower()] = {
            "rows": [
                {
                    "day": row.day.isoformat(), "figure": row.figure, "currency": row.currency,
                    "exponent": row.exponent, "store": row.ours, "other": row.theirs,
                    "difference": row.difference if row.is_compared else None,
                    "finding": row.finding.name.lower(), "different": row.is_different,
                }
                for row in each.rows
            ],
            "notes": each.notes,
        }  # fmt: skip
    return json.dumps(value, indent=2, ensure_ascii=False)
