"""The benchmark of the store fills it consistently, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks import store
from pbmon.store import tables
from pbmon.store.access import open_engine, upgrade
from pbmon.store.queries import Queries
from pbmon.store.schema import DAY, micros
from pbmon.worker.shipper import LARGE_PORTION, PORTION

ENGINES = ["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.server)]
ROWS = 3000


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    if request.param == "PostgreSQL":
        postgres = request.getfixturevalue("stack_postgres")
        monkeypatch.setenv("PBMON_TEST_POSTGRES_URL", postgres.url)
    return request.param


def test_it_is_filled_consistently(engine):
    with store.stores(engine) as empty:
        made = open_engine(empty())
        upgrade(made)
        start = micros(store.following(store.dt.date(2026, 11, 1)))
        store.fill(made, engine, ROWS, start)
        with made.connect() as connection:
            count = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar()
                for table in (tables.events, tables.subjects)
            }
            people = connection.execute(select(tables.events.c.subject).distinct()).all()
        queries = Queries(made)
        end = start + (store.DAYS + 1) * DAY
        assert count == {"events": ROWS, "subjects": 100}
        assert queries.count(start, end) == ROWS
        assert queries.people(start, end) == len(people) == 100
        uses = queries.adoption(start, end)
        assert sum(u.viewed + u.clicked + u.completed for u in uses) == ROWS // 10
        assert len(uses) == 20
        assert store.size(made) > ROWS * 50
        made.dispose()


def test_a_size_is_measured_and_nothing_is_left(engine, monkeypatch, tmp_path):
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(store, "_INSERTED", 100)
    with store.stores(engine) as empty:
        url = empty()
        found = store.at_size(url, engine, ROWS)
        empty()
    assert found["rows"] == found["counted"] == ROWS
    assert all(value > 0 for value in found.values())
    assert list(tmp_path.glob("pbmon-scale-*")) == []


@pytest.mark.parametrize(("worker", "portion"), [("thread", PORTION), ("process", LARGE_PORTION)])
def test_the_shippers_bring_everything(worker, portion):
    with store.stores("SQLite") as empty:
        assert store.shipped(empty(), "SQLite", worker, portion + 50) > 0


def test_a_size_that_takes_too_long_is_left_out_and_said(monkeypatch, capsys, tmp_path):
    at = {"rows": 1000, "fill_s": 1.0, "bytes": 200.0, "inserted": 9000.0, "people_s": 0.001,
          "adoption_s": 0.002, "count_s": 0.0005}  # fmt: skip
    monkeypatch.setattr(store, "at_size", lambda url, engine, rows: at)
    monkeypatch.setattr(store, "shipped", lambda url, engine, worker: 8000.0)
    monkeypatch.setattr(store, "ROOT", tmp_path)
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("<!-- figures of the store -->\n<!-- end of figures of the store -->")
    arguments = ["--rows", "1e3", "1e5", "--engines", "SQLite", "--bound", "50"]
    monkeypatch.setattr("sys.argv", ["store", *arguments, "--write", str(page)])
    assert store.main() == 0
    said = capsys.readouterr().out
    assert "| SQLite | 1,000 | 200 | 9,000 | 1.0 ms | 2.0 ms | 0.5 ms |" in said
    assert "| SQLite | 100,000 | left out: too long |" in said
    assert "| SQLite | 8,000 | 8,000 |" in said
    assert "10⁹ events take: SQLite 186 GiB." in said
    assert "](images/store.svg)" in page.read_text()
    drawn = (tmp_path / "docs/images/store.svg").read_text()
    assert "<svg" in drawn
    assert len(drawn) < 100_000
    assert Path(store._PICTURE).parts[0] == "docs"
