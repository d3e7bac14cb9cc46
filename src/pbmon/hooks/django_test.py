"""Django's test clients: they call a handler of their own, which no server and no ASGI handler is
around; so each call is made the application of one ASGI request."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pbmon.hooks.asgi import App, Message, Receive, Send
from pbmon.hooks.upstream import layer
from pbmon.runtime import RECORD, Scope

SCOPE = "pbmon.scope"
"""Key of a WSGI environment: the scope that stands for it."""


def observing(call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """For `ClientHandler.__call__`."""

    @functools.wraps(call)
    def __call__(self: Any, environ: dict[str, Any]) -> Any:  # noqa: N807
        answers: list[Any] = []

        async def application(_: Scope, __: Receive, send: Send) -> None:
            answers.append(call(self, environ))
            await _send(answers[0], send)

        scope = environ[SCOPE] = _scope(environ)
        _drive(_observed(application, scope))
        return answers[0]

    return __call__


def observing_async(
    call: Callable[[Any, Any], Awaitable[Any]],
) -> Callable[[Any, Any], Awaitable[Any]]:
    """For `AsyncClientHandler.__call__`."""

    @functools.wraps(call)
    async def __call__(self: Any, scope: Scope) -> Any:  # noqa: N807
        if RECORD in scope:
            return await call(self, scope)
        answers: list[Any] = []

        async def application(seen: Scope, _: Receive, send: Send) -> None:
            scope[RECORD] = seen.get(RECORD)
            answers.append(await call(self, scope))
            await _send(answers[0], send)

        query = scope.get("query_string", b"")  # text, against the specification
        raw = query.encode("latin-1", "replace") if isinstance(query, str) else query
        await _observed(application, {**scope, "query_string": raw})
        return answers[0]

    return __call__


async def _observed(application: App, scope: Scope) -> None:
    await layer("django", application)(scope, _receive, _swallow)


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """To its end, which nothing in it waits for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("waits for something")


async def _send(response: Any, send: Send) -> None:
    """The answer's head; its body is the client's already."""
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body"})


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _swallow(message: Message) -> None:
    pass


def _scope(environ: dict[str, Any]) -> Scope:
    """environ: with text in Latin-1, as in PEP 3333."""
    names = {n: n[5:] for n in environ if n.startswith("HTTP_")}
    names |= {n: n for n in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(n)}
    return {
        "type": "http",
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "method": environ.get("REQUEST_METHOD", "GET"),
        "path": environ.get("PATH_INFO", "/")
        .encode("latin-1", "replace")
        .decode("utf-8", "replace"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "headers": [
            (
                name.lower().replace("_", "-").encode("latin-1", "replace"),
                str(environ[key]).encode("latin-1", "replace"),
            )
            for key, name in names.items()
        ],
        "client": (environ.get("REMOTE_ADDR", "127.0.0.1"), 0),
        "server": (environ.get("SERVER_NAME", "testserver"), int(environ.get("SERVER_PORT", 80))),
    }
