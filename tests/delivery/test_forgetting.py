"""Destinations that are asked to delete people, each as its vendor documents it."""

from __future__ import annotations

import json

import pytest

from pbmon.delivery import amplitude, forgetting, mixpanel, segment, webhook
from pbmon.outbound import TIMEOUT_S
from tests.delivery.samples import KEY
from tests.delivery.vendors import CLOSE, HANG, Answer, Vendor, as_json
from tests.stack.process import HOST, unused_port

TOKEN = "the-deletion-token"
PEOPLE = [f"{n:032x}" for n in range(250)]


class Erasing(Vendor):
    """Takes deletions, and remembers of whom."""

    def __init__(self, *faults):
        super().__init__(*faults)
        self.people: list[str] = []


class SegmentErasing(Erasing):
    def take(self, request):
        assert request.path == "/regulations"
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return as_json(401, {"errors": [{"type": "unauthorized"}]})
        body = json.loads(request.body)
        assert (body["regulationType"], body["subjectType"]) == ("SUPPRESS_WITH_DELETE", "USER_ID")
        self.people += body["subjectIds"]
        return as_json(200, {"data": {"regulateId": "reg_1"}})


class MixpanelErasing(Erasing):
    def take(self, request):
        assert request.path == "/api/app/data-deletions/v3.0/"
        assert request.query == {"token": [KEY]}
        if request.headers["authorization"] != f"Bearer {TOKEN}":
            return as_json(401, {"error": "unauthorized"})
        body = json.loads(request.body)
        assert body["compliance_type"] == "GDPR"
        self.people += body["distinct_ids"]
        return as_json(200, {"status": "ok", "results": {"task_id": "7"}})


class AmplitudeErasing(Erasing):
    def take(self, request):
        assert request.path == "/api/2/deletions/users"
        if request.basic() != (KEY, TOKEN):
            return Answer(401)
        body = json.loads(request.body)
        assert len(body["user_ids"]) <= 100
        self.people += body["user_ids"]
        return as_json(200, [{"day": "2026-11-25", "status": "staging"}])


class WebhookErasing(Erasing):
    def take(self, request):
        events = json.loads(request.body)
        assert request.headers["content-type"].startswith("application/cloudevents-batch+json")
        assert request.headers["webhook-signature"].startswith("v1,")
        assert {event["type"] for event in events} == {"pbmon.user.deleted"}
        self.keep("id", events)
        self.people += [event["subject"] for event in events]
        return Answer(204)


KINDS = {
    "segment": (SegmentErasing, lambda url: segment.Segment(
        KEY, deletion_token=TOKEN, deletion_url=url)),
    "mixpanel": (MixpanelErasing, lambda url: mixpanel.Mixpanel(
        KEY, deletion_token=TOKEN, deletion_url=url)),
    "amplitude": (AmplitudeErasing, lambda url: amplitude.Amplitude(
        KEY, secret_key=TOKEN, deletion_url=url)),
    "webhook": (WebhookErasing, lambda url: webhook.Webhook(
        url, source="pbmon/shop", secret=TOKEN)),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_everybody_is_asked_for_once_in_requests_of_an_allowed_size(kind):
    make, connect = kind
    with make() as vendor:
        destination = connect(vendor.url)
        found = destination.forget([*PEOPLE, *PEOPLE[:3]])
        assert (found.asked, found.again, found.fault) == (tuple(PEOPLE), (), "")
        assert vendor.people == PEOPLE
        most = destination.forgetter.most
        assert len(vendor.requests) == -(-len(PEOPLE) // most)
        destination.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(503), "503 service unavailable"),
        (Answer(429, headers={"Retry-After": "7"}), "429 too many requests"),
        (Answer(403), "403 forbidden; check the credentials for deletions at"),
        (Answer(404), "404 not found"),
        (Answer(302, headers={"Location": "/login"}), "302 found, a redirect"),
        (CLOSE, "connection closed without an answer"),
        (HANG, "timed out"),
    ],
    ids=["503", "429", "403", "404", "302", "closed", "hangs"],
)
def test_whoever_is_not_taken_is_to_be_asked_for_again(kind, fault, said, monkeypatch):
    make, connect = kind
    wait_s = 0.3 if fault == HANG else TIMEOUT_S
    monkeypatch.setattr(forgetting, "TIMEOUT_S", wait_s)
    with make(fault) as vendor:
        destination = connect(vendor.url)
        found = destination.forget(PEOPLE[:2])
        assert (found.asked, found.again) == ((), tuple(PEOPLE[:2]))
        assert found.fault.startswith(said)
        assert found.retry_after_s == (7.0 if "429" in said else None)
        assert not any(person in found.fault for person in PEOPLE)
        assert destination.forget(PEOPLE[:2]).asked == tuple(PEOPLE[:2])
        destination.close()


@pytest.mark.parametrize("name", ["segment", "mixpanel", "amplitude"])
def test_a_login_page_is_no_success(name):
    make, connect = KINDS[name]
    with make(Answer(200, b"<html>please log in</html>")) as vendor:
        destination = connect(vendor.url)
        found = destination.forget(PEOPLE[:1])
        assert found.fault == f"200 ok without an answer of {name}"
        destination.close()


def test_what_is_missing_is_said_and_nobody_is_asked():
    for made, option in (
        (segment.Segment(KEY), "deletion_token"),
        (mixpanel.Mixpanel(KEY), "deletion_token"),
        (mixpanel.Mixpanel(account="a", secret="b", project_id="1", deletion_token="t"), "token"),
        (amplitude.Amplitude(KEY), "secret_key"),
    ):
        found = made.forget(PEOPLE[:1])
        assert found.again == tuple(PEOPLE[:1])
        assert option in found.fault
        made.close()


@pytest.mark.parametrize("name", ["segment", "mixpanel", "amplitude"])
def test_nobody_is_named_unencrypted_to_another_machine(name):
    with pytest.raises(ValueError, match="deletion_url.*would be used unencrypted"):
        KINDS[name][1]("http://example.org")


def test_the_same_deletion_is_the_same_event_for_a_webhook():
    with WebhookErasing() as vendor:
        destination = KINDS["webhook"][1](vendor.url)
        for _ in range(2):
            destination.forget(PEOPLE[:3])
        assert list(vendor.arrivals.values()) == [2, 2, 2]
        assert len({request.headers["webhook-id"] for request in vendor.requests}) == 1
        destination.close()


def test_nobody_there_is_again_with_the_reason(kind):
    destination = kind[1](f"http://{HOST}:{unused_port()}")
    assert destination.forget(PEOPLE[:1]).fault == "connection refused"
    destination.close()


def test_a_secret_is_in_no_repr(kind):
    destination = kind[1]("http://127.0.0.1:1")
    assert TOKEN not in repr(destination) + repr(destination.forgetter)
    destination.close()
