"""What destinations are to get: put there with the events, judged again, settled once."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import select

from pbmon import privacy
from pbmon.spool import entries
from pbmon.store import tables
from pbmon.store.access import StoreError, open_deliveries, open_engine, open_writer
from pbmon.store.deliveries import State
from pbmon.store.schema import HOUR
from tests.store.test_writer import NOON, event, portion

BOTH = ("segment", "webhook")


def put(url, *payloads, sharing="opt-out", destinations=BOTH, source="1-a"):
    writer = open_writer(url, "opt-out", sharing=sharing, destinations=destinations)
    writer.write([portion(*payloads, source=source)])


def rows(engine, table=tables.deliveries):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


@pytest.fixture
def deliveries(url, engine):
    return open_deliveries(url, "opt-out")


def test_each_destination_is_to_get_what_is_stored(url, engine, deliveries):
    put(url, event("b", at=NOON + HOUR, user="7", session="s", properties={"n": 1}), event("a"))
    first, second = deliveries.take("webhook", 10)
    assert (first.name, first.occurred_at, first.subject, first.session) == ("a", NOON, None, None)
    assert (second.name, second.properties, second.segments) == ("b", {"n": 1}, {})
    (person,) = rows(engine, tables.subjects)
    key = bytes(person.key)
    assert second.subject == privacy.pseudonym(key, "webhook").hex()
    stored = {str(uuid.UUID(bytes=bytes(row.event_id))) for row in rows(engine, tables.events)}
    assert {first.event_id, second.event_id} == stored
    # Two destinations do not know that they mean the same person, or the same session.
    other = deliveries.take("segment", 10)[1]
    assert other.subject == privacy.pseudonym(key, "segment").hex() != second.subject
    assert other.session != second.session
    assert [each.name for each in deliveries.take("webhook", 1)] == ["a"]
    assert deliveries.take("mixpanel", 10) == []


def test_without_destinations_nothing_waits(url, engine):
    put(url, event(), destinations=())
    assert rows(engine) == []


@pytest.mark.parametrize(
    ("sharing", "decision", "waits"),
    [
        ("opt-in", None, 0), ("opt-in", True, 1), ("opt-in", False, 0),
        ("opt-out", None, 1), ("opt-out", False, 0), ("not-required", None, 1),
    ],
)  # fmt: skip
def test_sharing_has_a_consent_of_its_own(url, engine, sharing, decision, waits):
    said = [] if decision is None else [
        entries.encode(entries.Consent(NOON, "7", "sharing", decision))
    ]  # fmt: skip
    put(url, *said, event(user="7"), event(), sharing=sharing, destinations=("webhook",))
    assert len(rows(engine, tables.events)) == 2
    assert len(rows(engine)) == waits + 1  # nobody's event is nobody's to refuse
    assert len(open_deliveries(url, sharing).take("webhook", 10)) == waits + 1


def test_a_session_nobody_agreed_for_does_not_leave(url, engine):
    put(url, event(session="s"), sharing="opt-in", destinations=("webhook",))
    assert rows(engine) == []


def test_who_withdraws_is_let_go_before_anything_is_handed_out(url, engine, deliveries):
    put(url, event(user="7"), event(user="8"))
    said = entries.encode(entries.Consent(NOON, "7", "sharing", False))
    put(url, said, source="2-b")
    (kept,) = deliveries.take("webhook", 10)
    assert kept.subject is not None
    assert [row.destination for row in rows(engine)] == ["segment", "webhook"]
    assert len(deliveries.take("segment", 10)) == 1


def test_nothing_of_a_deleted_person_is_handed_out(url, engine, deliveries):
    put(url, event(user="7"), event())
    with engine.begin() as connection:
        connection.execute(tables.subjects.update().values(key=None, deleted_at=NOON))
    assert [each.subject for each in deliveries.take("webhook", 10)] == [None]


def test_what_was_delivered_is_gone_and_what_died_is_kept_with_its_reason(url, engine, deliveries):
    put(url, *(event(f"e{n}", at=NOON + n) for n in range(4)), destinations=("webhook",))
    taken = [each.event_id for each in deliveries.take("webhook", 10)]
    deliveries.settle("webhook", taken[:2], {taken[2]: "rejected:400"}, again_at=5, failures=3,
                      fault="503")  # fmt: skip
    assert [each.event_id for each in deliveries.take("webhook", 10)] == [taken[3]]
    (dead,) = rows(engine, tables.dead_letters)
    assert (dead.destination, dead.reason) == ("webhook", "rejected:400")
    (state,) = deliveries.states()
    assert state[:7] == ("webhook", 1, 1, 2, 3, 5, "503")
    deliveries.settle("webhook", [taken[3]], {})
    (state,) = deliveries.states()
    assert state[:7] == ("webhook", 0, 1, 3, 0, 0, None)
    assert state.delivered_at > NOON


def test_settling_twice_changes_nothing_but_the_count(url, engine, deliveries):
    put(url, event(), destinations=("webhook",))
    (taken,) = deliveries.take("webhook", 10)
    for _ in range(2):
        deliveries.settle("webhook", [], {taken.event_id: "too_large"})
    assert len(rows(engine, tables.dead_letters)) == 1
    assert rows(engine) == []


def test_dead_letters_are_tried_again_on_request(url, engine, deliveries):
    put(url, event(user="7"), event(), event())
    taken = [each.event_id for each in deliveries.take("webhook", 10)]
    deliveries.settle("webhook", taken[:1], dict.fromkeys(taken[1:], "rejected:404"), failures=4,
                      again_at=2**60, fault="404")  # fmt: skip
    assert deliveries.retry("webhook") == 2
    assert {each.event_id for each in deliveries.take("webhook", 10)} == set(taken[1:])
    assert deliveries.retry("webhook") == 0
    assert rows(engine, tables.dead_letters) == []
    states = {state.destination: state for state in deliveries.states()}
    assert states["webhook"][1:7] == (2, 0, 1, 0, 0, None)
    assert states["segment"] == State("segment", 3, 0, 0, 0, 0, None, None)


def test_more_than_one_statement_holds_is_settled(url, engine, deliveries):
    put(url, *(event(at=NOON + n) for n in range(1200)), destinations=("webhook",))
    taken = [each.event_id for each in deliveries.take("webhook", 2000)]
    assert len(taken) == 1200
    deliveries.settle("webhook", taken, {})
    assert rows(engine) == []


def test_a_store_that_is_not_there_is_one_line(empty_url):
    with pytest.raises(StoreError, match="no tables of pbmon yet"):
        open_deliveries(empty_url, "opt-in")
    open_engine(empty_url).dispose()
