"""The spool with its senders, and what dead processes left: everything behind the pipeline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pbmon import signals
from pbmon.settings import Settings
from pbmon.spool import adoption, directory
from pbmon.spool.adoption import Orphan
from pbmon.spool.books import Books
from pbmon.spool.directory import Home, UnusableError
from pbmon.spool.frames import CHANNELS
from pbmon.spool.memory import MemoryQueue
from pbmon.spool.queue import Spool
from pbmon.telemetry import transport
from pbmon.telemetry.encoding import Encoded
from pbmon.telemetry.pipeline import PREFIXES, interval_s, max_items, pieces
from pbmon.telemetry.sender import Sender

_ADOPT_EVERY_S = 5.0
_EXPIRE_EVERY_S = 60.0
_GRACE_S = 0.5

_DELAYS_MS = {
    "traces": 5000.0,
    "logs": 1000.0,
    "metrics": 1000.0,  # collected when it is time to send them
}


def open_queue(settings: Settings, service: str, books: Books) -> Spool | MemoryQueue:
    """This process's spool in the first usable state directory, else a queue in memory; the
    latter is one warning with the remedy."""
    refused = []
    for path in directory.candidates(settings.state_dir):
        try:
            return Spool(Home(path, service), books)
        except UnusableError as error:
            refused.append(str(error))
    signals.tell(
        "spool",
        "pbmon: no state directory: %s. Telemetry waits in memory, and what waits is lost with the "
        "process. Set PBMON_STATE_DIR to a directory that this user can write to.",
        "; ".join(refused),
    )
    return MemoryQueue(books)


def described(queue: Any) -> str:
    """Where a queue is, for people."""
    return str(queue.home.path) if isinstance(queue, Spool) else "memory"


class Delivery:
    """The senders of this process's queue and of the spools it adopted."""

    def __init__(self, settings: Settings, service: str, names: dict[str, str]) -> None:
        """names: signal → exporter's name, for those that go by OTLP."""
        self.books = Books()
        self._settings = settings
        self._service = service
        self.queue: Any = (
            open_queue(settings, service, self.books) if names else MemoryQueue(self.books)
        )
        self.senders: dict[str, Sender] = {}
        self._orphans: list[Orphan] = []
        self._words: dict[Orphan, deque[Encoded]] = {}
        """What of an orphan's newest metrics is not spooled yet."""
        self._refused: set[Orphan] = set()
        self._retired: list[Spool] = []
        self._replacing = threading.Lock()
        for signal, name in names.items():
            self.add(signal, name)
        self._adopt_at_s = time.monotonic() + 0.2
        self._expire_at_s = 0.0
        self._closed = False
        self.on_buried: Callable[[], None] = lambda: None
        """Called when nothing adopted is left to deliver."""

    def add(self, signal: str, name: str) -> None:
        """Deliver a signal; name: of the exporter asked for."""
        prefix, delay_ms = PREFIXES.get(signal), _DELAYS_MS[signal]
        made = Sender(
            signal,
            lambda: transport.connect(signal, self._settings, name),
            delay_s=interval_s(f"{prefix}_SCHEDULE_DELAY", delay_ms) if prefix else delay_ms / 1000,
            max_items=max_items(signal),
        )
        made.sources += [self.queue, *self._orphans]
        self.senders[signal] = made

    @property
    def is_durable(self) -> bool:
        """Whether what waits survives this process."""
        return isinstance(self.queue, Spool)

    def spooled(self, signal: str) -> None:
        """Something was put into the queue."""
        sender = self.senders.get(signal)
        if sender is not None:
            sender.start()
            if signal == "metrics" or self.queue.waiting(signal) >= sender.max_items:
                sender.nudge()

    def replace_queue(self) -> Any:
        """Where nothing more can be put into this process's spool: another one, in the first place
        that can be used now. What waits in the old one is still read."""
        with self._replacing:
            old = self.queue
            if not old.is_usable:
                self.queue = open_queue(self._settings, self._service, self.books)
                signals.tell(
                    "spool:moved",
                    "pbmon: %s can't be used any more (removed, or this process became another "
                    "user); telemetry waits in %s. Set PBMON_STATE_DIR to a lasting directory of "
                    "the user that the workers run as",
                    described(old), described(self.queue),
                )  # fmt: skip
                self._retired.append(old)
                for sender in self.senders.values():
                    sender.sources.insert(0, self.queue)
            return self.queue

    def _look_after_retired(self) -> None:
        for old in list(self._retired):
            if not any(old.waiting(signal) for signal in self.senders):
                self._retired.remove(old)
                for sender in self.senders.values():
                    sender.sources.remove(old)
                old.close()

    def apply(self, settings: Settings) -> None:
        """Changed settings: the next request goes to the new endpoint."""
        self._settings = settings
        for sender in self.senders.values():
            sender.reconnect()

    # --- dead processes ---

    def look_after_orphans(self) -> None:
        """Called about once a second."""
        self._look_after_retired()
        if self._closed:
            return
        self._expire()
        if not isinstance(self.queue, Spool):
            return
        # Its metrics at once, whatever else of it waits: what was open in it is not open any more.
        said = [orphan for orphan in self._orphans if self._speak_for(orphan)]
        # Until metrics have told its counts, a kill of this process would take them along.
        tells = "metrics" in self.senders
        done = [o for o in said if o.is_done() and (o.is_told() or not tells)]
        for orphan in done:
            self._let_go(orphan)
        if done and not any(sender.has_adopted() for sender in self.senders.values()):
            self.on_buried()  # these counts have no other teller
        now_s = time.monotonic()
        if now_s >= self._adopt_at_s:
            self._adopt_at_s = now_s + _ADOPT_EVERY_S
            for orphan in adoption.adopt(self.queue.home, self.books, self.queue.directory):
                self._orphans.append(orphan)
                for sender in self.senders.values():
                    sender.sources.append(orphan)
                    if orphan.waiting(sender.signal):
                        sender.start()
                        sender.nudge()

    def _expire(self) -> None:
        """Also where a sender tries one batch for hours, or a signal has none: what is too old
        makes room for what comes."""
        now_s = time.monotonic()
        if now_s >= self._expire_at_s:
            self._expire_at_s = now_s + _EXPIRE_EVERY_S
            for source in (self.queue, *self._orphans):
                for channel in CHANNELS:
                    source.expire(channel)

    def _speak_for(self, orphan: Orphan) -> bool:
        """Send a dead process's newest metrics behind its older ones; whether all is said."""
        if "metrics" not in self.senders:
            return True
        if orphan.waiting("metrics"):
            return False
        words = self._words.get(orphan)
        if words is None:
            written = orphan.last_metrics()
            words = self._words[orphan] = deque(last_words(written.payload) if written else ())
        while words:
            again = orphan in self._refused
            if self.queue.append("metrics", words[0].payload, words[0].items, again=again):
                self._refused.add(orphan)
                return False  # no room: it is tried again
            self._refused.discard(orphan)
            words.popleft()
            self.spooled("metrics")
        orphan.forget_latest()
        return True

    def _let_go(self, orphan: Orphan) -> None:
        self._orphans.remove(orphan)
        self._words.pop(orphan, None)
        self._refused.discard(orphan)
        for sender in self.senders.values():
            sender.sources.remove(orphan)
        orphan.close()

    # --- the end ---

    def flush(self, signals_: tuple[str, ...], deadline_s: float) -> bool:
        """Deliver what waits of these signals until the deadline (monotonic).

        Where nobody listens it is given up after a moment.
        """
        wanted = [self.senders[s] for s in signals_ if s in self.senders]
        for sender in wanted:  # all at once; the waiting below is one after the other
            if sender.waits():
                sender.start()
                sender.nudge()
        # Every one of them, also behind one that failed.
        return not [s for s in wanted if not s.flush(deadline_s, _patience(s))]

    def close(self) -> None:
        self._closed = True
        for sender in self.senders.values():
            sender.stop()
        for orphan in list(self._orphans):
            with signals.guard("leaving an adopted spool"):
                # Its newest metrics wait in our spool then: an empty one is removed with them.
                self._speak_for(orphan)
                self._let_go(orphan)
        for queue in (self.queue, *self._retired):
            queue.close()

    def forget(self) -> None:
        """In a forked child: a queue of its own; the parent's, and what it adopted, stay the
        parent's."""
        old, inherited = self.queue, (*self._orphans, *self._retired)
        self._orphans, self._retired = [], []
        self._words, self._refused = {}, set()
        self.books.forget()
        for each in (old, *inherited):
            with signals.guard("letting go of the parent's spool"):
                each.forget()
        if isinstance(old, Spool):
            try:
                old.home.forget()
                self.queue = Spool(old.home, self.books)
            except UnusableError as error:
                signals.tell("spool", "pbmon: %s; telemetry waits in memory", error)
                self.queue = MemoryQueue(self.books)
        for signal, sender in list(self.senders.items()):
            fresh = self.senders[signal] = Sender(
                signal, sender.connect, delay_s=sender.delay_s, max_items=sender.max_items
            )
            fresh.sources.append(self.queue)
        self._replacing = threading.Lock()
        self._adopt_at_s = time.monotonic() + _ADOPT_EVERY_S


def _patience(sender: Sender) -> Callable[[], bool]:
    """Whether nobody has been there for a moment, at its receiver."""
    since_s = float("inf")

    def is_over() -> bool:
        nonlocal since_s
        now_s = time.monotonic()
        since_s = min(since_s, now_s) if sender.nobody_there else float("inf")
        return now_s - since_s > _GRACE_S

    return is_over


def last_words(payload: bytes) -> list[Encoded]:
    """A dead process's metrics with its up/down counters at 0: nothing of it is open any more. In
    pieces that the spool takes."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

    request = ExportMetricsServiceRequest.FromString(payload)
    now_ns = time.time_ns()
    items = 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points if kind else ()
                items += len(points)
                if (
                    kind == "sum"
                    and not metric.sum.is_monotonic
                    and metric.sum.aggregation_temporality
                    == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
                ):
                    for point in points:
                        point.as_int = 0
                        point.time_unix_nano = max(now_ns, point.time_unix_nano)
    return pieces("metrics", Encoded(request.SerializeToString(), items))
