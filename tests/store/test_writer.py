"""Rows, totals, people and checkpoints: all of a transaction or nothing, on both engines."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import date

import pytest
from sqlalchemy import func, select, text

from pbmon import privacy
from pbmon.spool import entries
from pbmon.spool.ledger import Position
from pbmon.store import tables
from pbmon.store import writer as module
from pbmon.store.access import RejectedError, asking, open_writer
from pbmon.store.schema import HOUR
from pbmon.store.writer import Portion, SupersededError

START = Position(0, 0)
NOON = 1_795_608_000_000_000  # 2026-11-25 12:00 UTC
TRACE = "0af7651916cd43dd8448eb211c80319c"


def event(name="bought", at=NOON, user=None, session=None, consent=None, event_id=None,
          properties=None, segments=None, trace=None):  # fmt: skip
    return entries.encode_event(
        at, name, user, session, trace, consent, event_id, segments, properties
    )


def portion(*payloads, source="1-a", begin=START, first=32):
    """Payloads that stand behind each other in a journal."""
    items = [(Position(1, first + 8 * i), payload) for i, payload in enumerate(payloads)]
    return Portion(source, begin, items, Position(1, first + 8 * len(payloads)))


@pytest.fixture(params=["opt-out"])
def writer(request, url):
    made = open_writer(url, request.param)
    yield made
    made._engine.dispose()


def rows(engine, table=tables.events):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def test_an_event_becomes_a_row(writer, engine):
    properties = {"amount": 1999, "who": "Zoë", "tags": ["a", {"b": None}]}
    written = writer.write([
        portion(event(user="7", session="s", properties=properties, trace=TRACE,
                      segments={"plan": "pro"})),
    ])  # fmt: skip
    assert (written.stored, written.dropped) == (1, {})
    (row,) = rows(engine)
    (person,) = rows(engine, tables.subjects)
    assert (row.occurred_at, row.name) == (NOON, "bought")
    assert bytes(row.subject) == privacy.pseudonym(bytes(person.key), "store")
    assert bytes(row.trace_id).hex() == TRACE
    assert row.properties == properties
    assert row.segments == {"plan": "pro"}
    assert len(row.event_id) == len(row.session) == 16
    assert bytes(row.session) != bytes(row.subject)
    assert [tuple(total) for total in rows(engine, tables.event_totals)] == [(NOON, "bought", 1)]
    assert rows(engine, tables.subject_days)[0][0] == date(2026, 11, 25)
    (checkpoint,) = rows(engine, tables.checkpoints)
    assert checkpoint[:5] == ("1-a", 1, 40, 1, 0)


def test_no_id_of_the_application_is_in_the_store(writer, engine):
    writer.write([portion(event(user="user-4711", session="session-0815"))])
    with engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(select(table)):
                for canary in ("user-4711", "session-0815"):
                    assert canary not in str(tuple(row))
                    assert canary.encode() not in b"".join(
                        bytes(value) for value in row if isinstance(value, (bytes, memoryview))
                    )


def test_texts_of_events_are_scrubbed_and_nothing_else_is(writer, engine, url):
    properties = {
        "amount": 1999, "card": 4111111111111111, "order": "A-17",
        "note": "jo@example.com pays by 4111 1111 1111 1111, from 10.0.0.1",
        "deep": [{"er": ["DE89 3704 0044 0532 0130 00", None, True, "plain"]}],
    }  # fmt: skip
    writer.write([portion(event(properties=properties), source="1-a")])
    scrubbed = properties | {
        "note": "[email] pays by [card], from [ip]",
        "deep": [{"er": ["[iban]", None, True, "plain"]}],
    }
    assert [row.properties for row in rows(engine)] == [scrubbed]
    other = open_writer(url, "opt-out", scrubs=False)
    other.write([portion(event(properties=properties), source="2-b")])
    other.close()
    stored = [row.properties for row in rows(engine)]
    assert len(stored) == 2 and properties in stored and scrubbed in stored


def test_a_portion_is_stored_once(writer, engine):
    one = portion(event(), event())
    writer.write([one])
    for again in (one, portion(event(), begin=Position(1, 40), first=40)):
        with pytest.raises(SupersededError):
            writer.write([again])
    assert len(rows(engine)) == 2
    assert rows(engine, tables.event_totals)[0].events == 2
    writer.write([portion(event(), begin=Position(1, 48), first=48)])
    assert len(rows(engine)) == 3
    assert writer.position("1-a") == Position(1, 56)
    assert writer.position("2-b") == START


def test_one_superseded_journal_takes_the_others_with_it(writer, engine):
    writer.write([portion(event(), source="1-a")])
    with pytest.raises(SupersededError):
        writer.write([portion(event(), source="0-b"), portion(event(), source="1-a")])
    assert len(rows(engine)) == 1
    assert writer.position("0-b") == START


def test_the_ids_of_events_are_those_of_their_places(writer, engine):
    writer.write([portion(event(), event(), source="1-a"), portion(event(), source="2-b")])
    assert len({bytes(row.event_id) for row in rows(engine)}) == 3


def test_an_event_id_is_stored_once_however_often_it_comes(writer, engine):
    first = portion(event("a", event_id="x"), event("a", event_id="x"), event("a", event_id="y"))
    assert writer.write([first]).dropped == {"duplicate": 1}
    second = portion(event("b", at=NOON + HOUR, event_id="x"), event("b"), source="2-b")
    assert writer.write([second]).dropped == {"duplicate": 1}
    assert Counter(row.name for row in rows(engine)) == {"a": 2, "b": 1}
    totals = {(row.hour, row.name): row.events for row in rows(engine, tables.event_totals)}
    assert totals == {(NOON, "a"): 2, (NOON, "b"): 1}
    assert [c[3:5] for c in rows(engine, tables.checkpoints)] == [(2, 1), (1, 1)]


def test_totals_are_by_hour_and_name(writer, engine):
    at = [NOON - 1, NOON, NOON + HOUR - 1, NOON + HOUR]
    writer.write([portion(*(event("a", at=each) for each in at), event("b"))])
    totals = {(row.hour, row.name): row.events for row in rows(engine, tables.event_totals)}
    assert totals == {(NOON - HOUR, "a"): 1, (NOON, "a"): 2, (NOON + HOUR, "a"): 1, (NOON, "b"): 1}


def test_damaged_newer_and_refused_items_are_counted_and_passed_over(writer, engine):
    written = writer.write([portion(b"{", b'["hologram",1]', b"", event())])
    assert (written.stored, written.dropped) == (1, {"unreadable": 2, "rejected": 1})
    assert rows(engine, tables.checkpoints)[0][3:5] == (1, 3)


def test_texts_that_no_database_takes_are_mended(writer, engine):
    odd = "a\0b\ud800c\n\u2028"
    writer.write([portion(event(name="n\0", user=odd, session=odd, event_id=odd,
                                properties={odd: [odd]}, segments={odd: odd}))])  # fmt: skip
    (row,) = rows(engine)
    mended = "a\ufffdb?c\n\u2028"
    assert (row.name, row.properties) == ("n\ufffd", {mended: [mended]})
    assert row.segments == {mended: mended}


@pytest.mark.parametrize(
    ("number", "kept"), [(10**30, 10**30), (1.5e300, 1.5e300), (-0.1, -0.1), (2**63, 2**63)]
)
def test_numbers_are_kept(writer, engine, number, kept):
    writer.write([portion(event(properties={"n": number}))])
    assert rows(engine)[0].properties["n"] == pytest.approx(kept)


def test_what_the_database_refuses_stores_nothing(writer, engine):
    with pytest.raises(RejectedError):
        asking(lambda: writer.write([portion(event(), refused_by(writer))]))
    assert rows(engine) == []
    assert writer.position("1-a") == START


def refused_by(writer):
    """SQLite takes any text for JSON; what it refuses is a number beyond its own."""
    return event() + b"{broken" if writer.is_postgresql else event(at=2**70)


# --- people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("basis", "asserted", "decision", "kept"),
    [
        ("opt-in", None, None, False),
        ("opt-in", True, None, True),
        ("opt-in", None, True, True),
        ("opt-in", None, False, False),
        ("opt-in", True, False, True),
        ("opt-out", None, None, True),
        ("opt-out", None, False, False),
        ("opt-out", False, True, False),
        ("not-required", None, None, True),
    ],
)
def test_the_gate_of_consent(url, engine, basis, asserted, decision, kept):
    writer = open_writer(url, basis)
    at = 32
    if decision is not None:
        said = entries.encode(entries.Consent(NOON, "7", "analytics", decision))
        assert writer.write([portion(said)]).stored == 1
        at = 40
    begin = Position(1, at) if at > 32 else START
    written = writer.write([
        portion(event(user="7", at=NOON + 1, consent=asserted), begin=begin, first=at),
    ])  # fmt: skip
    assert written.stored == kept
    assert written.dropped == ({} if kept else {"consent": 1})
    assert len(rows(engine)) == len(rows(engine, tables.subject_days)) == kept
    if decision is None:
        assert len(rows(engine, tables.subjects)) == kept  # nobody is known without a reason


def test_without_consent_a_session_is_not_kept_either(url, engine):
    writer = open_writer(url, "opt-in")
    writer.write([portion(event(session="s"), event(session="s", consent=True))])
    assert [row.session is not None for row in rows(engine)] == [False, True]


def test_every_decision_is_written_down_and_the_last_one_counts(url, engine):
    writer = open_writer(url, "opt-in")
    said = [
        entries.encode(entries.Consent(NOON + i, "7", purpose, granted))
        for i, (purpose, granted) in enumerate(
            [("analytics", True), ("sharing", True), ("analytics", False)]
        )
    ]
    writer.write([portion(*said)])
    (person,) = rows(engine, tables.subjects)
    assert (person.analytics, person.sharing) == (False, True)
    kept = [(row.purpose, row.granted) for row in rows(engine, tables.consents)]
    assert kept == [("analytics", True), ("sharing", True), ("analytics", False)]


def test_another_writer_hears_of_a_decision_at_once(url, engine):
    one, other = open_writer(url, "opt-out"), open_writer(url, "opt-out")
    assert one.write([portion(event(user="7"))]).stored == 1
    said = entries.encode(entries.Consent(NOON, "7", "analytics", False))
    other.write([portion(said, source="2-b")])
    again = portion(event(user="7"), begin=Position(1, 40), first=40)
    assert one.write([again]).dropped == {"consent": 1}


def test_nothing_of_a_deleted_person_is_stored(writer, engine):
    writer.write([portion(event(user="7"))])
    with engine.begin() as connection:
        connection.execute(tables.subjects.update().values(key=None, deleted_at=NOON))
        module.schema.note_change_of_people(connection)
    late = [
        event(user="7"), event(user="7", consent=True),
        entries.encode(entries.Link(NOON, "s", "7")),
        entries.encode(entries.Consent(NOON, "7", "analytics", True)),
        event(user="8"),
    ]  # fmt: skip
    written = writer.write([portion(*late, begin=Position(1, 40), first=40)])
    assert (written.stored, written.dropped) == (1, {"deleted": 4})
    assert len(rows(engine)) == 2
    assert rows(engine, tables.sessions) == []


def test_a_session_becomes_its_users(writer, engine):
    link = entries.encode(entries.Link(NOON, "s", "7"))
    writer.write([portion(event(session="s"), link, event(session="s", user="7"), link)])
    (linked,) = rows(engine, tables.sessions)
    before, after = sorted(rows(engine), key=lambda row: row.subject is not None)
    assert bytes(linked.session) == bytes(before.session) == bytes(after.session)
    assert bytes(linked.subject) == bytes(after.subject)


def test_a_person_is_the_same_over_writers_and_two_persons_differ(url, engine):
    open_writer(url, "opt-out").write([portion(event(user="7"), event(user="8"))])
    open_writer(url, "opt-out").write([portion(event(user="7"), source="2-b")])
    found = Counter(bytes(row.subject) for row in rows(engine))
    assert sorted(found.values()) == [1, 2]


# --- many at once ---------------------------------------------------------------------------------


def test_many_writers_of_the_same_journals_store_each_item_once(url, engine):
    """Eight threads read the same four journals on, as fast as they can."""
    items = {f"{i}-s": [event(user=str(n % 9), event_id=None) for n in range(60)] for i in range(4)}
    refused = Counter()

    def work(seed):
        writer = open_writer(url, "opt-out")
        while True:
            done = True
            for source, payloads in items.items():
                position = writer.position(source)
                at = (position.offset - 32) // 8 if position.segment else 0
                size = 1 + (seed + at) % 7
                part = payloads[at : at + size]
                if not part:
                    continue
                done = False
                try:
                    writer.write([portion(*part, source=source, begin=position, first=32 + 8 * at)])
                except SupersededError:
                    refused[source] += 1
            if done:
                return

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with engine.connect() as connection:
        stored, distinct = connection.execute(
            select(func.count(), func.count(tables.events.c.event_id.distinct()))
            .select_from(tables.events)
        ).one()  # fmt: skip
    assert (stored, distinct) == (240, 240)
    assert sum(row.events for row in rows(engine, tables.event_totals)) == 240
    assert [row.stored for row in rows(engine, tables.checkpoints)] == [60] * 4


def test_a_transaction_that_fails_in_the_end_leaves_nothing(writer, engine, monkeypatch):
    def fail(*_):
        raise RuntimeError("the end")

    monkeypatch.setattr(module.Batch, "_note_counts", fail)
    with pytest.raises(RuntimeError):
        writer.write([portion(event(user="7", event_id="x"))])
    monkeypatch.undo()
    for table in (tables.events, tables.event_totals, tables.event_keys, tables.subject_days,
                  tables.subjects, tables.checkpoints):  # fmt: skip
        assert rows(engine, table) == []
    assert writer.write([portion(event(user="7", event_id="x"))]).stored == 1
    assert len(rows(engine, tables.subject_days)) == 1  # not remembered as stored


def test_feature_usage_is_a_view(writer, engine):
    properties = {"feature": "budget", "plan": "pro"}
    writer.write([
        portion(event("feature_viewed", properties=properties), event("feature_liked"), event()),
    ])  # fmt: skip
    place = "pbmon." if writer.is_postgresql else ""
    with engine.connect() as connection:
        query = text(f"SELECT feature, action, metadata FROM {place}feature_usage")
        (row,) = connection.execute(query).all()
    metadata = row.metadata if isinstance(row.metadata, dict) else json.loads(row.metadata)
    assert (row.feature, row.action, metadata) == ("budget", "viewed", {"plan": "pro"})
