"""What spans and log records say of people does not leave, and all else leaves as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from pbmon.runtime import active
from pbmon.telemetry.encoding import encode_logs, encode_spans
from pbmon.telemetry.providers import _encode_logs, _encode_spans
from tests.telemetry.test_encoding import make_record, make_span

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
        events=[Event(text, {"exception.message": text})],
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
