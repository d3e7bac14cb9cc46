"""The server layer in gunicorn: in its own ASGI worker, and in the one that is a uvicorn."""

from __future__ import annotations

import signal

from pbmon.hooks.gunicorn import GunicornHook
from pbmon.hooks.uvicorn import UvicornHook
from tests.hooks.servers import ServerContract


class TestGunicorn(ServerContract):
    hook = GunicornHook
    ready = "ASGI server listening"
    worker = "asgi"
    more = ()

    @classmethod
    def command(cls, port, workers, app):
        options = ["--no-control-socket", "-w", str(workers), "-b", f"127.0.0.1:{port}"]
        return ["gunicorn", "-k", cls.worker, *options, *cls.more, app]


class TestPreloaded(TestGunicorn):
    """The application and the hooks are there before the workers are forked."""

    more = ("--preload",)


class TestUvicornWorker(TestGunicorn):
    hook = UvicornHook
    ready = "Application startup complete"
    worker = "uvicorn_worker.UvicornWorker"
    signals = (signal.SIGTERM,)
