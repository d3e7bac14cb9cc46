"""The figures that the leader reads from the store, for the metrics of the catalogue that no
process counts (`of_store`). Imported at the first reading: the sources bring SQLAlchemy."""

from __future__ import annotations

from functools import partial

from pbmon.settings import Settings
from pbmon.store import alerts, deliveries, erasure, growth, marks, revenue
from pbmon.store.figures import Source

SOURCES: tuple[Source, ...] = (
    deliveries.figures, erasure.figures, growth.figures, alerts.figures, marks.figures,
)  # fmt: skip
"""All of them are asked in one snapshot of the store.

A source gives whole totals, and a counter at 0 before anything was counted: a receiver would else
never see it rise.
"""


def sources(settings: Settings) -> tuple[Source, ...]:
    """SOURCES, and those that depend on the settings."""
    return (*SOURCES, partial(revenue.figures, base_currency=settings.base_currency))
