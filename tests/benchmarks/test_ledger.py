"""The benchmark's store is as the ledger leaves it, and what it measures is right."""

from __future__ import annotations

import json

import pytest

from benchmarks import ledger
from pbmon.store.access import open_engine
from tests.store.conftest import new_database
from tests.store.money import check_books

ROWS = 2000


@pytest.mark.server
def test_in_postgresql(stack_postgres):
    url = new_database(stack_postgres.url)
    measured = ledger.measure(url, ROWS)  # which compares the sums
    assert (measured["engine"], measured["rows"]) == ("postgresql", ROWS)
    made = open_engine(url)
    assert len(check_books(made)) == ROWS
    made.dispose()


def test_in_sqlite(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["ledger", "--rows", "2e3", "--json", f"{tmp_path}/results"])
    assert ledger.main() == 0
    assert "sqlite, 2,000 transactions: " in capsys.readouterr().out
    (result,) = json.loads((tmp_path / "results").read_text())["results"]
    assert 0 < result["median_ms"] <= result["slowest_ms"]
