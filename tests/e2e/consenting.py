"""A process of its own that serves requests of people who agree, refuse and were never asked, and
exports everything:

    python -m tests.e2e.consenting

Its settings are those of the environment.
"""

from __future__ import annotations

import asyncio
import time

import pbmon
from pbmon import wiring
from pbmon.hooks.asgi import Observed
from pbmon.runtime import active

PEOPLE = ("agrees", "refuses", "unasked")
PATIENCE_S = 30.0


def user(name: str) -> str:
    return f"user-{name}-canary"


def session(name: str) -> str:
    return f"session-{name}-canary"


async def _app(scope, _receive, send):
    name = scope["user"].split("-")[1]
    pbmon.track("bought", {"note": f"{name}-canary"})
    pbmon.track_feature("export", "viewed", note=f"{name}-canary")
    pbmon.feedback(9, comment=f"{name}-canary")
    pbmon.identify(scope["user"])
    pbmon.track_revenue("1", "USD", transaction_id=name)
    pbmon.track("looked", {"note": "denied-canary"}, consent=False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _swallow(_message):
    pass


def request(name: str) -> None:
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "root_path": "", "query_string": b"",
        "headers": [(b"x-session", session(name).encode())], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "user": user(name),
    }  # fmt: skip
    asyncio.run(Observed(_app)(scope, None, _swallow))


def main() -> None:
    wiring.EXIT_TIMEOUT_S = PATIENCE_S
    pbmon.configure()
    pbmon.consent.grant(user("agrees"))
    pbmon.consent.withdraw(user("refuses"))
    assert pbmon.flush(PATIENCE_S)
    until_s = time.monotonic() + PATIENCE_S
    while active.pseudonyms.of(user("agrees")) is None and time.monotonic() < until_s:
        time.sleep(0.05)
    for name in PEOPLE:
        request(name)


if __name__ == "__main__":
    main()
