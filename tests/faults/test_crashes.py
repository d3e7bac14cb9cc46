"""Processes that end without a word, or become two."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "SIGKILL",
        "outage, SIGKILL",
        "SIGKILL of a worker",
        "fork after counting",
    ],
)
def test_little_is_lost_and_nothing_counted_twice(fault):
    prove(fault)
