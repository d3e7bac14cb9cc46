"""From the SDK's hands to the spool: what ends is queued, encoded in small pieces, written down.

A request's thread only appends to a queue. One thread empties the queues every tenth of a second,
so a process that is killed loses no more than that, and writes the newest metrics more than once
a second.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pbmon import signals
from pbmon.spool.books import Books, Entry, Rows
from pbmon.spool.shelf import Source
from pbmon.telemetry import encoding
from pbmon.telemetry.encoding import Encoded
from pbmon.telemetry.observables import Observables

CHUNK = 128
"""Items encoded at once: encoding holds the interpreter, about 50 µs for each."""

QUEUE_CAPACITY = 2048
"""Items that may wait for the spool, if OTEL_BSP_MAX_QUEUE_SIZE does not say otherwise; who comes
with one more writes a chunk down himself, so that a burst is slowed and not lost."""

MAX_ITEMS = 512
"""Spans, log records or data points in a request, if OTEL_BSP_MAX_EXPORT_BATCH_SIZE does not say
otherwise. A record of the spool is never cut for it."""

PREFIXES = {"traces": "OTEL_BSP", "logs": "OTEL_BLRP"}
"""Of the standard variables that say how a signal is queued and batched."""

OBSERVE_S = 10.0
"""How long the application's observables may take before an export goes without their answers."""

_DRAIN_S = 0.1
_SNAPSHOT_S = 0.75
_SNAPSHOT_SHARE = 50  # the newest metrics may cost one part in so many of the processor's time
_RECORD_BYTES = 256 * 1024


class Queue(Source, Protocol):
    """This process's spool, or what stands in for it."""

    is_usable: bool
    """Whether it takes more; one that does not is replaced."""

    def append(self, channel: str, payload: bytes, items: int, *, again: bool = False) -> str: ...

    def keep_latest(self, payload: bytes, items: int) -> str: ...

    def size(self, channel: str) -> int: ...

    def close(self) -> None: ...

    def forget(self) -> None: ...


class Intake:
    """The queue of one signal in front of the spool. put() is on the path of every request."""

    def __init__(
        self, signal: str, encode: Callable[[list[Any]], Encoded], pipeline: Pipeline
    ) -> None:
        self.signal = signal
        self.encode = encode
        self.items: deque[Any] = deque()
        self.capacity = whole(f"{PREFIXES[signal]}_MAX_QUEUE_SIZE", QUEUE_CAPACITY)
        self.chunk = min(CHUNK, max_items(signal))
        self.processed = 0
        """Items that have reached the spool or were refused by it."""
        self._pipeline = pipeline

    def __len__(self) -> int:
        return len(self.items)

    def put(self, item: Any) -> None:
        items = self.items
        items.append(item)
        pipeline = self._pipeline
        if not pipeline.awake:
            pipeline.wake()
        elif len(items) > self.capacity and not pipeline.drains:
            pipeline.drain(self)


class _Calling(threading.local):
    drains = False


class Pipeline:
    """The queues, the thread that empties them, and the spool behind."""

    def __init__(self, queue: Queue, books: Books) -> None:
        self.queue = queue
        self.books = books
        self.intakes: dict[str, Intake] = {}
        self.replaced: dict[tuple[str, str], int] = {}
        """(signal, reason) → values made legal by the encoder."""
        self.left_out: dict[str, int] = {}
        """Items that could not be encoded at all, by signal."""
        self.observables = Observables()
        self.collect: Callable[[bool], Encoded | None] | None = None
        """The newest metrics, encoded; the flag says whether they go on their way now."""
        self.share: Callable[[], Encoded | None] = lambda: None
        """Metrics that are not this process's, which go on their way with its own."""
        self.export_interval_s = 60.0
        self.observed: Rows | None = None
        self.replace_queue: Callable[[], Queue] = lambda: self.queue
        """Gives another one where this one can't be used any more."""
        self.on_spooled: Callable[[str], None] = lambda signal: None
        self.every_second: Callable[[], None] = lambda: None
        self._start()

    def _start(self) -> None:
        self.awake = False
        self._locks = {signal: threading.Lock() for signal in ("traces", "metrics", "logs")}
        self._calling = _Calling()
        self._event = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._snapshot_s = _SNAPSHOT_S
        self._asked = False

    def intake(self, signal: str, encode: Callable[[Any], Encoded]) -> Intake:
        made = self.intakes[signal] = Intake(signal, encode, self)
        return made

    # --- the queues ---

    def wake(self) -> None:
        self.awake = True
        self._event.set()

    @property
    def drains(self) -> bool:
        """Whether the calling thread writes a chunk down. What a signal's handler, or an object
        that goes, ends or logs in the middle of that waits for the next chunk."""
        return self._calling.drains

    def drain(self, intake: Intake) -> None:
        """Write one chunk down, in the calling thread."""
        self._calling.drains = True
        try:
            with signals.guard(f"spooling {intake.signal}"), self._locks[intake.signal]:
                self._drain(intake)
        finally:
            self._calling.drains = False

    def _drain(self, intake: Intake) -> None:
        chunk: list[Any] = []
        try:
            while len(chunk) < intake.chunk:
                chunk.append(intake.items.popleft())
        except IndexError:
            pass
        if chunk:
            self._spool(intake.signal, self._encode(intake, chunk))
            intake.processed += len(chunk)

    def _encode(self, intake: Intake, chunk: list[Any]) -> Encoded:
        """A fault of ours costs the chunk, but not its place in the counts."""
        with signals.guard(f"encoding {intake.signal}"):
            return intake.encode(chunk)
        return Encoded(b"", 0, left_out=len(chunk))

    def drain_all(self) -> None:
        for intake in self.intakes.values():
            while intake.items:
                before = len(intake.items)
                self.drain(intake)
                if len(intake.items) >= before:
                    break  # a fault of ours: guard() has said so

    def _spool(self, signal: str, encoded: Encoded) -> None:
        self._count(signal, encoded)
        if not self.queue.is_usable:
            self.queue = self.replace_queue()
        for piece in pieces(signal, encoded):
            reason = self.queue.append(signal, piece.payload, piece.items)
            if reason:
                signals.tell(
                    f"spool:{signal}",
                    "pbmon: the spool takes no more %s (%s); they are refused and counted. Free "
                    "disk space, or mend the way to the collector",
                    signal, reason,
                )  # fmt: skip
        self.on_spooled(signal)

    def _count(self, signal: str, encoded: Encoded) -> None:
        for reason, count in encoded.replaced.items():
            key = (signal, reason)
            self.replaced[key] = self.replaced.get(key, 0) + count
        if encoded.left_out:
            self.left_out[signal] = self.left_out.get(signal, 0) + encoded.left_out

    # --- metrics ---

    def export_metrics(self, wait_s: float = 0.0) -> None:
        """Put the metrics on their way; wait_s: how long the application's observables have to
        answer, beyond which they count as they last were."""
        if self.collect is not None and wait_s > 0:
            self.observables.start()
            self.observables.wait(wait_s)
        self._export()

    def _export(self) -> None:
        self._collect(whole=True)
        with signals.guard("exporting figures of the store"), self._locks["metrics"]:
            if (shared := self.share()) is not None:
                self._spool("metrics", shared)

    def keep_metrics(self) -> None:
        """Write the newest metrics down for an adopter; nothing is put on its way."""
        self._collect(whole=False)

    def _collect(self, *, whole: bool) -> None:
        collect = self.collect
        if collect is None:
            return
        with signals.guard("collecting metrics"), self._locks["metrics"]:
            encoded = collect(whole)
            if encoded is None or not encoded.items:
                return
            observed, self.observed = self.observed, None
            if whole:
                self._spool("metrics", encoded)
            elif self.queue.keep_latest(encoded.payload, encoded.items):
                return
            if observed is not None:
                for part, rows in observed.items():
                    part.report(rows)

    def observe_books(self) -> dict[Entry, int]:
        """For the metric of the books: the totals, and what an adopter need not tell again."""
        self.observed, totals = self.books.snapshot()
        return totals

    # --- the thread ---

    def start(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="pbmon-spool", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is exiting: drain_all() does it then
                self._thread = None

    def _run(self) -> None:
        now_s = time.monotonic()
        snapshot_at_s = now_s + self._snapshot_s
        export_at_s = now_s + self.export_interval_s
        while not self._stopped:
            wait_s = min(snapshot_at_s, export_at_s) - time.monotonic()
            least_s = _DRAIN_S if self._asked else 0.0
            if self._event.wait(max(least_s, min(wait_s, _SNAPSHOT_S))) and not self._stopped:
                # Company for what came first; afterwards every put wakes anew.
                threading.Event().wait(_DRAIN_S)
                self._event.clear()
                self.awake = False
                self.drain_all()
            now_s = time.monotonic()
            if now_s >= export_at_s and self._is_observed(now_s - export_at_s):
                self._export()
                export_at_s = now_s + self.export_interval_s
                snapshot_at_s = now_s + self._snapshot_s
            elif now_s >= snapshot_at_s:
                began_s = time.thread_time()
                self._collect(whole=False)
                cost_s = time.thread_time() - began_s
                self._snapshot_s = max(_SNAPSHOT_S, cost_s * _SNAPSHOT_SHARE)
                snapshot_at_s = time.monotonic() + self._snapshot_s
            with signals.guard("background work"):
                self.every_second()

    def _is_observed(self, since_s: float) -> bool:
        """Whether the application's observables have answered, or had their time, since the export
        was due. Meanwhile the queues are emptied."""
        if not self._asked:
            self._asked = True
            self.observables.start()
        if self.observables.are_answering and since_s < OBSERVE_S:
            return False
        self._asked = False
        return True

    def stop(self) -> None:
        """No more thread; what comes now is written down by drain_all()."""
        self._stopped = True
        self._event.set()

    def forget(self, queue: Queue) -> None:
        """In a forked child: the parent keeps what it queued; the child begins with nothing."""
        for intake in self.intakes.values():
            intake.items = deque()
            intake.processed = 0
        self.replaced.clear()
        self.left_out.clear()
        self.queue = queue
        self.observables.forget()
        self._start()


def pieces(signal: str, encoded: Encoded) -> list[Encoded]:
    """A request as records of a size that many fit a segment, where its items allow it."""
    if len(encoded.payload) <= _RECORD_BYTES or encoded.items <= 1:
        return [encoded] if encoded.items else []
    halves = encoding.split(signal, encoded.payload)
    return [piece for half in halves for piece in pieces(signal, half)]


def positive(value: str) -> float | None:
    """A finite number above zero, or None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def interval_s(name: str, default_ms: float) -> float:
    """A standard variable of milliseconds, such as OTEL_METRIC_EXPORT_INTERVAL, in seconds."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default_ms / 1000
    number = positive(value)
    if number is None:
        signals.tell(
            name, "pbmon: %s=%s is no time; set milliseconds, such as %g, which is used now",
            name, value, default_ms,
        )  # fmt: skip
        return default_ms / 1000
    return number / 1000


def max_items(signal: str) -> int:
    """How many items of a signal a request may hold."""
    prefix = PREFIXES.get(signal)
    return whole(f"{prefix}_MAX_EXPORT_BATCH_SIZE", MAX_ITEMS) if prefix else MAX_ITEMS


def whole(name: str, default: int) -> int:
    """A standard variable that is a number of things, such as OTEL_BSP_MAX_QUEUE_SIZE."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        signals.tell(
            name, "pbmon: %s=%s is no whole number above 0; set one, such as %d, which is used now",
            name, value, default,
        )  # fmt: skip
        return default
    return number
