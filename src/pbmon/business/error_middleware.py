"""error_middleware: an exception that nobody handled becomes an answer, as an ASGI middleware."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from opentelemetry import trace

from pbmon import errors, privacy, runtime, signals
from pbmon.peers import Network, TrustedPeers
from pbmon.runtime import RECORD, Scope, peer_address

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[Any]]

INTERNAL_ERROR = 1011
"""Close code of a WebSocket (RFC 6455, 7.4.1)."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class ErrorMiddleware:
    """See error_middleware()."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._talk(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if started or not errors.is_failure(error):
                raise
            request_id = _request_id(scope)
            _report(scope, error, request_id)
            await _send(scope, send, request_id)

    async def _talk(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False

        async def receiving() -> Message:
            nonlocal is_over
            message = await receive()
            is_over = is_over or message["type"] == "websocket.disconnect"
            return message

        async def sending(message: Message) -> None:
            nonlocal is_over
            is_over = is_over or message["type"] == "websocket.close"
            await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception as error:
            if not errors.is_failure(error):
                raise
            _report(scope, error, _request_id(scope))
            if not is_over:
                with suppress(Exception):  # the client may have left meanwhile
                    await send({"type": "websocket.close", "code": INTERNAL_ERROR})


def error_middleware(app: App) -> ErrorMiddleware:
    """Answer an exception that nobody handled, as an ASGI middleware.

        app.add_middleware(pbmon.error_middleware)    # Starlette, FastAPI
        app = pbmon.error_middleware(app)             # any ASGI application

    app: the application within.

    Where nothing was sent yet, the answer is 500 with application/json:
    {"error": {"message": "Internal server error", "requestId": "…"}}. The id is that of the
    request's header x-request-id (setting `request_id_header`) if a trusted peer sent it and it is
    1 to 128 letters, digits or ._:/+=@- ; else the trace id; else a random one. It is in the
    answer's header of the same name too. A WebSocket is closed with 1011. What comes after the
    answer has begun goes on to the server, which breaks the connection off.

    The exception is counted, and is on the request's span, as without this middleware. Type, frames
    and request id are logged by `pbmon.errors`; its message is in no log and in no answer.
    """
    return ErrorMiddleware(app)


def _report(scope: Scope, error: Exception, request_id: str) -> None:
    """To the record of the request, which reports it to the error monitor; else there itself."""
    with signals.guard("error_middleware"):
        record = scope.get(RECORD)
        if record is not None:
            record.failed(error)
        else:
            runtime.active.errors.seen(error)
        runtime.logger("errors").error(
            "Unhandled %s in request %s\n%s",
            errors.type_of(error),
            request_id,
            privacy.frames(errors.traceback_of(error)),
        )


def _request_id(scope: Scope) -> str:
    with signals.guard("error_middleware"):
        given = _given(scope)
        if given is not None:
            return given
        trace_id = trace.get_current_span().get_span_context().trace_id
        if trace_id:
            return f"{trace_id:032x}"
    return uuid.uuid4().hex


def _given(scope: Scope) -> str | None:
    """The id that the request came with, if who sent it may say so."""
    settings = runtime.active.settings
    wanted = settings.request_id_header.encode("latin-1")
    given = [value for name, value in scope.get("headers") or () if name.lower() == wanted]
    if len(given) != 1:
        return None
    text = bytes(given[0]).decode("latin-1")
    if not _peers(settings.trusted_peers).trusts(peer_address(scope)):
        return None
    return text if _REQUEST_ID.fullmatch(text) else None


@lru_cache(maxsize=4)
def _peers(networks: tuple[Network, ...]) -> TrustedPeers:
    return TrustedPeers(networks)


async def _send(scope: Scope, send: Send, request_id: str) -> None:
    answer = {"error": {"message": "Internal server error", "requestId": request_id}}
    body = json.dumps(answer).encode()
    name = runtime.active.settings.request_id_header.encode("latin-1")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (name, request_id.encode("latin-1")),
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
