"""One process that becomes several, and several of which one dies."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "fork after counting",
        "SIGKILL of a worker",
    ],
)
def test_every_count_is_kept_once(fault):
    prove(fault)
