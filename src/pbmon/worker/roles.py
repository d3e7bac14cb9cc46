"""The two roles that a process may have for others, the shipper's and the leader's, and what it
exports about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, runtime, signals
from pbmon.rates.chosen import at_hand, open_rates
from pbmon.settings import Settings
from pbmon.spool.directory import Home
from pbmon.store.access import may_be_there
from pbmon.telemetry.providers import environment
from pbmon.worker.alerts import Alerting
from pbmon.worker.leader import Leader
from pbmon.worker.shipper import PORTION, Shipper
from pbmon.worker.targets import makers
from pbmon.worker.urls import outbox_url, store_url


class Roles:
    """shipper, leader: of this process; none yet, or none at all, where it is the application's and
    another process has them."""

    def __init__(self, shipper: Shipper | None = None, leader: Leader | None = None) -> None:
        self.shipper = shipper
        self.leader = leader
        self._ended = False

    def install(self, meter: Meter) -> None:
        signals.observe(catalog.STORE_LAG, self._lag, meter=meter, instant=True)
        signals.observe(catalog.JOB_LAST_SUCCESS, self._successes, meter=meter, instant=True)
        signals.observe(catalog.WORKER_ACTIVE, self._active, meter=meter, instant=True)
        signals.observe(catalog.ALERTS_PAGING, _paging, meter=meter, instant=True)

    def _lag(self) -> Iterable[Observation]:
        lag_s = self.shipper.lag_s() if self.shipper is not None else None
        return [Observation(lag_s)] if lag_s is not None else []

    def _successes(self) -> Iterable[Observation]:
        succeeded_at = self.leader.succeeded_at.copy() if self.leader is not None else {}
        return [
            Observation(at_s, {catalog.JOB.name: job}) for job, at_s in sorted(succeeded_at.items())
        ]

    def _active(self) -> Iterable[Observation]:
        if self.shipper is None or self.leader is None:
            return []
        held = {"shipper": self.shipper.is_on_duty, "leader": self.leader.is_leading}
        return [
            Observation(int(has and not self._ended), {catalog.ROLE.name: role})
            for role, has in held.items()
        ]

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → events that this process has stored, or not."""
        if self.shipper is None:
            return {}
        dropped = self.shipper.dropped.copy()
        return {
            ("delivered", ""): self.shipper.delivered,
            **{("dropped", reason): count for reason, count in dropped.items()},
        }

    def finish(self, timeout_s: float) -> bool:
        """Bring what waits into the store, then read its figures, as far as that is this process's
        to do."""
        if self.shipper is None or self.leader is None:
            return True
        deadline_s = time.monotonic() + timeout_s
        stored = self.shipper.finish(deadline_s)
        return self.leader.finish(deadline_s) and stored

    def stop(self) -> None:
        self._ended = True  # as the last export says
        for role in (self.shipper, self.leader):
            if role is not None:
                role.stop()


def _paging() -> Iterable[Observation]:
    """By the settings in force: who of the two tells of bursts of errors."""
    teller = runtime.active.settings.alerts.teller
    return [
        Observation(int(source == teller), {catalog.ALERT_SOURCE.name: source})
        for source in catalog.ALERT_SOURCE.values
    ]


def build(
    settings: Settings,
    home: Home,
    every_second: Callable[[], None] = lambda: None,
    *,
    portion: int = PORTION,
    may_change_schema: bool = False,
    release: str | None = None,
) -> tuple[Shipper, Leader]:
    """The roles by the settings. may_change_schema: in a process of their own. release: that runs
    here."""
    url = store_url(settings, home)
    destinations = makers(settings, home.service)
    shipper = Shipper(
        home,
        url,
        settings.consent,
        versions=settings.consent_version,
        pepper=settings.pepper,
        outbox_url=outbox_url(settings, url),
        destinations=tuple(destinations),
        base_currency=settings.base_currency,
        rates=at_hand(settings),
        timezone=settings.timezone,
        scrubs=settings.scrub,
        portion=portion,
        every_second=every_second,
    )
    return shipper, Leader(
        url,
        settings,
        list(destinations.values()),
        may_lead=lambda: shipper.is_on_duty and may_be_there(url),
        may_change_schema=may_change_schema,
        rates=open_rates(settings, home),
        release=release,
        alerting=Alerting(
            url, settings.alerts, service=home.service, environment=environment(settings)
        ),
    )
