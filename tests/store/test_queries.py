"""Figures against those made by hand, the same on both engines."""

from __future__ import annotations

import pytest

from pbmon.spool import entries
from pbmon.store.access import StoreError, open_engine, open_writer, read
from pbmon.store.engine import reading
from pbmon.store.queries import Adoption, K, Use
from pbmon.store.schema import DAY, HOUR
from tests.store.test_writer import NOON, event, portion

START, END = NOON - DAY, NOON + DAY


@pytest.fixture
def queries(url, engine):
    """Twelve users buy, three of them twice; nine look, of whom one only by a session that
    was theirs later; an unknown session looks five times."""
    payloads = [event("bought", user=str(n)) for n in range(12)]
    payloads += [event("bought", user=str(n), at=NOON + HOUR) for n in range(3)]
    payloads += [event("looked", user=str(n), session="theirs" if n == 0 else None)
                 for n in range(8)]  # fmt: skip
    payloads += [event("looked", session="later"), entries.encode(entries.Link(NOON, "later", "9"))]
    payloads += [event("looked", session="unknown")] * 5
    for action, people in (("viewed", 12), ("clicked", 10), ("completed", 2)):
        payloads += [
            event(f"feature_{action}", user=str(n), properties={"feature": "budget"})
            for n in range(people)
        ]
    payloads += [event("feature_viewed", user="1", properties={"feature": "rare"})]
    payloads += [event("bought", user="99", at=END), event("bought", user="98", at=START - 1)]
    open_writer(url, "opt-out").write([portion(*payloads)])
    return read(engine)


def test_events_are_counted_by_whole_hours(queries):
    assert queries.count(START, END) == 15 + 14 + 25
    assert queries.count(START, END, "bought") == 15
    assert queries.count(NOON + HOUR, END, "bought") == 3
    assert queries.count(START - HOUR, END + 1, "bought") == 17
    assert queries.count(START, END, "nothing") == 0


def test_people_are_counted_once(queries):
    assert queries.people(START, END, "bought") == 12
    # Eight by their events, one whose session it was, one unknown.
    assert queries.people(START, END, "looked") == 10
    assert queries.people(START, END) == 13


def test_few_people_are_not_told(queries):
    assert queries.people(NOON + 1, END, "bought") is None
    assert queries.people(START, START + 1) is None
    assert K == 10


def test_uses_by_event(queries):
    assert queries.uses(START, END) == [
        Use("bought", 15, 12),
        Use("looked", 14, 10),
        Use("feature_viewed", 13, 12),
        Use("feature_clicked", 10, 10),
        Use("feature_completed", 2, None),
    ]
    assert len(queries.uses(START, END, limit=2)) == 2


def test_adoption_by_feature(queries):
    assert queries.adoption(START, END) == [
        Adoption("budget", 12, 10, 2, 12),
        Adoption("rare", 1, 0, 0, None),
    ]


def test_a_store_that_is_not_there_is_one_line(empty_url):
    with pytest.raises(StoreError, match="no tables of pbmon yet"):
        read(open_engine(empty_url))


def test_who_reads_keeps_no_writer_waiting(url, engine):
    with reading(engine).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        assert open_writer(url, "opt-out").write([portion(event())]).stored == 1
