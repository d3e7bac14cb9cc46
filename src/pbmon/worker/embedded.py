"""The worker inside an application: its threads start at the first use of the business API.

An application that calls none of it makes no journal, opens no database and has no thread of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, privacy, signals
from pbmon.business.intake import Intake
from pbmon.settings import Settings
from pbmon.spool import journal
from pbmon.spool.directory import Home, UnusableError
from pbmon.store.access import StoreError, may_be_there, open_engine, read
from pbmon.worker.leader import Leader
from pbmon.worker.shipper import PORTION, Shipper
from pbmon.worker.targets import makers
from pbmon.worker.urls import store_url, url_of

if TYPE_CHECKING:
    from pbmon.store.queries import Queries


class Embedded:
    """settings, service: those in force at the first use."""

    def __init__(self, settings: Callable[[], Settings], service: Callable[[], str]) -> None:
        self._settings = settings
        self._service = service
        self.intake = Intake(self._open_home, self._begin)
        self.shipper: Shipper | None = None
        self.leader: Leader | None = None
        self._url = ""
        self._queries: Queries | None = None
        signals.enlist(self)

    def _open_home(self) -> Home:
        return journal.open_home(self._settings().state_dir, self._service())

    def _begin(self, home: Home) -> None:
        settings = self._settings()
        if self.shipper is None and settings.worker == "thread":
            self.shipper, self.leader = build(settings, home, self.intake.look_after)
            self.shipper.start()
            self.leader.start()

    def install(self, meter: Meter) -> None:
        signals.observe(catalog.STORE_LAG, self._lag, meter=meter, instant=True)
        signals.observe(catalog.JOB_LAST_SUCCESS, self._successes, meter=meter, instant=True)

    def _lag(self) -> Iterable[Observation]:
        lag_s = self.shipper.lag_s() if self.shipper is not None else None
        return [Observation(lag_s)] if lag_s is not None else []

    def _successes(self) -> Iterable[Observation]:
        succeeded_at = self.leader.succeeded_at.copy() if self.leader is not None else {}
        return [
            Observation(at_s, {catalog.JOB.name: job}) for job, at_s in sorted(succeeded_at.items())
        ]

    def read(self) -> Queries:
        """The store in force, opened at the first use. Raises StoreError."""
        try:
            home = self._open_home()
        except UnusableError as error:
            raise StoreError(f"there is no state directory: {error}") from None
        url = store_url(self._settings(), home)
        home.close()
        if self._queries is None or self._url != url:
            try:
                self._queries, self._url = read(open_engine(url)), url
            except StoreError as error:
                raise StoreError(f"the store {privacy.mask_url(url)} {error}") from None
        return self._queries

    def forget(self) -> None:
        """In a forked child: what the parent opened is the parent's."""
        if self._queries is not None:
            self._queries.let_go()

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → events, as runtime.Runtime.event_totals."""
        totals = dict(self.intake.totals())
        if self.shipper is not None:
            totals["delivered", ""] = self.shipper.delivered
            for reason, count in self.shipper.dropped.copy().items():
                totals["dropped", reason] = count
        return totals if any(totals.values()) else {}

    def finish(self, timeout_s: float) -> bool:
        """Bring what waits into the store, if that is this process's to do."""
        if self.shipper is None:
            return True
        return self.shipper.finish(time.monotonic() + timeout_s)

    def close(self, timeout_s: float) -> None:
        """Nothing more is taken; what is not in the store by then is left to the next shipper."""
        self.intake.close()
        self.finish(timeout_s)
        for role in (self.shipper, self.leader):
            if role is not None:
                role.stop()


def build(
    settings: Settings,
    home: Home,
    every_second: Callable[[], None] = lambda: None,
    *,
    portion: int = PORTION,
    may_change_schema: bool = False,
) -> tuple[Shipper, Leader]:
    """The roles by the settings. may_change_schema: in a process of their own."""
    url = store_url(settings, home)
    destinations = makers(settings, home.service)
    shipper = Shipper(
        home,
        url,
        settings.consent,
        outbox_url=url_of("outbox_url", settings.outbox_url),
        destinations=tuple(destinations),
        portion=portion,
        every_second=every_second,
    )
    return shipper, Leader(
        url,
        settings,
        list(destinations.values()),
        may_lead=lambda: shipper.is_on_duty and may_be_there(url),
        may_change_schema=may_change_schema,
    )
