"""People who come, stay away and come back, by a seed; and what is true of them, one by one."""

from __future__ import annotations

import datetime as dt
import random
from zoneinfo import ZoneInfo

from sqlalchemy import text

from pbmon import growth
from pbmon.spool.ledger import Position
from pbmon.store.access import open_engine, open_writer
from pbmon.store.writer import Portion
from tests.store.test_writer import event

FIRST, LAST = dt.date(2026, 8, 10), dt.date(2026, 11, 20)
"""Around the end of summer time in Berlin (October 25) and New York (November 1)."""

ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata"]


def times(zone, people=150, seed=7):
    """User → times of their events (µs), many of them at the very beginning or end of a day."""
    chance = random.Random(seed)
    where = growth.zone(zone)
    span = (LAST - FIRST).days
    found = {}
    for user in range(people):
        day = chance.randint(0, span - 1)
        found[str(user)] = []
        while day <= span:
            local = FIRST + dt.timedelta(days=day)
            begin = growth.start_of(local, where)
            end = growth.start_of(local + dt.timedelta(days=1), where)
            at = chance.choice([begin, end - 1, chance.randrange(begin, end)])
            found[str(user)] += [at] * chance.randint(1, 2)
            day += chance.choice([1, 1, 2, 3, 7, 25, 30, 31, 40])
    return found


def fill(url, zone, people):
    """A store that counts days in this zone, with these events in another order."""
    engine = open_engine(url)
    schema = "pbmon." if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        connection.execute(
            text(f"UPDATE {schema}meta SET value = :zone WHERE key = 'timezone'"), {"zone": zone}
        )
    engine.dispose()
    events = [event(at=at, user=user) for user, all_at in people.items() for at in all_at]
    random.Random(1).shuffle(events)
    writer = open_writer(url, "opt-out")
    for n in range(0, len(events), 500):
        part = events[n : n + 500]
        items = [(Position(1, 32 + i), payload) for i, payload in enumerate(part)]
        writer.write([Portion(f"{n}-a", Position(0, 0), items, Position(1, 32 + len(part)))])
    writer.close()


def active_days(zone, people):
    """User → local days, by the clock on the wall."""
    where = ZoneInfo(zone)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
    return {
        user: {(epoch + dt.timedelta(microseconds=at)).astimezone(where).date() for at in all_at}
        for user, all_at in people.items()
    }


def truth(days, day):
    """The figures of a day, one person at a time."""
    counts = dict.fromkeys(
        ("new", "active_24h", "active_7d", "active_30d", "churned", "before", "total",
         "reactivated"), 0,
    )  # fmt: skip
    for all_days in days.values():
        ages = {(day - each).days for each in all_days if each <= day}
        if not ages:
            continue
        last30 = any(age < 30 for age in ages)
        before = any(30 <= age < 60 for age in ages)
        new = max(ages) == 0
        counts["total"] += 1
        counts["new"] += new
        counts["active_24h"] += 0 in ages
        counts["active_7d"] += any(age < 7 for age in ages)
        counts["active_30d"] += last30
        counts["before"] += before
        counts["churned"] += before and not last30
        counts["reactivated"] += 0 in ages and not new and not any(1 <= a <= 30 for a in ages)
    return counts


def truth_of_cohorts(days, start, end, period):
    """(begin, size, retained) of each cohort, one person at a time; few are None."""
    begins = []
    begin = growth.period_of(start, period)
    while begin <= end:
        begins.append(begin)
        begin = growth.following(begin, period)
    place = {begin: n for n, begin in enumerate(begins)}
    cohorts = []
    for n, begin in enumerate(begins):
        came = [d for d in days.values() if growth.period_of(min(d), period) == begin]
        retained = [0] * (len(begins) - n - 1)
        for all_days in came:
            periods = {growth.period_of(day, period) for day in all_days}
            for later in periods & place.keys():
                if place[later] > n:
                    retained[place[later] - n - 1] += 1
        told = [None if count < 10 else count for count in (len(came), *retained)]
        cohorts.append((begin, told[0], tuple(told[1:])))
    return cohorts
