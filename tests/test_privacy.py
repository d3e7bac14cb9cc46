"""What leaves is free of secrets: URLs, query strings, exceptions."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.privacy import MASK, K, error_type, escape, frames, hidden, mask_query, mask_url
from tests.patience import patiently

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ("http://user@host/x", "http://REDACTED@host/x"),
        ("postgresql://app:hunter2@db:5432/shop", "postgresql://REDACTED@db:5432/shop"),
        ("postgresql://app:hun/ter2@db/shop", "postgresql://REDACTED@db/shop"),
        ("postgresql://app:hun@ter2@db/shop", "postgresql://REDACTED@db/shop"),
        ("postgresql://app:hun?ter2@db/shop", "postgresql://REDACTED"),
        ("postgresql://app:hun#ter2@db/shop", "postgresql://REDACTED@db/shop"),
        ("postgresql://app:hun ter2@db/shop", "postgresql://REDACTED@db/shop"),
        ("postgresql+psycopg2://:hunter2@/shop", "postgresql+psycopg2://REDACTED@/shop"),
        ("postgresql:app:hunter2@db/shop", "REDACTED"),
        ("app:hunter2@db", "REDACTED"),
        ("host=db user=app password=hunter2", "REDACTED"),
        ("postgresql:/app:hunter2@db", "REDACTED"),
        ("postgresql://h/db?password=ab@hunter2", "postgresql://REDACTED"),
        ("collector:4317", "collector:4317"),
        ("sqlite:////var/lib/shop.db", "sqlite:////var/lib/shop.db"),
        ("http://h/x?token=hunter2&debug", "http://h/x?token=REDACTED&REDACTED"),
        ("postgresql:///shop?user=app&password=hunter2",
         "postgresql:///shop?user=REDACTED&password=REDACTED"),
        ("http://h/x#access_token=hunter2", "http://h/x#REDACTED"),
        ("http://h/x?a=1#hunter2", "http://h/x?a=REDACTED#REDACTED"),
        ("http://localhost:9/v1;api_key=hunter2", "http://localhost:9/v1;REDACTED"),
        ("http://u:p@h/a;k=hun/ter2?b=1#c", "http://REDACTED@h/a;REDACTED?b=REDACTED#REDACTED"),
        ("http://h/v1;api_key=ab@hunter2", "http://REDACTED"),
        ("sqlserver://db:1433;user=sa;password=hunter2", "sqlserver://db:1433;REDACTED"),
        ("", ""),
    ],
)  # fmt: skip
def test_mask_url(url, masked):
    assert mask_url(url) == masked


# Marked on both sides, so that a piece of it is found as well.
words = st.text(
    st.characters(exclude_characters="@", exclude_categories=["Cs"]), min_size=1, max_size=12
)


@patiently()
@given(words, words, st.sampled_from(["http", "postgresql+psycopg2", "x"]))
def test_no_password_survives(user, password, scheme):
    url = f"{scheme}://{user}:{password}@db.example:5432/shop"
    place = "" if set("?;") & set(user + password) else "@db.example:5432/shop"
    assert mask_url(url) == f"{scheme}://REDACTED{place}"


@patiently()
@given(st.text(max_size=20), st.text(max_size=20))
def test_no_password_survives_whatever_is_in_it(before, after):
    masked = mask_url(f"postgresql://u:{before}{SECRET}{after}@db/shop")
    assert SECRET not in masked
    assert masked.startswith("postgresql://REDACTED")


keys = st.text(st.characters(exclude_characters="&=", exclude_categories=["Cs"]), max_size=8)
values = st.text(st.characters(exclude_characters="&", exclude_categories=["Cs"]), max_size=8)


@patiently()
@given(st.lists(st.tuples(keys, values), max_size=5))
def test_no_query_value_survives_and_the_keys_stay(pairs):
    query = "&".join(f"{key}={value}" for key, value in pairs)
    assert mask_query(query) == "&".join(f"{key}={MASK}" for key, _ in pairs)


@pytest.mark.parametrize(
    ("query", "masked"),
    [
        ("", ""),
        ("a=1", "a=REDACTED"),
        ("a=", "a=REDACTED"),
        ("a=b=c", "a=REDACTED"),
        ("a", "REDACTED"),
        ("=x", "=REDACTED"),
        ("a=1;b=2", "a=REDACTED"),
        ("b=1&a=2&b=3", "b=REDACTED&a=REDACTED&b=REDACTED"),
        ("&&", "&&"),
    ],
)
def test_mask_query(query, masked):
    assert mask_query(query) == masked


class Broken(Exception):
    class Inner(Exception):
        pass


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyError("x"), "KeyError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Broken(), f"{__name__}.Broken"),
        (Broken.Inner(), f"{__name__}.Broken.Inner"),
        (type("Made", (Exception,), {"__module__": "__main__"})(), "Made"),
    ],
)
def test_error_type(error, name):
    assert error_type(error) == name


def fail(password):
    person = "Ada Lovelace"
    raise ValueError(f"{password} of {person}")


def caught(function, *arguments):
    try:
        function(*arguments)
    except Exception:
        return sys.exc_info()[2]
    raise AssertionError


def test_frames_say_where_and_nothing_else():
    text = frames(caught(fail, SECRET))
    first, last = text.splitlines()
    code = fail.__code__
    assert first.startswith(f"{__file__}:")
    assert first.endswith(" in caught")
    assert last == f"{__file__}:{code.co_firstlineno + 2} in fail"
    for private in (SECRET, "Ada", "Lovelace", "ValueError", "raise"):
        assert private not in text


def test_frames_keep_the_innermost():
    def dive(depth):
        if depth == 0:
            fail(SECRET)
        dive(depth - 1)

    lines = frames(caught(dive, 100)).splitlines()
    assert len(lines) == 32
    assert lines[-1].endswith(" in fail")
    assert len(frames(caught(dive, 100), limit=5).splitlines()) == 5


def test_no_traceback_no_frames():
    assert frames(None) == ""


# --- control characters ---


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("", ""),
        ("Zoë 😀 C:\\new\u00a0x", "Zoë 😀 C:\\new\u00a0x"),
        ("a\nb\r\t\x00\x1b[31m\x7f", r"a\nb\r\t\x00\x1b[31m\x7f"),
        ("\x80\x85\x9f\xa0", "\\x80\\x85\\x9f\xa0"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202a\u202e\u2066\u2069", r"\u202a\u202e\u2066\u2069"),
        ("\u2027\u202f\u2065\u200f", "\u2027\u202f\u2065\u200f"),
        ("\ud800\udfff", r"\ud800\udfff"),
    ],
)
def test_escape(text, escaped):
    assert escape(text) == escaped


@patiently()
@given(st.text(st.characters()))
def test_escaped_text_is_one_line_of_utf8_and_stays_as_it_is(text):
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert escaped.encode().decode() == escaped
    assert escape(escaped) == escaped


# --- figures of few people ---


def rank(rows):
    """Of a matrix, by elimination without fractions."""
    rows, count = [list(row) for row in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        found = next((row for row in rows[count:] if row[column]), None)
        if found is None:
            continue
        rows.remove(found)
        rows.insert(count, found)
        count += 1
        for row in rows[count:]:
            factor, by = found[column], row[column]
            row[:] = [a * factor - b * by for a, b in zip(row, found, strict=True)]
    return count


def is_determined(at, unseen, sums):
    """Whether a hidden cell follows from the sums, once those that are told are subtracted."""
    rows = [[row[cell] for cell in unseen] for row in sums]
    alone = [int(cell == at) for cell in unseen]
    return rank(rows) == rank([*rows, alone])


SUMS = {
    "total": lambda n: [[1] * n],
    "total and mean": lambda n: [[1] * n, [*range(n)]],
    "nps": lambda n: [[1] * n, [*range(n)], [-1 if s <= 6 else int(s >= 9) for s in range(n)]],
    "csat": lambda n: [[1] * n, [*range(1, n + 1)], [int(s >= n - 2) for s in range(n)]],
}


@patiently(max_examples=400)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=11), st.sampled_from(sorted(SUMS)))
def test_no_cell_of_few_people_is_told_nor_can_be_computed(people, kind):
    sums = SUMS[kind](len(people))
    unseen = hidden(people, sums)
    few = {at for at, count in enumerate(people) if 0 < count < K}
    if unseen is None:
        assert few
        every = range(len(people))
        assert sum(people) < K or any(is_determined(at, every, sums) for at in every)
        return
    assert few <= unseen
    assert bool(unseen) == bool(few)
    if unseen:
        assert sum(people[at] for at in unseen) >= K
        assert not any(is_determined(at, sorted(unseen), sums) for at in unseen)


def test_the_smallest_of_the_others_is_hidden_with_a_single_one():
    total = [[1] * 4]
    assert hidden([50, 3, 20, 30], total) == {1, 2}
    assert hidden([50, 3, 8, 30], total) == {1, 2}
    assert hidden([50, 3, 4, 30], total) == {1, 2, 3}  # else: 7 people in two of them
    assert hidden([50, 0, 20, 30], total) == set()
    assert hidden([50, 3, 0, 0], total) == {0, 1}
    assert hidden([3, 4], [[1, 1]]) is None
    assert hidden([3], [[1]]) is None
    assert hidden([], [[]]) == set()


def test_what_the_mean_and_the_nps_tell_is_reckoned_with():
    # Of two hidden cells, number and mean would tell both; of three, the NPS as well.
    people = [12, 3, 15, 20, 20, 20, 20, 20, 20, 20, 20]
    assert hidden(people, SUMS["total"](11)) == {0, 1}
    assert len(hidden(people, SUMS["total and mean"](11))) == 3
    assert len(hidden(people, SUMS["nps"](11))) >= 3
