"""The sections of errors, budgets and slow queries, and the page of a release; with a real
Prometheus in tests/e2e/test_main_job.py."""

from __future__ import annotations

import datetime as dt
import uuid
from contextlib import closing
from decimal import Decimal

import pytest

from pbmon.reports import budgets, html, markdown, release, slow_queries
from pbmon.reports.page import Amount, Page, shown
from pbmon.reports.prometheus import PrometheusError
from pbmon.reports.week import Span, Week
from pbmon.settings import Settings
from pbmon.store import marks, tables
from pbmon.store.access import open_engine, open_reader
from pbmon.store.marks import Deployment, Mark
from tests.reports.test_weekly import FEW, review, rows_of

SPAN = Span(0, 100_000_000, 200_000_000, "this week", "week before")
MINUTE, HOUR = 60_000_000, 3_600_000_000


class Told:
    """Metrics that were said: metric → span's start → key → value."""

    def __init__(self, **metrics):
        self.metrics = metrics

    def gains(self, metric, start, end):
        found = self.metrics.get(metric.name, {}).get(start, {})
        return {key: Decimal(str(value)) for key, value in found.items()}

    newest = gains


def budget(limit, route="", method="", operation=""):
    return (method, route, operation, limit)


PAY, SLOW, JOB, OK, NEVER, UP = (
    budget("p95", "/pay/{id}"), budget("p99", "/pay/{id}", "POST"), budget("max", operation="day"),
    budget("p95", "/ok"), budget("max", "/never"), budget("availability", "/pay/{id}"),
)  # fmt: skip


def of_budgets(**more):
    return Told(**{
        "pbmon.budget.requests": {
            100_000_000: {PAY: 1000, SLOW: 200, JOB: 7, OK: 1000, UP: 10_000, NEVER: 0},
            0: {PAY: 500, OK: 0},
        },
        "pbmon.budget.breaches": {
            100_000_000: {PAY: 60, SLOW: 40, JOB: 1, OK: 20, UP: 3, NEVER: 0}, 0: {PAY: 5},
        },
        "pbmon.budget.allowed": {
            100_000_000: {PAY: 0.05, SLOW: 0.01, JOB: 0, OK: 0.05, NEVER: 0, UP: 1 - 0.9995},
        },
        "pbmon.budget.threshold": {100_000_000: {PAY: 0.3, SLOW: 0.4, JOB: 60, OK: 0.1, NEVER: 2}},
        **more,
    })  # fmt: skip


def rows(part):
    (table,) = part.section.tables
    return [[shown(cell) for cell in row] for row in table.rows]


def test_each_promise_has_its_row_and_the_worst_is_first():
    part = budgets.of(SPAN, of_budgets())
    assert rows(part) == [
        ["POST /pay/{id}", "p99", "0.4 s", "200", "40", "20.0 %", "–", "1.0 %", "-1900.0 %"],
        ["/pay/{id}", "p95", "0.3 s", "1,000", "60", "6.0 %", "1.0 %", "5.0 %", "-20.0 %"],
        ["day", "max", "60 s", "7", "1", "14.3 %", "–", "0.0 %", "–"],
        ["/pay/{id}", "availability", "–", "10,000", "3", "0.03 %", "–", "0.05 %", "40.0 %"],
        ["/ok", "p95", "0.1 s", "1,000", "20", "2.0 %", "–", "5.0 %", "60.0 %"],
        ["/never", "max", "2 s", "0", "0", "–", "–", "0.0 %", "–"],
    ]
    assert part.section.notes == [
        "3 of 6 promises broken: more breaches than are allowed. 1 had no request."
    ]
    (headline,) = part.headlines
    assert (headline.now, headline.before) == (Amount(3), Amount(0))


def test_a_share_that_is_just_what_is_allowed_is_kept():
    exact = {100_000_000: {UP: 1 - 0.999}}
    told = of_budgets(**{
        "pbmon.budget.allowed": exact,
        "pbmon.budget.requests": {100_000_000: {UP: 1000}},
        "pbmon.budget.breaches": {100_000_000: {UP: 1}},
    })  # fmt: skip
    part = budgets.of(SPAN, told)
    assert rows(part)[0][-2:] == ["0.1 %", "0.0 %"]
    assert part.headlines[0].now == Amount(0)


def test_no_budget_and_nothing_slow_are_said():
    assert budgets.of(SPAN, Told()).section.notes == (
        "Prometheus knows of no budget in this time.",
    )
    part = slow_queries.of(SPAN, Told(), 0.1)
    assert part.section.notes == ("Prometheus knows of none in this time.",)
    assert part.headlines[0].now == Amount(0)


def test_the_ten_slowest_statements_beside_the_week_before():
    now = {("postgresql", f"SELECT t{n:02}"): n for n in range(13)} | {("", ""): 3}
    before = {("postgresql", "SELECT t12"): 40, ("postgresql", "SELECT gone"): 2}
    told = Told(**{"pbmon.db.slow_queries": {100_000_000: now, 0: before}})
    part = slow_queries.of(SPAN, told, 0.1)
    found = rows(part)
    assert found[0] == ["SELECT t12", "postgresql", "12", "40"]
    assert [row[2] for row in found] == ["12", "11", "10", "9", "8", "7", "6", "5", "4", "3"]
    assert found[-1][0] == "others"
    (headline,) = part.headlines
    assert (headline.now.value, headline.before.value) == (sum(range(13)) + 3, 42)
    assert "longer than 0.1 s" in part.section.notes[0]


# --- with a store ---

MONDAY = dt.date(2026, 11, 23)
WEEK = Week(MONDAY, "UTC")
NAMES = {"new": "ValueError", "old": "KeyError", "gone": "OSError"}


def keep(url, *hours, people=()):
    """Errors. hours: (kind, hour, count); people: (kind, how many)."""
    engine = open_engine(url)
    keys = {kind: uuid.uuid5(uuid.NAMESPACE_OID, kind).bytes for kind in NAMES}
    with engine.begin() as connection:
        for kind in {kind for kind, *_ in hours}:
            own = [(at, count) for other, at, count in hours if other == kind]
            connection.execute(tables.errors.insert(), {
                "fingerprint": keys[kind], "error_type": NAMES[kind], "place": f"shop.{kind}:pay",
                "route": "/pay/{id}" if kind == "new" else None, "first_at": min(own)[0] + MINUTE,
                "errors": sum(count for _, count in own), "last_at": max(own)[0] + 2 * MINUTE,
                "first_release": "1.5" if kind == "new" else None,
            })  # fmt: skip
            connection.execute(tables.error_hours.insert(), [
                {"hour": at, "fingerprint": keys[kind], "release": "", "errors": count}
                for at, count in own
            ])  # fmt: skip
        for kind, count in people:
            connection.execute(tables.error_people.insert(), [
                {"fingerprint": keys[kind], "subject": uuid.uuid4().bytes, "last_at": WEEK.start}
                for _ in range(count)
            ])  # fmt: skip
    engine.dispose()


def test_the_week_s_errors_stand_beside_those_of_the_week_before(quick_url):
    keep(
        quick_url,
        ("new", WEEK.start + 5 * HOUR, 12), ("old", WEEK.start, 3), ("old", WEEK.end - HOUR, 4),
        ("old", WEEK.start - HOUR, 20), ("old", WEEK.end, 99), ("gone", WEEK.before.start, 5),
        people=(("new", 11), ("old", 4)),
    )  # fmt: skip
    headlines, found, text = review(quick_url)
    assert headlines["Errors"] == ["19", "25", "-24.0 %"]
    at = found.index(["error", "route", "this week", "week before", "users", "first seen"])
    assert found[at + 1 : at + 3] == [
        ["ValueError in shop.new:pay", "/pay/{id}", "12", "0", "11",
         "NEW: 2026-11-23 05:01 in 1.5"],
        ["KeyError in shop.old:pay", "", "7", "20", FEW, "2026-11-22 23:01"],
    ]  # fmt: skip
    assert "19 errors of 2 kinds, 1 of them seen for the first time." in text
    assert "OSError" not in text


def test_without_errors_and_prometheus_the_sections_say_so(quick_url):
    headlines, _, text = review(quick_url)
    assert headlines["Errors"] == ["0", "0", "±0"]
    assert "## Errors\n\nNone was recorded." in text
    missing = r"This is missing: set prometheus\_url to have it from Prometheus."
    assert f"## Budgets\n\n{missing}\n\n## Slow queries\n\n{missing}" in text


# --- a release ---

NOW = dt.datetime(2026, 11, 26, 12, 0, 30, tzinfo=dt.timezone.utc)
NOW_US = int(NOW.timestamp()) * 1_000_000


def deployment(at, before=None, after=None, note=None):
    beside = [Mark("deploy", name, when, None) if name else None
              for name, when in (before or ("", 0), after or ("", 0))]  # fmt: skip
    return Deployment(Mark("deploy", "1.5", at, note), *beside)


@pytest.mark.parametrize(
    ("at", "after", "length"),
    [
        (NOW_US - 2 * HOUR - 7, None, 2 * HOUR),  # until now
        (NOW_US - 5 * HOUR, ("1.6", NOW_US - 2 * HOUR), 3 * HOUR),  # until the next one
        (NOW_US - 400 * HOUR, None, 168 * HOUR),  # a week at most
        (NOW_US - 3, None, 1_000_000),
        (NOW_US + HOUR, None, 1_000_000),  # by a clock that is ahead
    ],
)
def test_the_time_since_has_as_much_time_before_it(at, after, length):
    span = release.since(deployment(at, after=after), NOW_US)
    assert span.start == at // 1_000_000 * 1_000_000
    assert span.end - span.start == pytest.approx(length, abs=1_000_000)
    assert span.start - span.before == span.end - span.start > 0
    assert {each % 1_000_000 for each in span[:3]} == {0}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 s"), (3600, "1 h"), (3725, "1 h 2 min"), (86_400 * 3 + 7200 + 5, "3 d 2 h"),
     (86_459, "1 d"), (605, "10 min 5 s")],
)  # fmt: skip
def test_a_length_is_said_by_its_two_largest_units(seconds, said):
    assert release._length(Span(0, 0, seconds * 1_000_000, "", "")) == said


def page(url, deployed):
    with closing(open_reader(url)) as reader:
        return release.build(reader, Settings(), "shop", None, deployed, NOW)


def test_a_release_s_page_has_new_errors_first_in_both_formats(quick_url):
    at = NOW_US // HOUR * HOUR - 72 * HOUR  # by whole hours: older than what is kept finer
    keep(
        quick_url,
        ("old", at, 40), ("old", at - HOUR, 30), ("new", at + HOUR, 2), ("gone", at - HOUR, 9),
    )  # fmt: skip
    made = page(quick_url, deployment(at, before=("1.4", at - 99 * HOUR), note="new checkout"))
    assert isinstance(made, Page)
    text = markdown.write(made)
    assert text.splitlines()[:3:2] == [
        "# Release 1.5 of shop",
        (
            "Deployed 2026-11-23 12:00:00 (UTC) after 1.4: new checkout. The 3 d since, beside as "
            "much time before. Made 2026-11-26 12:00 UTC."
        ),
    ]
    found = rows_of(text)
    assert found[0] == ["", "since", "before", "change"]
    assert found[1] == ["Errors", "42", "39", "+7.7 %"]
    assert [row[:4] for row in found[3:5]] == [
        ["ValueError in shop.new:pay", "/pay/{id}", "2", "0"],
        ["KeyError in shop.old:pay", "", "40", "30"],
    ]
    assert found[3][-1].startswith("NEW: ")
    written = html.write(made)
    assert written.index("ValueError in shop.new:pay") < written.index("KeyError in shop.old:pay")
    assert text.count("set prometheus") == 2


def test_what_a_prometheus_fails_at_leaves_the_others(monkeypatch, quick_url):
    def fail(*_):
        raise PrometheusError("it is away")

    monkeypatch.setattr(budgets, "of", fail)
    text = markdown.write(page(quick_url, deployment(NOW_US - HOUR)))
    assert "## Budgets\n\nThis is missing: it is away." in text
    assert "## Errors\n\nNone was recorded." in text


def test_a_mark_that_is_read_is_the_one_that_was_noted(quick_url):
    engine = open_engine(quick_url)
    with engine.begin() as connection:
        marks.deploy(connection, "1.5", NOW_US, "note")
    engine.dispose()
    with closing(open_reader(quick_url)) as reader:
        assert reader.deployment("1.5") == deployment(NOW_US, note="note")
        assert reader.deployment("1.4") is None
