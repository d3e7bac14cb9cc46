"""feedback_app: what it answers, to whom, and that it repeats nothing; alone and under servers."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from pbmon import identity, runtime
from pbmon.business import feedback_app as module
from pbmon.business.feedback_app import BURST, MAX_BODY, FeedbackApp
from pbmon.testing import capture
from tests.hooks.recorder import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "hunter2-<script>"


@pytest.fixture
def app():
    return FeedbackApp()


def post(app, body=None, *, content=None, headers=None, method="POST", path="/"):
    """One request, without a server and without a hook."""

    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://shop") as client:
            more = {"content-type": "application/json"} | (headers or {})
            data = content if content is not None else json.dumps(body).encode()
            return await client.request(method, path, content=data, headers=more)

    return asyncio.run(send())


def problem(answer):
    """Status and reason of a well-formed problem (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["type"] == "about:blank"
    assert told["status"] == answer.status_code
    assert told["title"]
    assert told["detail"].endswith(".")
    assert SECRET not in answer.text
    return answer.status_code, told["reason"]


def test_an_answer_is_taken(app):
    sent = {"survey": "csat", "score": 4, "comment": "I am a@b.cc", "traceId": TRACE,
            "feedbackId": "f", "userId": 7, "more": [1]}  # fmt: skip
    with capture() as seen:
        answer = post(app, sent)
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in answer.headers)
    (entry,) = seen.entries
    assert entry[1:] == ("csat", 4, "I am [email]", None, None, TRACE, None, "f", None)
    assert seen.metric("pbmon.feedback.responses", pbmon__feedback__score=4) == 1


def test_nps_is_the_survey_that_is_left_out_and_a_wrong_trace_is_passed_over(app):
    with capture() as seen:
        for trace in (None, "x", "0" * 32, TRACE + "0"):
            assert post(app, {"score": 10, "traceId": trace}).status_code == 202
    assert [(entry.survey, entry.score, entry.trace_id) for entry in seen.entries] == [
        ("nps", 10, None)
    ] * 4


def test_the_user_is_that_of_the_request_never_of_the_body(app):
    async def signed_in(scope, receive, send):
        scope["user"] = {"id": 7}
        await app(scope, receive, send)

    sent = {"score": 9, "user_id": 8, "userId": 8, "user": "8"}
    with capture(session_from="header:x-session") as seen:
        assert post(signed_in, sent, headers={"x-session": "s"}).status_code == 202
        assert identity.current() is None
        assert post(app, sent).status_code == 202
    assert [(entry.user_id, entry.session_id) for entry in seen.entries] == [
        ("7", "s"), (None, None)
    ]  # fmt: skip


WRONG = [
    ({"score": 11}, "bad_score"), ({}, "bad_score"), ({"survey": SECRET, "score": 1}, "bad_survey"),
    ({"score": "9"}, "bad_type"), ({"score": True}, "bad_type"), ({"score": 9.5}, "bad_type"),
    ({"score": 9, "comment": [SECRET]}, "bad_type"), ({"score": 9, "survey": 5}, "bad_type"),
    ({"survey": "text"}, "no_comment"),
    ({"score": 9, "feedbackId": SECRET * 30}, "bad_feedback_id"),
    ({"score": 9, "traceId": 5}, "bad_type"), ([SECRET], "bad_json"), (SECRET, "bad_json"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "reason"), WRONG)
def test_a_wrong_value_is_a_problem_counted_and_never_raised(app, sent, reason):
    with capture(strict=True) as seen:
        assert problem(post(app, sent)) == (400, reason)
    assert seen.entries == []
    refused = {"pbmon__call": "feedback_app", "pbmon__reason": reason}
    assert seen.metric("pbmon.refused_calls", **refused) == 1
    assert seen.logs == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{", b"[" * 5000, b'{"score": 1e999}', b'{"score": NaN}']
)
def test_what_is_no_json_is_a_problem(app, content):
    with capture() as seen:
        assert problem(post(app, content=content))[0] == 400
    assert seen.entries == []


def test_other_methods_and_media_are_refused(app):
    with capture() as seen:
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = post(app, {"score": 9}, method=method)
            assert problem(answer) == (405, "bad_method")
            assert answer.headers["allow"] == "POST"
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            told = post(app, {"score": 9}, headers={"content-type": kind})
            assert problem(told) == (415, "bad_media_type")
        fine = {"content-type": "Application/JSON; charset=utf-8"}
        assert post(app, {"score": 9}, headers=fine).status_code == 202
    assert len(seen.entries) == 1


def test_a_large_body_is_refused_whatever_it_says_of_itself(app):
    async def endless():
        while True:
            yield b" " * 4096

    large = b'{"score": 9, "comment": "' + b"x" * MAX_BODY + b'"}'
    with capture() as seen:
        assert problem(post(app, content=large)) == (413, "too_large")
        assert problem(post(app, content=endless())) == (413, "too_large")
        for length in ("9" * 30, str(MAX_BODY + 1)):
            lying = post(app, content=b"{}", headers={"content-length": length})
            assert problem(lying) == (413, "too_large")
        assert post(app, {"score": 9, "comment": "é" * 5000}).status_code == 202
    assert len(seen.entries) == 1


SITES = [
    ({}, 202),
    ({"sec-fetch-site": "same-origin", "origin": "https://shop"}, 202),
    ({"sec-fetch-site": "same-site", "origin": "https://www.shop"}, 202),
    ({"sec-fetch-site": "none"}, 202),
    ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "cross-site", "origin": "https://friend.example"}, 202),
    ({"origin": "https://shop"}, 202),
    ({"origin": "https://SHOP"}, 202),
    ({"origin": "https://friend.example"}, 202),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "http://friend.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "https://[evil"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), SITES)
def test_pages_of_other_sites_are_refused_but_those_named(app, headers, status):
    with capture(feedback_origins=["https://friend.example"]) as seen:
        answer = post(app, {"score": 9}, headers=headers)
    assert answer.status_code == status
    assert len(seen.entries) == (status == 202)
    if status == 403:
        assert problem(answer) == (403, "cross_site")


def test_too_many_are_refused_until_time_has_gone_by(app, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    app.bucket = module.Bucket()
    with capture() as seen:
        for _ in range(BURST):
            app.bucket.take()
        answer = post(app, {"score": 9})
        assert problem(answer) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "1"
        now[0] += 2 / module.RATE
        assert [post(app, {"score": 9}).status_code for _ in range(3)] == [202, 202, 429]
        now[0] += 10_000
        for _ in range(BURST):
            app.bucket.take()
        assert post(app, {"score": 9}).status_code == 429
    assert len(seen.entries) == 2


@pytest.mark.parametrize("reason", ["full", "io_error", "no_state_directory"])
def test_where_there_is_no_room_it_is_unavailable(app, reason, monkeypatch):
    with capture() as seen:
        monkeypatch.setattr(seen, "put", lambda payload: reason)
        answer = post(app, {"score": 9})
    assert problem(answer) == (503, reason)
    assert answer.headers["retry-after"] == "60"


def test_before_configure_it_is_unavailable(app, monkeypatch):
    monkeypatch.setattr(runtime.active, "feedback", None)
    assert problem(post(app, {"score": 9})) == (503, "not_configured")


def test_a_fault_of_ours_is_unavailable(app, monkeypatch):
    monkeypatch.setattr("pbmon.signals.reraise", False)
    with capture() as seen:
        monkeypatch.setattr(seen, "put", lambda payload: 1 / 0)
        assert problem(post(app, {"score": 9})) == (503, "failed")


def test_a_client_that_left_is_answered_nothing(app):
    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/",
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip
    with capture() as seen:
        asyncio.run(app(scope, receive, send))
    assert (sent, seen.entries) == ([], [])


# --- under servers ---


def starlette(app):
    return Starlette(routes=[Mount("/mounted", app), Route("/route", app, methods=["POST"])])


def fastapi(app):
    made = FastAPI()
    made.mount("/mounted", app)
    made.add_route("/route", app, methods=["POST"])
    return made


def bare(app):
    return app


@pytest.mark.parametrize("make", [starlette, fastapi, bare])
def test_under_uvicorn(make, app):
    with (
        capture() as seen,
        serving(make(app)) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        for path in ("/mounted/", "/route"):
            assert client.post(path, json={"score": 9, "comment": "a@b.cc"}).status_code == 202
            assert problem(client.post(path, json={"score": 99})) == (400, "bad_score")
        large = client.post("/mounted/", json={"score": 9, "comment": "x" * (3 * MAX_BODY)})
        assert problem(large) == (413, "too_large")
    assert [entry.comment for entry in seen.entries] == ["[email]"] * 2
    assert len({entry.trace_id for entry in seen.entries} - {None}) == 2  # of its own request
