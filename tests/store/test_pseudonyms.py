"""How people are found: by the store's own pepper, and by one from outside."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from pbmon import privacy
from pbmon.runtime import StoreError
from pbmon.spool import entries
from pbmon.store import pseudonyms, tables
from pbmon.store.access import asking, open_engine, open_reader, open_rotation, open_writer, upgrade
from tests.store.test_writer import NOON, event, portion

ONE, OTHER = b"1" * 32, b"2" * 32


def rows(engine, table=tables.events):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def meta(engine):
    return {row.key: row.value for row in rows(engine, tables.meta)}


@pytest.fixture
def made(empty_url):
    """A store that was made with a pepper from outside."""
    engine = open_engine(empty_url)
    upgrade(engine, pepper=ONE)
    yield empty_url, engine
    engine.dispose()


def test_a_store_that_is_made_with_a_pepper_from_outside_finds_people_by_it_alone(made):
    url, engine = made
    writer = open_writer(url, "opt-out", pepper=ONE)
    writer.write([portion(event(user="7"))])
    writer.close()
    (person,) = rows(engine, tables.subjects)
    # Who has all of the store can't try ids: its own pepper leads nowhere.
    own = bytes.fromhex(meta(engine)["pepper"])
    assert person.lookup != privacy.lookup(own, "7")
    assert person.lookup == privacy.veiled(ONE, privacy.lookup(own, "7"))
    assert ONE.decode() not in str(meta(engine))
    again = open_writer(url, "opt-out", pepper=ONE)
    again.write([portion(event(user="7"), source="2-b")])
    again.close()
    assert len({bytes(row.subject) for row in rows(engine)}) == 1


@pytest.mark.parametrize(
    ("pepper", "why"),
    [
        (None, "knows people by a pepper from outside, and there is none; set `pepper`"),
        (OTHER, "knows people by another pepper than the one of the setting `pepper`; set that to"),
    ],
)
def test_with_another_pepper_it_is_not_opened(made, pepper, why):
    url, _ = made
    with pytest.raises(StoreError, match=why):
        open_writer(url, "opt-out", pepper=pepper)
    reader = open_reader(url, pepper=pepper)
    with pytest.raises(StoreError, match=why):
        reader.decisions("7")
    assert reader.user_growth(None) is None  # what names nobody is told all the same
    reader.close()


def test_a_store_of_its_own_pepper_says_how_to_bring_it_under_another(url):
    with pytest.raises(StoreError, match="run `pbmon pseudonyms pepper`, which brings it"):
        open_writer(url, "opt-out", pepper=ONE)


def test_a_store_is_brought_under_a_pepper_with_all_that_leads_to_people(url, engine):
    before = open_writer(url, "opt-out", sharing="opt-out", destinations=("webhook",))
    said = entries.encode(entries.Consent(NOON, "8", "analytics", False))
    before.write([portion(event(user="7"), event(user="9", session="s"), said)])
    subjects = {bytes(row.subject) for row in rows(engine)}
    rotation = open_rotation(url, ONE)
    assert rotation.adopt() == 3
    assert rotation.adopt() == 0  # it is
    rotation.close()
    # A writer from before notices before it stores anything.
    with pytest.raises(StoreError, match="knows people by a pepper from outside"):
        asking(lambda: before.write([portion(event(user="7"), source="2-b")]))
    before.close()
    after = open_writer(url, "opt-out", pepper=ONE)
    written = after.write(
        [portion(event(user="7"), event(user="8"), event(user="9", session="s"), source="3-c")]
    )
    after.close()
    assert written.dropped == {"consent": 1}  # what was decided holds
    assert {bytes(row.subject) for row in rows(engine)} == subjects
    assert len({bytes(row.session) for row in rows(engine) if row.session}) == 1
    known = {bytes(row.lookup) for row in rows(engine, tables.subjects)}
    for table in tables.metadata.sorted_tables:
        if "lookup" in table.c:
            assert {bytes(row.lookup) for row in rows(engine, table) if row.lookup} <= known
    rotation = open_rotation(url, None)
    with pytest.raises(StoreError, match="needs a pepper from outside for that; set `pepper`"):
        rotation.adopt()
    rotation.close()


def test_a_destination_has_a_name_for_each_epoch():
    epochs = pseudonyms.Epochs({"webhook": 2})
    assert epochs.label("webhook") == "webhook#2"
    assert epochs.labels("webhook") == ["webhook", "webhook#1", "webhook#2"]
    assert epochs.labels("segment") == [epochs.label("segment")] == ["segment"]
