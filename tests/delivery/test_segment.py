"""Segment: the form of a track message, its limits, and what an answer of 400 leads to."""

from __future__ import annotations

import json

import pytest

from pbmon.delivery import segment
from pbmon.delivery.courier import Limits
from pbmon.delivery.segment import Segment
from tests.delivery.contract import DocumentedAnswers
from tests.delivery.samples import KEY, event, ids
from tests.delivery.vendors import SegmentVendor


class TestSegment(DocumentedAnswers):
    make_vendor = SegmentVendor
    named = "rejected:400"
    limits = Limits(2500, 500_000, 32_000)
    receipt = b'{"success": true}'

    def connect(self, url, timeout_s=10.0):
        return Segment(KEY, url=url, timeout_s=timeout_s)

    def test_an_event(self, vendor, destination):
        destination.send([event(0)])
        assert vendor.accepted[event(0).id] == {
            "type": "track",
            "messageId": event(0).id,
            "userId": "pseudonym-of-ann",
            "event": "order_paid",
            "timestamp": "2026-11-25T21:58:00.123Z",
            "properties": {
                "item": "wedding-ring",
                "number": 0,
                "segment.plan": "gold",
                "session": "session-1",
            },
        }

    def test_an_event_without_a_person_has_its_session_or_stands_alone(self, vendor, destination):
        destination.send([event(0, subject=None), event(1, subject=None, session=None)])
        assert [e["anonymousId"] for e in vendor.accepted.values()] == ["session-1", event(1).id]
        assert not any("userId" in e for e in vendor.accepted.values())

    def test_an_event_over_32_kb_is_dead_unsent(self, vendor, destination):
        def of(size):
            empty = len(destination.encode(event(0, properties={"x": ""})))
            return event(0, properties={"x": "y" * (size - empty)})

        assert len(destination.encode(of(32_000))) == 32_000
        assert destination.send([of(32_000)]).delivered == ids([event(0)])
        assert destination.send([of(32_001)]).dead == {event(0).id: "too_large"}
        assert len(vendor.requests) == 1

    def test_no_request_is_over_500_kb(self, vendor, destination):
        sent = [event(n, properties={"x": "y" * 20_000}) for n in range(60)]
        assert destination.send(sent).delivered == ids(sent)
        assert sum(vendor.sizes) == 60
        assert 480_000 < max(len(r.body) for r in vendor.requests) <= 500_000

    def test_a_request_that_it_finds_too_large_is_halved(self, vendor, destination):
        vendor.max_bytes = 2_000  # to which it answers 400, not 413
        sent = [event(n) for n in range(16)]
        assert destination.send(sent).delivered == ids(sent)
        assert set(vendor.arrivals.values()) == {1}

    def test_the_request(self, vendor, destination):
        destination.send([event(0)])
        (request,) = vendor.requests
        assert list(json.loads(request.body)) == ["batch"]
        assert request.headers["content-type"] == "application/json"
        assert destination.where == f"{vendor.url}/v1/batch"


def test_the_default_is_its_address():
    made = Segment(KEY)
    assert (made.where, made.remote) == ("https://api.segment.io/v1/batch", True)
    assert Segment(KEY, url="https://eu1.api.segmentapis.com/").where == (
        "https://eu1.api.segmentapis.com/v1/batch"
    )
    assert segment.URL == "https://api.segment.io"


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match=r"segment: the write key is empty"):
        Segment("")
