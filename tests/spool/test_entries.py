"""What an item says comes back; what is none is known for it."""

from __future__ import annotations

import datetime as dt
import enum
import json
import types
import uuid
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.spool import entries
from pbmon.spool.entries import (
    Consent,
    Event,
    Exposure,
    Failure,
    Feedback,
    Link,
    Transaction,
    UnreadableError,
    decode,
    encode,
)  # fmt: skip
from tests.patience import patiently

texts = st.text(st.characters(exclude_categories=()), max_size=20)
"""Also with what no UTF-8 has, quotes, ends of lines and NUL."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts | st.sampled_from(['"', "\\", "\n", "\r\n", "\0", "\\u0000", "\u2028", "é", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip

events = st.fixed_dictionaries(
    {
        "occurred_at": st.integers(0, 2**62),
        "name": texts,
        "user_id": st.none() | texts,
        "session_id": st.none() | texts,
        "trace_id": st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
        "consent": st.none() | st.booleans(),
        "event_id": st.none() | texts,
        "segments": st.none() | st.dictionaries(texts, texts, max_size=3),
        "properties": st.none() | st.dictionaries(texts, values, max_size=5),
    }
)


def changed(value, change):
    """With every text in it changed, those of the keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [changed(each, change) for each in value]
    if isinstance(value, dict):
        return {change(key): changed(each, change) for key, each in value.items()}
    return value


def kept(value):
    """As the store gets it: no lone surrogates, then no NUL."""
    value = changed(value, lambda text: text.encode("utf-8", "replace").decode())
    return changed(value, lambda text: text.replace("\0", "\ufffd"))


def event(**fields):
    """An encoded event, of which only these fields say something."""
    return entries.encode_event(**{**dict.fromkeys(Event._fields), "occurred_at": 1, "name": "n"}
                                | fields)  # fmt: skip


def properties(value):
    return json.loads(decode(event(properties={"p": value})).properties)["p"]


# --- there and back ---


@patiently(max_examples=300)
@given(events)
def test_an_event_comes_back(fields):
    payload = entries.encode_event(**fields)
    assert payload.count(b"\n") == 1
    found = decode(payload)
    assert type(found) is Event
    wanted = kept(fields)
    for name in ("occurred_at", "name", "trace_id"):
        assert getattr(found, name) == wanted[name]
    assert found.consent is fields["consent"]
    for name in ("user_id", "session_id", "event_id", "segments"):
        assert getattr(found, name) == (wanted[name] or None)
    assert (found.properties and json.loads(found.properties)) == (wanted["properties"] or None)
    assert "\\u0000" not in (found.properties or "").replace("\\\\", "")


@patiently()
@given(st.integers(0, 2**62), texts, texts, st.booleans())
def test_links_and_decisions_come_back(at, one, other, granted):
    for entry in (Link(at, one, other), Consent(at, one, other, granted)):
        found = decode(encode(entry))
        assert type(found) is type(entry)
        assert found == tuple(kept(value) for value in entry)
    assert found.granted is granted


numbers = st.integers(-(2**62), 2**62)
money = st.one_of(
    st.builds(
        Transaction, numbers, st.just("charge"), texts, st.none(),
        st.sampled_from(["pending", "completed", "failed", "cancelled"]), st.integers(0, 10**15),
        texts, st.integers(0, 8), numbers,
        st.none() | st.dictionaries(texts, texts, max_size=3), st.none() | texts,
    ),
    st.builds(
        Transaction, numbers, st.sampled_from(["refund", "chargeback"]), texts, texts,
        st.just("completed"), st.integers(0, 10**15), texts, st.integers(0, 8), numbers,
        st.none(), st.none(),
    ),
    st.builds(
        Transaction, numbers, st.just("adjustment"), texts, st.none(), st.just("completed"),
        st.integers(-(10**15), 10**15), texts, st.integers(0, 8), numbers, st.none(), st.none(),
    ),
)  # fmt: skip


@patiently(max_examples=300)
@given(money)
def test_a_transaction_comes_back(entry):
    found = decode(encode(entry))
    assert type(found) is Transaction
    assert found == tuple(kept(value) for value in entry)


CHARGE = Transaction(1, "charge", "c", None, "completed", 1250, "EUR", 2, 3, {"plan": "pro"}, "u")


@pytest.mark.parametrize(
    "change",
    [
        {"at": "1"}, {"at": 1.5}, {"at": True}, {"amount_minor": -1}, {"amount_minor": 12.5},
        {"amount_minor": None}, {"exponent": 9}, {"exponent": -1}, {"exponent": None},
        {"kind": "dispute"}, {"kind": None}, {"kind": []}, {"kind": "refund"}, {"charge": "c"},
        {"status": "held"}, {"status": "refunded"}, {"status": None}, {"key": 5}, {"key": None},
        {"currency": None}, {"user_id": 7}, {"segments": ["plan"]}, {"occurred_at": None},
        {"kind": "adjustment", "status": "pending"}, {"kind": "refund", "charge": 5},
        {"kind": "chargeback", "charge": "c", "status": "failed"},
        {"kind": "refund", "charge": "c", "amount_minor": -1},
    ],
)  # fmt: skip
def test_what_can_not_be_booked_is_unreadable(change):
    assert decode(encode(CHARGE)) == CHARGE
    with pytest.raises(UnreadableError):
        decode(encode(CHARGE._replace(**change)))


@patiently()
@given(st.builds(Exposure, st.integers(0, 2**62), texts, texts, st.none() | texts,
                 st.none() | texts, texts))  # fmt: skip
def test_exposures_come_back(exposure):
    found = decode(encode(exposure))
    assert type(found) is Exposure
    assert found == tuple(kept(value) for value in exposure)


ids = st.text("0123456789abcdef", min_size=32, max_size=32)


@patiently(max_examples=200)
@given(st.builds(Failure, st.integers(0, 2**62), ids, texts, texts, st.integers(1, 10**9),
                 st.booleans(), st.none() | texts, st.none() | texts, st.none() | texts,
                 st.none() | texts, st.none() | texts, st.none() | ids))  # fmt: skip
def test_failures_come_back(failure):
    found = decode(encode(failure))
    assert type(found) is Failure
    assert found == tuple(kept(value) for value in failure)


answers = st.builds(
    Feedback,
    st.integers(0, 2**62),
    texts,
    st.none() | st.integers(0, 100),
    st.none() | texts,
    st.none() | texts,
    st.none() | texts,
    st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    st.none() | st.just(True),
    st.none() | texts,
    st.none() | st.dictionaries(texts, texts, max_size=3),
)


@patiently()
@given(answers)
def test_answers_come_back(entry):
    found = decode(encode(entry))
    assert type(found) is Feedback
    assert found == tuple(kept(value) for value in entry)
    assert type(found.score) is type(entry.score)


def test_the_form_that_is_kept_for_ever():
    assert (
        event(user_id="ü", consent=True, segments={"plan": "pro"}, properties={"a": [1.5, None]})
        == '["event",1,"n","ü",null,null,true,null,{"plan":"pro"}]\n{"a":[1.5,null]}'.encode()
    )
    assert event(session_id="s", trace_id="0" * 31 + "a", consent=False, event_id="e") == (
        b'["event",1,"n",null,"s","0000000000000000000000000000000a",false,"e",null]\n'
    )
    assert encode(Link(1, "s", "u")) == b'["link",1,"s","u"]'
    assert encode(Consent(1, "u", "analytics", False)) == (
        b'["consent",1,"u","analytics",false,null]'
    )
    assert encode(CHARGE) == (
        b'["transaction",1,"charge","c",null,"completed",1250,"EUR",2,3,{"plan":"pro"},"u"]'
    )
    assert encode(Exposure(1, "checkout", "new", "u", None, "pbmon")) == (
        b'["exposure",1,"checkout","new","u",null,"pbmon",null]'
    )
    assert encode(Feedback(1, "nps", 9, "a\nb", "u", "s", "0a", None, "f", {"plan": "pro"})) == (
        b'["feedback",1,"nps",9,"a\\nb","u","s","0a",null,"f",{"plan":"pro"}]'
    )


def test_a_lone_surrogate_is_a_question_mark_and_nul_a_replacement_character():
    found = decode(event(name="a\ud800b", user_id="u\0", properties={"k\0\udfff": ["\0", "é"]}))
    assert (found.name, found.user_id) == ("a?b", "u\ufffd")
    assert json.loads(found.properties) == {"k\ufffd?": ["\ufffd", "é"]}
    assert decode(encode(Link(1, "\0", "\ud800"))) == (1, "\ufffd", "?")


def test_a_backslash_before_u0000_is_no_nul():
    assert properties("C:\\u0000 \0") == "C:\\u0000 \ufffd"


# --- values ---


class Plan(str, enum.Enum):
    PRO = "pro"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("19.90"), "19.90"),
        (Decimal("NaN"), "NaN"),
        (dt.date(2026, 2, 3), "2026-02-03"),
        (dt.datetime(2026, 2, 3, 4, 5, 6, 7, dt.timezone.utc), "2026-02-03T04:05:06.000007+00:00"),
        (dt.time(4, 5), "04:05:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Plan.PRO, "pro"),
    ],
)
def test_what_everybody_writes_as_text(value, text):
    assert properties(value) == text
    assert properties([{"a": (value, 1)}]) == [{"a": [text, 1]}]


@pytest.mark.parametrize(
    ("value", "kind"), [({1}, "set"), (object(), "object"), (b"x", "bytes"), (1j, "complex")]
)
def test_what_json_has_no_place_for(value, kind):
    for each in (value, [value], {"a": value}):
        with pytest.raises(TypeError, match=f"^of type {kind}$"):
            event(properties={"p": each})


def test_a_key_that_is_no_text():
    assert properties({1: "a", None: "b", False: "c"}) == {"1": "a", "null": "b", "false": "c"}
    with pytest.raises(TypeError):
        event(properties={"p": {(1, 2): "a"}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number(value):
    for each in (value, [value], {"a": value}, {value: "a"}):
        with pytest.raises(ValueError):
            event(properties={"p": each})


def test_what_has_no_end():
    ring, chain = {}, []
    ring["ring"] = ring
    chain.append([chain])
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for each in (ring, chain, deep):
        with pytest.raises(ValueError, match="nested too deeply"):
            event(properties={"p": each})
    while deep:  # or its deletion is a recursion as deep
        deep = deep.pop()


def test_whatever_depth_is_accepted_no_nul_is_left():
    nested = "\0"
    for depth in range(3, 900, 3):
        nested = [[[nested]]]
        try:
            payload = event(properties={"p": nested})
        except ValueError:
            break
        text = decode(payload).properties
        assert "\\u0000" not in text
        assert ("\\ufffd" in text) or ("\ufffd" in text)
    assert depth > 400


@pytest.mark.parametrize("inside", [False, True])
def test_a_mapping_that_is_no_dict(inside):
    mapping = types.MappingProxyType({"a": 1})
    if inside:
        assert properties(mapping) == {"a": 1}
    else:
        assert json.loads(decode(event(properties=mapping)).properties) == {"a": 1}


# --- what is no item ---


@patiently(max_examples=500)
@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_an_item_or_unreadable(payload):
    try:
        found = decode(payload)
    except UnreadableError:
        return
    assert type(found) in (Event, Link, Consent, Transaction, Exposure, Feedback, Failure)


@patiently(max_examples=300)
@given(
    st.sampled_from(["event", "link", "consent", "exposure", "feedback", "other", 1, None, [], {}]),
    st.lists(values, max_size=12),
    st.binary(max_size=20),
)
def test_any_array_is_an_item_or_unreadable(kind, elements, behind):
    payload = json.dumps([kind, *elements]).encode() + b"\n" + behind
    least = {"event": 8, "link": 3, "consent": 4, "exposure": 6, "feedback": 10}.get(
        kind if isinstance(kind, str) else "", 99
    )
    try:
        decode(payload)
    except UnreadableError:
        is_text = True
        try:
            behind.decode()
        except UnicodeDecodeError:
            is_text = False
        assert len(elements) < least or (kind == "event" and not is_text)
    else:
        assert len(elements) >= least


@pytest.mark.parametrize(
    "payload",
    [b"", b"\n", b"[]", b"{}", b"null", b"1", b'"event"', b"[" * 100_000, b"\xff\xfe", b'["link"',
     b'["later",1,"a","b"]', b'[["link"],1,"a","b"]', b'[null,1,"a","b"]',
     b'["link",1,"a","b"] x', b'["event",1,"n",null,null,null,null,null,null]\n\xff'],
)  # fmt: skip
def test_unreadable(payload):
    with pytest.raises(UnreadableError):
        decode(payload)


@pytest.mark.parametrize(
    "payload",
    [event(user_id="u", segments={"a": "b"}, properties={"p": 1}), encode(Link(1, "s", "u")),
     encode(Consent(1, "u", "analytics", True)), encode(CHARGE),
     encode(Exposure(1, "checkout", "new", None, "s", "pbmon")),
     encode(Feedback(1, "nps", 9, "a", "u", "s", "0a", True, "f", {"plan": "pro"}))],
    ids=["event", "link", "consent", "transaction", "exposure", "feedback"],
)  # fmt: skip
def test_cut_anywhere_or_an_element_short_it_is_unreadable(payload):
    head, _, rest = payload.partition(b"\n")
    for length in range(len(head)):
        with pytest.raises(UnreadableError):
            decode(head[:length])
    elements = json.loads(head)
    kind = type(decode(payload))
    for count in range(len(elements) - len(kind._field_defaults)):
        with pytest.raises(UnreadableError):
            decode(json.dumps(elements[:count]).encode() + b"\n" + rest)


# --- newer versions ---


def test_elements_behind_the_known_ones_are_passed_over():
    assert decode(b'["link",1,"s","u",{"new":[1]},2]') == Link(1, "s", "u")
    assert decode(b'["consent",1,"u","sharing",false,"v",2]') == Consent(
        1, "u", "sharing", False, "v"
    )
    assert decode(encode(CHARGE)[:-1] + b',{"new":1}]') == CHARGE
    line = b'["exposure",1,"e","v",null,"s","pbmon",true,{"new":1}]'
    assert decode(line) == Exposure(1, "e", "v", None, "s", "pbmon", True)
    line = b'["event",1,"n","u",null,null,null,null,null,"new",{"a":1}]\n{"p":1}'
    assert decode(line) == Event(1, "n", "u", None, None, None, None, None, '{"p":1}')


def test_what_an_older_version_wrote_is_read():
    assert decode(b'["consent",1,"u","sharing",true]') == Consent(1, "u", "sharing", True, None)
    line = b'["exposure",1,"e","v",null,"s","pbmon"]'
    assert decode(line) == Exposure(1, "e", "v", None, "s", "pbmon", None)
