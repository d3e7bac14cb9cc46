"""The worker inside an application: its threads start at the first use of the business API.

An application that calls none of it makes no journal, opens no database and has no thread of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from pbmon import privacy, signals
from pbmon.business.intake import Intake
from pbmon.erasure import Receipt
from pbmon.runtime import Reading, StoreError
from pbmon.settings import Settings
from pbmon.spool import journal
from pbmon.spool.directory import Home
from pbmon.store.access import open_deletions
from pbmon.telemetry.providers import release
from pbmon.worker import erasure
from pbmon.worker.peppers import pepper_of
from pbmon.worker.pseudonyms import SpanPseudonyms
from pbmon.worker.reader import LazyReader
from pbmon.worker.roles import Roles, build
from pbmon.worker.rounds import Rounds
from pbmon.worker.targets import targets
from pbmon.worker.urls import outbox_url

_WATCH_EVERY_S = 1.0


class Embedded(Roles):
    """settings, service: those in force at the first use. publish: takes the store's
    figures, as Leader.publish."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        service: Callable[[], str],
        publish: Callable[[Reading | None], None],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._service = service
        self._publish = publish
        self.intake = Intake(self._open_home, self._begin)
        self.every_second: Callable[[], None] = lambda: None
        """Called about once a second, once there is a journal."""
        self._watch = Watch(self._look_after)
        self._syncs = Rounds("pbmon-sync", lambda _timeout_s: self.intake.sync())
        self._former: list[Roles] = []
        self.reader = LazyReader(settings, service)
        self.pseudonyms = SpanPseudonyms(settings, self.reader.open)

    def _open_home(self) -> Home:
        return journal.open_home(self._settings().state_dir, self._service())

    def _begin(self, home: Home) -> None:
        settings = self._settings()
        if settings.worker != "thread":
            self._watch.start()
            return
        if self.shipper is not None:
            if self.shipper.place == home.path:
                return
            # Where it was, this process can't do anything any more.
            self._former.append(Roles(self.shipper, self.leader))
            self._former[-1].stop()
        self.shipper, self.leader = build(
            settings, home, self._look_after, release=release(settings)
        )
        self.leader.publish = self._publish
        self.shipper.start()
        self.leader.start()

    def _look_after(self) -> None:
        self.every_second()
        self.intake.look_after()

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → events, as runtime.Runtime.event_totals."""
        totals = Counter(self.intake.totals())
        for part in (super().totals(), *(each.totals() for each in self._former)):
            totals.update(part)
        return totals if any(totals.values()) else {}

    def sync(self) -> Future[bool]:
        """Have on the disk itself what was taken before; whether it is, and no store is asked."""
        return self._syncs.join(0.0)

    # --- people, as runtime.Eraser ---

    def delete(self, user_id: str, timeout_s: float) -> Receipt:
        deadline_s = time.monotonic() + timeout_s
        settings, url = self._settings(), self._reach()
        deletions = open_deletions(url, pepper_of(settings.pepper))
        try:
            return erasure.delete(
                deletions,
                user_id,
                tuple(targets(settings)),
                has_outbox=outbox_url(settings, url) is not None,
                deadline_s=deadline_s,
                ship=self._ship,
            )
        except StoreError as error:
            raise StoreError(f"the store {privacy.mask_url(url)} {error}") from None
        finally:
            deletions.close()

    def export(self, user_id: str, timeout_s: float) -> dict[str, Any]:
        self._reach()
        self._ship(time.monotonic() + timeout_s)
        return self.reader.open().export(user_id, self._settings().consent["sharing"])

    def _reach(self) -> str:
        """URL of the store, which is there from then on. Raises StoreError."""
        self.intake.begin()
        self.reader.open()  # one in SQLite is made, or upgraded
        return self.reader.url

    def _ship(self, deadline_s: float) -> None:
        if self.shipper is not None:
            self.shipper.finish(deadline_s)

    def close(self, timeout_s: float) -> None:
        """Nothing more is taken; what is not in the store by then is left to the next shipper."""
        self.intake.close()
        self.finish(timeout_s)
        self._watch.stop()
        self.stop()
        self.pseudonyms.stop()
        self.reader.close()


class Watch:
    """Looks after the journal about once a second, where no shipper's thread does."""

    def __init__(self, look_after: Callable[[], None]) -> None:
        self._look_after = look_after
        self._begin()
        signals.enlist(self)

    def _begin(self) -> None:
        self._stopped = threading.Event()
        self._started = False

    def forget(self) -> None:
        """In a forked child: it begins again with the journal of its own."""
        self._begin()

    def start(self) -> None:
        if self._started:
            return
        self._started = True
        # Where the interpreter is exiting there is nothing more to look after.
        with suppress(RuntimeError):
            threading.Thread(target=self._run, name="pbmon-journal", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        stopped = self._stopped
        while not stopped.wait(_WATCH_EVERY_S):
            with signals.guard("looking after the events"):
                self._look_after()
