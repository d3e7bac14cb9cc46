"""Active users: the gauge, read from the store's figures."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, runtime, signals


class ActiveUsers:
    """The gauge pbmon.users.active. Without a StoreReader it has no series at all: an unknown
    number is not 0."""

    def __init__(self, meter: Meter) -> None:
        signals.observe(catalog.USERS_ACTIVE, self._observe, meter=meter)

    def _observe(self) -> Iterable[Observation]:
        store = runtime.active.store
        if store is None:
            return
        for window, count in store.active_users().items():
            yield Observation(count, {catalog.WINDOW.name: window})
