"""The webhook: CloudEvents, the plain form, and the signature as a receiver checks it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from pathlib import Path

import pytest

from pbmon.delivery.courier import Limits
from pbmon.delivery.webhook import Webhook
from tests.delivery.contract import PAGE, Contract
from tests.delivery.samples import KEY, event, events, ids
from tests.delivery.vendors import Answer, WebhookVendor


class TestWebhook(Contract):
    make_vendor = WebhookVendor
    named = "rejected:422"
    limits = Limits(100, 524_288)

    def connect(self, url, timeout_s=10.0):
        return Webhook(f"{url}/events", source="pbmon/shop", secret=KEY, timeout_s=timeout_s)

    def test_an_event(self, vendor, destination):
        destination.send([event(0)])
        (request,) = vendor.requests
        assert request.path == "/events"
        assert request.headers["content-type"] == (
            "application/cloudevents-batch+json; charset=utf-8"
        )
        assert json.loads(request.body) == [
            {
                "specversion": "1.0",
                "id": event(0).id,
                "source": "pbmon/shop",
                "type": "order_paid",
                "time": "2026-11-25T21:58:00.123456Z",
                "subject": "pseudonym-of-ann",
                "datacontenttype": "application/json",
                "data": {
                    "properties": {"item": "wedding-ring", "number": 0},
                    "segments": {"plan": "gold"},
                    "session": "session-1",
                },
            }
        ]

    def test_an_event_without_a_person_has_no_subject(self, vendor, destination):
        destination.send([event(0, subject=None, session=None)])
        found = vendor.accepted[event(0).id]
        assert "subject" not in found
        assert found["data"]["session"] is None

    @pytest.mark.parametrize("answer", [Answer(204), Answer(202, b"\xff"), PAGE], ids=str)
    def test_any_success_is_one(self, vendor, destination, answer):
        vendor.faults.append(answer)
        assert destination.send(events(2)).delivered == ids(events(2))

    def test_a_413_of_the_receiver_is_halved(self, vendor, destination):
        vendor.max_bytes = 1500
        sent = [*events(8), event(8, properties={"x": "y" * 2000})]
        outcome = destination.send(sent)
        assert outcome.delivered == ids(sent[:8])
        assert outcome.dead == {sent[8].id: "too_large"}
        assert set(vendor.arrivals.values()) == {1}

    def test_the_signature_is_what_a_receiver_computes(self, vendor, destination):
        before = int(time.time())
        destination.send(events(3))
        (request,) = vendor.requests
        at = int(request.headers["webhook-timestamp"])
        assert before <= at <= time.time()
        assert request.headers["webhook-signature"] == signature(request, KEY.encode())

    def test_the_same_events_are_the_same_message(self, vendor, destination):
        destination.send(events(3))
        vendor.faults.append(Answer(503))
        destination.send(events(3))
        destination.send(events(3))
        destination.send(events(2))
        first, second, third, other = (r.headers["webhook-id"] for r in vendor.requests)
        assert first == second == third != other
        assert first.startswith("pbmon_")
        assert vendor.requests[0].body == vendor.requests[2].body

    def test_limits_of_ones_own(self, vendor):
        made = Webhook(vendor.url, source="pbmon/shop", max_events=2, max_bytes=900)
        sent = [*events(3), event(3, properties={"x": "y" * 900})]
        outcome = made.send(sent)
        assert vendor.sizes == [2, 1]
        assert max(len(r.body) for r in vendor.requests) <= 900
        assert outcome.dead == {sent[3].id: "too_large"}
        made.close()

    def test_without_a_secret_nothing_is_signed(self, vendor):
        made = Webhook(vendor.url, source="pbmon/shop")
        made.send(events(1))
        made.close()
        assert not [name for name in vendor.requests[0].headers if name.startswith("webhook-")]

    def test_the_plain_form(self, vendor):
        made = Webhook(vendor.url, source="pbmon/shop", plain=True)
        sent = [event(0), event(1, subject=None, session=None)]
        assert made.send(sent).delivered == ids(sent)
        made.close()
        (request,) = vendor.requests
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.body) == [
            {
                "id": event(0).id,
                "userId": "pseudonym-of-ann",
                "sessionId": "session-1",
                "event": "order_paid",
                "properties": {"item": "wedding-ring", "number": 0},
                "timestamp": "2026-11-25T21:58:00.123456Z",
            },
            {
                "id": event(1).id,
                "sessionId": None,
                "event": "order_paid",
                "properties": {"item": "wedding-ring", "number": 1},
                "timestamp": "2026-11-25T21:58:00.123456Z",
            },
        ]


def signature(request, key):
    """By the words of standardwebhooks.com."""
    head = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    digest = hmac.new(key, head.encode() + request.body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def test_the_receiver_of_the_page_accepts_what_is_genuine_alone():
    page = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    receiver: dict = {}
    exec(code, receiver)
    with WebhookVendor() as vendor:
        made = Webhook(vendor.url, source="pbmon/shop", secret=KEY)
        made.send(events(1))
        made.close()
        (request,) = vendor.requests
    is_genuine = receiver["is_genuine"]
    assert is_genuine(request.headers, request.body, KEY.encode())
    assert not is_genuine(request.headers, request.body + b" ", KEY.encode())
    assert not is_genuine(request.headers, request.body, b"another")
    assert not is_genuine({**request.headers, "webhook-timestamp": "0"}, request.body, KEY.encode())


def test_a_secret_in_base64():
    raw = bytes(range(24))
    with WebhookVendor() as vendor:
        secret = f"whsec_{base64.b64encode(raw).decode()}"
        made = Webhook(vendor.url, source="pbmon/shop", secret=secret)
        made.send(events(1))
        made.close()
        (request,) = vendor.requests
        assert request.headers["webhook-signature"] == signature(request, raw)


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_abc", "whsec_ü", "whsec_"])
def test_a_secret_that_is_no_base64_is_refused_and_not_repeated(secret):
    with pytest.raises(ValueError, match=r"webhook: the secret begins with whsec_") as refused:
        Webhook("https://example.com", source="pbmon/shop", secret=secret)
    assert secret == "whsec_" or secret not in str(refused.value)


def test_without_a_source_it_is_refused():
    with pytest.raises(ValueError, match=r"webhook: source is empty"):
        Webhook("https://example.com", source="")
