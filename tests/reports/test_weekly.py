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
from pbmon.growth import UserGrowth
from pbmon.reports import html, markdown, weekly
from pbmon.reports.week import Week
from pbmon.settings import Settings
from pbmon.store import growth as snapshots
from pbmon.store.access import open_engine, open_reader, open_runs, open_writer
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


MONDAY = dt.date(2026, 11, 23)
WEEK = Week(MONDAY, "UTC")
NOON = 1_795_608_000_000_000  # Wednesday of it


def review(url, *payloads, week=WEEK, settings=None):
    """Of a store with these."""
    if payloads:
        writer = open_writer(url, "opt-out")
        writer.write([portion(*payloads)])
        writer.close()
    return written(url, week, settings or Settings())


def keep(url, *new, before=(50,) * 7, total=500):
    """Snapshots of the week and the one before, by activity, with so many new people a day."""
    runs = open_runs(url)
    for n, count in enumerate((*before, *new)):
        day = MONDAY + dt.timedelta(days=n - 7)
        total += count
        made = UserGrowth(day, "activity", "UTC", count, 60, 9, 80, 0, 9, total, 1, 5)
        runs.write(lambda c, made=made: snapshots.keep(c, made))
    runs.close()


def test_a_store_in_which_nothing_is_is_a_page_to_read(quick_url):
    headlines, _, text = review(quick_url)
    assert headlines["Net revenue"] == ["0.00 USD", "0.00 USD", "±0"]
    assert headlines["Average charge"] == headlines["Users in total"] == ["–", "–", "–"]
    for said in (
        "# Weekly review of shop\n\n2026-W48: 2026-11-23 to 2026-11-29, UTC. Made 2027-02-01 12:00",
        "Nothing was booked.",
        "No figures were taken of 2026-11-16, 2026-11-17, ",
        "pbmon run growth --from 2026-11-16 --to 2026-11-29",
        "No feature was used.",
        "No experiment is declared.",
        "Fewer than 10 people answered: nps, csat, text.",
    ):
        assert said in text


def test_a_section_that_the_store_can_t_answer_says_so_and_the_others_stand(file, tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    (tmp_path / "store.sqlite3").write_bytes(file.read_bytes())
    (tmp_path / "store.sqlite3").chmod(0o600)
    with open_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE feedback")
    headlines, rows, text = review(url, transaction(at=NOON))
    assert headlines["Net revenue"][0] == "10.00 USD"
    assert ["Wednesday, 2026-11-25", "10.00", "0.00"] in rows
    assert re.search(
        r"## Feedback\n\nThis is missing: the store can't be used: .*\.\n\n## Err", text
    )


def test_money_that_is_in_no_figure_is_named(quick_url):
    other = (
        transaction(at=NOON), refund("late", 5, charge="unknown", at=NOON),
        refund("much", 5_000, at=NOON), refund("more", 6_000, at=NOON),
        transaction(key="c1", amount=7, at=NOON + 1), transaction(key="w", currency="EUR", at=NOON),
    )  # fmt: skip
    headlines, rows, text = review(quick_url, *other)
    assert headlines["Net revenue"][0] == "10.00 USD"
    assert ["EUR", "10.00", "0.00", "10.00", "1", "0"] in rows
    assert "1 transaction waits for an exchange rate" in text
    assert "1 held: refunds and chargebacks" in text
    assert r"3 not booked, as they contradict what is (other\_body 1, over\_refund 2)" in text


def test_new_people_of_which_some_days_are_few_can_t_be_computed(quick_url):
    keep(quick_url, 12, 3, 15, 20, 0, 30, 11)
    headlines, rows, _ = review(quick_url)
    days = [row[1:] for row in rows if re.match(r"\w+day, 2026", row[0])][7:]
    # 3 alone would be what the others leave of 91, with 0 it would still be 3: so the 11 goes too.
    assert [new for _, new in days] == ["12", FEW, "15", "20", "0", "30", FEW]
    assert headlines["New users"] == ["91", "350", "-74.0 %"]
    assert headlines["Users in total"] == ["941", "850", "+10.7 %"]
    assert headlines["Active users, 7 days"] == headlines["Retention, 30 days"] == [FEW, FEW, "–"]
    assert headlines["Churned, 30 days"] == ["0", "0", "±0"]


def test_few_new_people_are_not_told_by_the_totals_either(quick_url):
    keep(quick_url, 0, 3, 0, 0, 4, 0, 0)
    headlines, rows, _ = review(quick_url)
    assert headlines["New users"] == [FEW, "350", "–"]
    assert headlines["Users in total"] == ["857", FEW, "–"]
    days = [row[2] for row in rows if re.match(r"\w+day, 2026", row[0])][7:]
    assert set(days) == {FEW}


def test_people_who_are_few_are_in_no_figure(quick_url):
    some = [
        each
        for n in range(9)
        for each in (
            event("feature_viewed", NOON, f"u{n}", properties={"feature": "export"}),
            answer(9, user=f"u{n}", at=NOON, comment="only nine"),
            exposure("control", NOON, f"u{n}", experiment="basket"),
        )
    ]
    headlines, rows, text = review(quick_url, *some, settings=shops.settings("UTC"))
    assert ["export", "9", *[FEW] * 5] in rows
    assert ["control", FEW, FEW, FEW, "–", "–"] in rows
    assert ["week of 2026-11-23", FEW, *["–"] * 7] in rows
    assert "only nine" not in text
    assert "NPS" not in headlines


def test_an_experiment_that_is_not_sound_is_said_in_capitals(quick_url):
    split = [
        exposure(variant, NOON, f"{variant}{n}", experiment="basket")
        for variant, people in (("control", 500), ("treatment", 700))
        for n in range(people)
    ] + [exposure("treatment", NOON + 1, "control1", experiment="basket")]
    _, _, text = review(quick_url, *split, settings=shops.settings("UTC"))
    assert "basket: DO NOT TRUST THIS: there are not as many people in the variants" in text
    assert "basket: fewer than 10 people met a second variant" in text
    assert "→ no decision: it is not sound" in text


def test_a_zone_that_is_not_the_store_s_is_named(quick_url):
    keep(quick_url, 12, 13, 15, 20, 0, 30, 11)
    week = Week(MONDAY, "Europe/Berlin")
    _, _, text = review(quick_url, week=week, settings=Settings(timezone="Europe/Berlin"))
    assert "2026-11-29, Europe/Berlin. Made" in text
    assert "Days of growth are those of UTC, in which the store counts." in text
