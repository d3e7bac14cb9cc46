"""What goes to Sentry, by the bytes that its client sends."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import sentry_sdk
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.transport import Transport

import pbmon
from pbmon.testing import capture

# It warns of the option by which its users have it send most.
pytestmark = pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")

CANARY = "canary.4711@example.com"


class Recording(Transport):
    sent: list[bytes] = []  # noqa: RUF012 - of the one client there is

    def capture_envelope(self, envelope):
        self.sent.append(envelope.serialize())


@pytest.fixture
def sent(monkeypatch):
    """Envelopes of an application that has Sentry send all it can."""
    monkeypatch.setattr(Recording, "sent", [])
    before = sentry_sdk.get_client()
    sentry_sdk.init(
        "https://key@sentry.invalid/1", transport=Recording, send_default_pii=True,
        max_request_body_size="always",
    )  # fmt: skip
    yield Recording.sent
    sentry_sdk.get_client().close(0)
    sentry_sdk.get_global_scope().set_client(before)


def events(sent):
    found = []
    for envelope in sent:
        lines = envelope.split(b"\n")
        for head, body in zip(lines[1::2], lines[2::2], strict=False):
            if json.loads(head).get("type") == "event":
                found.append(json.loads(body))
    return found


def fail(secret):
    note = f"local {secret}"
    raise KeyError(note)


def break_down():
    try:
        fail(CANARY)
    except KeyError as cause:
        raise ValueError(f"cannot serve {CANARY}") from cause


def track():
    try:
        break_down()
    except ValueError as error:
        return pbmon.track_error(error, user_id=CANARY)


def test_it_has_tags_types_and_frames_and_nothing_of_people(sent):
    with capture(release="1.4.2") as seen:
        sentry_sdk.set_user({"id": CANARY, "email": CANARY, "ip_address": "203.0.113.7"})
        sentry_sdk.set_extra("basket", CANARY)
        sentry_sdk.set_context("basket", {"owner": CANARY})
        sentry_sdk.add_breadcrumb(message=CANARY)
        sentry_sdk.get_isolation_scope().add_attachment(bytes=CANARY.encode(), filename="a.txt")
        assert track()
    sentry_sdk.flush()
    (event,) = events(sent)
    (entry,) = seen.entries
    assert event["tags"] == {
        "error.type": "ValueError", "pbmon.fingerprint": entry.fingerprint,
        "pbmon.release": "1.4.2",
    }  # fmt: skip
    values = event["exception"]["values"]
    assert [value["type"] for value in values] == ["KeyError", "ValueError"]
    functions = [frame["function"] for frame in values[0]["stacktrace"]["frames"]]
    assert functions[-1] == "fail"
    for payload in sent:
        for each in (CANARY.encode(), b"203.0.113.7", b"note =", b"cannot serve"):
            assert each not in payload


def test_of_a_request_its_route_is_there_and_its_data_is_not(sent):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def view(request):
        await request.body()
        track()
        return PlainTextResponse("fine")

    app = Starlette(routes=[Route("/users/{name}", view, methods=["POST"])])

    async def go():
        transport = httpx.ASGITransport(SentryAsgiMiddleware(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            await client.post(
                f"/users/{CANARY}?token={CANARY}", json={"card": CANARY},
                headers={"cookie": f"a={CANARY}", "authorization": CANARY},
            )  # fmt: skip

    with capture():
        asyncio.run(go())
    sentry_sdk.flush()
    (event,) = events(sent)
    assert event["tags"]["http.route"] == "/users/{name}"
    assert "request" not in event
    assert "user" not in event
    (envelope,) = [each for each in sent if b'"type":"event"' in each]
    assert CANARY.encode() not in envelope


def test_what_is_tracked_and_raised_again_goes_there_once(sent):
    async def raw(scope, receive, send):
        try:
            break_down()
        except ValueError as error:
            pbmon.track_error(error)
            pbmon.track_error(error)
            raise

    async def go():
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        await SentryAsgiMiddleware(raw)(scope, None, None)

    with capture(), pytest.raises(ValueError):
        asyncio.run(go())
    sentry_sdk.flush()
    assert len(events(sent)) == 1


def test_what_the_application_sends_itself_is_as_it_was(sent):
    with capture():
        track()
        sentry_sdk.set_extra("kept", "yes")
        sentry_sdk.capture_message("its own")
    sentry_sdk.flush()
    _, own = events(sent)
    assert (own["message"], own["extra"]["kept"]) == ("its own", "yes")
    assert "tags" not in own


def test_unhandled_ones_are_left_to_sentrys_own_integrations(sent):
    from pbmon import runtime

    with capture() as seen:
        try:
            break_down()
        except ValueError as error:
            runtime.active.errors.seen(error)
    sentry_sdk.flush()
    assert (len(seen.entries), events(sent)) == (1, [])


def test_without_a_client_or_without_sentry_nothing_is_sent(monkeypatch):
    with capture() as seen:
        track()
        monkeypatch.setitem(__import__("sys").modules, "sentry_sdk", None)
        track()
    assert len(seen.entries) == 2


def test_a_client_that_fails_is_told_and_the_error_is_counted(sent, monkeypatch, caplog):
    monkeypatch.setattr("pbmon.signals.reraise", False)
    monkeypatch.setattr("pbmon.signals._last_told", {})

    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(sentry_sdk, "new_scope", broken)
    with capture() as seen:
        assert track()
    assert len(seen.entries) == 1
    assert "sending an error to Sentry failed" in caplog.text
    assert CANARY not in caplog.text
