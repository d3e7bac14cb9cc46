"""uvicorn: every application it serves, whatever its framework."""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from pbmon import signals
from pbmon.hooks import asgi, routes
from pbmon.hooks.asgi import App, Receive, Send
from pbmon.hooks.patches import Patch
from pbmon.hooks.upstream import ASGIHook, layer
from pbmon.runtime import PEER, RECORD, Scope

Startup = Callable[..., Awaitable[None]]


class Entrance:
    """What uvicorn calls. Keeps the TCP peer before proxy headers are believed."""

    __slots__ = ("app", "root_path")

    def __init__(self, app: App, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            scope[RECORD] = None  # Server.shutdown flushes, with and without a lifespan
        else:
            scope[PEER] = scope.get("client")
            if self.root_path:  # uvicorn puts it before the path
                scope[routes.PREFIX] = self.root_path
        return self.app(scope, receive, send)


def observed(config: Any) -> Any:
    """The application of a loaded uvicorn.Config with our layers in their places: the record
    inside ProxyHeadersMiddleware, so that it sees the client's address and scheme."""
    app: Any = config.loaded_app
    if isinstance(app, Entrance) or config.interface == "wsgi":
        return app
    if type(app).__name__ == "ProxyHeadersMiddleware":
        outer = copy.copy(app)
        outer.app = layer("uvicorn", app.app)
    else:
        outer = layer("uvicorn", app)
    return Entrance(outer, config.root_path)


def observing(startup: Startup) -> Startup:
    """For `Server.startup`: the configuration is loaded by then, by uvicorn or by its user, and
    no connection or lifespan has taken the application yet."""

    @functools.wraps(startup)
    async def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        with signals.guard("hook uvicorn"):
            self.config.loaded_app = observed(self.config)
        asgi.watch_loop()
        await startup(self, *args, **kwargs)

    return patched


def flushing(shutdown: Startup) -> Startup:
    """For `Server.shutdown`: afterwards uvicorn raises the signal that ended it once more, and
    the process is gone without an atexit."""

    @functools.wraps(shutdown)
    async def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            await shutdown(self, *args, **kwargs)
        finally:
            # A second Ctrl-C, before the flush or during it, asks for the exit at once.
            if not getattr(self, "force_exit", False):
                await asgi.flush(skip=lambda: getattr(self, "force_exit", False))

    return patched


class UvicornHook(ASGIHook):
    library = "uvicorn"
    tested = "0.54"
    patches = (
        Patch("uvicorn.server", "Server.startup", observing),
        Patch("uvicorn.server", "Server.shutdown", flushing),
    )
