"""New pseudonyms: the history stays whole, and nothing leads from the old ones to the new."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from pbmon import privacy
from pbmon.purposes import Terms
from pbmon.spool import entries
from pbmon.store import tables
from pbmon.store.access import open_deliveries, open_reader, open_rotation, open_writer
from tests.store.money import transaction
from tests.store.test_feedback import answer
from tests.store.test_writer import NOON, event, portion

REST = (tables.deliveries, tables.dead_letters)


@pytest.fixture
def writer(url):
    made = open_writer(url, "opt-out", sharing="opt-out", destinations=("segment", "webhook"))
    yield made
    made.close()


@pytest.fixture
def rotation(url):
    made = open_rotation(url, None)
    yield made
    made.close()


def everything(user, source):
    """One row of `user` wherever there can be one."""
    exposure = entries.Exposure(NOON, "checkout", "new", user, None, "pbmon")
    return portion(
        event("a", user=user), event("b", user=user, session=f"s{user}"),
        entries.encode(entries.Link(NOON, f"s{user}", user)), entries.encode(exposure),
        answer(9, user=user), transaction(key=f"t{user}", user=user),
        source=source,
    )  # fmt: skip


def rows(engine, table):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def of_people(engine):
    """Table → subject → rows."""
    return {
        table.name: {
            subject: sum(bytes(row.subject or b"") == subject for row in rows(engine, table))
            for subject in subjects(engine)
        }
        for table in tables.metadata.sorted_tables
        if "subject" in table.c and table not in REST
    }


def subjects(engine):
    """By the order in which they are found."""
    return [
        privacy.pseudonym(bytes(row.key), "store")
        for row in sorted(rows(engine, tables.subjects), key=lambda row: bytes(row.lookup))
    ]


@pytest.mark.parametrize("everybody", [False, True])
def test_what_the_store_holds_of_a_person_follows_them(url, engine, writer, rotation, everybody):
    for n, user in enumerate(["7", "8"]):
        writer.write([everything(user, f"{n}-a")])
    before, old = of_people(engine), subjects(engine)
    filled = {name for name, counts in before.items() if all(counts.values())}
    assert filled == {
        "events", "subject_days", "subject_activity", "sessions", "exposures", "feedback",
        "transactions",
    }  # fmt: skip
    if everybody:
        people, count = rotation.everybody()
        assert people == 2
    else:
        count = rotation.person("7")
    new, changed = subjects(engine), [0, 1]
    if not everybody:
        (kept,) = set(old) & set(new)
        changed = [at for at, subject in enumerate(new) if subject != kept]
    assert len(set(old) & set(new)) == 2 - len(changed)
    after = of_people(engine)
    for name, counts in before.items():
        assert [after[name][s] for s in new] == [counts[s] for s in old]
    waiting = [row for table in REST for row in rows(engine, table) if row.lookup is not None]
    own = sum(counts[old[at]] for counts in before.values() for at in changed)
    assert count == own + len(waiting) * len(changed) // 2
    for row in waiting:
        (key,) = [bytes(p.key) for p in rows(engine, tables.subjects) if p.lookup == row.lookup]
        assert bytes(row.subject) == privacy.pseudonym(key, row.destination)
    # The writer that remembered the old key knows the new one.
    writer.write([portion(event("c", user="7"), source="9-z")])
    (row,) = [row for row in rows(engine, tables.events) if row.name == "c"]
    assert bytes(row.subject) in new


def test_nobody_has_no_new_pseudonym(rotation):
    assert rotation.person("7") is None


def test_somebody_who_was_deleted_gets_no_key(engine, writer, rotation):
    writer.write([portion(event(user="7"))])
    with engine.begin() as connection:
        connection.execute(tables.subjects.update().values(key=None, deleted_at=NOON))
    assert rotation.person("7") is None
    assert rotation.everybody() == (0, 0)
    assert rows(engine, tables.subjects)[0].key is None


def test_a_destination_knows_everybody_by_another_name_from_then_on(url, engine, writer, rotation):
    deliveries = open_deliveries(url, "opt-out")
    writer.write([portion(event("a", user="7", session="s"), event("b"))])
    taken = {
        name: next(e for e in deliveries.take(name, 10) if e.subject)
        for name in ("webhook", "segment")
    }
    assert rotation.destination("webhook") == 1
    writer.write([portion(event("c", user="7", session="s"), source="2-b")])
    webhook = [e for e in deliveries.take("webhook", 10) if e.subject]
    assert len({e.subject for e in webhook}) == len({e.session for e in webhook}) == 1
    assert webhook[0].subject != taken["webhook"].subject
    assert webhook[0].session != taken["webhook"].session
    segment = [e for e in deliveries.take("segment", 10) if e.subject]
    assert {e.subject for e in segment} == {taken["segment"].subject}
    assert len({bytes(r.subject) for r in rows(engine, tables.events) if r.subject}) == 1
    key = bytes(rows(engine, tables.subjects)[0].key)
    assert webhook[0].subject == privacy.pseudonym(key, "webhook#1").hex()
    assert rotation.destination("webhook") == 2
    assert rotation.destination("webhook") == 2
    assert deliveries.take("webhook", 1)[0].subject in (
        None, privacy.pseudonym(key, "webhook#3").hex(),
    )  # fmt: skip


def test_spans_have_other_names_too(url, writer, rotation):
    writer.write([portion(event(user="7"))])
    reader = open_reader(url)
    terms = Terms("opt-out")
    before = reader.keys(["7"], terms)
    rotation.destination("otlp")
    after = reader.keys(["7"], terms)
    assert (before.label, after.label) == ("otlp", "otlp#1")
    assert before.version != after.version
    assert before.of == after.of != {}
    reader.close()
