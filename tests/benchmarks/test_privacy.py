"""The benchmark deletes people who are there, with all that they have."""

from __future__ import annotations

import pytest

from benchmarks import privacy


@pytest.mark.parametrize("writers", [0, 2])
def test_whom_it_deletes_has_something(writers):
    found = privacy.measure("SQLite", users=50, events=1000, deleted=5, writers=writers)
    assert (found["deleted"], found["users"]) == (5, 50)
    assert found["events_of_each"] > 5
    assert found["median_s"] <= found["p95_s"] <= found["longest_s"]
    assert (found["stored"] > 0) is (writers > 0)
