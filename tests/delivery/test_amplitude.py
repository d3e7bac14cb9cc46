"""Amplitude: the form of an event, its two kinds of ids, and all that it says with 400 and 429."""

from __future__ import annotations

import json

import pytest

from pbmon.delivery.amplitude import Amplitude
from pbmon.delivery.courier import Limits
from tests.delivery.contract import DocumentedAnswers
from tests.delivery.samples import KEY, event, events, ids, poisoned
from tests.delivery.vendors import AmplitudeVendor, as_json


class TestAmplitude(DocumentedAnswers):
    make_vendor = AmplitudeVendor
    named = "invalid_fields:400"
    limits = Limits(1000, 20_000_000)
    receipt = b'{"code": 200, "events_ingested": 2}'

    def connect(self, url, timeout_s=10.0):
        return Amplitude(KEY, url=url, timeout_s=timeout_s)

    def test_an_event(self, vendor, destination):
        destination.send([event(0)])
        assert json.loads(vendor.requests[0].body) == {
            "api_key": KEY,
            "events": [
                {
                    "insert_id": event(0).id,
                    "user_id": "pseudonym-of-ann",
                    "event_type": "order_paid",
                    "time": 1_795_643_880_123,
                    "event_properties": {
                        "item": "wedding-ring",
                        "number": 0,
                        "segment.plan": "gold",
                        "session": "session-1",
                    },
                }
            ],
        }
        assert destination.where == f"{vendor.url}/batch"

    @pytest.mark.parametrize(
        ("subject", "session", "who"),
        [
            ("12345", None, {"user_id": "12345"}),
            ("1234", "12345", {"device_id": "12345"}),
            (None, "12345", {"device_id": "12345"}),
            (None, "1234", {"device_id": event(0).id}),
            ("", None, {"device_id": event(0).id}),
        ],
    )
    def test_an_id_has_five_characters(self, vendor, destination, subject, session, who):
        sent = [event(0, subject=subject, session=session)]
        assert destination.send(sent).delivered == ids(sent)
        found = vendor.accepted[event(0).id]
        assert {k: v for k, v in found.items() if k in ("user_id", "device_id")} == who

    def test_a_wrong_key_is_not_the_death_of_anything(self, vendor):
        made = Amplitude("another-key", url=vendor.url)
        outcome = made.send(events(4))
        assert (outcome.again, outcome.dead) == (ids(events(4)), {})
        assert outcome.fault == "400 bad request; check the API key for amplitude"
        assert len(vendor.requests) == 1
        made.close()

    def test_nor_is_a_missing_one(self, vendor, destination):
        vendor.faults.append(as_json(400, {"code": 400, "missing_field": "api_key"}))
        assert destination.send(events(4)).again == ids(events(4))

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ({"events_with_missing_fields": {"event_type": [1]}}, "missing_fields:400"),
            ({"events_with_invalid_fields": {"time": [1], "x": [1]}}, "invalid_fields:400"),
            ({"events_with_invalid_id_lengths": {"user_id": [1]}}, "invalid_ids:400"),
            ({"silenced_events": [1], "throttled_events": [2]}, "silenced:400"),
        ],
    )
    def test_those_it_names_are_dead_and_the_others_sent_at_once(
        self, vendor, destination, answer, reason
    ):
        vendor.faults.append(as_json(400, {"code": 400, "error": "x", **answer}))
        outcome = destination.send(events(3))
        assert outcome.dead == {event(1).id: reason}
        assert outcome.delivered == (event(0).id, event(2).id)
        assert vendor.sizes == [2]

    def test_several_kinds_at_once(self, vendor, destination):
        vendor.silenced = ("device-7",)
        sent = [event(0), poisoned(1), event(2, subject=None, session="device-7"), event(3)]
        outcome = destination.send(sent)
        assert outcome.dead == {sent[1].id: "invalid_fields:400", sent[2].id: "silenced:400"}
        assert set(vendor.accepted) == set(outcome.delivered) == {sent[0].id, sent[3].id}
        assert set(vendor.arrivals.values()) == {1}

    def test_a_throttled_user_is_tried_again(self, vendor, destination):
        vendor.throttled = ("pseudonym-of-ann",)
        outcome = destination.send([*events(3), poisoned(3)])
        assert outcome.again == ids(events(3))
        assert outcome.dead == {event(3).id: "invalid_fields:400"}
        assert outcome.fault == "429 too many requests"

    def test_one_that_only_throttles_with_400_too(self, vendor, destination):
        vendor.faults.append(as_json(400, {"code": 400, "throttled_events": [0]}))
        outcome = destination.send(events(2))
        assert outcome.again == ids(events(2))
        assert outcome.fault == "400 bad request; too many events of one user or device"

    @pytest.mark.parametrize(
        "named",
        [None, [], "x", [1], {"time": 1}, {"time": {"1": 1}}, {"time": [3, -1, True, "1", None]}],
        ids=str,
    )
    def test_one_that_names_nobody_is_halved(self, vendor, destination, named):
        answer = {"events_with_invalid_fields": named, "silenced_events": named and "x"}
        vendor.faults.append(as_json(400, answer))
        assert destination.send(events(3)).delivered == ids(events(3))
        assert vendor.sizes == [1, 2]


def test_the_default_is_its_address():
    made = Amplitude(KEY)
    assert (made.where, made.remote) == ("https://api2.amplitude.com/batch", True)


def test_an_empty_key_is_refused():
    with pytest.raises(ValueError, match=r"amplitude: the API key is empty"):
        Amplitude("")
