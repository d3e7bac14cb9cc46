"""Every figure of the review equals a naive count over the facts, in Markdown and in HTML, on both
engines, over changes of the clock and of the year; few people are in none."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from pbmon import experiments as rules
from pbmon.experiments import Arm, Exposed
from pbmon.reports import html, markdown, weekly
from pbmon.reports.week import Week
from pbmon.settings import Settings
from pbmon.store.access import StoreError, open_reader, open_writer
from tests.reports import shop as shops
from tests.store import population
from tests.store.money import PLACES, in_usd, refund, transaction
from tests.store.test_exposures import exposure
from tests.store.test_feedback import answer
from tests.store.test_writer import event, portion

NOW = dt.datetime(2027, 2, 1, 12, tzinfo=dt.timezone.utc)
FEW = "few people"
WEEKS = {
    "2026-W43": (dt.date(2026, 10, 19), "Europe/Berlin"),  # Sunday has 25 hours
    "2026-W10": (dt.date(2026, 3, 2), "America/New_York"),  # Sunday has 23
    "2020-W53": (dt.date(2020, 12, 28), "Asia/Kolkata"),  # ends in another year
}


class Tables(HTMLParser):
    """The headlines of a page as name → value and comparison; rows of its tables, as texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headlines: list[list[str]] = []
        self.rows: list[list[str]] = []
        self.notes: list[str] = []
        self._into: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in ("dt", "tr"):
            (self.headlines if tag == "dt" else self.rows).append([])
        if tag in ("dt", "dd", "th", "td", "p"):
            into = {"dt": self.headlines, "dd": self.headlines, "p": [self.notes]}.get(
                tag, self.rows
            )[-1]
            into.append("")
            self._into = into

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data

    def handle_endtag(self, tag):
        if tag in ("dt", "dd", "th", "td", "p"):
            self._into = None


def rows_of(text: str) -> list[list[str]]:
    """Of all tables of a Markdown text, without the lines below their heads."""
    rows = [
        [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return [row for row in rows if set(row) - {"---", "---:"}]


def written(url, week, settings):
    """The review as name → headline's cells, rows of tables, and texts; both formats say it."""
    reader = open_reader(url)
    page = weekly.build(reader, settings, "shop", week, NOW)
    reader.close()
    text = markdown.write(page)
    rows = rows_of(text)
    count = len(page.headlines)
    headlines = {row[0]: row[1:] for row in rows[1 : count + 1]}
    shown = Tables(html.write(page))
    assert [
        [name, now, f"{change} · before {before}"] for name, (now, before, change) in
        headlines.items()
    ] == shown.headlines  # fmt: skip
    plain = [[" ".join(cell.split()) for cell in row] for row in shown.rows]
    assert rows[count + 1 :] == plain
    return headlines, plain, text


@pytest.fixture(params=WEEKS)
def shop(request):
    return shops.Shop(*WEEKS[request.param])


@pytest.fixture
def filled(quick_url, shop):
    shops.fill(quick_url, shop)
    return quick_url


def told(people):
    return f"{people:,}" if people is None or people >= 10 else FEW


def test_every_figure_is_the_naive_one(filled, shop):
    week = Week(shop.monday, shop.zone)
    found = written(filled, week, shops.settings(shop.zone))
    check_revenue(shop, *found)
    check_growth(shop, *found)
    check_features(shop, *found)
    check_experiment(shop, *found)
    check_feedback(shop, *found)


def weeks_of(shop):
    this = [shop.monday + dt.timedelta(days=n) for n in range(7)]
    return this, [day - dt.timedelta(days=7) for day in this]


def check_revenue(shop, headlines, rows, text):
    by_day = defaultdict(Counter)
    currencies = defaultdict(Counter)
    for kind, _, amount, currency, at, _ in shop.money:
        day = shops.local_day(at, shop.zone)
        sign = "gross" if kind == "charge" else "refunds"
        of_week = currencies[currency, day in weeks_of(shop)[0]]
        if day in sum(weeks_of(shop), []):
            of_week[sign] += amount
            of_week["charges"] += kind == "charge"
        if currency == "VND":
            by_day[day]["waiting"] += 1
            by_day[day]["charges"] += kind == "charge"
            continue
        by_day[day][sign] += in_usd(amount, currency, shops.RATES.get(currency, "1"))
        by_day[day]["charges"] += kind == "charge"
        by_day[day]["converted"] += kind == "charge"
        by_day[day]["charged"] += (
            in_usd(amount, currency, shops.RATES.get(currency, "1")) if kind == "charge" else 0
        )
    this, before = (sum((by_day[day] for day in days), Counter()) for days in weeks_of(shop))
    # Counter drops what is not above 0; nothing here is negative.

    def usd(minor):
        return f"{Decimal(minor) / 100:,.2f}"

    for name, figure in (
        ("Net revenue", lambda c: f"{usd(c['gross'] - c['refunds'])} USD"),
        ("Gross revenue", lambda c: f"{usd(c['gross'])} USD"),
        ("Refunds", lambda c: f"{usd(c['refunds'])} USD"),
        ("Completed charges", lambda c: f"{c['charges']:,}"),
        ("Average charge", lambda c: f"{usd(round(Decimal(c['charged']) / c['converted']))} USD"),
    ):
        assert headlines[name][:2] == [figure(this), figure(before)], name
    for day, earlier in zip(*weeks_of(shop), strict=True):
        nets = [usd(by_day[d]["gross"] - by_day[d]["refunds"]) for d in (day, earlier)]
        assert [f"{day:%A}, {day}", *nets] in rows
    for currency in ("USD", "EUR", "VND"):
        places = PLACES[currency]
        cells = [
            f"{Decimal(minor) / 10**places:,.{places}f}"
            for now, past in [(currencies[currency, True], currencies[currency, False])]
            for minor in (
                now["gross"], now["refunds"], now["gross"] - now["refunds"],
                past["gross"] - past["refunds"],
            )
        ]  # fmt: skip
        charges = f"{currencies[currency, True]['charges']:,}"
        assert [currency, *cells[:3], charges, cells[3]] in rows
    assert f"{this['waiting']:,} transactions wait for an exchange rate" in text


def check_growth(shop, headlines, rows, text):
    days = defaultdict(set)
    for at, _, user, _ in shop.events:
        days[user].add(shops.local_day(at, shop.zone))
    truths = {day: population.truth(days, day) for week in weeks_of(shop) for day in week}
    sunday, earlier = (truths[week[-1]] for week in weeks_of(shop))

    def shown(people):
        return FEW if 0 < people < 10 else f"{people:,}"

    assert headlines["Active users, 7 days"][:2] == [
        told(sunday["active_7d"]), told(earlier["active_7d"]),
    ]  # fmt: skip
    assert headlines["Churned, 30 days"][0] == shown(sunday["churned"])
    assert headlines["Users in total"][0] == told(sunday["total"])
    stayed = sunday["before"] - sunday["churned"]
    assert headlines["Retention, 30 days"][0] == f"{stayed / sunday['before'] * 100:.1f} %"
    new = [truths[day]["new"] for day in weeks_of(shop)[0]]
    week_new, before_new = headlines["New users"][:2]
    assert week_new in (FEW, str(sum(new)))
    assert before_new == "–", "one day of it has no figures"
    cells = {row[0]: row[1:] for row in rows if len(row) == 3}
    for day, count in zip(weeks_of(shop)[0], new, strict=True):
        active = [row[1:] for row in rows if row[0] == f"{day:%A}, {day}"][1]
        assert active[0] == shown(truths[day]["active_24h"])
        assert active[1] in ((FEW, "0") if count < 10 else (FEW, str(count)))
    assert cells
    missing = shops.missing_day(shop)
    assert f"No figures were taken of {missing}. " in text
    first = shop.monday - dt.timedelta(weeks=7)
    cohorts = population.truth_of_cohorts(days, first, shop.monday, "week")
    for begin, size, retained in cohorts:
        (row,) = (row for row in rows if row[0] == f"week of {begin}")
        shares = [FEW if n is None or size is None else f"{n / size * 100:.1f} %" for n in retained]
        rest = ["–"] * (7 - len(retained))
        assert row[1:] == [FEW if size is None else str(size), *shares, *rest]


def check_features(shop, headlines, rows, text):
    within = set(weeks_of(shop)[0])
    uses, times = Counter(), defaultdict(lambda: defaultdict(list))
    everybody = set()
    for at, name, user, feature in shop.events:
        if shops.local_day(at, shop.zone) not in within:
            continue
        everybody.add(user)
        if feature is not None:
            uses[feature] += 1
            times[feature, user][name].append(at)
    checked = 0
    for feature in shops.FEATURES:
        if not uses[feature]:
            continue
        people = [steps for (name, _), steps in times.items() if name == feature]
        came = [0, 0, 0]
        for steps in people:
            since = -1
            for n, action in enumerate(("viewed", "clicked", "completed")):
                later = [at for at in steps[f"feature_{action}"] if at > since]
                if not later:
                    break
                since = min(later)
                came[n] += 1
        shown = " ".join(feature.split()).replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
        (row,) = (row for row in rows if row[0] == shown)
        share = FEW if len(people) < 10 else f"{len(people) / len(everybody) * 100:.1f} %"
        assert row[1:] == [f"{uses[feature]:,}", told(len(people)), share, *map(told, came)]
        checked += 1
    assert checked >= 5


def check_experiment(shop, headlines, rows, text):
    arms = {}
    paid = defaultdict(list)
    for at, name, user, _ in shop.events:
        if name == "paid":
            paid[user].append(at)
    for variant in ("control", "treatment"):
        people = {user: at for at, which, user in shop.exposed if which == variant}
        done = sum(
            any(at <= each < at + shops.WINDOW_S * 1e6 for each in paid[user])
            for user, at in people.items()
        )
        arms[variant] = Arm(len(people), done if done >= 10 else None)
        rate = f"{done / len(people) * 100:.1f} %" if done >= 10 else FEW
        (row,) = (row for row in rows if row[0] == variant)
        assert row[1:4] == [str(len(people)), told(done), rate]
    judged = rules.judge(shops.settings(shop.zone).experiments["basket"], Exposed(arms, 0))
    assert f"**basket: people who did paid within 2 days → {judged.decision}**" in text


def check_feedback(shop, headlines, rows, text):
    assert headlines["NPS"] == ["+28", "+100", "-72.3 points"]  # (25 - 12) of 47; 12 of 12
    assert headlines["checkout"] == ["70.0 %", FEW, "–"]  # 35 of 50
    assert ["this week", "47", "+28", f"{(140 + 99 + 70 + 36) / 47:.1f}"] in rows
    assert ["answers", "0", "0", "0", "12", "0", "0", "0", "10", "0", "11", "14"] in rows
    # 3 people gave a 2: hidden with as many others that it can't be computed.
    (checkout,) = (row for row in rows if row[0] == "answers" and len(row) == 6)
    assert checkout[2] == FEW
    assert checkout.count(FEW) >= 2
    assert "Fewer than 10 people answered: text." in text
    assert "too few to be told" not in text
    assert sum(shops.NASTY[:5] in cell for row in rows for cell in row) == 2  # feature, comment
