"""The server layer in granian, whose workers are forked by multiprocessing."""

from __future__ import annotations

from pbmon.hooks.granian import GranianHook
from pbmon.hooks.multiprocessing import MultiprocessingHook
from tests.hooks.servers import ServerContract


class TestGranian(ServerContract):
    hook = GranianHook
    ready = "Started worker-"
    also = (MultiprocessingHook,)

    @classmethod
    def command(cls, port, workers, app):
        bind = ["--host", "127.0.0.1", "--port", str(port)]
        return ["granian", "--interface", "asgi", *bind, "--workers", str(workers), app]
