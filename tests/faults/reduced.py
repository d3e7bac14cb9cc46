"""The experiments as tests: pbmon, seconds each, every bar met."""

from __future__ import annotations

from tests.faults.experiments import EXPERIMENTS, REDUCED


def prove(name: str) -> None:
    result = EXPERIMENTS[name]("pbmon", REDUCED)
    assert result.missed == [], result
