"""`pbmon errors`, by a store in which some are."""

from __future__ import annotations

import json

import pytest

from pbmon.cli import main
from pbmon.store import schema
from pbmon.store.access import open_writer
from tests.store.test_errors import ONE, TWO, failure
from tests.store.test_writer import TRACE, portion


@pytest.fixture
def pbmon(tmp_path, monkeypatch, capsys):
    """pbmon(*arguments): exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PBMON_STORE_URL", f"sqlite:///{tmp_path}/store.sqlite3")

    def run(*arguments):
        status = main(["errors", *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def stored(tmp_path):
    now = schema.now()
    writer = open_writer(f"sqlite:///{tmp_path}/store.sqlite3", "opt-out")
    writer.write([
        portion(failure(ONE, now, 1200, user="7", route="/cart/{id}", release="1.1", trace=TRACE),
                failure(TWO, now - 3 * schema.DAY, 4, error_type="shop.PaymentError", place="")),
    ])  # fmt: skip
    writer.close()


def cells(line):
    return [cell for cell in line.split("  ") if cell.strip()]


def test_a_table_of_the_most_frequent(pbmon, stored):
    status, out, err = pbmon()
    head, one, two = out.splitlines()
    assert (status, err) == (0, "")
    assert [cell.strip() for cell in cells(head)] == [
        "ERRORS", "USERS", "LAST (UTC)", "SINCE RELEASE", "ERROR", "PLACE", "ROUTE",
    ]  # fmt: skip
    first, second = ([cell.strip() for cell in cells(line)] for line in (one, two))
    assert (first[0], first[1], first[3:]) == (
        "1,200", "1", ["1,200", "KeyError", "shop.cart:total", "/cart/{id}"],
    )  # fmt: skip
    assert (second[0], second[3:]) == ("4", ["0", "shop.PaymentError", "–", "–"])


def test_as_json(pbmon, stored):
    _, out, _ = pbmon("--json", "--limit", "1")
    (found,) = json.loads(out)
    assert (found["fingerprint"], found["errors"], found["trace_id"]) == (ONE, 1200, TRACE)
    assert found["last_at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("arguments", "count"),
    [(("--since", "1h"), 1), (("--since", "100h"), 2), (("--since", "2026-01-01"), 2),
     (("--since", "2026-01-01T12:00+01:00"), 2), (("--release", "1.1"), 1)],
    ids=str,
)  # fmt: skip
def test_of_a_time_and_a_release(pbmon, stored, arguments, count):
    assert len(json.loads(pbmon("--json", *arguments)[1])) == count


def test_none(pbmon, stored):
    assert pbmon("--release", "9") == (0, "no errors\n", "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("--since", "soon"), "no length of time"), (("--limit", "0"), "1 to 1000"),
     (("--limit", "many"), "1 to 1000")],
    ids=str,
)  # fmt: skip
def test_what_is_not_understood_is_named(pbmon, capsys, arguments, word):
    with pytest.raises(SystemExit) as ended:
        pbmon(*arguments)
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


def test_without_a_store_it_says_so(pbmon):
    status, out, err = pbmon()
    assert (status, out) == (1, "")
    assert "none is there yet" in err
