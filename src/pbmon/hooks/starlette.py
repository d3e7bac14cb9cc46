"""Starlette: requests to any of its applications, whoever calls it, and their routes."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from pbmon.hooks import routes
from pbmon.hooks.asgi import Receive, Send
from pbmon.hooks.patches import Patch
from pbmon.hooks.upstream import ASGIHook, layer
from pbmon.runtime import RECORD, Scope

Call = Callable[..., Awaitable[None]]


def observing(library: str) -> Callable[[Call], Call]:
    """For `__call__` of an application's class; on the class it reaches applications that were
    made earlier, and those that a test client calls."""

    def replace(call: Call) -> Call:
        @functools.wraps(call)
        async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
            if RECORD in scope:
                await call(self, scope, receive, send)
            else:
                await layer(library, functools.partial(call, self))(scope, receive, send)

        return __call__

    return replace


class StarletteHook(ASGIHook):
    library = "starlette"
    tested = "1.10"
    patches = (
        Patch("starlette.applications", "Starlette.__call__", observing("starlette")),
        Patch("starlette.routing", "Route.handle", routes.noting_route),
        Patch("starlette.routing", "WebSocketRoute.handle", routes.noting_route),
        Patch("starlette.routing", "Mount.handle", routes.noting_mount),
    )
