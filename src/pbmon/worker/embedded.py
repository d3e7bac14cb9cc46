"""The worker inside an application: its threads start at the first use of the business API.

An application that calls none of it makes no journal, opens no database and has no thread of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, signals
from pbmon.business.intake import Intake
from pbmon.settings import Settings
from pbmon.spool import directory, journal
from pbmon.spool.directory import Home
from pbmon.worker.shipper import Shipper

_STORES = "store"


class Embedded:
    """settings, service: those in force at the first use."""

    def __init__(self, settings: Callable[[], Settings], service: Callable[[], str]) -> None:
        self._settings = settings
        self._service = service
        self.intake = Intake(self._open_home, self._begin)
        self.shipper: Shipper | None = None

    def _open_home(self) -> Home:
        return journal.open_home(self._settings().state_dir, self._service())

    def _begin(self, home: Home) -> None:
        settings = self._settings()
        if self.shipper is None and settings.worker == "thread":
            self.shipper = Shipper(
                home,
                store_url(settings, home),
                settings.consent["analytics"],
                outbox_url=url_of("outbox_url", settings.outbox_url),
                every_second=self.intake.look_after,
            )
            self.shipper.start()

    def install(self, meter: Meter) -> None:
        signals.observe(catalog.STORE_LAG, self._lag, meter=meter, instant=True)

    def _lag(self) -> Iterable[Observation]:
        lag_s = self.shipper.lag_s() if self.shipper is not None else None
        return [Observation(lag_s)] if lag_s is not None else []

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

    def close(self) -> None:
        """Nothing more is taken; what waits is left to the next shipper."""
        self.intake.close()
        if self.shipper is not None:
            self.shipper.stop()


def store_url(settings: Settings, home: Home) -> str:
    """Of the store in force: as set, or a file of the service in its state directory."""
    file = default_file(home.state_directory, home.service)
    return url_of("store_url", settings.store_url) or f"sqlite:///{file}"


def url_of(setting: str, url: str | None) -> str | None:
    """A URL that may be said as `env:NAME`."""
    if url is None or not url.startswith("env:"):
        return url
    name = url.removeprefix("env:")
    found = os.environ.get(name) or None
    if found is None:
        signals.tell(
            setting,
            "pbmon: %s names the variable %s, which is not set; set it. Until then it is as if "
            "%s were not set.",
            setting, name, setting,
        )  # fmt: skip
    return found


def default_file(state_directory: Path, service: str) -> Path:
    return state_directory / _STORES / f"{directory.slug(service)}.sqlite3"
