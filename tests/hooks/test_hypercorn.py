"""The server layer in hypercorn, whose workers are spawned."""

from __future__ import annotations

from pbmon.hooks.hypercorn import HypercornHook
from tests.hooks.servers import ServerContract


class TestHypercorn(ServerContract):
    hook = HypercornHook
    ready = "Running on"
    told = 1006

    @classmethod
    def command(cls, port, workers, app):
        return ["hypercorn", "-b", f"127.0.0.1:{port}", "-w", str(workers), app]
