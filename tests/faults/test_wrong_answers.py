"""A receiver that answers, and takes nothing.

`make faults` has more of them; they differ in the judging of the answer alone, which
tests/telemetry/test_transport.py goes through.
"""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "503, Retry-After",
        "garbage 200",
        "partial success",
    ],
)
def test_nothing_is_lost_to_answers_that_are_no_success(fault):
    prove(fault)
