"""Funnels and the use of features equal a search by hand, on both engines; few people are none."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.growth import FeatureAdoption, FunnelStep
from pbmon.spool import entries
from pbmon.store import adoption, funnels, queries, tables
from pbmon.store.access import open_reader, open_writer
from tests.patience import patiently
from tests.store.test_writer import NOON, event, portion

NAMES = ["a", "b", "c"]

happenings = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(NAMES), st.integers(0, 12)), max_size=14
)
"""(person, event, time)"""


def by_hand(events, steps, start, end, window):
    """How many people came so far: every choice of events is tried."""
    reached = Counter()
    people = defaultdict(list)
    for person, name, at in events:
        people[person].append((at, name))
    for mine in people.values():
        for count in range(1, len(steps) + 1):
            for chain in itertools.permutations(mine, count):
                times = [at for at, _ in chain]
                if (
                    [name for _, name in chain] == list(steps[:count])
                    and all(a < b for a, b in itertools.pairwise(times))
                    and start <= times[0] < end
                    and times[-1] <= times[0] + window
                ):
                    reached[count] += 1
                    break
    return [reached[n + 1] for n in range(len(steps))]


@pytest.fixture
def ask(engine, monkeypatch):
    """What the statements say of (person, event, time, feature, plan); nothing is kept."""
    monkeypatch.setattr(queries, "K", 0)

    def rows(events):
        for n, (person, name, at, *rest) in enumerate(events):
            feature, plan = rest or (None, None)
            yield {
                "occurred_at": at, "event_id": n.to_bytes(16, "big"), "name": name,
                "subject": person.encode() * 16, "stored_at": 0,
                "properties": {"feature": feature}, "segments": {"plan": plan},
            }  # fmt: skip

    def ask(events, query):
        with engine.connect() as connection:
            if events:
                connection.execute(tables.events.insert(), list(rows(events)))
            found = query(connection)
            connection.rollback()
        return found

    return ask


def test_a_funnel_is_what_a_search_by_hand_finds(ask):
    @patiently(max_examples=50)
    @given(
        happenings,
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        st.integers(0, 6),
        st.integers(0, 12),
        st.integers(1, 8),
    )
    def check(events, steps, start, length, window):
        end = start + length
        found = ask(events, lambda c: funnels.of(c, steps, start, end, window))
        assert [step.event for step in found] == steps
        assert [step.people for step in found] == by_hand(events, steps, start, end, window)

    check()


def test_the_window_begins_anew_with_each_beginning(ask):
    events = [("x", "a", 0), ("x", "b", 5), ("x", "a", 6), ("x", "b", 7), ("x", "c", 9)]
    found = ask(events, lambda c: funnels.of(c, NAMES, 0, 10, 3))
    assert [step.people for step in found] == [1, 1, 1]
    found = ask(events, lambda c: funnels.of(c, NAMES, 0, 6, 3))
    assert [step.people for step in found] == [1, 0, 0]


def test_use_of_features_is_what_a_search_by_hand_finds(ask):
    actions = queries.FEATURE_EVENTS

    @patiently(max_examples=50)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("xyz"), st.sampled_from([*actions, "other"]), st.integers(0, 12),
                st.sampled_from(["f", "g"]), st.sampled_from(["pro", "free"]),
            ),
            max_size=14,
        ),
        st.sampled_from([None, "plan"]),
    )  # fmt: skip
    def check(uses, segment):
        found = ask(uses, lambda c: adoption.of(c, 2, 10, segment))
        within = [use for use in uses if 2 <= use[2] < 10]
        wanted = {}
        for feature, plan in itertools.product("fg", ["pro", "free"] if segment else [None]):
            whole = [use for use in within if plan in (None, use[4])]
            mine = [use for use in whole if use[3] == feature and use[1] in actions]
            if not mine:
                continue
            people = len({use[0] for use in mine})
            steps = by_hand([use[:3] for use in mine], actions, 2, 10, 100)
            share = people / len({use[0] for use in whole})
            wanted[feature, plan] = (len(mine), people, pytest.approx(share), *steps)
        assert {
            (each.feature, each.segment): (each.uses, each.people, each.adoption, each.viewed,
                                           each.clicked, each.completed)
            for each in found
        } == wanted  # fmt: skip
        sizes = [
            len({u[0] for u in within if u[3] == e.feature and u[1] in actions}) for e in found
        ]
        assert sizes == sorted(sizes, reverse=True)

    check()


def test_the_ten_features_with_the_most_people(url):
    payloads = [
        event("feature_viewed", user=str(user), properties={"feature": f"f{feature:02}"})
        for feature in range(12)
        for user in range(9 + feature)
    ]
    open_writer(url, "opt-out").write([portion(*payloads)])
    found = open_reader(url).feature_adoption(NOON, NOON + 1, None)
    assert [each.feature for each in found] == [f"f{n:02}" for n in range(11, 1, -1)]
    assert found[0] == FeatureAdoption("f11", None, 20, 20, 1.0, 20, None, None)


def test_a_segment_that_is_not_told_takes_the_smallest_other_with_it(url):
    sizes = {"pro": 20, "free": 12, "team": 9}
    payloads = [
        event("feature_viewed", user=f"{plan}{n}", properties={"feature": "f"},
              segments={"plan": plan})
        for plan, size in sizes.items()
        for n in range(size)
    ]  # fmt: skip
    open_writer(url, "opt-out").write([portion(*payloads)])
    found = open_reader(url).feature_adoption(NOON, NOON + 1, "plan")
    assert [(each.segment, each.uses, each.people, each.viewed) for each in found] == [
        ("pro", 20, 20, 20), ("free", 12, None, None), ("team", 9, None, None),
    ]  # fmt: skip
    (alone,) = open_reader(url).feature_adoption(NOON, NOON + 1, None)
    assert alone.people == 41


def test_fewer_than_ten_people_are_not_told(url):
    sessions = [event("a", session=str(n)) for n in range(10)]
    users = [event("b", at=NOON + 1, user=str(n), session=str(n)) for n in range(9)]
    links = [entries.encode(entries.Link(NOON, str(n), str(n))) for n in range(9)]
    open_writer(url, "opt-out").write([portion(*sessions, *users, *links)])
    reader = open_reader(url)
    # Nine of the sessions turned out to be users; nobody's events are nobody's.
    assert reader.funnel(["a", "b"], NOON, NOON + 1, 10) == [
        FunnelStep("a", 10), FunnelStep("b", None),
    ]  # fmt: skip
