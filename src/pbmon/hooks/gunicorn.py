"""gunicorn's own ASGI worker: every application it serves. Its uvicorn workers are uvicorn's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pbmon import signals
from pbmon.hooks.patches import Patch
from pbmon.hooks.upstream import ASGIHook, layer

Run = Callable[..., None]


def observing(run: Run) -> Run:
    """For `ASGIWorker.run`: the worker has loaded its application, with whatever code configures
    pbmon there, and nothing has asked for it yet."""

    @functools.wraps(run)
    def patched(self: Any, *args: Any, **kwargs: Any) -> None:
        with signals.guard("hook gunicorn"):
            self.asgi = layer("gunicorn", self.asgi)
        run(self, *args, **kwargs)

    return patched


class GunicornHook(ASGIHook):
    library = "gunicorn"
    tested = "27.0"
    patches = (Patch("gunicorn.workers.gasgi", "ASGIWorker.run", observing),)
