"""What the destinations share: the law that no event is lost or counted twice, whatever a vendor
answers; where events may go; TLS; the words for a fault."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from pbmon.delivery.amplitude import Amplitude
from pbmon.delivery.courier import Limits
from pbmon.delivery.mixpanel import Mixpanel
from pbmon.delivery.segment import Segment
from pbmon.delivery.webhook import Webhook
from pbmon.outbound import Answer
from tests.delivery.samples import KEY, SECRETS, event, events, ids
from tests.delivery.vendors import HANG, SegmentVendor, WebhookVendor
from tests.patience import patiently
from tests.stack.plugin import missing
from tests.telemetry import certificates
from tests.telemetry.receiver import unknown_host

URL = "https://example.com"
MAKERS = {
    "webhook": lambda url=URL, **more: Webhook(url, source="pbmon/shop", secret=KEY, **more),
    "segment": lambda url=URL, **more: Segment(KEY, url=url, **more),
    "mixpanel": lambda url=URL, **more: Mixpanel(KEY, url=url, **more),
    "amplitude": lambda url=URL, **more: Amplitude(KEY, url=url, **more),
}
REASON = re.compile(
    r"too_large|unencodable|rejected:4\d\d|(missing_fields|invalid_fields|invalid_ids|silenced):400"
)
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


# --- the law ------------------------------------------------------------------------------------

texts = st.sampled_from([*SECRETS, "", "x", *ids(events(3))])
indexes = st.integers(-2, 6) | st.booleans() | texts | st.none()
lists = st.lists(indexes, max_size=4)
named = st.one_of(
    st.builds(lambda x: {"success": x}, st.booleans() | texts),
    st.builds(lambda x: {"code": x, "events_ingested": 1, "num_records_imported": 1},
              st.sampled_from([200, 400, "200"])),
    st.dictionaries(
        st.sampled_from(["events_with_invalid_fields", "events_with_missing_fields",
                         "events_with_invalid_id_lengths"]),
        st.dictionaries(texts, lists | indexes, max_size=3) | lists | texts, max_size=3),
    st.dictionaries(st.sampled_from(["silenced_events", "throttled_events"]), lists | texts,
                    max_size=2),
    st.fixed_dictionaries({"failed_records": st.lists(
        st.dictionaries(st.sampled_from(["index", "insert_id"]), indexes | lists) | indexes,
        max_size=4)}),
    st.builds(lambda x: {"error": x}, texts | st.just("Invalid API key: x") | st.none()),
)  # fmt: skip
bodies = st.one_of(
    named.map(lambda value: json.dumps(value).encode()),
    st.recursive(indexes, st.lists).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=20),
)
statuses = st.sampled_from(
    [200, 200, 200, 200, 202, 204, 100, 301, 400, 400, 400, 401, 404, 408, 413, 422, 429, 500, 700]
)
answers = st.builds(
    Answer,
    statuses,
    st.dictionaries(
        st.just("Retry-After"), st.sampled_from(["5", "-1", "1e9", "x", "nan", ""])
    ).map(CaseInsensitiveDict),
    bodies,
)
faults = st.sampled_from([OSError("hunter2-key"), ValueError(), RecursionError(), TimeoutError()])
given_events = st.lists(
    st.builds(
        event,
        st.integers(0, 12),
        properties=st.sampled_from(
            [{}, {"item": SECRETS[2]}, {"x": "y" * 300}, {"x": float("nan")}, {"x": "☃" * 40}]
        ),
        subject=st.sampled_from([None, "", SECRETS[1]]),
    ),
    max_size=12,
)


@every
@patiently(max_examples=300)
@given(sent=given_events, data=st.data())
def test_each_event_is_in_one_of_the_three_whatever_is_answered(make, sent, data):
    destination = make()
    destination.limits = Limits(4, 1500, 450)
    requests = []

    def answered(body, headers):
        requests.append(body)
        answer = data.draw(answers | faults) if len(requests) < 60 else Answer(503, {}, b"")
        if isinstance(answer, Exception):
            raise answer
        return answer

    destination._post = answered
    outcome = destination.send(sent)
    parts = [*outcome.delivered, *outcome.dead, *outcome.again]
    assert sorted(parts) == sorted({each.id for each in sent})
    assert bool(outcome.again) == bool(outcome.fault)
    assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= 3600
    assert all(REASON.fullmatch(reason) for reason in outcome.dead.values())
    assert not [secret for secret in SECRETS if secret in repr(outcome)]
    assert all(len(body) <= 1500 for body in requests)


@every
@patiently(max_examples=100)
@given(count=st.integers(0, 40), data=st.data())
def test_a_vendor_that_says_no_more_than_no_gets_all_but_what_is_wrong(make, count, data):
    wrong = data.draw(st.sets(st.sampled_from(range(count)))) if count else set()
    destination = make()
    destination.limits = Limits(data.draw(st.integers(1, 50)), 10**6)
    taken = []

    def answered(body, headers):
        held = [each.id for each in sent if each.id.encode() in body]
        if any(each.id in held for n, each in enumerate(sent) if n in wrong):
            return Answer(422, {}, b"")
        taken.extend(held)
        return Answer(200, {}, b'{"success":true,"code":200,"num_records_imported":1,'
                               b'"events_ingested":1}')  # fmt: skip

    destination._post = answered
    sent = events(count)
    outcome = destination.send(sent)
    assert set(outcome.dead) == {sent[n].id for n in wrong}
    assert outcome.delivered == tuple(taken)
    assert outcome.again == ()


# --- where events may go ------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("https://collect.example.com", True),
        ("HTTPS://[2001:db8::1]:8443", True),
        ("https://localhost.example.com", True),
        ("http://localhost:9", False),
        ("http://127.0.0.1", False),
        ("http://127.9.9.9", False),
        ("http://[::1]:80", False),
        ("https://127.0.0.1", False),
    ],
)
def test_remote_is_what_leaves_the_machine(make, url, remote):
    assert make(url).remote is remote


@every
@pytest.mark.parametrize(
    "url",
    ["http://collect.example.com", "http://10.0.0.1", "http://localhost.example.com",
     "http://127.0.0.1.example.com", "http://0.0.0.0"],
)  # fmt: skip
def test_what_leaves_it_is_encrypted(make, url):
    with pytest.raises(ValueError, match=r"^\w+: http://.* would be used unencrypted; use"):
        make(url)


@every
@pytest.mark.parametrize(
    "url",
    ["", "collect.example.com", "ftp://example.com", "https://", "https://example.com:port",
     "https://example.com:0", "https://[::1", "https://exa mple.com", "https://example.com\n",
     "http://evil.example\\@localhost", "https://app:hunter2-key@exa mple.com"],
)  # fmt: skip
def test_what_is_no_url_is_refused_and_no_secret_repeated(make, url):
    with pytest.raises(ValueError, match=r"^\w+: .* is no URL; write one such as") as refused:
        make(url)
    assert KEY not in str(refused.value)


@every
def test_secrets_of_the_url_are_masked(make):
    made = make(f"https://app:{KEY}@example.com")
    assert made.where.startswith("https://REDACTED@example.com")
    assert KEY not in repr(made)


def test_a_token_in_the_query_of_a_webhook_is_masked():
    made = MAKERS["webhook"](f"https://example.com/in?token={KEY}")
    assert made.where == "https://example.com/in?token=REDACTED"


def test_requests_is_loaded_at_the_first_event_only():
    code = f"""
import sys
from pbmon.delivery.amplitude import Amplitude
from pbmon.delivery.mixpanel import Mixpanel
from pbmon.delivery.segment import Segment
from pbmon.delivery.webhook import Webhook

made = Amplitude("k"), Mixpanel("k"), Segment("k"), Webhook("{URL}", source="pbmon/shop")
assert not {{"requests", "netrc"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    if shutil.which("openssl") is None:
        missing("openssl", "openssl is not on the PATH: no certificate can be made")
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@every
def test_a_certificate_of_an_unknown_authority_is_not_accepted(make, signed, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with WebhookVendor(tls=signed.server_side(wants_client=False)) as vendor:
        destination = make(vendor.url)
        outcome = destination.send(events(2))
        assert outcome.again == ids(events(2))
        assert outcome.fault == "TLS certificate not accepted"
        assert vendor.requests == []
        destination.close()


def test_one_of_an_authority_that_the_environment_names_is(signed, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", signed.ca)
    with SegmentVendor(tls=signed.server_side(wants_client=False)) as vendor:
        destination = Segment(KEY, url=vendor.url)
        assert destination.send(events(2)).delivered == ids(events(2))
        assert len(vendor.accepted) == 2
        destination.close()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", signed.client)
    with SegmentVendor(tls=signed.server_side(wants_client=False)) as vendor:
        destination = Segment(KEY, url=vendor.url)
        assert destination.send(events(2)).fault == "TLS certificate not accepted"
        destination.close()


def test_a_certificate_of_another_host_is_not_accepted(signed, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", signed.ca)
    with SegmentVendor(tls=signed.server_side(wants_client=False)) as vendor:
        destination = Segment(KEY, url=f"https://localhost:{vendor.port}")  # it is of 127.0.0.1
        assert destination.send(events(2)).fault == "TLS certificate not accepted"
        assert vendor.requests == []
        destination.close()


def test_a_server_without_tls(signed):
    with SegmentVendor() as vendor:
        destination = Segment(KEY, url=vendor.url.replace("http", "https"))
        assert destination.send(events(2)).fault == "TLS failed"
        destination.close()


# --- words --------------------------------------------------------------------------------------


def test_an_unknown_host(monkeypatch):
    url = unknown_host(monkeypatch).replace("http:", "https:")
    assert Segment(KEY, url=url).send(events(1)).fault == "unknown host"


def test_an_error_without_known_words_is_its_class():
    destination = Segment(KEY, url=URL)

    def fail(body, headers):
        raise KeyError(KEY)

    destination._post = fail
    assert destination.send(events(1)).fault == "KeyError"


def test_a_moment_that_no_calendar_has_is_the_death_of_its_event_alone():
    destination = Segment(KEY, url=URL)
    destination._post = lambda body, headers: Answer(200, {}, b'{"success": true}')
    outcome = destination.send([event(0, occurred_at=10**30), event(1)])
    assert outcome.dead == {event(0).id: "unencodable"}
    assert outcome.delivered == (event(1).id,)


def test_a_hanging_vendor_is_asked_once():
    with SegmentVendor(HANG, HANG) as vendor:
        destination = Segment(KEY, url=vendor.url, timeout_s=0.2)
        assert destination.send(events(2)).fault == "timed out"
        assert len(vendor.requests) == 1
        destination.close()
