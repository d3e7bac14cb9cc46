"""Lines of a run: what goes in comes out, and what is none is said with its number."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.gate.runs import Request, RunError, Tally, decode, encode
from tests.patience import patiently

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def read(*lines, name="run.jsonl"):
    return list(
        decode([line if isinstance(line, bytes) else line.encode() for line in lines], name)
    )


@patiently()
@given(
    st.builds(
        Request, TEXT, TEXT.map("/".__add__), st.floats(0, 1e6).map(lambda s: round(s, 9)),
        st.booleans(), st.none() | st.integers(0, 10**6), st.none() | TEXT,
    )
)  # fmt: skip
def test_what_is_written_is_read(request):
    line = encode(request)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert read(line) == [request]


def test_the_shortest_line():
    assert encode(Request("GET", "/x", 0.25)) == '{"method":"GET","route":"/x","duration_s":0.25}\n'


def test_tallies_and_empty_lines():
    assert read(
        '{"route": "/x", "limit": "p95", "requests": 10, "over": 1}\n', "\n", "  \r\n",
        '{"route":"/x","method":"GET","limit":"availability","requests":1,"over":0,"allowed":0.1}',
    ) == [
        Tally(None, "/x", "p95", 10, 1), Tally("GET", "/x", "availability", 1, 0, 0.1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON object in one line"),
        ("[" * 100_000, "is no JSON object in one line"),
        (b"\xff\xfe{}", "is no JSON object in one line"),
        ("[]", "is no JSON object"),
        ("7", "is no JSON object"),
        ("{}", "route must be a route template that starts with '/'"),
        ('{"route": "x"}', "route must be a route template that starts with '/'"),
        ('{"route": "/x", "duration_s": 1}', "method is missing, such as GET"),
        ('{"route": "/x", "method": 1}', "method must be text, such as GET"),
        ('{"route": "/x", "method": "GET"}', "duration_s must be a number, 0 or above"),
        ('{"route": "/x", "method": "GET", "duration_s": NaN}', "duration_s must be a number"),
        ('{"route": "/x", "method": "GET", "duration_s": Infinity}', "duration_s must be a number"),
        ('{"route": "/x", "method": "GET", "duration_s": -1}', "duration_s must be a number"),
        ('{"route": "/x", "method": "GET", "duration_s": true}', "duration_s must be a number"),
        ('{"route": "/x", "method": "GET", "duration_s": "1"}', "duration_s must be a number"),
        (
            '{"route": "/x", "method": "GET", "duration_s": 1' + "0" * 400 + "}",
            "duration_s must be",
        ),
        (
            '{"route": "/x", "method": "GET", "duration_s": 1, "failed": 1}',
            "failed must be true or",
        ),
        (
            '{"route": "/x", "method": "GET", "duration_s": 1, "queries": 1.5}',
            "queries must be a w",
        ),
        ('{"route": "/x", "limit": "p50"}', "limit must be one of max, p95, p99, availability"),
        ('{"route": "/x", "limit": {}}', "limit must be one of max, p95, p99, availability"),
        ('{"route": "/x", "limit": "p95", "requests": 1}', "over must be a whole number"),
        ('{"route": "/x", "limit": "p95", "requests": 1, "over": 2}', "over is more than requests"),
        ('{"route": "/x", "limit": "p95", "requests": 2, "over": 1, "allowed": 5}', "allowed is a"),
    ],
    ids=range(23),
)
def test_what_is_no_line_is_said(line, said):
    with pytest.raises(RunError) as raised:
        read('{"method":"GET","route":"/x","duration_s":0.25}\n', line)
    assert str(raised.value).startswith(f"run.jsonl, line 2: {said}")


FIELDS = st.sampled_from(["route", "method", "duration_s", "limit", "over"])
PLAIN = st.none() | st.booleans() | st.floats() | st.text() | st.integers()
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner))


@patiently(max_examples=50)
@given(ANY)
def test_no_value_raises_anything_else(value):
    try:
        read(json.dumps(value))
    except RunError as error:
        assert str(error).startswith("run.jsonl, line 1: ")
