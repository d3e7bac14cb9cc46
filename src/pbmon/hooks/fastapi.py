"""FastAPI: what it has beyond Starlette, whose hook must run too: both see each request."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import signals
from pbmon.hooks import routes
from pbmon.hooks.patches import Patch
from pbmon.hooks.starlette import observing
from pbmon.hooks.upstream import ASGIHook
from pbmon.runtime import Scope


def noting_api_route(handle: routes.Handle) -> routes.Handle:
    """For `APIRoute.handle`: the prefix of an included router is only in the scope."""

    def note(route: Any, scope: Scope) -> None:
        context = scope.get("fastapi", {}).get("effective_route_context")
        included = context is not None and context.original_route is route
        routes.set_route(scope, (context if included else route).path_format)

    return routes.noting(note, handle)


def noting_frontend(select: Callable[..., None]) -> Callable[..., None]:
    """For `_route_selected`, the only one told of the route of a frontend's files."""

    @functools.wraps(select)
    def selecting(*args: Any, **selected: Any) -> None:
        try:
            path = selected["path"]
            if path is not None and path.endswith(routes.REST) and not selected.get("mount"):
                routes.set_route(selected["scope"], path)
        except Exception as error:
            signals.failed("route hook", error)
        select(*args, **selected)

    return selecting


class FastAPIHook(ASGIHook):
    library = "fastapi"
    tested = "0.165"
    patches = (
        Patch("fastapi.applications", "FastAPI.__call__", observing("fastapi")),
        Patch("fastapi.routing", "APIRoute.handle", noting_api_route),
        Patch("fastapi.routing", "_route_selected", noting_frontend, optional=True),
    )
