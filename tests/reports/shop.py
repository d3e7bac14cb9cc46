"""A shop around one week, by a seed: what happened there as plain facts, and a store of them."""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

from sqlalchemy import text

from pbmon import growth
from pbmon.experiments import Experiment
from pbmon.settings import Settings
from pbmon.spool.ledger import Position
from pbmon.store import growth as snapshots
from pbmon.store.access import open_engine, open_runs, open_writer
from pbmon.store.writer import Portion
from pbmon.surveys import Survey
from tests.reports.samples import NASTY
from tests.store.money import TableOfRates, transaction
from tests.store.test_exposures import exposure
from tests.store.test_feedback import answer
from tests.store.test_writer import event

RATES = {"EUR": "1.0825"}
"""To USD; there is none of VND."""

NASTY = " ".join(NASTY.split())
FEATURES = ["export", NASTY, *(f"feature_{n}" for n in range(7)), "rare"]
WINDOW_S = 2 * 86_400.0
_HOUR = 3_600_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def settings(zone):
    return Settings(
        timezone=zone,
        surveys={
            "nps": Survey("nps", (0, 10)), "checkout": Survey("csat", (1, 5)),
            "text": Survey("text"),
        },
        experiments={
            "basket": Experiment("basket", {"control": 1, "treatment": 1}, "paid", WINDOW_S),
        },
    )  # fmt: skip


def local_day(at, zone):
    """By the clock on the wall, without pbmon's own reckoning."""
    return (_EPOCH + dt.timedelta(microseconds=at)).astimezone(ZoneInfo(zone)).date()


class Shop:
    """Facts of the ten weeks that end with the one of `monday`, and of the week after.

    events: (at, name, user, feature). money: (kind, key, amount, currency, at, charge). answers:
    (at, survey, score, comment, user). exposed: (at, variant, user). Times are µs.
    """

    def __init__(self, monday, zone, people=90, seed=3):
        self.monday, self.zone = monday, zone
        self._chance = random.Random(seed)
        self._where = growth.zone(zone)
        self.events = [each for n in range(people) for each in self._visits(f"u{n}")]
        self.money = list(self._money())
        self.answers = list(self._answers())
        self.exposed = [
            (self._at(1), "treatment" if n % 2 else "control", f"u{n}") for n in range(60)
        ]
        for at, variant, user in self.exposed:
            if self._chance.random() < (0.6 if variant == "treatment" else 0.4):
                late = self._chance.choice([-1, 0, 1, WINDOW_S * 1e6 - 1, WINDOW_S * 1e6])
                self.events.append((at + int(late), "paid", user, None))

    def _at(self, day):
        """A time of a day, counted from the Monday, often its very first or last moment."""
        local = self.monday + dt.timedelta(days=day)
        begin = growth.start_of(local, self._where)
        end = growth.start_of(local + dt.timedelta(days=1), self._where)
        return self._chance.choice([begin, end - 1, self._chance.randrange(begin, end)])

    def _visits(self, user):
        chance = self._chance
        day = chance.choice([-63, *range(-56, 7)])
        while day < 10:
            for _ in range(chance.randint(1, 3)):
                at = self._at(day)
                yield (at, "looked", user, None)
                weights = range(2 * len(FEATURES), 0, -2)
                feature = chance.choices(FEATURES[:-1], weights[:-1])[0]
                for n, action in enumerate(("viewed", "clicked", "completed")):
                    if chance.random() < 0.9 - 0.2 * n:
                        shift = chance.choice([0, 1, -1, _HOUR])
                        yield (at + shift, f"feature_{action}", user, feature)
            day += chance.choice([1, 1, 2, 3, 7, 14, 40])
        if user in ("u1", "u2"):
            yield (self._at(3), "feature_viewed", user, "rare")

    def _money(self):
        chance = self._chance
        for n in range(120):
            currency = chance.choice(["USD", "USD", "EUR", "VND"])
            at = self._at(chance.randint(-9, 9))
            amount = chance.randint(1, 90_000)
            yield ("charge", f"c{n}", amount, currency, at, None)
            if currency == "USD" and chance.random() < 0.4:
                kind = chance.choice(["refund", "chargeback"])
                back = amount if kind == "chargeback" else max(1, amount // 3)
                yield (kind, f"r{n}", back, currency, self._at(chance.randint(-7, 6)), f"c{n}")

    def _answers(self):
        chance = self._chance
        for week, scores in ((0, [10] * 14 + [9] * 11 + [7] * 10 + [3] * 12), (-7, [9] * 12)):
            for n, score in enumerate(scores):
                comment = NASTY if n == 4 else None
                yield (self._at(week + n % 7), "nps", score, comment, f"n{n}")
        for n, score in enumerate([5] * 20 + [4] * 15 + [1] * 12 + [2] * 3):
            yield (self._at(n % 7), "checkout", score, None, f"n{n}")
        for n in range(9):
            yield (self._at(chance.randint(0, 6)), "text", None, "too few to be told", f"n{n}")


def fill(url, shop, *more):
    """A store of it, with the snapshots of the two weeks but for one day; more: payloads."""
    payloads = [
        *(event(name, at, user, properties={"feature": feature} if feature else None)
          for at, name, user, feature in shop.events),
        *(transaction(kind, key, amount, currency, charge=charge, at=at)
          for kind, key, amount, currency, at, charge in shop.money),
        *(answer(score, survey=survey, at=at, comment=comment, user=user)
          for at, survey, score, comment, user in shop.answers),
        *(exposure(variant, at, user, experiment="basket") for at, variant, user in shop.exposed),
        *more,
    ]  # fmt: skip
    random.Random(1).shuffle(payloads)
    _count_days_in(url, shop.zone)
    writer = open_writer(url, "opt-out", rates=TableOfRates(**RATES))
    items = [(Position(1, 32 + n), payload) for n, payload in enumerate(payloads)]
    writer.write([Portion("1-a", Position(0, 0), items, Position(1, 32 + len(items)))])
    writer.close()
    runs = open_runs(url)
    for n in range(-7, 7):
        day = shop.monday + dt.timedelta(days=n)
        if day != missing_day(shop):
            runs.write(lambda c, day=day: snapshots.keep(c, snapshots.snapshot(c, day)))
    runs.close()


def missing_day(shop):
    return shop.monday - dt.timedelta(days=5)


def _count_days_in(url, zone):
    engine = open_engine(url)
    schema = "pbmon." if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {schema}meta SET value = :zone WHERE key = 'timezone'"), {"zone": zone}
        )
    engine.dispose()
