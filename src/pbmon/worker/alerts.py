"""Alerts of the process that leads: a thread that judges the windows of errors, and one for each
sink, so that none that hangs keeps figures, jobs or another sink waiting.

Correct whoever else does the same meanwhile: an alert is opened once by the store's index, and a
message is claimed there before it is sent.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import signals
from pbmon.alerting.choices import AlertChoices
from pbmon.alerting.notices import link_of
from pbmon.runtime import StoreError
from pbmon.store.access import open_judge, open_notifications
from pbmon.worker.sinks import UnusableError, makers

if TYPE_CHECKING:
    from pbmon.delivery.alerts.receipts import Receipt, Sink
    from pbmon.store.alerts import Judge
    from pbmon.store.notifications import Claim, Notifications

EVERY_S = 5.0
LATE_EVERY_S = 60.0
LEASE_S = 60.0
"""How long a claimed message is its sender's: longer than any attempt takes. It is sent anew after
that where its sender was killed, which may have been after it was taken."""
_LOOK_S = 1.0
_AGAIN_S = 5.0
_LONGEST_S = 60.0
_END_S = 1.0


class Alerting:
    """url: of the store. sinks: made in their threads. clock: of the store, for tests."""

    def __init__(
        self,
        url: str,
        choices: AlertChoices,
        *,
        service: str,
        environment: str | None = None,
        **options: Any,
    ) -> None:
        self._url = url
        self._choices = choices
        self._makers = makers(choices)
        self._told_as = {"service": service, "environment": environment}
        self._options = options
        """Of the store's parts."""
        self._begin()

    def _begin(self) -> None:
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._judge: Judge | None = None
        self._late_at_s = 0.0
        self._senders = [Sender(name, make, self) for name, make in self._makers.items()]

    def start(self, leads: Callable[[], bool]) -> None:
        """leads: whether this process is the leader now."""
        if self._threads or self._stopped.is_set() or not self._senders:
            return
        parts = [("pbmon-alerts", lambda: self._run(leads))] + [
            (f"pbmon-alerts-{each.name}"[:40], lambda each=each: each.run(leads))
            for each in self._senders
        ]
        # Where the interpreter is exiting there is nothing more to tell.
        with suppress(RuntimeError):
            for name, run in parts:
                thread = threading.Thread(target=run, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self) -> None:
        """A message that is on its way is waited for shortly, to be noted."""
        self._stopped.set()
        deadline_s = time.monotonic() + _END_S
        for each in self._senders:
            each.end(deadline_s)

    def forget(self) -> None:
        """In a forked child: threads and connections are the parent's."""
        if self._judge is not None:
            self._judge.let_go()
        for each in self._senders:
            each.let_go()
        self._begin()

    # --- the judging ---

    def _run(self, leads: Callable[[], bool]) -> None:
        judge_at_s = 0.0
        with suppress_instrumentation():
            while not self._stopped.is_set():
                if not leads():
                    judge_at_s = self._late_at_s = 0.0
                elif time.monotonic() >= judge_at_s:
                    judge_at_s = time.monotonic() + EVERY_S
                    with signals.guard("judging errors"):
                        self.judge()
                self._stopped.wait(_LOOK_S)
            self._leave()

    def judge(self) -> None:
        """One look at the windows. A store that can't be used is told."""
        is_late = time.monotonic() >= self._late_at_s
        try:
            if self._judge is None:
                self._judge = open_judge(self._url, self._choices, **self._options)
            changes = self._judge.judge(late=is_late)
        except StoreError as error:
            self._leave()
            signals.tell("alerts", "pbmon: the store %s. Alerts wait meanwhile.", error)
            return
        if is_late:
            self._late_at_s = time.monotonic() + LATE_EVERY_S
        if changes:
            for each in self._senders:
                each.wake()

    def _leave(self) -> None:
        if self._judge is not None:
            self._judge.close()
            self._judge = None

    # --- for the senders ---

    def open_notifications(self) -> Notifications:
        return open_notifications(self._url, LEASE_S, **self._options)

    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def completed(self, claim: Claim) -> Claim:
        """With what only this process knows."""
        notice = claim.notice
        link = link_of(self._choices.url, notice.trace_id, notice.fingerprint)
        return claim._replace(notice=replace(notice, link=link, **self._told_as))  # type: ignore[arg-type]


class Sender:
    """The way to one sink."""

    def __init__(self, name: str, make: Callable[[], Sink], owner: Alerting) -> None:
        self.name = name
        self._make = make
        self._owner = owner
        self._awake = threading.Event()
        self._resting = threading.Event()
        """Set while nothing is on its way."""
        self._resting.set()
        self._notifications: Notifications | None = None
        self._sink: Sink | None = None
        self._sent: Claim | None = None
        """What was sent, and is not noted yet."""
        self._failures = 0
        self._bury_at_s = 0.0

    def run(self, leads: Callable[[], bool]) -> None:
        with suppress_instrumentation():
            while not self._owner.is_stopped():
                wait_s = EVERY_S
                if leads() or self._sent is not None:
                    with signals.guard("sending alerts"):
                        wait_s = self.send_due()
                self._awake.wait(wait_s)
                self._awake.clear()
            self._leave()

    def send_due(self) -> float:
        """Send what is due, until nothing is or the sink takes nothing; in how many seconds to
        look again."""
        self._resting.clear()
        try:
            if self._notifications is None:
                self._notifications = self._owner.open_notifications()
            if time.monotonic() >= self._bury_at_s:
                self._notifications.bury()
                self._bury_at_s = time.monotonic() + LATE_EVERY_S
            while not self._owner.is_stopped():
                if (wait_s := self._send_one(self._notifications)) is not None:
                    return wait_s
        except StoreError as error:
            self._leave()
            signals.tell("alerts", "pbmon: the store %s. Alerts wait meanwhile.", error)
            return _AGAIN_S
        finally:
            self._resting.set()
        return EVERY_S

    def _send_one(self, notifications: Notifications) -> float | None:
        """None where there may be more to send now."""
        if self._sent is not None:  # before anything else: it must not be sent again
            notifications.note_sent(self.name, self._sent.notice)
            self._sent = None
        claim = notifications.claim(self.name)
        if claim is None:
            return EVERY_S
        receipt = self._send(self._owner.completed(claim))
        if not receipt.taken:
            return self._note_failure(notifications, claim, receipt)
        self._failures = 0
        self._sent = claim
        return None

    def _send(self, claim: Claim) -> Receipt:
        from pbmon.delivery.alerts.receipts import Receipt

        try:
            if self._sink is None:
                self._sink = self._make()
            return self._sink.send(claim.notice)
        except UnusableError as error:
            return Receipt(False, str(error))

    def _note_failure(
        self, notifications: Notifications, claim: Claim, receipt: Receipt
    ) -> float | None:
        if not receipt.of_message:
            self._failures += 1
        failures = claim.attempt if receipt.of_message else self._failures
        wait_s = receipt.retry_after_s
        if wait_s is None:
            wait_s = min(_LONGEST_S, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        signals.tell(
            f"alerts:{self.name}",
            "pbmon: the sink of alerts %s takes nothing now (%s); it is tried again for a day: "
            "`pbmon alerts status`",
            self.name, receipt.said,
        )  # fmt: skip
        notifications.note_failed(self.name, claim, receipt.said, wait_s)
        return None if receipt.of_message else wait_s

    def wake(self) -> None:
        """There is something new to send. A sink that takes nothing is left in peace."""
        if not self._failures:
            self._awake.set()

    def end(self, deadline_s: float) -> None:
        self._awake.set()
        self._resting.wait(max(0.0, deadline_s - time.monotonic()))

    def let_go(self) -> None:
        if self._notifications is not None:
            self._notifications.let_go()

    def _leave(self) -> None:
        if self._notifications is not None:
            self._notifications.close()
            self._notifications = None
        if self._sink is not None:
            self._sink.close()
            self._sink = None
