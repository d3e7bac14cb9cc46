"""feedback_app: takes answers to surveys from browsers, as an ASGI application."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from pbmon import identity, runtime, signals
from pbmon.business.feedback import NO_CONSENT, is_trace_id
from pbmon.business.refusals import RefusalError
from pbmon.runtime import Scope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 32 * 1024
RATE = 20.0
"""Answers a second that a process takes in the long run, of all clients together."""

BURST = 200
_WAIT_S = 60


class ProblemError(Exception):
    """An answer as RFC 9457 has it: reason is a fixed word, detail a sentence. Neither holds
    anything that the client sent."""

    def __init__(self, status: HTTPStatus, reason: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.headers = headers

    def body(self) -> bytes:
        return json.dumps(
            {
                "type": "about:blank",
                "title": self.status.phrase,
                "status": self.status.value,
                "detail": str(self),
                "reason": self.reason,
            }
        ).encode()


class Bucket:
    """Tokens that come back at a rate. Nothing is locked: threads may take one too many."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at_s = time.monotonic()

    def take(self) -> None:
        """Raises ProblemError where there is none left."""
        now_s = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now_s - self._at_s) * RATE)
        self._at_s = now_s
        if self._tokens < 1:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS, "rate_limited",
                "Too many answers are being given; try again later.", retry_after="1",
            )  # fmt: skip
        self._tokens -= 1


class FeedbackApp:
    """Takes answers to surveys: an ASGI application, to be mounted under any path.

    POST application/json, at most 32 KiB: {"survey": "nps", "score": 9, "comment": "…",
    "traceId": "…", "feedbackId": "…"}, as of feedback(); survey is nps if left out. Who answers is
    the user of the request, never what the body says; a traceId that is none is passed over, and
    without one the trace is the request's own.

    Answers 202, or an application/problem+json with a `reason`: 400 for a wrong value, 403 for
    another site's page that `feedback_origins` does not name, 405, 413, 415, 429 for more than 20
    answers a second in this process, 503 where there is no room. It sends no CORS headers and
    repeats nothing that it was sent.
    """

    def __init__(self) -> None:
        self.bucket = Bucket()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Where no hook of a server or framework stands before it, it finds the user itself.
        begun = identity.begin(scope) if identity.current() is None else None
        try:
            headers = _single(scope.get("headers") or ())
            _check_head(scope["method"], headers)
            self.bucket.take()
            body = await _read(receive, headers)
            if body is None:
                return
            _take(body)
        except ProblemError as problem:
            runtime.active.refusals("feedback_app", problem.reason)
            await _send(send, problem.status, problem.body(), problem.headers)
        else:
            await _send(send, HTTPStatus.ACCEPTED, b"", {})
        finally:
            if begun is not None:
                identity.end(begun)


feedback_app = FeedbackApp()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """By lower-case name, the last of each."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def _check_head(method: str, headers: dict[str, str]) -> None:
    if method != "POST":
        raise ProblemError(
            HTTPStatus.METHOD_NOT_ALLOWED, "bad_method", "Answers are sent by POST.", allow="POST"
        )
    if not _is_allowed(headers):
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "cross_site",
            "This page may not send answers; name its origin in the setting feedback_origins.",
        )  # fmt: skip
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bad_media_type", "Send application/json."
        )


def _is_allowed(headers: dict[str, str]) -> bool:
    """By what browsers say of the page that sends; other clients say nothing and may."""
    origin = headers.get("origin")
    if origin is not None and origin in runtime.active.settings.feedback_origins:
        return True
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site != "cross-site"
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


async def _read(receive: Receive, headers: dict[str, str]) -> bytes | None:
    """The body; None if the client left. Raises ProblemError for a large one."""
    too_large = ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"Send at most {MAX_BODY:,} bytes."
    )
    length = headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 9 or int(length) > MAX_BODY):
        raise too_large
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body") or b""
        if len(body) > MAX_BODY:
            raise too_large
        if not message.get("more_body"):
            return body


_FIELDS: tuple[tuple[str, type], ...] = (
    ("survey", str), ("score", int), ("comment", str), ("feedbackId", str), ("traceId", str),
)  # fmt: skip


def _take(body: bytes) -> None:
    """Raises ProblemError."""
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "bad_json", "Send one object of JSON.")
    for name, wanted in _FIELDS:
        value = sent.get(name)
        if value is not None and type(value) is not wanted:
            kind = "a whole number" if wanted is int else "a text"
            raise ProblemError(HTTPStatus.BAD_REQUEST, "bad_type", f"{name} must be {kind}.")
    trace_id = sent.get("traceId")
    sink = runtime.active.feedback
    reason = "not_configured"
    if sink is not None:
        try:
            verdict = sink.answer(
                sent.get("survey") or "nps",
                sent.get("score"),
                sent.get("comment"),
                None,
                sent.get("feedbackId"),
                trace_id if trace_id is not None and is_trace_id(trace_id) else None,
            )
        except RefusalError as error:
            detail = _SENTENCES.get(error.reason, "A value is wrong.")
            raise ProblemError(HTTPStatus.BAD_REQUEST, error.reason, detail) from None
        except Exception as error:
            signals.failed("feedback_app", error)
            reason = "failed"
        else:
            # Counted, as they wished: nothing that they could try again.
            reason = "" if verdict == NO_CONSENT else getattr(verdict, "reason", "")
    if reason:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, reason,
            "Answers can't be taken now; try again later.", retry_after=str(_WAIT_S),
        )  # fmt: skip


_SENTENCES = {
    "bad_survey": "There is no such survey.",
    "bad_score": "The survey does not have this score.",
    "no_comment": "An answer to this survey is a comment.",
    "bad_feedback_id": "feedbackId must have 1 to 255 characters.",
}


async def _send(send: Send, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
    sent = [
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
    ]
    if body:
        sent.append((b"content-type", b"application/problem+json"))
    await send({"type": "http.response.start", "status": status.value, "headers": sent})
    await send({"type": "http.response.body", "body": body})
