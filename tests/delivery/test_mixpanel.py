"""Mixpanel: the form of an event, the two kinds of credentials, and the records that failed."""

from __future__ import annotations

import json

import pytest

from pbmon.delivery.courier import Limits
from pbmon.delivery.mixpanel import Mixpanel
from tests.delivery.contract import DocumentedAnswers
from tests.delivery.samples import KEY, event, events, ids, poisoned
from tests.delivery.vendors import MixpanelVendor, as_json


class TestMixpanel(DocumentedAnswers):
    make_vendor = MixpanelVendor
    named = "rejected:400"
    limits = Limits(2000, 2_000_000)
    receipt = b'{"code": 200, "num_records_imported": 2, "status": "OK"}'

    def connect(self, url, timeout_s=10.0):
        return Mixpanel(KEY, url=url, timeout_s=timeout_s)

    def test_an_event(self, vendor, destination):
        destination.send([event(0)])
        (request,) = vendor.requests
        assert json.loads(request.body) == [
            {
                "event": "order_paid",
                "properties": {
                    "item": "wedding-ring",
                    "number": 0,
                    "segment.plan": "gold",
                    "session": "session-1",
                    "time": 1_795_643_880_123,
                    "distinct_id": "pseudonym-of-ann",
                    "$insert_id": event(0).id,
                },
            }
        ]
        assert request.headers["content-encoding"] == "gzip"
        assert destination.where == f"{vendor.url}/import"

    def test_an_event_without_a_person_has_an_empty_one(self, vendor, destination):
        destination.send([event(0, subject=None, session=None)])
        assert vendor.accepted[event(0).id]["properties"]["distinct_id"] == ""

    def test_a_property_does_not_take_the_place_of_what_the_event_is(self, vendor, destination):
        false = {"$insert_id": "x", "time": 1, "distinct_id": "ann@example.com"}
        destination.send([event(0, properties=false)])
        of = vendor.accepted[event(0).id]["properties"]
        assert (of["time"], of["distinct_id"]) == (1_795_643_880_123, "pseudonym-of-ann")

    def test_a_service_account(self, vendor):
        vendor.credentials = ("robot", KEY)
        made = Mixpanel(account="robot", secret=KEY, project_id="7", url=vendor.url)
        assert made.send(events(2)).delivered == ids(events(2))
        assert vendor.requests[0].query == {"strict": ["1"], "project_id": ["7"]}
        assert KEY not in repr(made)
        made.close()

    def test_a_wrong_token_is_not_the_death_of_anything(self, vendor):
        made = Mixpanel("Schlüssel ☃", url=vendor.url)
        outcome = made.send(events(2))
        assert (outcome.again, outcome.dead) == (ids(events(2)), {})
        assert outcome.fault == "401 unauthorized; check the credentials for mixpanel"
        assert vendor.requests[0].basic() == ("Schlüssel ☃", "")
        made.close()

    def test_those_that_failed_are_dead_and_the_others_known_by_their_id(self, vendor, destination):
        sent = [event(0), poisoned(1), event(2)]
        outcome = destination.send(sent)
        assert outcome.dead == {sent[1].id: "rejected:400"}
        assert outcome.delivered == (sent[0].id, sent[2].id)
        assert vendor.sizes == [3, 2]
        assert vendor.arrivals == {sent[0].id: 2, sent[2].id: 2}

    @pytest.mark.parametrize(
        "record",
        [{"index": 1}, {"index": 1, "insert_id": None}, {"index": 0, "insert_id": event(1).id},
         {"insert_id": event(1).id}],
        ids=str,
    )  # fmt: skip
    def test_a_record_is_known_by_its_id_or_its_place(self, vendor, destination, record):
        vendor.faults.append(as_json(400, {"code": 400, "failed_records": [record]}))
        outcome = destination.send(events(3))
        assert outcome.dead == {event(1).id: "rejected:400"}
        assert outcome.delivered == (event(0).id, event(2).id)

    @pytest.mark.parametrize(
        "records",
        [None, [], {}, "x", [None], [{}], [{"index": 3}], [{"index": -1}], [{"index": True}],
         [{"index": 1.0}], [{"index": "1"}], [{"insert_id": ["x"]}], [{"insert_id": "unknown"}]],
        ids=str,
    )  # fmt: skip
    def test_one_that_names_nobody_is_halved(self, vendor, destination, records):
        vendor.faults.append(as_json(400, {"code": 400, "failed_records": records}))
        assert destination.send(events(3)).delivered == ids(events(3))
        assert vendor.sizes == [1, 2]


@pytest.mark.parametrize(
    "credentials",
    [{}, {"account": "robot"}, {"account": "robot", "secret": "x"}, {"project_id": "7"},
     {"token": "t", "account": "robot", "secret": "x", "project_id": "7"},
     {"token": "t", "project_id": "7"}],
    ids=str,
)  # fmt: skip
def test_credentials_are_of_one_kind_and_whole(credentials):
    with pytest.raises(ValueError, match=r"mixpanel: give the project's token alone, or"):
        Mixpanel(**credentials)


def test_the_default_is_its_address():
    made = Mixpanel(KEY)
    assert (made.where, made.remote) == ("https://api.mixpanel.com/import", True)
