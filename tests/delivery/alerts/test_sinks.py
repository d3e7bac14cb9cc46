"""What each kind of sink sends, what it makes of an answer, and what it never shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging

import pytest

from pbmon.alerting.choices import SinkChoice
from pbmon.alerting.notices import FIRING, RESOLVED, Notice, as_json, fields, link_of, text, title
from pbmon.delivery.alerts.pagerduty import PagerDuty
from pbmon.delivery.alerts.webhook import AlertWebhook
from pbmon.worker import sinks
from tests.delivery.alerts.receivers import Receiver
from tests.delivery.vendors import CUT, HANG, Answer
from tests.stack.process import unused_port

ID = "0b9c6f0e-5b0e-4c36-9e0e-6f3f4a1a2b3c"
NOON = 1_795_608_000_000_000


def notice(kind=FIRING, **changes):
    return Notice(**{
        "alert_id": ID, "kind": kind, "service": "shop", "environment": "production",
        "rule": "more than 10 errors in 5 min", "fingerprint": "ab" * 16,
        "error_type": "PaymentError", "place": "shop/pay.py:<lambda>", "route": "/pay/{id}",
        "release": "1.2", "is_new": True, "first_at": NOON, "opened_at": NOON + 60_000_000,
        "resolved_at": NOON + 720_000_000 if kind == RESOLVED else None, "errors": 11,
        "people": 3, "trace_id": "cd" * 16, **changes,
    })  # fmt: skip


def test_the_words():
    assert title(notice()) == "[firing] shop: PaymentError in shop/pay.py:<lambda>, 11 errors"
    assert title(notice(RESOLVED)) == "[resolved] shop: PaymentError in shop/pay.py:<lambda>"
    assert title(notice("repeat-1")).startswith("[firing, still] shop: ")
    assert title(notice(is_test=True)).startswith("[test] [firing] ")
    assert len(title(notice(place="x" * 300))) <= 150
    assert title(notice(place="")) == "[firing] shop: PaymentError, 11 errors"
    assert text(notice()).splitlines()[:6] == [
        "error: PaymentError", "place: shop/pay.py:<lambda>", "in the window: 11 errors, 3 people",
        "rule: more than 10 errors in 5 min", "route: /pay/{id}", "release: 1.2 (new in it)",
    ]  # fmt: skip
    assert fields(notice(RESOLVED))["over"] == "2026-11-25T12:12:00Z, after 11 min"
    assert "\n" not in title(notice(error_type="a\nb"))


def test_a_link_leads_to_the_trace_or_is_none():
    assert link_of("https://g/{trace_id}?f={fingerprint}", "aa", "bb") == "https://g/aa?f=bb"
    assert link_of("https://g/{trace_id}", None, "bb") is None
    assert link_of("https://g/errors", None, "bb") == "https://g/errors"
    assert link_of(None, "aa", "bb") is None


def test_a_webhook_gets_json_with_its_key_and_a_signature():
    with Receiver() as receiver:
        sink = AlertWebhook("team", f"{receiver.url}/hook?token=hunter2", secret="hunter3")
        receipts = [sink.send(notice()), sink.send(notice(RESOLVED)), sink.send(notice())]
        sink.close()
    assert [(each.taken, each.said) for each in receipts] == [(True, "202 accepted")] * 3
    assert receiver.keys == {f"{ID}-firing": 2, f"{ID}-resolved": 1}
    assert receiver.bodies[0] == as_json(notice())
    request = receiver.requests[0]
    headers = request.headers
    message = f"{ID}-firing.{headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(b"hunter3", message, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == f"{ID}-firing"
    assert "hunter" not in repr(sink) + sink.where


def test_pagerduty_opens_and_resolves_by_the_alerts_id():
    with Receiver() as receiver:
        sink = PagerDuty("duty", "pagerduty://R0UTINGKEY", where=f"{receiver.url}/v2/enqueue")
        for kind in (FIRING, RESOLVED):
            assert sink.send(notice(kind, link="https://g/x")).taken
        sink.close()
    opened, resolved = receiver.bodies
    assert opened["payload"]["summary"] == title(notice())
    assert opened["links"] == [{"href": "https://g/x", "text": "link"}]
    assert (opened["event_action"], opened["dedup_key"]) == ("trigger", ID)
    assert resolved == {
        "routing_key": "R0UTINGKEY", "event_action": "resolve", "dedup_key": ID,
    }  # fmt: skip
    assert "R0UTINGKEY" not in repr(sink) + sink.where


def test_where_pagerduty_is_asked():
    assert PagerDuty("d", "pagerduty://KEY").where == "https://events.pagerduty.com"
    assert PagerDuty("d", "pagerduty://KEY@API?region=eu")._key == "KEY"
    eu = PagerDuty("d", "pagerduty://KEY?region=eu")
    assert eu.where == "https://events.eu.pagerduty.com"


@pytest.mark.parametrize(
    ("fault", "said", "of_message", "retry_after_s"),
    [
        (Answer(503), "503 service unavailable", False, None),
        (Answer(429, headers={"Retry-After": "17"}), "429 too many requests", False, 17.0),
        (Answer(401), "401 unauthorized", False, None),
        (Answer(400, b"quotes PaymentError"), "400 bad request", True, None),
        (Answer(302, headers={"Location": "https://x/"}), "302 found, a redirect", False, None),
        (HANG, "timed out", False, None),
        (CUT, "connection closed in the middle of the answer", False, None),
    ],
    ids=["503", "429", "401", "400", "302", "hang", "cut"],
)
def test_what_a_failure_is_called(fault, said, of_message, retry_after_s):
    with Receiver(fault) as receiver:
        sink = AlertWebhook("team", receiver.url, timeout_s=0.5 if fault == HANG else 60.0)
        receipt = sink.send(notice())
        sink.close()
    assert not receipt.taken
    assert receipt.said.startswith(said)
    assert (receipt.of_message, receipt.retry_after_s) == (of_message, retry_after_s)


# --- apprise ---------------------------------------------------------------------------------


def made(url, **more):
    return sinks.make(SinkChoice("team", url, **more))


def test_apprise_sends_title_and_text():
    with Receiver() as receiver:
        sink = made(f"json://127.0.0.1:{receiver.port}/hunter2")
        receipts = [sink.send(notice()), sink.send(notice(RESOLVED))]
    assert [(each.taken, each.said) for each in receipts] == [(True, "taken")] * 2
    first, second = receiver.bodies
    assert (first["title"], first["message"]) == (title(notice()), text(notice()))
    assert (first["type"], second["type"]) == ("failure", "success")


def test_an_apprise_receiver_that_refuses_is_said_by_its_status_alone(caplog):
    caplog.set_level(logging.DEBUG)
    with Receiver(Answer(403, b"hunter9 is wrong")) as receiver:
        sink = made(f"json://user:hunter2@127.0.0.1:{receiver.port}/hunter3")
        receipt = sink.send(notice())
    assert receipt.said == "apprise could not send it, answered 403"
    assert "hunter" not in caplog.text + repr(sink) + sink.where
    assert caplog.records == []


def test_nobody_there(caplog):
    caplog.set_level(logging.DEBUG)
    port = unused_port()
    for url in (f"json://127.0.0.1:{port}/hunter2", f"http://127.0.0.1:{port}/hunter2"):
        sink = made(url)
        assert not sink.send(notice()).taken
        sink.close()
    assert caplog.records == []


def test_apprise_follows_no_redirect():
    with Receiver() as other, Receiver(Answer(307, headers={"Location": other.url})) as receiver:
        assert not made(f"json://127.0.0.1:{receiver.port}/").send(notice()).taken
    assert other.requests == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("json://example.org/hunter2", "unencrypted to another machine; write jsons://"),
        ("mailto://u:hunter2@example.org", "unencrypted to another machine; write mailtos://"),
        ("jsons://example.org/hunter2?verify=no", "verify=no leaves certificates unseen"),
        ("nobody://hunter2", "apprise knows no such URL"),
        ("slack://hunter2", "apprise knows no such URL"),
        ("http://example.org/hunter2", "http only to this machine"),
        ("pagerduty://", "the integration key"),
        ("pagerduty://KEY?region=hunter2", "region is not one of us, eu"),
        ("env:NO_SUCH_SINK", "alerts.sinks.team.url is env:NO_SUCH_SINK, which is not set"),
        ("file:/no/such/file", "can't be read (FileNotFoundError)"),
    ],
)
def test_what_can_t_be_used_says_the_remedy_and_no_secret(url, said, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(sinks.UnusableError) as raised:
        made(url)
    assert said in str(raised.value)
    assert "hunter" not in str(raised.value) + caplog.text


def test_without_apprise_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    with pytest.raises(sinks.UnusableError, match=r"slack:// needs apprise; pip install 'pbmon"):
        made("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://example.org/x", "webhook"),
        ("http://127.0.0.1:1/", "webhook"),
        ("pagerduty://KEY", "pagerduty"),
        ("slack://a/b/c", "apprise"),
        ("https://hooks.slack.com/services/T/B/X", "apprise"),
        ("https://acme.webhook.office.com/webhookb2/x", "apprise"),
    ],
)
def test_which_kind_a_url_is(url, kind):
    assert sinks.kind_of(url) == kind


def test_what_encrypts_is_taken(monkeypatch, tmp_path):
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    monkeypatch.setenv("TEAM", slack)
    (tmp_path / "url").write_text(f"{slack}\n")
    for url in (
        "env:TEAM", f"file:{tmp_path}/url", "mailto://u:p@gmail.com", "jsons://example.org/x",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    ):  # fmt: skip
        assert made(url).name == "team"


def test_a_secret_is_a_webhooks_alone():
    with pytest.raises(sinks.UnusableError, match="secret signs a webhook's requests"):
        made("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", secret="hunter2")


def test_the_json_is_json():
    assert json.loads(json.dumps(as_json(notice(RESOLVED))))["resolved_at"] == (
        "2026-11-25T12:12:00Z"
    )
