"""Reduced: `make faults` kills a thousand times."""

from __future__ import annotations

from pbmon.store import schema
from pbmon.store.access import open_engine
from tests.stack.plugin import started
from tests.stack.servers import Postgres
from tests.worker.killing import FORKS, Trial

KILLS = 50


def test_nothing_accepted_is_lost_or_stored_twice_in_sqlite():
    outcome = Trial(None, seed=1).run(KILLS)
    assert (outcome.lost, outcome.duplicated) == (0, 0), outcome
    assert outcome.accepted > KILLS
    assert outcome.unnoted <= KILLS * (1 + FORKS)


def test_nothing_accepted_is_lost_or_stored_twice_in_postgresql():
    with started(Postgres()) as postgres:
        schema.upgrade(open_engine(postgres.url))
        outcome = Trial(postgres.url, seed=2, restart=postgres.crash).run(KILLS)
    assert (outcome.lost, outcome.duplicated) == (0, 0), outcome
    assert outcome.accepted > KILLS
    assert outcome.unnoted <= KILLS * (1 + FORKS)
