"""What spans and log records say of people does not leave, and all else leaves as it is."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceState

from pbmon.runtime import active
from pbmon.telemetry.encoding import encode_logs, encode_spans
from pbmon.telemetry.providers import _encode_logs, _encode_spans
from tests.telemetry.test_encoding import first_span, make_record, make_span

SECRETS = {
    "jo.doe@example.com": "[email]",
    "jo.doe%40example.com": "[email]",
    "DE89 3704 0044 0532 0130 00": "[iban]",
    "4111 1111 1111 1111": "[card]",
    "password=hunter2": "password=[token]",
    "/reset?one=t1&two=t2": "/reset?one=REDACTED&two=REDACTED",
    "https://shop/reset?t1": "https://shop/reset?REDACTED",
    "203.0.113.77": "[ip]",
    "2001:db8::77": "[ip]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_": "[token]",
}
KEPT = [
    "10.0.0.12",
    "127.0.0.1:80",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "WHERE a = ? AND b/? > 1",
    "+49 151 23456789",
    "/api/users/{user_id}",
    "token=REDACTED",
    "GET",
    "12.5",
    "",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_part_of_a_span_has_them(secret):
    text = f"a {secret} b"
    span = make_span(
        {"one": text, "many": ("x", text), "n": 5},
        name=text,
        status=Status(StatusCode.ERROR, text),
        events=[Event(text, {"of": text})],
        links=[Link(SpanContext(1, 2, is_remote=False), {"link": text})],
    )
    encoded = encode_spans([span], clean=True)
    assert secret.encode() not in encoded.payload
    assert encoded.payload.count(f"a {SECRETS[secret]} b".encode()) == 7
    assert encoded.replaced == {}
    assert span.name == text  # other processors have it too
    assert encode_spans([span]).payload.count(secret.encode()) == 7


@pytest.mark.parametrize("secret", SECRETS)
def test_no_part_of_a_log_record_has_them(secret):
    text = f"a {secret} b"
    bodies = [text, {"in": [text]}]
    records = [make_record(body, {"one": text, "deep": {"er": [text]}}) for body in bodies]
    encoded = encode_logs(records, clean=True)
    assert secret.encode() not in encoded.payload
    assert encoded.payload.count(SECRETS[secret].encode()) == 6


@pytest.mark.parametrize("secret", SECRETS)
def test_what_is_mended_is_cleaned_too(secret):
    odd = make_span({"odd": object(), "one": secret}, name=secret)
    assert secret.encode() not in encode_spans([odd], clean=True).payload


def failed_span(raise_):
    """As the SDK makes it, of what an exception leaves in `with`."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with suppress(Exception), provider.get_tracer("shop").start_as_current_span("pay"):
        raise_()
    return exporter.get_finished_spans()[0]


def of_jo():
    try:
        raise KeyError("jo")
    except KeyError as cause:
        raise LookupError("no account of jo\nat 12:7 in jo") from cause


def nested():
    raise DeclinedError("jo")


class DeclinedError(Exception):
    """Its name is in the application's module."""

    def __str__(self):
        return "card of jo"


@pytest.mark.parametrize(
    ("raise_", "name", "frames", "line"),
    [(of_jo, "LookupError", 5, 4), (nested, "DeclinedError", 4, 1)],
    ids=["chained", "own"],
)
def test_what_others_record_of_an_exception_is_its_type_and_its_frames(raise_, name, frames, line):
    span = failed_span(raise_)
    assert "jo" in str(span.events[0].attributes) + span.status.description
    encoded = encode_spans([span], clean=True)
    sent = first_span(encoded)
    assert sent.status.message == name
    attributes = {each.key: each.value.string_value for each in sent.events[0].attributes}
    assert attributes["exception.type"].endswith(name)
    assert "exception.message" not in attributes
    lines = attributes["exception.stacktrace"].split("\n")
    assert len(lines) >= frames
    line += raise_.__code__.co_firstlineno
    assert lines[-1] == f"{__file__}:{line} in {raise_.__name__}"
    assert all(re.fullmatch(r".+\.py:[0-9]+ in [\w<>.]+", each) for each in lines)
    assert span.events[0].attributes["exception.message"]  # other processors have it


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("LookupError: no account of jo", "LookupError"),
        ("HTTPException: jo", "HTTPException"),
        ("queue is full", "queue is full"),
        ("Timeout: 3 s", "Timeout: 3 s"),
    ],
)
def test_why_a_span_failed_is_said_without_a_message(description, said):
    span = make_span({}, status=Status(StatusCode.ERROR, description))
    sent = first_span(encode_spans([span], clean=True))
    assert sent.status.message == said


def test_what_pbmon_and_others_say_of_frames_stays():
    ours = "/app/shop.py:12 in pay\n/app/a b.py:3 in <module>"
    other = "goroutine 1 [running]:\njo"
    for stack, left in ((ours, ours), (other, ""), ("LookupError: of:7 in jo\n", "")):
        said = {"exception.type": "E", "exception.stacktrace": stack}
        if stack is not ours:
            said["exception.message"] = "jo"
        payload = encode_logs([make_record("b", said)], clean=True).payload
        assert b"jo" not in payload
        assert left.encode() in payload


def test_a_caller_s_tracestate_keeps_what_is_of_nobody():
    state = TraceState([("shop", "jo.doe@example.com"), ("ot", "th:8")])
    context = SpanContext(1, 2, is_remote=False, trace_state=state)
    span = make_span({}, context=context, links=[Link(context, {})])
    sent = first_span(encode_spans([span], clean=True))
    assert sent.trace_state == "ot=th:8"
    assert b"jo.doe" not in encode_spans([span], clean=True).payload
    whole = encode_spans([make_span({}, context=SpanContext(1, 2, is_remote=False))], clean=True)
    assert b"ot=" not in whole.payload


def test_bytes_and_the_name_of_an_event_are_texts():
    record = make_record(b"to jo.doe@example.com", {"raw": b"\xff jo", "more": b"jo.doe@a.example"})
    record.log_record.event_name = "mail.jo.doe@example.com"
    payload = encode_logs([record], clean=True).payload
    assert b"jo.doe" not in payload
    assert b"\xff jo" in payload


def test_keys_of_maps_are_texts():
    body = {"jo.doe@example.com": {"jo@a.example": 1, "bo@a.example": 2, "plan": 3}}
    payload = encode_logs([make_record(body, {"deep": [body]})], clean=True).payload
    assert b"example" not in payload
    assert payload.count(b"[email] 2") == 2
    assert list(body) == ["jo.doe@example.com"]  # the application's own


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=12,
)


@given(VALUES, st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_whatever_a_record_holds_it_is_encoded(body, attributes):
    record = make_record(body, attributes)
    assert encode_logs([record], clean=True).items == 1
    plain = encode_logs([record])
    assert plain.items == 1


@pytest.mark.parametrize("text", KEPT)
def test_what_is_of_machines_stays(text):
    span = make_span({"one": text}, name=text)
    record = make_record(text, {"one": text})
    assert encode_spans([span], clean=True) == encode_spans([span])
    assert encode_logs([record], clean=True) == encode_logs([record])


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="@%=:"), max_size=12))
def test_short_texts_leave_as_they_are(text):
    span = make_span({"one": text, "two": [text]}, name=text)
    assert encode_spans([span], clean=True) == encode_spans([span])


def test_the_setting_decides(monkeypatch):
    span, record = make_span({"one": "a@b.co"}), make_record("a@b.co")
    for scrub in (True, False):
        monkeypatch.setattr(active, "settings", replace(active.settings, scrub=scrub))
        assert (b"a@b.co" in _encode_spans([span]).payload) is not scrub
        assert (b"a@b.co" in _encode_logs([record]).payload) is not scrub
