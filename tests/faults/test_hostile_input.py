"""Values that cannot be encoded, clocks that jump, names that clients choose."""

from __future__ import annotations

import pytest

from tests.faults.reduced import prove


@pytest.mark.parametrize(
    "fault",
    [
        "poisoned records",
        "sink rejects a record",
        "clock steps",
        "cardinality",
    ],
)
def test_one_bad_value_costs_no_other_record(fault):
    prove(fault)
