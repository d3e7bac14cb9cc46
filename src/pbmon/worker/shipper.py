"""The shipper: brings what the journals hold into the store.

One process of a service and state directory is the shipper (flock); where it ends, another takes
its place within a second. It is a thread in the application, or `pbmon worker`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pbmon import privacy, signals
from pbmon.money import Rates
from pbmon.spool import turning
from pbmon.spool.backlog import Duty
from pbmon.spool.directory import Home
from pbmon.store.access import (
    RejectedError,
    StoreError,
    asking,
    may_be_there,
    open_outbox,
    open_writer,
)
from pbmon.worker.clearance import Clearance
from pbmon.worker.journals import Journals
from pbmon.worker.peppers import pepper_of

if TYPE_CHECKING:
    from pbmon.store.outbox import Drain
    from pbmon.store.writer import Portion, Writer, Written

PORTION = 100
"""Items of a transaction in an application: preparing so many holds the interpreter, which its
event loop needs too, for about a millisecond."""

LARGE_PORTION = 2000
"""Likewise in a process of its own."""

_EVERY_S = 0.2
_ROLE_EVERY_S = 1.0
_LOOK_EVERY_S = 2.0
_OUTBOX_EVERY_S = 0.5
_TOUCH_EVERY_S = 3600.0
_TURN_EVERY_S = 60.0
_AGAIN_S = (0.5, 1.0, 2.0, 5.0, 10.0)

NOTHING = b""
"""In the place of an item that the database refuses: it is counted as dropped."""


class Shipper:
    """url: of the store; outbox_url: of the outbox, if it is not in a store of PostgreSQL.
    consent: purpose → legal basis; versions: purpose → the one that must have been agreed to.
    pepper: where the one from outside is, as the setting says. destinations: names of those that
    are to get what is stored.
    base_currency, rates: what money is converted into, and by. portion: items of a transaction.
    timezone: of the days of people, where it makes the store.

    every_second: called in its thread, whether or not this process is the shipper.
    """

    def __init__(
        self,
        home: Home,
        url: str,
        consent: Mapping[str, str],
        *,
        versions: Mapping[str, str] = MappingProxyType({}),
        pepper: str | None = None,
        outbox_url: str | None = None,
        destinations: Sequence[str] = (),
        base_currency: str = "USD",
        rates: Rates | None = None,
        portion: int = PORTION,
        timezone: str = "UTC",
        scrubs: bool = True,
        every_second: Callable[[], None] = lambda: None,
    ) -> None:
        self._home = home
        self._url = url
        self._consent = consent
        self._versions = versions
        self._pepper = pepper
        self._destinations = destinations
        self._base_currency = base_currency
        self._rates = rates
        self._outbox_url = outbox_url
        self._portion = portion
        self._timezone = timezone
        self._scrubs = scrubs
        self._every_second = every_second
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        """Of shipping: the thread's, or the one's that ends the process."""
        self._stopped = False
        self._awake = threading.Condition()
        self._hurry = False
        self._rounds = 0
        """Times that the thread has looked at everything."""
        self._thread: threading.Thread | None = None
        self._duty: Duty | None = None
        self._on_duty = False
        self._writer: Writer | None = None
        self._outbox: Drain | None = None
        self._look_at_s = self._again_at_s = self._outbox_at_s = self._touch_at_s = 0.0
        self._failures = 0
        self._behind_since_s: float | None = None
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self._journals = Journals(self._home, self.dropped)
        self._clearance = Clearance(self._home)
        self._turn_at_s = 0.0

    # --- the thread ---

    def start(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self.run, name="pbmon-shipper", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is exiting: finish() does it then
                self._thread = None

    def run(self) -> None:
        """Until stop()."""
        role_at_s = 0.0
        while not self._stopped:
            with self._awake:
                self._awake.wait_for(lambda: self._hurry or self._stopped, _EVERY_S)
                hurry, self._hurry = self._hurry, False
            now_s = time.monotonic()
            if now_s >= role_at_s or hurry:
                role_at_s = now_s + _ROLE_EVERY_S
                with signals.guard("looking after the events"):
                    self._every_second()
                    self.take_duty()
            if hurry:
                self._look_at_s = self._outbox_at_s = 0.0
                self._clearance.hurry()
            if self._on_duty:
                self._ship_all()
            with self._awake:
                self._rounds += 1
                self._awake.notify_all()
        self.end()

    def end(self) -> None:
        """Give up role and connections, once the thread is over or where there was none."""
        self.stop()
        with self._lock, signals.guard("leaving the store"):
            self._close()
            self._leave_duty()

    def _close(self) -> None:
        """What is opened next asks the store anew: for its version, for how far journals are."""
        for each in (self._writer, self._outbox):
            if each is not None:
                each.close()
        self._writer = self._outbox = None
        self._journals.forget_positions()

    def _ship_all(self) -> None:
        with signals.guard("shipping events"):
            while self.ship() and not self._stopped:
                pass
        with signals.guard("emptying the outbox"):
            while self.empty_outbox() and not self._stopped:
                pass
        with signals.guard("clearing what was deleted"):
            self.clear()

    @property
    def place(self) -> Path:
        """Where its journals are."""
        return self._home.path

    @property
    def is_on_duty(self) -> bool:
        """Whether this process was the shipper when it last looked."""
        return self._on_duty

    def stop(self) -> None:
        with self._awake:
            self._stopped = True
            self._awake.notify_all()

    def take_duty(self) -> bool:
        """Whether this process is the shipper now."""
        try:
            if self._duty is not None and self._duty.is_void():
                self._leave_duty()
            if self._duty is None:
                self._duty = Duty(self._home)
        except OSError as error:
            signals.tell(
                "duty",
                "pbmon: %s can't be used (%s); nothing is brought into the store from there. If it "
                "was removed, the next event of an application makes it again",
                self._home.path, error.strerror,
            )  # fmt: skip
            return False
        if not self._on_duty:
            self._on_duty = self._duty.take()
        return self._on_duty

    def _leave_duty(self) -> None:
        if self._duty is not None:
            self._duty.forget()
            self._duty = None
        self._on_duty = False

    def finish(self, deadline_s: float) -> bool:
        """Bring everything into the store until the deadline (monotonic). Whether all is there,
        or another process is the shipper.

        By the thread, where it runs: a database that does not answer keeps nobody beyond the
        deadline. Else in the calling thread.
        """
        thread = self._thread
        if thread is not None and thread.is_alive():
            return self._await_round(deadline_s)
        with signals.guard("shipping events at the end"):
            if not self.take_duty():
                return True
            self._look_at_s = self._outbox_at_s = 0.0
            self._clearance.hurry()
            while time.monotonic() < deadline_s:
                if not self.ship() and not self.empty_outbox():
                    self.clear()
                    return self._behind_since_s is None
        return False

    def _await_round(self, deadline_s: float) -> bool:
        with self._awake:
            # The round under way may have passed by what came since.
            wanted = self._rounds + 2
            while self._rounds < wanted:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._hurry = True
                self._awake.notify_all()
                self._awake.wait(left_s)
        return not self._on_duty or self._behind_since_s is None

    def lag_s(self) -> float | None:
        """For how long there has been something that is not in the store; None where this
        process is not the shipper."""
        if not self._on_duty:
            return None
        since_s = self._behind_since_s
        return time.monotonic() - since_s if since_s is not None else 0.0

    def forget(self) -> None:
        """In a forked child: role, thread and connections are the parent's."""
        if self._duty is not None:
            self._duty.forget()
        for each in (self._writer, self._outbox):
            if each is not None:
                each.let_go()
        started = self._thread is not None
        self._begin()
        if started:
            self.start()

    # --- shipping ---

    def ship(self) -> bool:
        """One transaction; whether there may be more."""
        with self._lock:
            now_s = time.monotonic()
            if now_s < self._again_at_s:
                return False
            try:
                more = self._ship(now_s)
            except StoreError as error:
                self._fail(str(error))
                return False
            self._failures = 0
            return more

    def empty_outbox(self) -> bool:
        """One transaction of the outbox; whether there may be more."""
        if self._outbox_url is None or time.monotonic() < max(self._again_at_s, self._outbox_at_s):
            return False
        with self._lock:
            try:
                more = self._take(self._portion)
            except StoreError as error:  # the journals' way need not be the same
                if self._outbox is not None:
                    self._outbox.close()
                    self._outbox = None
                self._outbox_at_s = time.monotonic() + _AGAIN_S[-1]
                signals.tell(
                    "outbox", "pbmon: the outbox %s %s. Its events wait there meanwhile.",
                    privacy.mask_url(self._outbox_url), error,
                )  # fmt: skip
                return False
        if not more:
            self._outbox_at_s = time.monotonic() + _OUTBOX_EVERY_S
        return more

    def clear(self) -> None:
        """Have what waited when somebody was deleted off this host, and say so to the store. What
        fails is tried again."""
        with self._lock:
            if time.monotonic() < self._again_at_s:
                return
            try:
                if self._writer is None and not may_be_there(self._url):
                    return
                self._clearance.step(self._open().deletions, self._outbox)
            except (StoreError, OSError) as error:
                why = error if isinstance(error, StoreError) else error.strerror
                signals.tell(
                    "clearance",
                    "pbmon: whether anything of people who were deleted waits in %s can't be said "
                    "(%s); it is tried again",
                    self._home.path, why,
                )  # fmt: skip

    def _turn(self) -> None:
        """Somebody who was deleted came again: no segment is to hold that for long."""
        now_s = time.monotonic()
        if now_s < self._turn_at_s:
            return
        self._turn_at_s = now_s + _TURN_EVERY_S
        with suppress(OSError):  # it goes with the segment, then
            turning.ask(self._home)

    def _take(self, limit: int) -> bool:
        writer = self._open()
        if self._outbox is None:
            self._outbox = open_outbox(str(self._outbox_url))

        def store(rows: list[tuple[bytes, bytes]]) -> None:
            written = writer.write_outbox(rows)
            self._note(written)

        def pass_over(rows: list[tuple[bytes, bytes]]) -> None:
            store([(key, NOTHING) for key, _ in rows])

        for size, way in ((limit, store), (1, store), (1, pass_over)):
            try:
                return asking(partial(self._outbox.take, size, way)) == size
            except RejectedError:  # one of them; then the first alone
                continue
        return False

    def _note(self, written: Written) -> None:
        self.delivered += written.stored
        self.dropped.update(written.dropped)
        if written.dropped["deleted"]:
            self._turn()
        if written.dropped["consent"]:
            signals.tell(
                "consent",
                "pbmon: %d of %d items were of people who have not agreed to `analytics`: they are "
                "not kept, only counted, and no figure has them. Tell pbmon.consent.grant() who "
                "has agreed, or set `consent` to the legal basis that there is (now: %s%s)",
                self.dropped["consent"],
                self.delivered + self.dropped.total(),
                self._consent["analytics"],
                f", version {wanted}" if (wanted := self._versions.get("analytics")) else "",
            )

    def _fail(self, why: str) -> None:
        with signals.guard("leaving the store"):
            self._close()
        wait_s = _AGAIN_S[min(self._failures, len(_AGAIN_S) - 1)]
        self._failures += 1
        self._again_at_s = time.monotonic() + wait_s
        if self._behind_since_s is None:
            self._behind_since_s = time.monotonic()
        signals.tell(
            f"store:{why}", "pbmon: the store %s %s. Events wait in the spool meanwhile.",
            privacy.mask_url(self._url), why,
        )  # fmt: skip

    def _ship(self, now_s: float) -> bool:
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + _LOOK_EVERY_S
            self._journals.look()
        if not self._journals.sources:
            self._behind_since_s = None
            return False
        writer = self._open()
        if now_s >= self._touch_at_s:
            asking(lambda: writer.touch(self._journals.sources))
            self._touch_at_s = now_s + _TOUCH_EVERY_S
        portions = self._journals.read(writer, self._portion)
        if not portions and self._journals.is_all_readable:
            self._behind_since_s = None
        elif self._behind_since_s is None:
            self._behind_since_s = now_s
        if not portions:
            return False
        self._write(writer, portions)
        return True

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = open_writer(
                self._url,
                self._consent["analytics"],
                sharing=self._consent["sharing"],
                versions=self._versions,
                pepper=pepper_of(self._pepper),
                destinations=self._destinations,
                base_currency=self._base_currency,
                rates=self._rates,
                timezone=self._timezone,
                scrubs=self._scrubs,
            )
        return self._writer

    def _write(self, writer: Writer, portions: list[Portion]) -> None:
        from pbmon.store.writer import SupersededError

        try:
            written = asking(lambda: writer.write(portions))
        except SupersededError:
            self._journals.forget_positions()
            return
        except RejectedError:
            self._write_apart(writer, portions)
            return
        self._note(written)
        for portion in portions:
            self._journals.settle(portion)

    def _write_apart(self, writer: Writer, portions: list[Portion]) -> None:
        """The database refuses what is in one of the items: find it, and keep the others."""
        first, *others = portions
        if others:
            parts = portions
        elif len(first.items) > 1:
            parts = _halves(first)
        elif first.items and first.items[0][1] != NOTHING:
            parts = [first._replace(items=[(first.items[0][0], NOTHING)])]
        else:
            raise StoreError("refuses its own tables' rows; run `pbmon store upgrade`")
        for part in parts:
            self._write(writer, [part])


def _halves(portion: Portion) -> list[Portion]:
    middle = len(portion.items) // 2
    place = portion.items[middle][0]
    return [
        portion._replace(items=portion.items[:middle], end=place),
        portion._replace(begin=place, items=portion.items[middle:]),
    ]
