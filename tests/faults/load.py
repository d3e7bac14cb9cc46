"""Numbered requests at a bounded rate, and which of them were answered."""

from __future__ import annotations

import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.stack.process import HOST

CONNECTIONS = 8
TIMEOUT_S = 30.0


@dataclass
class Load:
    """What was sent and came back; more may follow while it runs."""

    sent: set[int] = field(default_factory=set)
    """Numbers of requests that may have reached the application."""
    answered: set[int] = field(default_factory=set)
    """Those answered 200."""
    latencies_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def p50_s(self) -> float:
        return statistics.median(self.latencies_s) if self.latencies_s else 0.0

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.answered) / self.took_s if self.took_s else 0.0

    def __add__(self, other: Load) -> Load:
        return Load(
            self.sent | other.sent,
            self.answered | other.answered,
            self.latencies_s + other.latencies_s,
            self.took_s + other.took_s,
        )


class Generator:
    """Sends /work/<n> for n = first, first + 1, …; start() and stop(), or run() to the end.

    port: of the application; count: requests; rate: per second at most.
    """

    def __init__(self, port: int, first: int, count: int, rate: float) -> None:
        self.load = Load()
        self._port = port
        self._first = first
        self._count = count
        self._rate = rate
        self._next = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start_s = 0.0

    def start(self) -> Generator:
        self._start_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._send, daemon=True) for _ in range(CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    @property
    def is_done(self) -> bool:
        """Whether every request has been sent and answered."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> Load:
        """Send no more, wait for the answers under way."""
        self._stopped.set()
        return self.wait()

    def wait(self) -> Load:
        for thread in self._threads:
            thread.join()
        self.load.took_s = time.monotonic() - self._start_s
        return self.load

    def _send(self) -> None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=TIMEOUT_S)
        while (index := self._take()) is not None:
            due_s = self._start_s + index / self._rate - time.monotonic()
            if self._stopped.wait(max(due_s, 0.0)):
                break
            self._request(connection, self._first + index)
        connection.close()

    def _take(self) -> int | None:
        with self._lock:
            if self._next >= self._count or self._stopped.is_set():
                return None
            self._next += 1
            return self._next - 1

    def _request(self, connection: http.client.HTTPConnection, number: int) -> None:
        start_s = time.perf_counter()
        try:
            connection.request("GET", f"/work/{number}")
            self.load.sent.add(number)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # opens again with the next request
            self.load.sent.add(number)
            return
        if response.status == 200:
            self.load.answered.add(number)
            self.load.latencies_s.append(time.perf_counter() - start_s)


def run(port: int, first: int, count: int, rate: float) -> Load:
    """Send `count` requests and wait for their answers."""
    return Generator(port, first, count, rate).start().wait()


def flood(port: int, requests: Iterable[bytes]) -> int:
    """Raw requests, each on a connection of its own; how many were answered, whatever it was."""
    remaining = iter(requests)
    lock = threading.Lock()
    answered = [0] * CONNECTIONS

    def send(index: int) -> None:
        while True:
            with lock:
                request = next(remaining, None)
            if request is None:
                return
            with socket.create_connection((HOST, port), TIMEOUT_S) as connection:
                connection.sendall(request)
                answered[index] += connection.recv(65536).startswith(b"HTTP/1.1 ")

    threads = [threading.Thread(target=send, args=(i,), daemon=True) for i in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered)


def get(port: int, path: str) -> str:
    """The body of one answer; raises OSError or HTTPException where none comes."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200:
            raise http.client.HTTPException(f"{path}: {response.status} {body}")
        return body
    finally:
        connection.close()
