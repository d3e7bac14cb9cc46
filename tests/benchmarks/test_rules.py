"""The rules of budgets under a real Prometheus that has a history: all of them, without a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rules import LIMITS, Scale, evaluated
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram

SCALE = Scale(endpoints=4, workers=2, hours=30)


@pytest.mark.server
def test_the_rules_are_as_many_for_any_number_of_endpoints(tmp_path: Path) -> None:
    try:
        found = evaluated(SCALE, tmp_path, evaluations=1)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)
    rules = [rule for group in found.groups for rule in group["rules"]]
    assert len(rules) == 26
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
    promises = SCALE.endpoints * len(LIMITS)
    for name, series in found.series.items():
        each = SCALE.workers if ":seen" in name else 1
        assert series == promises * each, name
    assert set(found.cpu_s) == {group["name"] for group in found.groups}
