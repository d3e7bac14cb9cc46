"""The worker inside an application: its threads start at the first use of the business API.

An application that calls none of it makes no journal, opens no database and has no thread of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pbmon.business.intake import Intake
from pbmon.runtime import Reading
from pbmon.settings import Settings
from pbmon.spool import journal
from pbmon.spool.directory import Home
from pbmon.worker.roles import Roles, build


class Embedded(Roles):
    """settings, service: those in force at the first use. publish: takes the store's figures, as
    Leader.publish."""

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

    def _open_home(self) -> Home:
        return journal.open_home(self._settings().state_dir, self._service())

    def _begin(self, home: Home) -> None:
        settings = self._settings()
        if self.shipper is None and settings.worker == "thread":
            self.shipper, self.leader = build(settings, home, self.intake.look_after)
            self.leader.publish = self._publish
            self.shipper.start()
            self.leader.start()

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(outcome, reason) → events, as runtime.Runtime.event_totals."""
        totals = {**self.intake.totals(), **super().totals()}
        return totals if any(totals.values()) else {}

    def close(self, timeout_s: float) -> None:
        """Nothing more is taken; what is not in the store by then is left to the next shipper."""
        self.intake.close()
        self.finish(timeout_s)
        self.stop()
