"""What the store says of errors, on both engines."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from pbmon.errors import ErrorSummary
from pbmon.store import schema, tables
from pbmon.store.access import open_reader, open_writer
from pbmon.store.schema import DAY, HOUR
from tests.store.test_errors import ONE, TWO, failure
from tests.store.test_writer import NOON, TRACE, portion

AT_NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)


@pytest.fixture
def tell(url, monkeypatch):
    """tell(*payloads, **asked): the summary of a store in which these were written, at noon."""
    monkeypatch.setattr(schema, "now", lambda: NOON)
    writer, reader = open_writer(url, "opt-out"), open_reader(url)
    written = []

    def ask(*payloads, limit=10, since=None, release=None):
        if payloads:
            written.append(payloads)
            writer.write([portion(*payloads, source=f"1-{len(written)}")])
        return reader.errors(limit, since, release)

    yield ask
    writer.close()
    reader.close()


def counts(found):
    return [(each.fingerprint, each.errors) for each in found]


def test_an_empty_store_has_none(tell):
    assert tell() == []


def test_all_that_is_known_of_an_error(tell):
    found = tell(
        failure(at=NOON - HOUR, errors=3, user="7", release="1.0", route="/a", trace="ab" * 16),
        failure(user="7", release="1.1", route="/b", trace=TRACE), failure(user="8"),
        failure(session="s", release="1.1"),
    )  # fmt: skip
    assert found == [
        ErrorSummary(
            ONE, "KeyError", "shop.cart:total", "/b", 6, 3,
            AT_NOON.replace(hour=11), AT_NOON, "1.0", "1.1", 2, TRACE,
        )
    ]  # fmt: skip


def test_the_most_frequent_come_first(tell):
    keys = [f"{n:032x}" for n in range(1, 6)]
    payloads = [failure(key, errors=n) for n, key in enumerate(keys, start=1)]
    found = tell(*payloads, failure("f" * 32, errors=5), limit=3)
    assert counts(found) == [(keys[4], 5), ("f" * 32, 5), (keys[3], 4)]


SPREAD = (
    failure(ONE, NOON - 30 * DAY, 7, user="old"), failure(ONE, NOON - 2 * HOUR, 5, user="a"),
    failure(ONE, NOON - 20_000_000, 2, user="b"), failure(TWO, NOON - 3 * DAY, 6),
)  # fmt: skip


@pytest.mark.parametrize(
    ("since", "expected", "users"),
    [
        (None, [(ONE, 14), (TWO, 6)], 3),
        (NOON - 19_999_999, [(ONE, 2)], 0),  # the slot's; nobody of its beginning is known
        (NOON - 20_000_000, [(ONE, 2)], 1),
        (NOON - HOUR, [(ONE, 2)], 1),
        (NOON - 2 * HOUR, [(ONE, 7)], 2),
        (NOON - 4 * DAY, [(ONE, 7), (TWO, 6)], 2),
        (NOON, [], None),
    ],
    ids=["all", "within a slot", "a slot", "an hour", "two hours", "days", "now"],
)
def test_since_a_time(tell, since, expected, users):
    found = tell(*SPREAD, since=since)
    assert counts(found) == expected
    assert [each.users for each in found][:1] == ([users] if users is not None else [])


def test_of_one_release_alone(tell):
    found = tell(
        failure(ONE, NOON - DAY, 5, release="1.0"), failure(ONE, errors=2, release="1.1"),
        failure(TWO, errors=9), release="1.0",
    )  # fmt: skip
    assert counts(found) == [(ONE, 5)]
    assert counts(tell(release="1.1", since=NOON - HOUR)) == [(ONE, 2)]
    assert tell(release="2.0") == []


def marked(url, *marks):
    made = open_reader(url)
    with made._engine.begin() as connection:
        for kind, name, at in marks:
            connection.execute(tables.marks.insert(), {"kind": kind, "name": name, "at": at})
    made.close()


def test_without_a_release_nothing_is_said_of_it(tell):
    assert tell(failure())[0].errors_since_release is None


def test_since_the_newest_deploy(tell, url):
    marked(
        url, ("deploy", "1.0", NOON - DAY), ("deploy", "1.1", NOON - HOUR), ("change", "x", NOON)
    )
    (found,) = tell(
        failure(errors=100, at=NOON - 2 * HOUR), failure(errors=10, release="1.0"),
        failure(errors=3, release="1.1"), failure(errors=4, at=NOON),
    )  # fmt: skip
    assert found.errors_since_release == 7
    assert replace(found, errors_since_release=None).errors == 117


def test_one_that_the_newest_release_does_not_have_has_none_of_it(tell):
    found = tell(failure(ONE, NOON - DAY, release="1.0"), failure(TWO, release="1.1"))
    assert {each.fingerprint: each.errors_since_release for each in found} == {ONE: 0, TWO: 1}


def test_many_are_asked_for_at_once(tell):
    payloads = [failure(f"{n:032x}", user=str(n % 3)) for n in range(1, 902)]
    found = tell(*payloads, limit=1000)
    assert len(found) == 901
    assert {each.users for each in found} == {1}
