"""hypercorn: every ASGI application it serves, on asyncio, uvloop or trio."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import signals
from pbmon.hooks.patches import Patch
from pbmon.hooks.upstream import ASGIHook, layer

Init = Callable[..., None]


def observing(init: Init) -> Init:
    """For `ASGIWrapper.__init__`, which takes what hypercorn was given."""

    @functools.wraps(init)
    def patched(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        with signals.guard("hook hypercorn"):
            app = layer("hypercorn", app)
        init(self, app, *args, **kwargs)

    return patched


class HypercornHook(ASGIHook):
    library = "hypercorn"
    tested = "0.18"
    patches = (Patch("hypercorn.app_wrappers", "ASGIWrapper.__init__", observing),)
