"""The leader: what one process does for all that share a store: its figures for the metrics, jobs,
deliveries to destinations, alerts, the mark of a release that it is the first to see.

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

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import signals
from pbmon.delivery.events import Destination, Event
from pbmon.money import Rates
from pbmon.purposes import SHARING
from pbmon.runtime import Reading
from pbmon.settings import Settings
from pbmon.store.access import (
    Leadership,
    StoreError,
    open_conversions,
    open_deliveries,
    open_figures,
    open_leadership,
    open_runs,
)
from pbmon.worker import jobs, releases
from pbmon.worker.alerts import Alerting
from pbmon.worker.conversion import convert_waiting
from pbmon.worker.erasure import Outstanding

if TYPE_CHECKING:
    from pbmon.store.conversion import Conversions
    from pbmon.store.deliveries import Deliveries
    from pbmon.store.figures import Figures
    from pbmon.store.jobs import Runs

LOADED_S = time.monotonic()
"""Since when this code is there: before a fork, where one came later. A release runs that long."""

_EVERY_S = 1.0
_FIGURES_EVERY_S = 5.0
_JOBS_EVERY_S = 60.0
_CONVERSIONS_EVERY_S = 600.0
_AT_ONCE = 1000
_LONGEST_S = 600.0
_AGAIN_S = 5.0
_PATIENCE_S = 3600.0
"""The longest that a destination is left in peace; one that is to be longer has another clock."""
_JUMP_S = 3600.0
_STEADY_S = 86400.0


class Leader:
    """url: of the store. destinations: made in its thread, at the first delivery. may_lead: asked
    before each round. may_change_schema: whether this is a process of its own. rates: what money
    that waits is converted by. release: that runs here, where it is known. alerting: has threads of
    its own, and works while this leads."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        destinations: Sequence[Callable[[], Destination]],
        *,
        may_lead: Callable[[], bool] = lambda: True,
        may_change_schema: bool = False,
        rates: Rates | None = None,
        release: str | None = None,
        alerting: Alerting | None = None,
    ) -> None:
        self._url = url
        self._settings = settings
        self._make = destinations
        self._may_lead = may_lead
        self._may_change_schema = may_change_schema
        self.publish: Callable[[Reading | None], None] = lambda reading: None
        """Takes the figures of the store as they are read; None once another may lead."""
        self._rates = rates
        self._release = release
        self._alerting = alerting
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._stopped = False
        self._awake = threading.Condition()
        self._asked = self._answered = 0
        """Calls of finish(), and how many of them the figures that were read last are for."""
        self._thread: threading.Thread | None = None
        self.is_leading = False
        self._leadership: Leadership | None = None
        self._deliveries: Deliveries | None = None
        self._runs: Runs | None = None
        self._figures: Figures | None = None
        self._conversions: Conversions | None = None
        self._outstanding = Outstanding(self._url)
        self._figures_at_s = self._jobs_at_s = self._conversions_at_s = self._release_at_s = 0.0
        self._rateless = -1
        """Transactions that wait although they were looked at; -1: none was yet."""
        self._clocks_apart_s: float | None = None
        self._steady_at_s = 0.0
        self._destinations: list[Destination] = []
        self._again_at_s = 0.0
        self.succeeded_at: dict[str, float] = {}
        """Job → when it last succeeded, seconds since the epoch."""

    def start(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self.run, name="pbmon-leader", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is exiting
                self._thread = None
            if self._alerting is not None:
                self._alerting.start(lambda: self.is_leading)

    def run(self) -> None:
        """Until stop()."""
        with suppress_instrumentation():  # also what a job asks of others
            self._run()

    def _run(self) -> None:
        round_at_s = time.monotonic() + _EVERY_S
        while self._pause(round_at_s):
            asked = self._asked
            is_due = time.monotonic() >= round_at_s
            if time.monotonic() >= self._again_at_s:
                with signals.guard("leading"):
                    self._try_round(wholly=is_due)
            self._answer(asked)
            if is_due:
                round_at_s = time.monotonic() + _EVERY_S
        self.end()

    def end(self) -> None:
        """Give up role and connections, once the thread is over or where there was none."""
        self.stop()
        with signals.guard("leaving the store"):
            self._close()

    def _pause(self, until_s: float) -> bool:
        """Until it is time (monotonic), or somebody asks for figures; False at the end."""
        with self._awake:
            self._awake.wait_for(
                lambda: self._stopped or self._asked > self._answered,
                max(0.0, until_s - time.monotonic()),
            )
            return not self._stopped

    def _close(self) -> None:
        self._leave_store()
        if self._leadership is not None:
            self._leadership.close()
            self._leadership = None
        self.is_leading = False

    def _leave_store(self) -> None:
        for each in (
            self._figures, self._deliveries, self._runs, self._conversions, self._outstanding,
            *self._destinations,
        ):  # fmt: skip
            if each is not None:
                each.close()
        self._figures = self._deliveries = self._runs = self._conversions = None
        self._destinations = []

    def _try_round(self, *, wholly: bool = True) -> None:
        """wholly: not only the figures, which somebody waits for, and what they need."""
        try:
            if self._may_lead() and self.lead():
                self.convert()  # at the end as well: the figures are to have all that is booked
                self.note_release()
                self.read_figures()
                if not wholly:
                    return
                self.erase()
                self.do_jobs()
                while self.deliver() and not self._stopped:
                    self.read_figures()
        except StoreError as error:
            self._leave_store()  # what is opened next asks it anew for its version
            self._again_at_s = time.monotonic() + _AGAIN_S
            signals.tell(
                "leader", "pbmon: the store %s. Jobs and deliveries wait meanwhile.", error
            )

    def stop(self) -> None:
        with self._awake:
            self._stopped = True
            self._awake.notify_all()
        if self._alerting is not None:
            self._alerting.stop()

    def finish(self, deadline_s: float) -> bool:
        """Have the figures read once more, if this process leads; whether that was done by the
        deadline (monotonic).

        By the thread, where it runs: a database that does not answer keeps nobody beyond the
        deadline. Else in the calling thread.
        """
        with self._awake:
            self._asked += 1
            asked = self._asked
            self._awake.notify_all()
            if self._thread is not None and self._thread.is_alive():
                left_s = max(0.0, deadline_s - time.monotonic())
                return self._awake.wait_for(
                    lambda: self._answered >= asked or self._stopped, left_s
                )
        if not self._stopped:
            with signals.guard("leading at the end"):
                self._try_round(wholly=False)
        return True

    def _answer(self, asked: int) -> None:
        with self._awake:
            self._answered = max(self._answered, asked)
            self._awake.notify_all()

    def lead(self) -> bool:
        """Whether this process is the leader now. Raises StoreError."""
        leads = False
        try:
            if self._leadership is None:
                self._leadership = open_leadership(self._url)
            leads = self._leadership.take()
        finally:
            if self.is_leading and not leads:
                self.publish(None)
            self.is_leading = leads
        return leads

    def read_figures(self) -> None:
        """Publish them, every five seconds or where somebody waits for them. Where the store does
        not say them nothing is published: none is said to be true for longer than it was."""
        asked = self._asked
        if time.monotonic() < self._figures_at_s and asked == self._answered:
            return
        self._figures_at_s = time.monotonic() + _FIGURES_EVERY_S
        with signals.guard("reading figures"):
            try:
                self.publish(self._read())
            except StoreError as error:
                signals.tell(
                    "figures", "pbmon: the store %s. Its figures are not exported meanwhile.", error
                )
        self._answer(asked)

    def _read(self) -> Reading:
        with signals.importing:
            from pbmon.worker.figures import sources
        if self._figures is None:
            self._figures = open_figures(self._url)
        return self._figures.read(sources(self._settings))

    def note_release(self) -> None:
        """Mark the release that runs here as deployed, unless it is; looked at once a minute, since
        what is too early now may be right later. Raises StoreError."""
        if self._release is None or time.monotonic() < self._release_at_s:
            return
        if self._runs is None:
            self._runs = open_runs(self._url)
        age_s = time.monotonic() - LOADED_S
        releases.note(self._runs, self._release, age_s)
        self._release_at_s = time.monotonic() + _JOBS_EVERY_S

    def do_jobs(self) -> None:
        """What is due, looked at once a minute. Raises StoreError."""
        if time.monotonic() < self._jobs_at_s:
            return
        if self._runs is None:
            self._runs = open_runs(self._url)
        if self._is_clock_doubtful():
            return
        now = dt.datetime.fromtimestamp(time.time(), dt.timezone.utc)
        jobs.run_due(self._runs, self._settings, now, may_change_schema=self._may_change_schema)
        for job, (_, finished_at) in self._runs.last().items():
            self.succeeded_at[job] = finished_at / 1e6
        self._jobs_at_s = time.monotonic() + _JOBS_EVERY_S

    def _is_clock_doubtful(self) -> bool:
        """Whether the wall clock jumped ahead within a day: what is deleted for its age by a wrong
        clock is gone. By that time somebody has set it right, or it was wrong before."""
        now_s = time.monotonic()
        apart_s = time.time() - now_s
        jump_s = apart_s - self._clocks_apart_s if self._clocks_apart_s is not None else 0.0
        self._clocks_apart_s = apart_s
        if jump_s > _JUMP_S:
            self._steady_at_s = now_s + _STEADY_S
            signals.tell(
                "clock",
                "pbmon: the clock jumped ahead by %d s; the jobs wait for a day, as some delete "
                "what is old. If it is wrong, set it right",
                jump_s,
            )
        elif jump_s < -_JUMP_S:
            self._steady_at_s = 0.0
        return now_s < self._steady_at_s

    def convert(self) -> None:
        """Money that waits for a rate: what came since, and every ten minutes what had none. Raises
        StoreError."""
        if self._rates is None:
            return
        if self._conversions is None:
            self._conversions = open_conversions(self._url)
        waiting = self._conversions.waiting()
        if waiting == self._rateless and time.monotonic() < self._conversions_at_s:
            return
        convert_waiting(self._conversions, self._rates)
        self._rateless = self._conversions.waiting()
        self.succeeded_at["conversions"] = time.time()
        self._conversions_at_s = time.monotonic() + _CONVERSIONS_EVERY_S

    def deliver(self) -> bool:
        """One portion to each destination that is not to be left in peace; whether there may be
        more. Raises StoreError."""
        if not self._make:
            return False
        if self._deliveries is None:
            self._deliveries = open_deliveries(
                self._url,
                self._settings.consent[SHARING],
                self._settings.consent_version.get(SHARING),
            )
        states = {state.destination: state for state in self._deliveries.states()}
        more = False
        for destination in self._made():
            state = states.get(destination.name)
            if state is None or not state.waiting:
                continue
            if 0 < state.again_at - time.time_ns() // 1000 <= _PATIENCE_S * 1e6:
                continue
            more |= self._deliver_to(destination, state.failures)
        return more

    def _made(self) -> Sequence[Destination]:
        if not self._destinations:
            self._destinations = [make() for make in self._make]
        return self._destinations

    def erase(self, *, at_once: bool = False) -> None:
        """Go on with the deletions of people that are outstanding: every two seconds, or at once.
        Raises StoreError."""
        self._outstanding.step(self._made, at_once=at_once)

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
            again_at = time.time_ns() // 1000 + int(min(wait_s, _PATIENCE_S) * 1e6)
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
        for each in (
            self._figures, self._deliveries, self._runs, self._conversions, self._outstanding
        ):  # fmt: skip
            if each is not None:
                each.let_go()
        if self._alerting is not None:
            self._alerting.forget()
        started = self._thread is not None
        self._begin()
        if started:
            self.start()
