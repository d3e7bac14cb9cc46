"""A receiver that answers, and takes nothing."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "500",
        "401",
        "503, Retry-After",
        "301",
        "garbage 200",
        "partial success",
    ],
)
def test_nothing_is_lost_to_answers_that_are_no_success(fault):
    prove(fault)
