"""Route templates of Starlette and FastAPI, put together while a request finds its way.

The template describes the path of the URL: each mount on the way adds its part to
`scope[PREFIX]`, the route that takes the request completes it. Nothing matched: no route.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from pbmon import signals
from pbmon.runtime import RECORD, Scope

PREFIX = "pbmon.prefix"
"""Scope key of the template matched so far: mounts, and a root path the server was given."""

REST = "/{path}"
"""What stands for the path below a mount whose own routes are not known."""

Handle = Callable[..., Awaitable[None]]


def noting(note: Callable[[Any, Scope], None], handle: Handle) -> Handle:
    """A route's `handle` that lets `note(route, scope)` see the request first."""

    @functools.wraps(handle)
    def patched(self: Any, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        try:
            note(self, scope)
        except Exception as error:
            signals.failed("route hook", error)
        return handle(self, scope, receive, send)

    return patched


def set_route(scope: Scope, template: str) -> None:
    """This template, relative to the mounts on the way, has taken the request."""
    record = scope.get(RECORD)
    if record is not None:
        record.route = scope.get(PREFIX, "") + template


def noting_route(handle: Handle) -> Handle:
    """For `Route.handle` and `WebSocketRoute.handle`."""
    return noting(lambda route, scope: set_route(scope, route.path_format), handle)


def noting_mount(handle: Handle) -> Handle:
    """For `Mount.handle`.

    A mounted application that has no routes known here (static files, any other framework) is
    the end of the way: `/static/{path}`. One that has them completes the route or answers 404.
    """
    from starlette.routing import Router  # imported already: its Mount is being patched

    def note(mount: Any, scope: Scope) -> None:
        if not _leads_to(mount.app, Router):
            set_route(scope, mount.path_format)
        # The concrete path is in root_path; only the template may get into the route.
        prefix = mount.path_format.removesuffix(REST)
        if prefix:
            scope[PREFIX] = scope.get(PREFIX, "") + prefix

    return noting(note, handle)


def _leads_to(app: Any, router: type) -> bool:
    """Whether there is a router behind the middleware, if any, of a mounted application."""
    for _ in range(16):
        if isinstance(app, router) or isinstance(getattr(app, "router", None), router):
            return True
        app = getattr(app, "app", None)
        if app is None:
            return False
    return False
