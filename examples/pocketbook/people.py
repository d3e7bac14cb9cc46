"""Who calls, and of which plan they are: said once, for everything that a request tracks."""

from __future__ import annotations

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

import pbmon
from examples.pocketbook.models import MAX_ID

HEADER = "X-User-Id"
"""Set by whoever signs people in before the app; `user_from` in pbmon.toml names it as well."""


class Plans:
    """Middleware: figures can be divided by the plan of the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(HEADER, "") if scope["type"] != "lifespan" else ""
        user = None
        if given.isascii() and given.isdecimal() and int(given) <= MAX_ID:
            user = await run_in_threadpool(scope["app"].state.ledger.user, int(given))
        if user is None:
            await self._app(scope, receive, send)
            return
        with pbmon.context(plan=user.plan):
            await self._app(scope, receive, send)
