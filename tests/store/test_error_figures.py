"""What errors there were in a time: against a naive count, by the hour and by ten seconds."""

from __future__ import annotations

import random
import uuid

import pytest

from pbmon.privacy import K
from pbmon.store import error_figures, schema, tables
from pbmon.store.access import open_engine
from pbmon.store.schema import HOUR

SLOT = 10_000_000


class Log:
    """Errors as plain facts, and rows of them as they are kept."""

    def __init__(self, oldest, newest, seed=4, kinds=20, count=600):
        chance = random.Random(seed)
        keys = [uuid.UUID(int=chance.getrandbits(128)).bytes for _ in range(kinds)]
        # Each kind begins somewhere, so that some are new.
        begin = {key: chance.randrange(oldest, newest) for key in keys}
        self.facts = sorted(
            (at, key, f"u{chance.randrange(12)}")
            for _ in range(count)
            for key in [chance.choices(keys, [n + 1 for n in range(kinds)])[0]]
            for at in [chance.randrange(begin[key], newest)]
        )

    def keep(self, connection):
        by_key, hours, slots, people = {}, {}, {}, {}
        for at, key, user in self.facts:
            by_key.setdefault(key, []).append(at)
            for found, grain in ((hours, HOUR), (slots, SLOT)):
                place = (at // grain * grain, key)
                found[place] = found.get(place, 0) + 1
            people[key, user] = at
        connection.execute(tables.errors.insert(), [
            {
                "fingerprint": key, "error_type": f"Error{key.hex()[:4]}", "place": "shop:pay",
                "route": "/pay", "errors": len(times), "first_at": times[0], "last_at": times[-1],
                "first_release": "1.4",
            }
            for key, times in by_key.items()
        ])  # fmt: skip
        connection.execute(tables.error_hours.insert(), [
            {"hour": at, "fingerprint": key, "release": release, "errors": count}
            for (at, key), whole in hours.items()
            for release, count in (("1.4", whole // 2), ("", whole - whole // 2))
        ])  # fmt: skip
        connection.execute(tables.error_slots.insert(), [
            {"slot": at, "fingerprint": key, "errors": count} for (at, key), count in slots.items()
        ])  # fmt: skip
        connection.execute(tables.error_people.insert(), [
            {"fingerprint": key, "subject": uuid.uuid5(uuid.NAMESPACE_OID, user).bytes,
             "last_at": at}
            for (key, user), at in people.items()
        ])  # fmt: skip

    def truth(self, before, start, end):
        """Type → errors, before, people since, is new; of those that happened."""
        found = {}
        for key in {key for _, key, _ in self.facts}:
            times = [at for at, other, _ in self.facts if other == key]
            now = sum(start <= at < end for at in times)
            if now:
                last = {user: at for at, other, user in self.facts if other == key}
                people = sum(at >= start for at in last.values())
                found[f"Error{key.hex()[:4]}"] = (
                    now, sum(before <= at < start for at in times),
                    people if not 0 < people < K else None, times[0] >= start,
                )  # fmt: skip
        return found

    def before(self, before, start):
        return sum(before <= at < start for at, _, _ in self.facts)


@pytest.fixture
def connection(quick_url):
    engine = open_engine(quick_url)
    with engine.begin() as made:
        yield made
    engine.dispose()


def check(connection, log, before, start, end):
    truth = log.truth(before, start, end)
    found = error_figures.read(connection, before, start, end, limit=100, new_first=False)
    assert {f.error_type: (f.errors, f.before, f.people, f.is_new) for f in found.top} == truth
    assert (found.errors, found.kinds) == (sum(n for n, *_ in truth.values()), len(truth))
    assert found.before == log.before(before, start)
    assert found.new == sum(is_new for *_, is_new in truth.values())
    assert [f.errors for f in found.top] == sorted((f.errors for f in found.top), reverse=True)
    assert {(f.place, f.route, f.first_release) for f in found.top} == {("shop:pay", "/pay", "1.4")}
    new_first = error_figures.read(connection, before, start, end, limit=5, new_first=True)
    order = sorted(truth.values(), key=lambda each: (not each[3], -each[0]))
    assert [(f.is_new, f.errors) for f in new_first.top] == [(x[3], x[0]) for x in order[:5]]
    assert len({f.people is None for f in found.top}) == 2
    assert 0 < found.new < found.kinds


def test_of_weeks_by_the_hour(connection):
    newest = schema.now() // HOUR * HOUR - 100 * HOUR
    log = Log(newest - 400 * HOUR, newest)
    log.keep(connection)
    check(connection, log, newest - 336 * HOUR, newest - 168 * HOUR, newest)


def test_of_the_last_hours_by_ten_seconds(connection):
    """The hours would have what was before a deploy in its own hour."""
    now = schema.now() // SLOT * SLOT
    log = Log(now - 4 * HOUR, now)
    log.keep(connection)
    connection.execute(tables.error_hours.delete())
    start = now - HOUR - 123 * SLOT
    check(connection, log, start - (now - start), start, now)


def test_a_moment_within_an_hour_takes_the_whole_hour(connection):
    newest = schema.now() // HOUR * HOUR - 100 * HOUR
    log = Log(newest - 10 * HOUR, newest)
    log.keep(connection)
    found = [
        error_figures.read(
            connection, newest - 8 * HOUR + shift, newest - 4 * HOUR + shift, newest - shift,
            limit=0, new_first=False,
        )
        for shift in (0, 1, HOUR - 1)
    ]  # fmt: skip
    assert len({(each.errors, each.before) for each in found}) == 1
    assert found[0].errors and found[0].before


def test_of_nothing_there_is_none(connection):
    found = error_figures.read(connection, 0, HOUR, 2 * HOUR, limit=5, new_first=True)
    assert found == (0, 0, 0, 0, [])
