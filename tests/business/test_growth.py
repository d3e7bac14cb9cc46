"""Active users: the gauge follows the store, and an unknown number is no series."""

from __future__ import annotations

import pytest

from pbmon import runtime, signals
from pbmon.testing import capture

GAUGE = "pbmon.users.active"


class Store:
    def __init__(self, counts):
        self.counts = counts

    def active_users(self):
        if isinstance(self.counts, Exception):
            raise self.counts
        return self.counts


@pytest.fixture
def seen():
    with capture() as seen:
        yield seen


def test_without_a_store_there_is_no_series(seen):
    assert GAUGE not in seen.metrics


def test_the_gauge_is_what_the_store_says(seen):
    runtime.active.store = store = Store({"24h": 7, "7d": 20, "30d": 51})
    assert seen.metrics[GAUGE] == {
        (("pbmon.window", "24h"),): 7,
        (("pbmon.window", "7d"),): 20,
        (("pbmon.window", "30d"),): 51,
    }
    store.counts = {"24h": 0}
    assert seen.metrics[GAUGE] == {(("pbmon.window", "24h"),): 0}
    store.counts = {}
    assert GAUGE not in seen.metrics


def test_a_failing_store_leaves_the_gauge_out(seen, monkeypatch, caplog):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(signals, "_last_told", {})
    runtime.active.store = Store(RuntimeError("down"))
    assert GAUGE not in seen.metrics
    assert "reading pbmon.users.active failed with RuntimeError" in caplog.text
