"""The experiment with the gate: that it takes what it says, and judges what was taken."""

from __future__ import annotations

import json
import random

from benchmarks import gate
from benchmarks.processes import run


def taken(factor, comparisons=3):
    chance = random.Random(1)

    def side(times):
        return [times * chance.uniform(0.9, 1.1) for _ in range(gate._PAIRS)]

    return [[side(0.004), side(0.004 * factor)] for _ in range(comparisons)]


def test_it_counts_what_failed(capsys):
    found = gate.judge(taken(1.3), taken(1.0)[0][0])
    assert (found.comparisons, found.by_baseline, found.by_budget) == (3, 3, 3)
    assert 1.2 < found.ratios[0] <= found.ratios[-1] < 1.4
    assert gate.judge(taken(1.0), taken(1.0)[0][0]).by_baseline == 0
    assert gate.report({"same": taken(1.0), "slower": taken(1.3)}) == 0
    assert gate.report({"same": taken(1.0), "slower": taken(1.0)}) == 1
    assert gate.report({"same": taken(1.3), "slower": taken(1.3)}) == 1
    assert "  beside its baseline            0 of 3          3 of 3" in capsys.readouterr().out


def test_one_comparison_with_real_servers(tmp_path):
    """How it ends is a matter of the machine."""
    raw = tmp_path / "raw.json"
    _, said = run("benchmarks.gate", "--comparisons", "1", "--raw", str(raw))
    assert "failed                          the same      30 % slower\n" in said
    found = json.loads(raw.read_text(encoding="utf-8"))
    for name in ("same", "slower"):
        ((before, after),) = found[name]
        assert (len(before), len(after)) == (gate._PAIRS, gate._PAIRS)
        assert min(*before, *after) > 0
    status, again = run("benchmarks.gate", "--judge", str(raw))
    assert (status in (0, 1), again) == (True, said)
