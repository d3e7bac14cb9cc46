"""Real HTTP and WebSocket traffic: a mix of normal, slow, failing and over-budget requests."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from examples.pocketbook import people
from examples.pocketbook.books import Call, Money, Sent
from examples.pocketbook.money import PLACES, to_major, to_minor
from examples.pocketbook.schema import CATEGORIES, USERS
from examples.pocketbook.simulation import HEADER

RATE_PER_S = 75.0
AT_ONCE = 40
WATCHERS = 4
TIMEOUT_S = 15.0

DASHBOARD = "/api/analytics/dashboard"


def _sale(chance: random.Random, status: str | None = None) -> Call:
    currency = chance.choices(tuple(PLACES), (8, 6, 4, 2, 2, 1))[0]
    amount = to_major(chance.randint(150, 25_000), currency)
    status = status or chance.choices(("completed", "pending", "failed"), (88, 8, 4))[0]
    user_id = chance.randint(1, USERS)
    body = {
        "user_id": user_id,
        "amount": str(amount),
        "currency": currency,
        "merchant": chance.choice(("Corner Market", "Northline Rail", "Harbour Books")),
        "category": chance.choice(CATEGORIES),
        "status": status,
    }
    charge = Money("charge", currency, amount, status)
    return Call("POST", "/api/transactions", body=body, money=charge, user_id=user_id)


def _refunded_sale(chance: random.Random) -> Call:
    """Of which a part goes back."""
    sale = _sale(chance, "completed")
    assert sale.money is not None
    part = to_major(to_minor(sale.money.amount, sale.money.currency) // 3, sale.money.currency)
    refund = replace(sale.money, kind="refund", amount=part, charge=sale.money.amount)
    body = {"amount": str(part)}
    then = Call("POST", "/api/transactions/{id}/refunds", body=body, money=refund)
    return replace(sale, then=then)


def _disputed_sale(chance: random.Random) -> Call:
    sale = _sale(chance, "completed")
    assert sale.money is not None
    back = replace(sale.money, kind="chargeback", charge=sale.money.amount)
    then = Call("POST", "/api/transactions/{id}/chargeback", money=back)
    return replace(sale, then=then)


def _fee(chance: random.Random) -> Call:
    amount = to_major(chance.randint(10, 90), "EUR")
    body = {
        "statement": f"fees-{chance.getrandbits(64):016x}",
        "amount": str(amount),
        "currency": "EUR",
    }
    return Call("POST", "/api/fees", body=body, money=Money("adjustment", "EUR", -amount))


def _answer(chance: random.Random) -> Call:
    score = chance.choices(range(11), (1, 0, 1, 1, 1, 2, 2, 5, 8, 12, 9))[0]
    body = {"survey": "nps", "score": score, "feedbackId": f"{chance.getrandbits(64):016x}"}
    if score < 5:
        body["comment"] = "The export took for ever. Write to me: bo@pocketbook.example"
    return Call("POST", "/feedback/", body=body, user_id=chance.randint(1, USERS), score=score)


def _export(chance: random.Random, simulate: str | None = None) -> Call:
    body = {"format": chance.choice(("csv", "json")), "currency": chance.choice(tuple(PLACES))}
    used = (("data_export", "clicked"), ("data_export", "completed"))
    user_id = chance.randint(1, USERS)
    return Call("POST", "/api/export", body=body, features=used, simulate=simulate, user_id=user_id)


def _dashboard(chance: random.Random, simulate: str | None = None) -> Call:
    days = {"days": chance.choice((7, 30, 90))}
    used = (("analytics_dashboard", "viewed"),)
    user_id = chance.randint(1, USERS)
    return Call("GET", DASHBOARD, days, simulate=simulate, features=used, user_id=user_id)


def _list(chance: random.Random, simulate: str | None = None) -> Call:
    params = {"limit": 20, "offset": 20 * chance.randint(0, 5)}
    return Call("GET", "/api/transactions", params, simulate=simulate)


def _search(chance: random.Random) -> Call:
    params = {"q": chance.choice(("market", "rail", "books", "100%"))}
    used = (("transaction_search", "completed"),)
    user_id = chance.randint(1, USERS)
    return Call("GET", "/api/transactions", params, features=used, user_id=user_id)


def _users(chance: random.Random, simulate: str | None = None) -> Call:
    return Call("GET", "/api/users", {"offset": chance.choice((0, 20))}, simulate=simulate)


def _slow(low: float, high: float, chance: random.Random) -> str:
    return f"slow-query={chance.uniform(low, high):.3f}"


# What happens, and how often. The list is also the tour: each of them once at the start.
MIX: tuple[tuple[float, Callable[[random.Random], Call]], ...] = (
    (26, _list),
    (6, _search),
    (19, _sale),
    (2.5, _refunded_sale),
    (0.4, _disputed_sale),
    (0.4, _fee),
    (5, _answer),
    (10, _users),
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
        self.sent = Sent(shy=USERS)
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
            await self._refuse(client)
            over = asyncio.Event()
            self._start(*(self._watch(number, over) for number in range(WATCHERS)))
            try:
                await self._send_all(client, end_s, progress)
                over.set()
                awaited = 0
                while awaited < len(self._tasks):  # one may have started another
                    awaited = len(self._tasks)
                    await asyncio.gather(*self._tasks)
            finally:  # after Ctrl-C, none of them may meet a closed client
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        progress(1.0)
        return self.sent

    async def _refuse(self, client: httpx.AsyncClient) -> None:
        """One person wants nothing to be kept, before they do anything."""
        path = f"/api/users/{self.sent.shy}/consent"
        await self._slots.acquire()
        await self._send(client, Call("PUT", path, body={"granted": False}))

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
        if call.user_id is not None:
            headers[people.HEADER] = str(call.user_id)
        try:
            answer = await client.request(
                call.method, call.path, params=call.params, json=call.body, headers=headers
            )
            given = answer.json() if answer.is_success and answer.content[:1] == b"{" else {}
            self.sent.add(call, answer.status_code, given)
            if call.then is not None and answer.is_success:
                then = replace(call.then, path=call.then.path.format_map(given))
                self._start(self._follow(client, then))
        except httpx.TransportError:
            self.sent.lost += 1
        finally:
            self._slots.release()

    async def _follow(self, client: httpx.AsyncClient, call: Call) -> None:
        await self._slots.acquire()
        await self._send(client, call)

    async def _watch(self, number: int, over: asyncio.Event) -> None:
        """Someone who looks at their balances, goes away and comes back, as people do."""
        chance = random.Random(number)
        url = self._url.replace("http://", "ws://") + "/ws/balances"
        while not over.is_set():
            user_id = chance.randint(1, USERS)
            user = f"{url}?user_id={user_id}"
            try:
                async with connect(user, proxy=None, open_timeout=TIMEOUT_S) as socket:
                    self.sent.websockets += 1
                    self.sent.use(("live_balances", "viewed"), user_id)
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
