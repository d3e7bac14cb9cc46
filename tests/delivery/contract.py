"""What every destination must do. Subclasses name the vendor and say how to connect."""

from __future__ import annotations

import logging
import math

import pytest
import requests
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from pbmon.delivery.courier import Limits
from tests.delivery.samples import SECRETS, event, events, ids, poisoned
from tests.delivery.vendors import CLOSE, CUT, DRIP, HANG, LOSE, Answer
from tests.stack.process import HOST, unused_port

PAGE = Answer(200, b"<html>please log in</html>", {"Content-Type": "text/html"})

PASSING = [
    (Answer(408), "408 request timeout"),
    (Answer(429), "429 too many requests"),
    (Answer(500, b"oops"), "500 internal server error"),
    (Answer(503), "503 service unavailable"),
    (Answer(599), "status 599"),
    (Answer(301, b"", {"Location": "/elsewhere"}),
     "301 moved permanently, a redirect, which is not followed; check the URL"),
    (Answer(307, b"", {"Location": "http://127.0.0.1:1/"}),
     "307 temporary redirect, a redirect, which is not followed; check the URL"),
    (HANG, "timed out"),
    (DRIP, "timed out"),
    (CLOSE, "connection closed without an answer"),
    (CUT, "connection closed in the middle of the answer"),
]  # fmt: skip


class Contract:
    make_vendor: type
    named: str
    """What a dead event's reason is where the vendor says which it is, or halving found it."""
    limits: Limits

    def connect(self, url, timeout_s=10.0):
        raise NotImplementedError

    @pytest.fixture
    def vendor(self):
        with self.make_vendor() as vendor:
            yield vendor

    @pytest.fixture
    def destination(self, vendor):
        made = self.connect(vendor.url)
        yield made
        made.close()

    def test_everything_arrives_once(self, vendor, destination):
        sent = events(7)
        outcome = destination.send(sent)
        assert outcome.delivered == ids(sent)
        assert (outcome.dead, outcome.again, outcome.fault) == ({}, (), "")
        assert tuple(vendor.accepted) == ids(sent)
        assert set(vendor.arrivals.values()) == {1}
        assert vendor.sizes == [7]

    def test_nothing_is_no_request(self, vendor, destination):
        outcome = destination.send([])
        assert (outcome.delivered, outcome.dead, outcome.again) == ((), {}, ())
        assert vendor.requests == []

    def test_requests_hold_as_many_events_as_allowed(self, vendor, destination):
        most = destination.limits.events
        lean = {"subject": "a-pseudonym", "session": None, "properties": {}, "segments": {}}
        sent = [event(number, **lean) for number in range(most + 1)]
        assert destination.send(sent).delivered == ids(sent)
        assert vendor.sizes == [most, 1]
        assert len(vendor.accepted) == most + 1

    def test_requests_hold_as_many_bytes_as_allowed(self, vendor, destination):
        sent = events(9)
        destination.send(sent[:3])
        exactly = len(vendor.requests[0].body)
        destination.limits = Limits(1000, exactly)
        assert destination.send(sent).delivered == ids(sent)
        destination.limits = Limits(1000, exactly - 1)
        assert destination.send(sent).delivered == ids(sent)
        assert vendor.sizes == [3, 3, 3, 3, 2, 2, 2, 2, 1]

    def test_the_limits_are_the_documented_ones(self, destination):
        assert destination.limits == self.limits

    def test_an_event_that_no_request_can_hold_is_dead_unsent(self, vendor, destination):
        sent = [event(0), event(1, properties={"x": "y" * 5000}), event(2)]
        destination.limits = Limits(100, 4000)
        outcome = destination.send(sent)
        assert outcome.delivered == (sent[0].id, sent[2].id)
        assert outcome.dead == {sent[1].id: "too_large"}
        assert vendor.sizes == [2]

    @pytest.mark.parametrize(
        "properties", [{"x": math.nan}, {"x": object()}, {1: {2, 3}}], ids=["nan", "object", "set"]
    )
    def test_what_is_no_json_is_dead_unsent(self, vendor, destination, properties):
        sent = [event(0), event(1, properties=properties)]
        outcome = destination.send(sent)
        assert outcome.delivered == (sent[0].id,)
        assert outcome.dead == {sent[1].id: "unencodable"}
        assert tuple(vendor.accepted) == (sent[0].id,)

    def test_any_text_is_sent(self, vendor, destination):
        sent = [event(0, properties={"x": "Zoë ☃ \x00 \ud800", "y": [None, {"z": 1.5}]})]
        assert destination.send(sent).delivered == ids(sent)
        assert "Zoë ☃ \\u0000 ?".encode() in vendor.requests[0].body

    def test_an_id_given_twice_is_one_event(self, vendor, destination):
        assert destination.send([event(0), event(0)]).delivered == (event(0).id,)
        assert vendor.arrivals == {event(0).id: 1}

    @pytest.mark.parametrize(("fault", "words"), PASSING, ids=[w[:24] for _, w in PASSING])
    def test_what_may_pass_is_tried_again(self, vendor, fault, words):
        destination = self.connect(vendor.url, 0.3 if fault in (HANG, DRIP) else 10.0)
        destination.limits = Limits(2, 100_000)
        vendor.faults.extend([None, fault])
        sent = events(7)
        outcome = destination.send(sent)
        assert outcome.delivered == ids(sent[:2])
        assert outcome.again == ids(sent[2:])
        assert (outcome.dead, outcome.fault, outcome.retry_after_s) == ({}, words, None)
        assert len(vendor.requests) == 2  # nothing more after the first failure
        assert destination.send(sent[2:]).delivered == outcome.again
        assert tuple(vendor.accepted) == ids(sent)
        assert set(vendor.arrivals.values()) == {1}
        destination.close()

    @pytest.mark.parametrize("status", [401, 403])
    def test_credentials_can_be_mended(self, vendor, destination, status):
        vendor.faults.append(Answer(status, b"no"))
        outcome = destination.send(events(3))
        assert (outcome.delivered, outcome.dead, outcome.again) == ((), {}, ids(events(3)))
        assert outcome.fault.endswith(f"; check the credentials for {destination.name}")
        assert len(vendor.requests) == 1

    def test_nobody_there(self):
        destination = self.connect(f"http://{HOST}:{unused_port()}")
        outcome = destination.send(events(3))
        assert (outcome.again, outcome.fault) == (ids(events(3)), "connection refused")

    def test_an_answer_that_got_lost_makes_no_second_event(self, vendor, destination):
        vendor.faults.append(LOSE)
        sent = events(3)
        assert destination.send(sent).again == ids(sent)
        assert destination.send(sent).delivered == ids(sent)
        assert tuple(vendor.accepted) == ids(sent)
        assert set(vendor.arrivals.values()) == {2}  # told apart from one by its id alone

    @pytest.mark.parametrize("status", [429, 503])
    def test_the_wish_to_wait_is_handed_on(self, vendor, destination, status):
        vendor.faults.append(Answer(status, b"", {"retry-after": "17"}))
        assert destination.send(events(1)).retry_after_s == 17.0

    def test_a_413_is_halved_down_to_the_event_that_is_too_large(self, vendor, destination):
        sent = [*events(5), event(5, properties={"x": "y" * 3000}), *map(event, range(6, 9))]
        vendor.faults.append(Answer(413))
        vendor.faults.append(Answer(413))  # the first four
        outcome = destination.send(sent)
        assert (outcome.delivered, outcome.dead, outcome.again) == (ids(sent), {}, ())
        assert vendor.sizes == [2, 2, 5]
        vendor.faults.extend([Answer(413)] * 1)
        assert destination.send([sent[5]]).dead == {sent[5].id: "too_large"}

    def test_a_refusal_of_all_is_the_death_of_each(self, vendor, destination):
        vendor.faults.extend([Answer(418, b"no body knows why")] * 7)
        sent = events(4)
        outcome = destination.send(sent)
        assert outcome.dead == dict.fromkeys(ids(sent), "rejected:418")
        assert (outcome.delivered, outcome.again) == ((), ())
        assert len(vendor.requests) == 7

    def test_only_what_is_wrong_is_dead(self, vendor, destination):
        sent = [poisoned(n) if n in (2, 3, 11) else event(n) for n in range(20)]
        destination.limits = Limits(8, 100_000)
        outcome = destination.send(sent)
        assert outcome.dead == {sent[n].id: self.named for n in (2, 3, 11)}
        assert outcome.delivered == tuple(e.id for e in sent if e.id not in outcome.dead)
        assert outcome.again == ()
        assert set(vendor.accepted) == set(outcome.delivered)

    def test_a_failure_while_the_wrong_one_is_looked_for(self, vendor, destination):
        sent = [poisoned(0), *map(event, range(1, 4))]
        vendor.faults.extend([Answer(400), Answer(400), Answer(400), None, Answer(503)])
        outcome = destination.send(sent)
        assert outcome.dead == {sent[0].id: "rejected:400"}
        assert outcome.delivered == (sent[1].id,)
        assert outcome.again == ids(sent[2:])

    @pytest.mark.parametrize(
        "answer", [Answer(400, b"\xff"), Answer(503), Answer(401), CLOSE, PAGE], ids=str
    )
    def test_nothing_that_is_said_repeats_a_secret(self, vendor, destination, caplog, answer):
        if isinstance(answer, Answer):
            answer = Answer(answer.status, answer.body + " ".join(SECRETS).encode(),
                            {"X-Echo": " ".join(SECRETS)})  # fmt: skip
        vendor.faults.append(answer)
        with caplog.at_level(logging.DEBUG):
            outcome = destination.send([*events(3), poisoned(3)])
        said = f"{outcome!r} {destination!r} {destination.where} {events(1)!r} {caplog.text}"
        assert not [secret for secret in SECRETS if secret in said]

    def test_it_is_not_observed(self, vendor, destination, monkeypatch):
        seen = []
        send = requests.Session.send

        def spy(self, request, **more):
            seen.append(is_instrumentation_enabled())
            return send(self, request, **more)

        monkeypatch.setattr(requests.Session, "send", spy)
        destination.send(events(1))
        assert seen == [False]
        assert is_instrumentation_enabled()

    def test_what_stays_on_the_machine_takes_no_proxy(self, vendor, destination, monkeypatch):
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{HOST}:{unused_port()}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert destination.remote is False
        assert destination.send(events(1)).delivered == ids(events(1))

    def test_a_closed_one_connects_anew(self, vendor, destination):
        destination.send(events(1))
        destination.close()
        destination.close()
        assert destination.send([event(1)]).delivered == (event(1).id,)

    def test_it_says_who_it_is(self, destination):
        assert vars(type(destination))["name"] == type(destination).__name__.lower()
        assert repr(destination) == f"{type(destination).__name__}({destination.where!r})"

    def test_unencrypted_is_for_this_machine_only(self):
        with pytest.raises(ValueError, match=r"would be used unencrypted.*; use https"):
            self.connect("http://collect.example.com")
        assert self.connect("https://collect.example.com").remote is True


class DocumentedAnswers(Contract):
    """Where the vendor documents its answer, no other is believed."""

    receipt: bytes

    @pytest.mark.parametrize(
        "body",
        [b"", b"{}", b"[]", b"null", b"1", b'"ok"', b"\xff", b"[" * 100_000, PAGE.body,
         b'{"success": "true"}', b'{"code": 200}', b'{"code": "200", "events_ingested": 1}',
         b'{"code": 207, "events_ingested": 1, "num_records_imported": 1}'],
        ids=range(13),
    )  # fmt: skip
    def test_a_success_with_another_body_is_none(self, vendor, destination, body):
        vendor.faults.append(Answer(200, body))
        outcome = destination.send(events(2))
        assert (outcome.delivered, outcome.dead, outcome.again) == ((), {}, ids(events(2)))
        assert outcome.fault == f"200 ok without an answer of {destination.name}"

    def test_one_with_the_documented_body_is(self, vendor, destination):
        vendor.faults.append(Answer(200, self.receipt))
        assert destination.send(events(2)).delivered == ids(events(2))

    def test_an_answer_without_end_is_none(self, vendor, destination):
        vendor.faults.append(Answer(200, self.receipt + b" " * 2_000_000))
        assert destination.send(events(2)).delivered == ids(events(2))
        vendor.faults.append(Answer(200, b" " * 2_000_000 + self.receipt))
        assert destination.send(events(2)).again == ids(events(2))
