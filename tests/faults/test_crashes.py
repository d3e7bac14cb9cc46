"""Processes that end without a word."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "SIGKILL",
        "outage, SIGKILL",
        "SIGKILL, files damaged",
    ],
)
def test_little_is_lost_and_nothing_counted_twice(fault):
    prove(fault)
