"""The book of errors: whole counts, whoever writes them and in whatever order, within its room."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from pbmon import privacy
from pbmon.spool import entries
from pbmon.spool.entries import Consent, Failure
from pbmon.spool.ledger import Position
from pbmon.store import errors as module
from pbmon.store import schema, tables
from pbmon.store.access import open_engine, open_writer
from pbmon.store.schema import DAY, HOUR
from tests.patience import patiently
from tests.store.conftest import emptied
from tests.store.test_writer import NOON, TRACE, portion

ONE, TWO = "11" * 16, "22" * 16
SLOT = 10_000_000


def failure(key=ONE, at=NOON, errors=1, user=None, session=None, release=None, route=None,
            frames=None, trace=None, error_type="KeyError", place="shop.cart:total"):  # fmt: skip
    return entries.encode(Failure(
        at, key, error_type, place, errors, False, route, release, frames, user, session, trace
    ))  # fmt: skip


@pytest.fixture(params=["opt-out"])
def writer(request, url):
    made = open_writer(url, request.param)
    yield made
    made.close()


def rows(engine, table=tables.errors):
    with engine.connect() as connection:
        return connection.execute(select(table).order_by(*table.primary_key)).all()


def total(engine, table=tables.errors):
    with engine.connect() as connection:
        return connection.execute(select(func.sum(table.c.errors))).scalar() or 0


def test_an_error_becomes_a_row_in_each_table(writer, engine):
    written = writer.write([
        portion(failure(errors=3, user="user-4711", release="1.0", route="/cart/{id}",
                        frames="shop/cart.py:7 in total", trace=TRACE)),
    ])  # fmt: skip
    assert (written.stored, written.dropped) == (1, {})
    (row,) = rows(engine)
    assert bytes(row.fingerprint).hex() == ONE
    assert bytes(row.trace_id).hex() == TRACE
    assert (row.error_type, row.place, row.route, row.frames, row.errors) == (
        "KeyError", "shop.cart:total", "/cart/{id}", "shop/cart.py:7 in total", 3,
    )  # fmt: skip
    assert (row.first_at, row.last_at) == (NOON, NOON)
    assert (row.first_release, row.last_release) == ("1.0", "1.0")
    (hour,) = rows(engine, tables.error_hours)
    assert (hour.hour, hour.release, hour.errors) == (NOON // HOUR * HOUR, "1.0", 3)
    (slot,) = rows(engine, tables.error_slots)
    assert (slot.slot, slot.errors) == (NOON // SLOT * SLOT, 3)
    (person,) = rows(engine, tables.subjects)
    (met,) = rows(engine, tables.error_people)
    assert bytes(met.subject) == privacy.pseudonym(bytes(person.key), "store")
    assert met.last_at == NOON
    with engine.connect() as connection:
        for table in tables.metadata.sorted_tables:
            for each in connection.execute(select(table)):
                assert "user-4711" not in str(tuple(each))


THREE = [
    {"at": NOON, "release": "1.0", "route": "/a", "frames": "a", "trace": "a1" * 16},
    {"at": NOON + HOUR, "release": "1.1", "route": "/b", "frames": "b", "trace": "b1" * 16},
    {"at": NOON + 2 * HOUR, "release": "1.2", "route": None, "frames": None, "trace": None},
]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_first_and_last_are_by_time_in_whatever_order_they_come(quick_url, order, together):
    writer = open_writer(quick_url, "opt-out")
    payloads = [failure(**THREE[i]) for i in order]
    if together:
        writer.write([portion(*payloads)])
    else:
        for i, payload in enumerate(payloads):
            writer.write([portion(payload, source=f"1-{i}")])
    writer.close()
    made = open_engine(quick_url)
    (row,) = rows(made)
    made.dispose()
    assert (row.errors, row.first_at, row.last_at) == (3, NOON, NOON + 2 * HOUR)
    assert (row.first_release, row.last_release) == ("1.0", "1.2")
    assert row.frames == next(f for i in order if (f := THREE[i]["frames"]))
    # Of the last one that has them, as far as it was in when a later one without came.
    assert row.route in ("/a", "/b")
    assert bytes(row.trace_id).hex()[:2] == row.route[1:] + "1"


def test_the_same_item_of_the_outbox_counts_once(writer, engine):
    for _ in range(2):
        writer.write_outbox([(bytes(16), failure(errors=2)), (bytes(15) + b"1", failure())])
    assert total(engine) == total(engine, tables.error_hours) == 3


@pytest.mark.parametrize("writer", ["opt-in"], indirect=True)
def test_without_consent_an_error_is_counted_and_is_nobodys(writer, engine):
    written = writer.write([
        portion(
            failure(user="asked-nothing"), failure(session="s"), failure(user="agreed"),
            failure(user="refused"),
            entries.encode(Consent(NOON, "agreed", "analytics", True)),
            entries.encode(Consent(NOON, "refused", "analytics", False)),
        ),
    ])  # fmt: skip
    assert (written.stored, written.dropped) == (4 + 2, {})
    assert total(engine) == 4
    assert len(rows(engine, tables.error_people)) == 1


def test_an_error_of_somebody_deleted_is_nobodys(writer, engine):
    writer.write([portion(failure(user="7"))])
    with engine.begin() as connection:
        connection.execute(tables.subjects.update().values(deleted_at=NOON, key=None))
        connection.execute(tables.error_people.delete())
        schema.note_change_of_people(connection)
    writer.write([portion(failure(user="7"), failure(session="s"), source="2-b")])
    assert total(engine) == 3
    (met,) = rows(engine, tables.error_people)
    assert bytes(met.subject) == writer.session("s")


def test_beyond_their_number_new_fingerprints_are_one(writer, engine, monkeypatch):
    monkeypatch.setattr(module, "MAX_FINGERPRINTS", 3)
    first = [failure(f"{n:032x}", route="/a") for n in (7, 8)]
    more = [failure(f"{n:032x}", route="/a", frames="f", trace=TRACE) for n in (5, 8, 6, 9)]
    writer.write([portion(*first)])
    writer.write([portion(*more, source="2-b")])
    writer.write([portion(failure(f"{4:032x}"), failure(f"{5:032x}"), source="3-c")])
    found = {int(bytes(row.fingerprint).hex(), 16): row for row in rows(engine)}
    # _other is a row as well, and so room for one less.
    assert {key: row.errors for key, row in found.items()} == {0: 3, 5: 2, 7: 1, 8: 2}
    other = found[0]
    assert (other.error_type, other.place, other.route, other.frames) == ("_other", "", None, None)
    assert total(engine, tables.error_hours) == total(engine, tables.error_slots) == 8


def test_beyond_their_number_new_people_are_not_kept(writer, engine, monkeypatch):
    monkeypatch.setattr(module, "MAX_PEOPLE", 3)
    writer.write([portion(*(failure(user=str(n)) for n in range(2)))])
    writer.write([
        portion(*(failure(user=str(n), at=NOON + 1) for n in range(5)),
                *(failure(TWO, user=str(n)) for n in range(2)), source="2-b"),
    ])  # fmt: skip
    met = Counter(bytes(row.fingerprint).hex() for row in rows(engine, tables.error_people))
    assert met == {ONE: 3, TWO: 2}
    latest = [row.last_at for row in rows(engine, tables.error_people)
              if bytes(row.fingerprint).hex() == ONE]  # fmt: skip
    assert latest == [NOON + 1] * 3
    assert total(engine) == 9


def test_what_is_longer_than_its_column_is_cut(writer, engine):
    writer.write([
        portion(failure(error_type="T" * 900, place="p" * 900, route="/" * 900, release="r" * 900)),
    ])  # fmt: skip
    (row,) = rows(engine)
    lengths = [len(text) for text in (row.error_type, row.place, row.route, row.last_release)]
    assert lengths == [200, 300, 300, 100]


@pytest.mark.parametrize(
    "change",
    [{1: "1"}, {2: "zz" * 16}, {2: 7}, {3: None}, {5: 0}, {5: True}, {5: 1.5}, {7: 3}, {12: "x"}],
    ids=str,
)
def test_one_that_could_not_be_counted_is_dropped_alone(writer, engine, change):
    spoilt = json.loads(failure())
    for place, value in change.items():
        spoilt[place] = value
    written = writer.write([portion(failure(), json.dumps(spoilt).encode())])
    assert (written.stored, written.dropped) == (1, {"unreadable": 1})
    assert total(engine) == 1


occurrences = st.lists(
    st.tuples(
        st.integers(0, 2),  # process
        st.integers(1, 4),  # fingerprint
        st.integers(0, 3 * DAY),
        st.integers(1, 50),
        st.sampled_from([None, "1.0", "1.1"]),
        st.sampled_from([None, "7", "8", "9"]),
    ),
    max_size=25,
)


@pytest.mark.parametrize("engine_name", ["sqlite", pytest.param("postgresql",
                         marks=pytest.mark.server)])  # fmt: skip
def test_sums_are_those_of_the_occurrences(request, file, tmp_path, engine_name):
    """However they are spread over processes and transactions, in each table."""
    url = (
        f"sqlite:///{tmp_path}/one.sqlite3" if engine_name == "sqlite"
        else request.getfixturevalue("emptied_database")
    )  # fmt: skip
    if engine_name == "sqlite":
        made = open_engine(url)
        schema.upgrade(made)
        made.dispose()

    @given(occurrences=occurrences, size=st.integers(1, 6))
    @patiently(max_examples=25)
    def check(occurrences, size):
        emptied(url)
        writer, made = open_writer(url, "opt-out"), open_engine(url)
        for process in range(3):
            mine = [
                failure(f"{key:032x}", NOON + at, count, user, release=release)
                for who, key, at, count, release, user in occurrences if who == process
            ]  # fmt: skip
            source, begin = f"{process}-p", Position(0, 0)
            for start in range(0, len(mine), size):
                some = mine[start : start + size]
                writer.write([portion(*some, source=source, begin=begin, first=32 + 8 * start)])
                begin = writer.position(source)
        exact, hours, slots, met = Counter(), Counter(), Counter(), {}
        for _, key, at, count, release, user in occurrences:
            exact[key] += count
            hours[(NOON + at) // HOUR * HOUR, key, release or ""] += count
            slots[(NOON + at) // SLOT * SLOT, key] += count
            if user is not None:
                met[key, user] = max(NOON + at, met.get((key, user), 0))
        number = lambda row: int(bytes(row.fingerprint).hex(), 16)  # noqa: E731
        assert {number(row): row.errors for row in rows(made)} == exact
        assert {
            (row.hour, number(row), row.release): row.errors
            for row in rows(made, tables.error_hours)
        } == hours
        assert {
            (row.slot, number(row)): row.errors for row in rows(made, tables.error_slots)
        } == slots
        assert sorted((number(row), row.last_at) for row in rows(made, tables.error_people)) == (
            sorted((key, at) for (key, _), at in met.items())
        )
        writer.close()
        made.dispose()

    check()


def test_two_writers_at_once_lose_nothing_and_never_wait_for_each_other(url, engine):
    rounds, keys = 6, 30
    barrier = threading.Barrier(2)
    failures = []

    def work(number):
        made = open_writer(url, "opt-out")
        try:
            barrier.wait(60)
            source, begin = f"{number}-w", Position(0, 0)
            for turn in range(rounds):
                named = range(1, keys + 1) if number else range(keys, 0, -1)
                payloads = [failure(f"{n:032x}", NOON + turn, user=str(n % 7)) for n in named]
                first = 32 + 8 * turn * keys
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
    assert {row.errors for row in rows(engine)} == {2 * rounds}
    assert total(engine) == total(engine, tables.error_slots) == 2 * rounds * keys


def test_what_was_not_seen_for_long_is_forgotten(writer, engine):
    writer.write([
        portion(failure(ONE, NOON - 100 * DAY, user="7"), failure(TWO, NOON - 100 * DAY, user="7"),
                failure(TWO, NOON, user="8")),
    ])  # fmt: skip
    with engine.begin() as connection:
        module.forget(connection, NOON - 90 * DAY, NOON - DAY)
    (row,) = rows(engine)
    assert (bytes(row.fingerprint).hex(), row.errors) == (TWO, 2)
    assert [each.hour for each in rows(engine, tables.error_hours)] == [NOON // HOUR * HOUR]
    assert [each.last_at for each in rows(engine, tables.error_people)] == [NOON]
    assert [each.slot for each in rows(engine, tables.error_slots)] == [NOON // SLOT * SLOT]
