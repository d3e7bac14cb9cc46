"""The leader: what one process does for all that share a store: jobs, deliveries to destinations.

Of the processes of a service it is the shipper's that tries; where they are on several hosts, the
database decides (an advisory lock in PostgreSQL; a file beside it in SQLite). The lock is given up
with the process.
"""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pbmon import signals
from pbmon.delivery.events import Destination, Event
from pbmon.settings import Settings
from pbmon.store.access import (
    Leadership,
    StoreError,
    open_deliveries,
    open_leadership,
    open_runs,
)
from pbmon.worker import jobs

if TYPE_CHECKING:
    from pbmon.store.deliveries import Deliveries
    from pbmon.store.jobs import Runs

_EVERY_S = 1.0
_JOBS_EVERY_S = 60.0
_AT_ONCE = 1000
_LONGEST_S = 600.0
_AGAIN_S = 5.0


class Leader:
    """url: of the store. destinations: made in its thread, at the first delivery. may_lead: asked
    before each round. may_change_schema: whether this is a process of its own."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        destinations: Sequence[Callable[[], Destination]],
        *,
        may_lead: Callable[[], bool] = lambda: True,
        may_change_schema: bool = False,
    ) -> None:
        self._url = url
        self._settings = settings
        self._make = destinations
        self._may_lead = may_lead
        self._may_change_schema = may_change_schema
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._leadership: Leadership | None = None
        self._deliveries: Deliveries | None = None
        self._runs: Runs | None = None
        self._jobs_at_s = 0.0
        self._destinations: list[Destination] = []
        self._again_at_s = 0.0
        self.succeeded_at: dict[str, float] = {}
        """Job → when it last succeeded, seconds since the epoch."""

    def start(self) -> None:
        if self._thread is None and not self._stopped.is_set():
            self._thread = threading.Thread(target=self.run, name="pbmon-leader", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is exiting
                self._thread = None

    def run(self) -> None:
        """Until stop()."""
        while not self._stopped.wait(_EVERY_S):
            if time.monotonic() >= self._again_at_s:
                with signals.guard("leading"):
                    self._try_round()
        with signals.guard("leaving the store"):
            self._close()

    def _close(self) -> None:
        for each in (self._deliveries, self._runs, self._leadership, *self._destinations):
            if each is not None:
                each.close()
        self._deliveries = self._runs = self._leadership = None
        self._destinations = []

    def _try_round(self) -> None:
        try:
            if self._may_lead() and self.lead():
                self.do_jobs()
                while self.deliver() and not self._stopped.is_set():
                    pass
        except StoreError as error:
            self._again_at_s = time.monotonic() + _AGAIN_S
            signals.tell(
                "leader", "pbmon: the store %s. Jobs and deliveries wait meanwhile.", error
            )

    def stop(self) -> None:
        self._stopped.set()

    def lead(self) -> bool:
        """Whether this process is the leader now. Raises StoreError."""
        if self._leadership is None:
            self._leadership = open_leadership(self._url)
        return self._leadership.take()

    def do_jobs(self) -> None:
        """What is due, looked at once a minute. Raises StoreError."""
        if time.monotonic() < self._jobs_at_s:
            return
        if self._runs is None:
            self._runs = open_runs(self._url)
        now = dt.datetime.now(dt.timezone.utc)
        jobs.run_due(self._runs, self._settings, now, may_change_schema=self._may_change_schema)
        for job, (_, finished_at) in self._runs.last().items():
            self.succeeded_at[job] = finished_at / 1e6
        self._jobs_at_s = time.monotonic() + _JOBS_EVERY_S

    def deliver(self) -> bool:
        """One portion to each destination that is not to be left in peace; whether there may be
        more. Raises StoreError."""
        if not self._make:
            return False
        if self._deliveries is None:
            self._deliveries = open_deliveries(self._url, self._settings.consent["sharing"])
            self._destinations = [make() for make in self._make]
        states = {state.destination: state for state in self._deliveries.states()}
        more = False
        for destination in self._destinations:
            state = states.get(destination.name)
            if state is None or state.again_at > time.time_ns() // 1000 or not state.waiting:
                continue
            more |= self._deliver_to(destination, state.failures)
        return more

    def _deliver_to(self, destination: Destination, failures: int) -> bool:
        assert self._deliveries is not None
        taken = self._deliveries.take(destination.name, _AT_ONCE)
        if not taken:
            return False
        outcome = destination.send(
            [
                Event(
                    id=each.event_id,
                    name=each.name,
                    occurred_at=each.occurred_at,
                    subject=each.subject,
                    session=each.session,
                    properties=each.properties,
                    segments=each.segments,
                )
                for each in taken
            ]
        )
        again: Mapping[str, Any] = {}
        if outcome.again:
            failures += 1
            wait_s = outcome.retry_after_s
            if wait_s is None:
                wait_s = min(_LONGEST_S, 2.0**failures) * random.uniform(0.5, 1.0)  # noqa: S311
            again_at = time.time_ns() // 1000 + int(wait_s * 1e6)
            again = {"again_at": again_at, "failures": failures, "fault": outcome.fault}
            signals.tell(
                f"delivery:{destination.name}",
                "pbmon: %s at %s takes nothing now (%s); events wait, and are tried again",
                destination.name, destination.where, outcome.fault,
            )  # fmt: skip
        if outcome.dead:
            signals.tell(
                f"dead:{destination.name}",
                "pbmon: %s refused %d events (%s); they are dead letters: `pbmon delivery status`",
                destination.name, len(outcome.dead), next(iter(outcome.dead.values())),
            )  # fmt: skip
        self._deliveries.settle(destination.name, outcome.delivered, outcome.dead, **again)
        self.succeeded_at[f"delivery:{destination.name}"] = time.time()
        return not outcome.again and len(taken) == _AT_ONCE

    def forget(self) -> None:
        """In a forked child: role, thread and connections are the parent's."""
        if self._leadership is not None:
            self._leadership.forget()
        for each in (self._deliveries, self._runs):
            if each is not None:
                each.let_go()
        started = self._thread is not None
        self._begin()
        if started:
            self.start()
