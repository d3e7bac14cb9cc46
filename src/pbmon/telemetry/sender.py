"""From the spool to the receiver, signal by signal: again and again until it is taken.

A batch leaves the spool when every item of it was taken, or refused for what it is. What is
refused is cut in two until the bad item stands alone; only that one is dropped, and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from opentelemetry.context import attach, detach, set_value
from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import privacy, signals
from pbmon.spool.queue import MAX_RECORD
from pbmon.spool.shelf import Batch, Source
from pbmon.telemetry.parts import Part, Work, cut, parts_of
from pbmon.telemetry.pipeline import MAX_ITEMS
from pbmon.telemetry.transport import Answer, Transport, spread

_MAX_BYTES = 1024 * 1024
_MOST_BYTES = 2 * 1024 * 1024
"""That all batches on their way may hold, but for the last one taken up."""
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_LONGEST_WAIT_NOBODY_S = 3.0
_URGENT_WAIT_S = 0.3
_PATIENCE = 3
"""Failures of a part until it is tried apart from others."""
_CRASHED = 500
_ALL_REJECTED = "every item rejected"


class Sender:
    """The thread of one signal.

    delay_s: how long items may wait for company. sources: this process's queue first, then what
    was adopted.
    """

    def __init__(
        self,
        signal: str,
        connect: Callable[[], Transport],
        *,
        delay_s: float,
        max_items: int = MAX_ITEMS,
    ) -> None:
        self.signal = signal
        self.delay_s = delay_s
        self.max_items = max_items
        self.sources: list[Source] = []
        self.inflight = 0
        """Items in the request under way."""
        self.failing = ""
        """Why the last request failed, empty when it was taken."""
        self.nobody_there = False
        self.connect = connect
        self._transport: Transport | None = None
        self._is_outdated = False
        self._works: deque[Work] = deque()
        """At most one of each source; the last is tried now."""
        self._taken = 0
        self._failures = 0
        self._stopped = False
        self._urgent = False
        self._deadline_s: float | None = None
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    # --- from other threads ---

    def start(self) -> None:
        if self._thread is not None or self._stopped:
            return
        with self._starting:
            if self._thread is not None:
                return
            name = f"pbmon-send-{self.signal}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is exiting: the next start delivers it
                self._thread = None

    def nudge(self) -> None:
        """Enough waits: do not sit out the delay."""
        self._wake.set()

    def flush(self, deadline_s: float, skip: Callable[[], bool] = lambda: False) -> bool:
        """Try now and until all is settled or the deadline (monotonic) has passed."""
        if not self.waits():
            return True
        self.start()
        self._urgent = True
        self._wake.set()
        try:
            if self._thread is None:
                return self._flush_here(deadline_s, skip)
            with self._idle:
                while self.waits():
                    left_s = deadline_s - time.monotonic()
                    if left_s <= 0 or skip():
                        return False
                    self._idle.wait(min(left_s, 0.05))
            return True
        finally:
            self._urgent = False

    def _flush_here(self, deadline_s: float, skip: Callable[[], bool]) -> bool:
        """In the calling thread: at its exit the interpreter, from Python 3.12 on, starts none."""
        self._deadline_s = deadline_s
        token = attach(set_value("suppress_instrumentation", True))
        try:
            with suppress_instrumentation():
                while self.waits() and not skip():
                    wait_s = _URGENT_WAIT_S
                    with signals.guard(f"sending {self.signal}"):
                        wait_s = min(wait_s, self._round())
                    left_s = deadline_s - time.monotonic()
                    if left_s <= 0:
                        break
                    if self.failing:
                        time.sleep(min(wait_s, left_s))
            return not self.waits()
        finally:
            detach(token)
            self._deadline_s = None

    def reconnect(self) -> None:
        """The endpoint changed."""
        self._is_outdated = True
        self._failures = 0
        self._wake.set()

    def stop(self) -> None:
        """After the request under way; nothing is waited for."""
        self._stopped = True
        self._wake.set()

    def waits(self) -> bool:
        """Whether anything of this signal is not settled."""
        return any(source.waiting(self.signal) for source in self.sources)

    def has_adopted(self) -> bool:
        """Whether anything waits of what dead processes left."""
        return any(source.waiting(self.signal) for source in self.sources[1:])

    # --- the thread ---

    def _run(self) -> None:
        attach(set_value("suppress_instrumentation", True))
        with suppress_instrumentation():
            while not self._stopped:
                wait_s = self.delay_s
                with signals.guard(f"sending {self.signal}"):
                    wait_s = self._round()
                with self._idle:
                    self._idle.notify_all()
                self._pause(wait_s)

    def _pause(self, wait_s: float) -> None:
        """Sit out the delay, or a failure's; a nudge ends only the first, a flush shortens both."""
        began_s = time.monotonic()
        while not self._stopped:
            limit_s = min(wait_s, _URGENT_WAIT_S) if self._urgent else wait_s
            left_s = began_s + limit_s - time.monotonic()
            if left_s <= 0:
                return
            if self._wake.wait(left_s):
                self._wake.clear()
                if not self.failing:
                    return

    def _round(self) -> float:
        """Send until nothing waits; returns how long to pause."""
        while not self._stopped and self._left_s() > 0:
            work = self._next()
            if work is None:
                return self.delay_s
            wait_s = self._push(work)
            if wait_s is not None:
                return wait_s
        return 0.0

    def _next(self) -> Work | None:
        """A batch of a source that has none on its way, so that one source's bad item holds up no
        other's; else the one that was not tried for longest."""
        busy = [work.source for work in self._works]
        if sum(work.size for work in self._works) < _MOST_BYTES:
            for source in list(self.sources):
                if source not in busy and (batch := self._read(source)) is not None:
                    self._works.append(Work(source, batch, parts_of(batch)))
                    return self._works[-1]
        self._works.rotate(-1)
        if not self._works:
            return None
        work = self._works[-1]
        self._gather(work)
        return work

    def _read(self, source: Source) -> Batch | None:
        return source.read(self.signal, self.max_items, _MAX_BYTES)

    def _gather(self, work: Work) -> None:
        """What may have failed for what it is takes along what came behind it, as a part of its
        own: only in company does it show whether the receiver is at fault or an item."""
        if work.size >= _MOST_BYTES or not all(part.is_doubtful for part in work.parts):
            return
        batch = self._read_beyond(work)
        if batch is not None:
            work.parts.extendleft(parts_of(batch, len(work.batch.records)))
            work.batch = batch

    def _read_beyond(self, work: Work) -> Batch | None:
        """The work's batch again with at least one more record, however big that is."""
        items, size = self.max_items, _MAX_BYTES
        behind = work.source.waiting(self.signal) - work.batch.items
        while behind > 0:
            batch = work.source.read(self.signal, work.batch.items + items, work.size + size)
            if batch is None or len(batch.records) > len(work.batch.records):
                return batch
            if items >= behind and size >= MAX_RECORD:
                break
            items, size = items * 4, size * 4
        return None

    def _push(self, work: Work) -> float | None:
        """Send the batch's parts; None when it is settled, else how long to wait."""
        while work.parts:
            if self._left_s() <= 0:
                return 0.0
            part = work.parts[0]
            answer = self._send(part)
            if answer.taken and not (answer.rejected >= part.items and part.items):
                self._succeed(work, part, answer)
                continue
            if self._stopped:
                return 0.0
            wait_s = self._fail(work, part, answer)
            if wait_s is not None:
                return wait_s
        work.source.settle(work.batch, work.delivered, {"rejected": work.rejected})
        self._works.remove(work)
        return None

    def _send(self, part: Part) -> Answer:
        if self._is_outdated:
            self._is_outdated = False
            if self._transport is not None:
                self._transport.close()
            self._transport = None
        transport = self._transport
        if transport is None:
            try:
                transport = self._transport = self.connect()
            except Exception as error:
                # ExporterError says the remedy; anything else has no text to be trusted.
                known = type(error).__name__ == "ExporterError"
                return Answer(reason=str(error) if known else privacy.error_type(error))
        self.inflight = part.items
        try:
            return transport.send(b"".join(part.payloads), self._left_s())
        finally:
            self.inflight = 0

    def _left_s(self) -> float:
        """How long a request may take, beside the receiver's own timeout."""
        return float("inf") if self._deadline_s is None else self._deadline_s - time.monotonic()

    def _succeed(self, work: Work, part: Part, answer: Answer) -> None:
        work.parts.popleft()
        # The specification forbids to send again what was taken in part; nobody says which part.
        work.rejected += answer.rejected
        work.delivered += part.items - answer.rejected
        self._taken += 1
        self._failures = 0
        self.failing = ""
        self.nobody_there = False
        if answer.rejected:
            signals.tell(
                f"rejected:{self.signal}",
                "pbmon: %s rejected %d of %d %s; they are dropped and counted",
                self._where(), answer.rejected, part.items, _ITEMS[self.signal],
            )  # fmt: skip

    def _fail(self, work: Work, part: Part, answer: Answer) -> float | None:
        """None to go on at once (with smaller parts), else how long to wait."""
        if answer.taken:  # and every item rejected: nothing was taken, so nothing comes twice
            answer = Answer(reason=_ALL_REJECTED, status=answer.status)
        if part.taken_before is None:
            part.taken_before = self._taken
        part.failures += 1
        part.is_doubtful = (
            answer.bad_data or answer.status == _CRASHED or answer.reason == _ALL_REJECTED
        )
        refused = self._is_refused(work, part, answer)
        if refused and (part.items == 1 or answer.reason == _ALL_REJECTED):
            self._drop(work, part, answer)
            return None
        if part.items > 1 and (refused or self._is_suspicious(part, answer)):
            work.parts.popleft()
            work.parts.extendleft(reversed(cut(self.signal, part)))
            return None
        if len(work.parts) > 1:
            work.parts.rotate(-1)  # the next try is another part's
        self._failures += 1
        self.failing = answer.reason
        self.nobody_there = answer.nobody_there
        if not self._urgent or self._failures > 1:
            self._tell(answer)
        return self._backoff_s(answer)

    def _drop(self, work: Work, part: Part, answer: Answer) -> None:
        work.parts.popleft()
        work.rejected += part.items
        signals.tell(
            f"refused:{self.signal}",
            "pbmon: %s refuses %d of the %s (%s); dropped and counted",
            self._where(), part.items, _ITEMS[self.signal], answer.reason,
        )  # fmt: skip

    def _is_refused(self, work: Work, part: Part, answer: Answer) -> bool:
        """Whether it is the data: the same receiver took another part since this one first failed,
        or at least takes an empty request, which is legal. Who takes neither is no receiver of
        this signal, or none at this time."""
        others_pass = part.taken_before is not None and self._taken > part.taken_before
        patient = part.failures >= _PATIENCE
        if answer.bad_data:
            transport = self._transport
            return (others_pass and patient) or (
                transport is not None and transport.send(b"", self._left_s()).taken
            )
        if answer.status == _CRASHED:
            return others_pass and patient
        # There is no room for more company: its word is taken, as OTLP wants it.
        believed = patient and work.size >= _MOST_BYTES
        return answer.reason == _ALL_REJECTED and (others_pass or believed)

    def _is_suspicious(self, part: Part, answer: Answer) -> bool:
        """Whether it may be the data; to cut costs only requests."""
        return part.failures >= _PATIENCE and (answer.bad_data or answer.status == _CRASHED)

    def _backoff_s(self, answer: Answer) -> float:
        if answer.retry_after_s is not None:
            return answer.retry_after_s + spread(_FIRST_WAIT_S)
        longest_s = _LONGEST_WAIT_NOBODY_S if answer.nobody_there else _LONGEST_WAIT_S
        return spread(min(longest_s, _FIRST_WAIT_S * 2 ** min(self._failures, 10)))

    def _tell(self, answer: Answer) -> None:
        signals.tell(
            f"delivery:{self._where()}",
            "pbmon: %s can't be delivered to %s (%s); kept and tried again. Is a collector "
            "listening there? Set OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_%s_EXPORTER=none for no "
            "export.",
            self.signal, self._where(), answer.reason, self.signal.upper(),
        )  # fmt: skip

    def _where(self) -> str:
        return self._transport.where if self._transport is not None else "the receiver"


_ITEMS = {"traces": "spans", "metrics": "data points", "logs": "log records"}
