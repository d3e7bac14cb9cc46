"""Decisions where they are stored: their times and versions, what waits when they come in, and
four writers at once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, text

from pbmon import privacy
from pbmon.spool import entries
from pbmon.spool.ledger import Position
from pbmon.store import schema, tables
from pbmon.store.access import open_deliveries, open_writer
from pbmon.store.events import Events
from pbmon.store.schema import HOUR
from tests.stack.process import wait_until
from tests.store.test_deliveries import put
from tests.store.test_writer import NOON, START, event, portion


def said(granted, at=NOON, user="7", purpose="analytics", version=None):
    return entries.encode(entries.Consent(at, user, purpose, granted, version))


def rows(engine, table=tables.events):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def names(engine):
    return sorted(row.name for row in rows(engine))


def test_a_grant_counts_for_what_comes_after_it(url, engine):
    writer = open_writer(url, "opt-in")
    written = writer.write([
        portion(event("before", at=NOON - 1, user="7"), said(True), event("after", user="7")),
    ])  # fmt: skip
    assert written.dropped == {"consent": 1}
    assert names(engine) == ["after"]


def test_a_withdrawal_counts_for_all_that_is_not_stored_yet(url, engine):
    writer = open_writer(url, "opt-out")
    writer.write([portion(event("stored", user="7"), source="1-a")])
    waits = [event("earlier", at=NOON - HOUR, user="7"), event("asserted", user="7", consent=True)]
    written = writer.write([portion(*waits, said(False, at=NOON + 5), source="2-b")])
    assert written.dropped == {"consent": 2}
    again = writer.write([portion(event("later", at=NOON + HOUR, user="7"), source="3-c")])
    assert again.dropped == {"consent": 1}
    assert names(engine) == ["stored"]  # what is stored stays


def test_who_agrees_again_gets_nothing_back(url, engine):
    writer = open_writer(url, "opt-out", sharing="opt-out", destinations=("webhook",))
    writer.write([portion(event("a", user="7"), source="1-a")])
    writer.write([portion(said(False, at=NOON + 1, purpose="sharing"), source="2-b")])
    assert rows(engine, tables.deliveries) == []
    late = [event("b", at=NOON + 2, user="7"), event("c", at=NOON + 9, user="7")]
    writer.write([portion(said(True, at=NOON + 9, purpose="sharing"), *late, source="3-c")])
    assert names(engine) == ["a", "b", "c"]
    assert [row.occurred_at for row in rows(engine, tables.deliveries)] == [NOON + 9]


def test_what_waits_for_destinations_is_let_go_at_once(url, engine):
    put(url, event(user="7"), event(user="8"))
    deliveries = open_deliveries(url, "opt-out")
    first, second = deliveries.take("segment", 10)
    deliveries.settle("segment", [], {first.event_id: "x", second.event_id: "x"})
    writer = open_writer(url, "opt-out", sharing="opt-out")
    for source, purpose in (("2-b", "sharing"), ("3-c", "analytics")):
        user = "7" if purpose == "sharing" else "8"
        writer.write([portion(said(False, NOON + 1, user, purpose), source=source)])
        left = 1 if purpose == "sharing" else 0
        assert len(rows(engine, tables.deliveries)) == left
        assert len(rows(engine, tables.dead_letters)) == left
    assert len(rows(engine)) == 2


@pytest.mark.parametrize("purpose", ["analytics", "sharing"])
def test_dead_letters_that_are_tried_again_are_judged_again(url, engine, purpose):
    put(url, event(user="7"), destinations=("webhook",))
    deliveries = open_deliveries(url, "opt-out")
    (taken,) = deliveries.take("webhook", 10)
    deliveries.settle("webhook", [], {taken.event_id: "rejected:400"})
    with engine.begin() as connection:  # as another version of a writer might leave it
        connection.execute(tables.subjects.update().values({purpose: False}))
    assert deliveries.retry("webhook") == 1
    assert deliveries.take("webhook", 10) == []
    assert rows(engine, tables.deliveries) == []


@pytest.mark.parametrize(
    ("given", "wanted", "leaves"),
    [(None, None, 1), ("2026-11", "2026-11", 1), ("2026-9", "2026-11", 0), (None, "1", 0)],
)
def test_an_older_version_is_asked_for_again_before_anything_leaves(
    url, engine, given, wanted, leaves
):
    writer = open_writer(url, "opt-out", sharing="opt-in", destinations=("webhook",))
    writer.write(
        [portion(said(True, NOON, purpose="sharing", version=given), event(user="7"), event())]
    )
    assert len(rows(engine, tables.deliveries)) == 2
    assert len(open_deliveries(url, "opt-in", wanted).take("webhook", 10)) == 1 + leaves
    assert len(rows(engine, tables.deliveries)) == 1 + leaves


def test_an_older_version_counts_as_not_asked_where_events_are_stored(url, engine):
    writer = open_writer(url, "opt-in", versions={"analytics": "2026-11"})
    first = portion(said(True, NOON, version="2026-9"), event("old", user="7"))
    assert writer.write([first]).dropped == {"consent": 1}
    newer = [said(True, NOON + 5, version="2026-11"), event("new", at=NOON + 5, user="7")]
    assert writer.write([portion(*newer, source="2-b")]).stored == 2
    assert names(engine) == ["new"]
    kept = [(r.version, r.decided_at) for r in rows(engine, tables.consents)]
    assert kept == [("2026-9", NOON), ("2026-11", NOON + 5)]
    (person,) = rows(engine, tables.subjects)
    assert (person.analytics, person.analytics_version, person.analytics_since) == (
        True, "2026-11", NOON + 5,
    )  # fmt: skip


def test_a_decision_that_comes_late_is_written_down_and_changes_nothing(url, engine):
    writer = open_writer(url, "opt-out")
    writer.write([portion(said(False, NOON + 9), source="1-a")])
    writer.write([portion(said(True, NOON + 5), source="2-b")])
    (person,) = rows(engine, tables.subjects)
    assert (person.analytics, person.analytics_at) == (False, NOON + 9)
    assert [row.granted for row in rows(engine, tables.consents)] == [False, True]


def test_a_clock_that_is_ahead_keeps_no_later_decision_from_counting(url, engine):
    writer = open_writer(url, "opt-out")
    ahead = schema.now() + 1000 * HOUR
    writer.write([portion(said(True, ahead), source="1-a")])
    writer.write([portion(said(False, schema.now()), source="2-b")])
    (person,) = rows(engine, tables.subjects)
    assert person.analytics is False
    assert [row.decided_at for row in rows(engine, tables.consents)][0] == ahead  # as it was said


def test_nothing_in_the_store_changes_or_removes_a_decision(url, engine):
    writer = open_writer(url, "opt-out")
    for n, granted in enumerate([True, False, True, False]):
        writer.write([portion(said(granted, NOON + n, version=str(n)), source=f"{n}-a")])
    kept = [(r.granted, r.version, r.decided_at) for r in rows(engine, tables.consents)]
    assert kept == [
        (granted, str(n), NOON + n) for n, granted in enumerate([True, False, True, False])
    ]
    assert all(row.stored_at >= NOON for row in rows(engine, tables.consents))


def test_four_writers_and_a_withdrawal_no_event_is_stored_after_it(url, engine):
    """Whatever each of them remembers of people: once the withdrawal is committed, the number of
    that person's events stands."""
    count, at_withdrawal = 40, {}
    errors = []
    barrier = threading.Barrier(5)
    people = [str(n) for n in range(3)]

    def work(number):
        try:
            writer = open_writer(url, "opt-out")
            barrier.wait(60)
            begin = START
            for n in range(count):
                payloads = [event(f"{number}-{n}", at=NOON + n, user=user) for user in people]
                part = portion(*payloads, source=f"{number}-w", begin=begin, first=32 + 100 * n)
                part = part._replace(end=Position(1, 32 + 100 * (n + 1)))
                writer.write([part])
                begin = part.end
            writer.close()
        except Exception as error:
            errors.append(error)

    def withdraw():
        try:
            writer = open_writer(url, "opt-out")
            barrier.wait(60)
            for user in people:
                writer.write([portion(said(False, NOON + 10**6, user), source=f"{user}-c")])
                with engine.connect() as connection:
                    at_withdrawal[user] = _events_of(connection, writer, user)
            writer.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    threads.append(threading.Thread(target=withdraw))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert errors == []
    reader = open_writer(url, "opt-out")
    with engine.connect() as connection:
        assert {user: _events_of(connection, reader, user) for user in people} == at_withdrawal
    assert sum(row.stored + row.dropped for row in rows(engine, tables.checkpoints)) == (
        4 * count * len(people) + len(people)
    )


def test_a_withdrawal_waits_for_who_relies_on_what_was_known(postgresql, monkeypatch):
    """A writer that has judged a person, and has not stored their event yet: the withdrawal is
    committed after it, so that no event of theirs comes behind it."""
    url = postgresql.url.render_as_string(hide_password=False)
    writer, other = open_writer(url, "opt-out"), open_writer(url, "opt-out")
    writer.write([portion(event(user="7"), source="0-a")])
    is_judged, may_go_on, store = threading.Event(), threading.Event(), Events.store

    def pausing(book, connection):
        is_judged.set()
        assert may_go_on.wait(120)
        store(book, connection)

    monkeypatch.setattr(Events, "store", pausing)
    slow = threading.Thread(target=writer.write, args=([portion(event(user="7"), source="1-a")],))
    slow.start()
    assert is_judged.wait(120)
    counts = []

    def withdraw():
        other.write([portion(said(False, NOON + 1), source="2-b")])
        with postgresql.connect() as connection:
            counts.append(_events_of(connection, other, "7"))

    quick = threading.Thread(target=withdraw)
    quick.start()
    wait_until(lambda: counts or _waits_for_a_lock(postgresql), "it waits", 60)
    may_go_on.set()
    for thread in (slow, quick):
        thread.join(120)
    with postgresql.connect() as connection:
        assert [_events_of(connection, other, "7")] == counts == [2]
    writer.close()
    other.close()


def _waits_for_a_lock(engine):
    with engine.connect() as connection:
        query = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return connection.execute(query).scalar_one() > 0


def _events_of(connection, writer, user):
    key = select(tables.subjects.c.key).where(tables.subjects.c.lookup == writer.lookup(user))
    found = connection.execute(key).scalar()
    if found is None:
        return 0
    subject = privacy.pseudonym(bytes(found), "store")
    query = select(tables.events.c.event_id).where(tables.events.c.subject == subject)
    return len(connection.execute(query).all())
