"""Exposures: of each person the first, whoever writes it and in whatever order it comes."""

from __future__ import annotations

import itertools
import threading

import pytest
from sqlalchemy import select

from pbmon import privacy
from pbmon.spool import entries
from pbmon.spool.entries import Consent, Exposure
from pbmon.spool.ledger import Position
from pbmon.store import schema, tables
from pbmon.store.access import open_writer
from tests.store.test_writer import NOON, portion


def exposure(variant="control", at=NOON, user=None, session=None, experiment="checkout",
             by="pbmon"):  # fmt: skip
    return entries.encode(Exposure(at, experiment, variant, user, session, by))


@pytest.fixture(params=["opt-out"])
def writer(request, url):
    made = open_writer(url, request.param)
    yield made
    made.close()


def rows(engine, table=tables.exposures):
    with engine.connect() as connection:
        return connection.execute(select(table)).all()


def facts(engine):
    return sorted(
        (row.experiment, row.variant, row.exposed_at - NOON, row.assigned_by, row.crossed)
        for row in rows(engine)
    )


def test_an_exposure_becomes_a_row_under_a_pseudonym(writer, engine):
    written = writer.write(
        [portion(exposure(user="user-4711"), exposure("treatment", session="session-0815"))]
    )
    assert (written.stored, written.dropped) == (2, {})
    by_variant = {row.variant: bytes(row.subject) for row in rows(engine)}
    (person,) = rows(engine, tables.subjects)
    assert by_variant["control"] == privacy.pseudonym(bytes(person.key), "store")
    assert by_variant["treatment"] == writer.session("session-0815")
    assert facts(engine) == [
        ("checkout", "control", 0, "pbmon", False), ("checkout", "treatment", 0, "pbmon", False),
    ]  # fmt: skip
    assert not any("4711" in str(tuple(row)) or "0815" in str(tuple(row)) for row in rows(engine))
    assert rows(engine, tables.subject_days) == []


ORDERS = list(itertools.permutations(range(3)))


def three(experiment):
    """The first one, another variant after it, and the first one's again."""
    return [
        exposure("control", NOON, "7", experiment=experiment, by="pbmon"),
        exposure("treatment", NOON + 5, "7", experiment=experiment, by="application"),
        exposure("control", NOON + 9, "7", experiment=experiment, by="openfeature"),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_the_first_by_time_wins_and_another_variant_is_a_crossing(writer, engine, together):
    """In whatever order they come, each order in an experiment of its own."""
    arriving = [[three(str(n))[i] for i in order] for n, order in enumerate(ORDERS)]
    if together:
        assert writer.write([portion(*itertools.chain(*arriving))]).stored == 18
    else:
        for turn, payloads in enumerate(zip(*arriving, strict=True)):
            assert writer.write([portion(*payloads, source=f"1-{turn}")]).stored == 6
    assert facts(engine) == [(str(n), "control", 0, "pbmon", True) for n in range(6)]


@pytest.mark.parametrize("together", [True, False])
def test_of_two_at_the_same_time_the_first_that_arrives_wins(writer, engine, together):
    one, other = exposure("treatment", user="7"), exposure("control", user="7")
    if together:
        writer.write([portion(one, other)])
    else:
        writer.write([portion(one, source="1-a")])
        writer.write([portion(other, source="1-b")])
    assert facts(engine) == [("checkout", "treatment", 0, "pbmon", True)]


def test_the_same_again_is_no_crossing_and_experiments_are_apart(writer, engine):
    writer.write([
        portion(exposure(user="7"), exposure(user="7", at=NOON + 1),
                exposure("treatment", user="7", experiment="other")),
    ])  # fmt: skip
    assert facts(engine) == [
        ("checkout", "control", 0, "pbmon", False), ("other", "treatment", 0, "pbmon", False),
    ]  # fmt: skip


def test_the_outbox_is_a_way_too(writer, engine):
    for _ in range(2):
        writer.write_outbox([(bytes(16), exposure(user="7"))])
    assert facts(engine) == [("checkout", "control", 0, "pbmon", False)]


@pytest.mark.parametrize("writer", ["opt-in"], indirect=True)
def test_with_opt_in_only_who_has_agreed_is_kept(writer, engine):
    written = writer.write([
        portion(
            exposure(user="asked-nothing"), exposure(session="s"), exposure(user="agreed"),
            exposure(user="refused"),
            entries.encode(Consent(NOON, "agreed", "analytics", True)),
            entries.encode(Consent(NOON, "refused", "analytics", False)),
        ),
    ])  # fmt: skip
    assert (written.stored, written.dropped) == (1 + 2, {"consent": 3})
    (row,) = rows(engine)
    with engine.connect() as connection:
        key = connection.execute(
            select(tables.subjects.c.key).where(tables.subjects.c.lookup == writer.lookup("agreed"))
        ).scalar_one()
    assert bytes(row.subject) == privacy.pseudonym(bytes(key), "store")


def test_who_withdrew_or_was_deleted_is_not_kept(writer, engine):
    writer.write([portion(exposure(user="7"), exposure(user="8"))])
    with engine.begin() as connection:
        connection.execute(
            tables.subjects.update()
            .where(tables.subjects.c.lookup == writer.lookup("7"))
            .values(deleted_at=NOON, key=None)
        )
        schema.note_change_of_people(connection)
        connection.execute(tables.exposures.delete())
    written = writer.write([
        portion(exposure(user="7"), entries.encode(Consent(NOON, "8", "analytics", False)),
                exposure(user="8"), source="2-b"),
    ])  # fmt: skip
    assert (written.stored, written.dropped) == (1, {"deleted": 1, "consent": 1})
    assert rows(engine) == []


def test_two_writers_at_once_agree_on_the_first(url, engine):
    """Each brings the exposures of the same people, in another order, at other times and with
    other variants."""
    people, rounds = 40, 6
    barrier = threading.Barrier(2)
    failures = []

    def work(number):
        made = open_writer(url, "opt-out")
        try:
            barrier.wait(60)
            source, begin = f"{number}-w", Position(0, 0)
            for turn in range(rounds):
                users = range(people) if number else reversed(range(people))
                payloads = [
                    exposure(f"{number}", NOON + 100 - 10 * turn + number, str(user))
                    for user in users
                ]
                first = 32 + 8 * turn * people
                made.write([portion(*payloads, source=source, begin=begin, first=first)])
                begin = made.position(source)
        except Exception as error:  # noqa: BLE001
            failures.append(error)
        finally:
            made.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert facts(engine) == [("checkout", "0", 100 - 10 * (rounds - 1), "pbmon", True)] * people
