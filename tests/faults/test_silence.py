"""A receiver that is away, silent or late."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "sink refused",
        "sink hangs",
        "sink answers after 2 s",
        "burst, slow sink",
    ],
)
def test_nothing_is_lost_while_the_sink_does_not_answer(fault):
    prove(fault)
