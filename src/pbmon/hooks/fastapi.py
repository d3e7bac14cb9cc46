"""FastAPI: what it has beyond Starlette, whose hook must run too: both see each request."""

from __future__ import annotations

from typing import Any

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


class FastAPIHook(ASGIHook):
    library = "fastapi"
    tested = "0.165"
    patches = (
        Patch("fastapi.applications", "FastAPI.__call__", observing("fastapi")),
        Patch("fastapi.routing", "APIRoute.handle", noting_api_route),
    )
