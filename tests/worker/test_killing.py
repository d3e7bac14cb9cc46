"""Reduced, to 52 kills in all: `make faults` kills a thousand times."""

from __future__ import annotations

import pytest

from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram
from tests.worker.killing import FORKS, Trial, in_postgresql

KILLS = 13


@pytest.mark.server
@pytest.mark.faults
@pytest.mark.parametrize("with_outbox", [False, True], ids=["journals", "outbox"])
@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_nothing_accepted_is_lost_or_stored_twice(place, with_outbox):
    if place == "sqlite":
        outcome = Trial(None, 1, with_outbox=with_outbox).run(KILLS)
    else:
        try:
            outcome = in_postgresql(2, KILLS, with_outbox=with_outbox)
        except MissingProgram as absent:
            missing(absent.name, absent.reason)
    assert outcome.is_right, outcome
    assert outcome.accepted > 0
    assert outcome.unnoted <= KILLS * (1 + FORKS)
