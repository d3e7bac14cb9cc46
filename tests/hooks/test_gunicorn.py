"""The server layer in gunicorn's own ASGI worker."""

from __future__ import annotations

from pbmon.hooks.gunicorn import GunicornHook
from tests.hooks.servers import ServerContract


class TestGunicorn(ServerContract):
    hook = GunicornHook
    ready = "ASGI server listening"
    more = ()

    @classmethod
    def command(cls, port, workers, app):
        bind = f"127.0.0.1:{port}"
        return ["gunicorn", "-k", "asgi", "-w", str(workers), "-b", bind, *cls.more, app]


class TestPreloaded(TestGunicorn):
    """The application and the hooks are there before the workers are forked."""

    more = ("--preload",)
