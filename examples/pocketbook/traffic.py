"""Real HTTP and WebSocket traffic: a mix of normal, slow, failing and over-budget requests."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from examples.pocketbook.money import PLACES, to_major
from examples.pocketbook.schema import CATEGORIES, USERS
from examples.pocketbook.simulation import HEADER

RATE_PER_S = 75.0
AT_ONCE = 40
WATCHERS = 4
TIMEOUT_S = 15.0

Feature = tuple[str, str]


@dataclass(frozen=True)
class Call:
    """One request, and what it means for the business if it succeeds."""

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    simulate: str | None = None
    revenue: tuple[str, Decimal] | None = None
    features: tuple[Feature, ...] = ()


@dataclass
class Sent:
    """The load generator's own books, with which the telemetry is compared."""

    requests: int = 0
    websockets: int = 0
    lost: int = 0
    """Requests and WebSockets without an answer: nobody knows whether the app has seen them."""
    statuses: Counter[int] = field(default_factory=Counter)
    revenue: dict[str, Decimal] = field(default_factory=dict)
    features: Counter[Feature] = field(default_factory=Counter)

    def add(self, call: Call, status: int) -> None:
        self.requests += 1
        self.statuses[status] += 1
        if status >= 400:
            return
        self.features.update(call.features)
        if call.revenue is not None:
            currency, amount = call.revenue
            self.revenue[currency] = self.revenue.get(currency, Decimal(0)) + amount


def _sale(chance: random.Random) -> Call:
    currency = chance.choices(tuple(PLACES), (8, 6, 4, 2, 2, 1))[0]
    amount = to_major(chance.randint(150, 25_000), currency)
    status = chance.choices(("completed", "pending", "failed"), (88, 8, 4))[0]
    body = {
        "user_id": chance.randint(1, USERS),
        "amount": str(amount),
        "currency": currency,
        "merchant": chance.choice(("Corner Market", "Northline Rail", "Harbour Books")),
        "category": chance.choice(CATEGORIES),
        "status": status,
    }
    revenue = (currency, amount) if status == "completed" else None
    return Call("POST", "/api/transactions", body=body, revenue=revenue)


def _export(chance: random.Random, simulate: str | None = None) -> Call:
    body = {"format": chance.choice(("csv", "json")), "currency": chance.choice(tuple(PLACES))}
    used = (("data_export", "clicked"), ("data_export", "completed"))
    return Call("POST", "/api/export", body=body, features=used, simulate=simulate)


def _dashboard(chance: random.Random, simulate: str | None = None) -> Call:
    days = {"days": chance.choice((7, 30, 90))}
    used = (("analytics_dashboard", "viewed"),)
    return Call("GET", "/api/analytics/dashboard", days, simulate=simulate, features=used)


def _list(chance: random.Random, simulate: str | None = None) -> Call:
    params = {"limit": 20, "offset": 20 * chance.randint(0, 5)}
    return Call("GET", "/api/transactions", params, simulate=simulate)


def _search(chance: random.Random) -> Call:
    params = {"q": chance.choice(("market", "rail", "books", "100%"))}
    used = (("transaction_search", "completed"),)
    return Call("GET", "/api/transactions", params, features=used)


def _users(chance: random.Random, simulate: str | None = None) -> Call:
    return Call("GET", "/api/users", {"offset": chance.choice((0, 20))}, simulate=simulate)


def _slow(low: float, high: float, chance: random.Random) -> str:
    return f"slow-query={chance.uniform(low, high):.3f}"


# What happens, and how often. The list is also the tour: each of them once at the start.
MIX: tuple[tuple[float, Callable[[random.Random], Call]], ...] = (
    (26, _list),
    (6, _search),
    (22, _sale),
    (14, _users),
    (10, lambda c: Call("GET", f"/api/users/{c.randint(1, USERS)}")),
    (6, _dashboard),
    (5, _export),
    # Slow: past p95 and p99 of the budget, past its max, and slow by any measure.
    (1.2, lambda c: _list(c, _slow(0.31, 0.39, c))),
    (0.8, lambda c: _list(c, _slow(0.51, 0.70, c))),
    (1.0, lambda c: _users(c, _slow(0.21, 0.30, c))),
    (0.6, lambda c: _dashboard(c, _slow(1.05, 1.30, c))),
    (0.6, lambda c: _export(c, _slow(0.15, 0.40, c))),
    # Failing, by the app's fault …
    (0.6, lambda c: _dashboard(c, "crash")),
    (0.6, lambda c: _export(c, "database-error")),
    # … and by the client's.
    (1.2, lambda c: Call("GET", f"/api/transactions/txn_{c.getrandbits(128):032x}")),
    (1.0, lambda c: Call("POST", "/api/transactions", body={"user_id": 1, "amount": "-5"})),
    (0.8, lambda _: Call("GET", "/wp-login.php")),
)


class Traffic:
    """Drives the app for a while. The same seed gives the same requests in the same order."""

    def __init__(self, url: str, *, seconds: float, seed: int = 1) -> None:
        self.sent = Sent()
        self._url = url
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, progress: Callable[[float], None]) -> Sent:
        """progress is told the share of the time that has passed, often."""
        end_s = time.monotonic() + self._seconds
        # uvicorn closes a connection that is idle for 5 s; not to meet it then, close earlier.
        limits = httpx.Limits(max_keepalive_connections=AT_ONCE, keepalive_expiry=2)
        async with httpx.AsyncClient(
            base_url=self._url, limits=limits, timeout=TIMEOUT_S, trust_env=False
        ) as client:
            over = asyncio.Event()
            self._start(*(self._watch(number, over) for number in range(WATCHERS)))
            try:
                await self._send_all(client, end_s, progress)
                over.set()
                await asyncio.gather(*self._tasks)
            finally:  # after Ctrl-C, none of them may meet a closed client
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        progress(1.0)
        return self.sent

    def _start(self, *works: Coroutine[Any, Any, None]) -> None:
        self._tasks += [asyncio.create_task(work) for work in works]

    async def _send_all(
        self, client: httpx.AsyncClient, end_s: float, progress: Callable[[float], None]
    ) -> None:
        """Requests at an even rate, late answers or not."""
        weights, makers = zip(*MIX, strict=True)
        tour = list(makers)
        self._chance.shuffle(tour)
        next_s = start_s = time.monotonic()
        while (now_s := time.monotonic()) < end_s:
            make = tour.pop() if tour else self._chance.choices(makers, weights)[0]
            await self._slots.acquire()
            self._start(self._send(client, make(self._chance)))
            progress((now_s - start_s) / self._seconds)
            next_s = max(next_s + 1 / RATE_PER_S, now_s - 1)
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _send(self, client: httpx.AsyncClient, call: Call) -> None:
        # uvicorn closes the connection on which the app raised: it must not be used again.
        headers = {HEADER: call.simulate, "Connection": "close"} if call.simulate else {}
        try:
            answer = await client.request(
                call.method, call.path, params=call.params, json=call.body, headers=headers
            )
            self.sent.add(call, answer.status_code)
        except httpx.TransportError:
            self.sent.lost += 1
        finally:
            self._slots.release()

    async def _watch(self, number: int, over: asyncio.Event) -> None:
        """Someone who looks at their balances, goes away and comes back, as people do."""
        chance = random.Random(number)
        url = self._url.replace("http://", "ws://") + "/ws/balances"
        while not over.is_set():
            user = f"{url}?user_id={chance.randint(1, USERS)}"
            try:
                async with connect(user, proxy=None, open_timeout=TIMEOUT_S) as socket:
                    self.sent.websockets += 1
                    self.sent.features["live_balances", "viewed"] += 1
                    await self._look(socket, chance, over)
            except (OSError, WebSocketException, asyncio.TimeoutError):
                self.sent.lost += 1
                return

    @staticmethod
    async def _look(socket: Any, chance: random.Random, over: asyncio.Event) -> None:
        with suppress(ConnectionClosed):
            for _ in range(chance.randint(3, 8)):
                await socket.recv()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), chance.uniform(0.2, 0.8))
                if over.is_set():
                    return
                await socket.send("refresh")
            await socket.recv()
