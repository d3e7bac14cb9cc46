"""Reduced: `make faults` kills more often."""

from __future__ import annotations

import pytest

from tests.worker.alert_killing import in_postgresql, in_sqlite

KILLS = 5


@pytest.mark.server
@pytest.mark.faults
@pytest.mark.parametrize("trial", [in_sqlite, in_postgresql], ids=["sqlite", "postgresql"])
@pytest.mark.usefixtures("stack_postgres")
def test_every_burst_is_told_under_one_key(trial):
    outcome = trial(KILLS, 7)
    assert outcome.is_right, outcome
    assert outcome.repeated <= KILLS
