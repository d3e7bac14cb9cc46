"""granian: every ASGI application it serves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import signals
from pbmon.hooks.patches import Patch
from pbmon.hooks.upstream import ASGIHook, layer

Taking = Callable[..., Any]


def observing(taking: Taking) -> Taking:
    """For what takes the application: one makes the callback of its requests, one its lifespan."""

    @functools.wraps(taking, updated=())
    def patched(app: Any, *args: Any, **kwargs: Any) -> Any:
        with signals.guard("hook granian"):
            app = layer("granian", app)
        return taking(app, *args, **kwargs)

    return patched


class GranianHook(ASGIHook):
    """The names are bound where they are used: in the servers of processes and of threads, and
    in the one that an application embeds."""

    library = "granian"
    tested = "2.8"
    patches = tuple(
        Patch(f"granian.server.{server}", name, observing)
        for server in ("mp", "mt", "embed")
        for name in ("_asgi_call_wrap", "LifespanProtocol")
    )
