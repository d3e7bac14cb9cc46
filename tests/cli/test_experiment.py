"""`pbmon experiment report`, as a person and as a program reads it."""

from __future__ import annotations

import json

import pytest

from pbmon import cli
from pbmon.store.access import open_writer
from tests.store.test_experiments import paid, people
from tests.store.test_exposures import exposure
from tests.store.test_writer import NOON, portion

TOML = """
[experiments.checkout]
variants = { control = 50, treatment = 50 }
goal = "paid"
window_days = 7

[experiments.other]
variants = { a = 1, b = 1 }
goal = "paid"
window_s = 90
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Writes payloads into the store of the command."""
    (tmp_path / "pbmon.toml").write_text(TOML, encoding="utf-8")
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    monkeypatch.setenv("PBMON_CONFIG", str(tmp_path / "pbmon.toml"))
    monkeypatch.setenv("PBMON_STORE_URL", url)
    monkeypatch.setenv("PBMON_STATE_DIR", str(tmp_path / "state"))

    def write(*payloads):
        writer = open_writer(url, "opt-out")
        writer.write([portion(*payloads)])
        writer.close()

    return write


def report(capsys, *arguments, status=0):
    assert cli.main(["experiment", "report", *arguments]) == status
    return capsys.readouterr()


def test_two_variants_of_which_one_is_better(store, capsys):
    store(
        *people("control", 1000), *people("treatment", 1020), *paid("control", 100),
        *paid("treatment", 183), exposure("treatment", NOON + 1, "control-1"),
    )  # fmt: skip
    assert report(capsys, "checkout").out.splitlines() == [
        "checkout: people who did paid within 7 days",
        "  control            1,000 people            100 converted   10.00%",
        "  treatment          1,020 people            183 converted   17.94%",
        "             +7.94 points, +3.28 to +12.60, p below 0.001; 5.78 points would stand out",
        "  treatment is better than control",
        "  fewer than 10 people met a second variant; they count for their first",
    ]


def test_without_a_key_it_is_all_of_them_also_those_of_which_little_is_known(store, capsys):
    store(*people("a", 12, experiment="other"), *people("b", 9, experiment="other"))
    assert report(capsys).out.splitlines() == [
        "checkout: people who did paid within 7 days",
        "  control    fewer than 10 people  fewer than 10 converted",
        "  treatment  fewer than 10 people  fewer than 10 converted",
        "  no decision yet",
        "",
        "other: people who did paid within 90 s",
        "  a             12 people  fewer than 10 converted",
        "  b  fewer than 10 people  fewer than 10 converted",
        "  no decision yet",
    ]


def test_a_wrong_ratio_is_said_in_capitals(store, capsys):
    store(*people("control", 500), *people("treatment", 700))
    *_, decision, warning = report(capsys, "checkout").out.splitlines()
    assert decision == "  no decision: it is not sound"
    assert warning.startswith("  DO NOT TRUST THIS: there are not as many people in the variants")
    assert "(p below 0.001)" in warning


def test_as_json(store, capsys):
    store(*people("control", 40), *people("treatment", 30), *paid("control", 12))
    (one,) = json.loads(report(capsys, "checkout", "--json").out)
    assert one.pop("sample_ratio_p") == pytest.approx(0.987, abs=0.001)
    assert one.pop("variants")[0] == {
        "variant": "control", "weight": 50, "people": 40, "converted": 12, "rate": 0.3,
        "comparison": None,
    }  # fmt: skip
    assert one == {
        "key": "checkout", "goal": "paid", "window_s": 604_800.0, "crossed": 0, "is_sound": True,
        "decision": "no decision yet",
    }  # fmt: skip
    assert len(json.loads(report(capsys, "--json").out)) == 2


def test_one_that_is_not_declared(store, capsys):
    said = report(capsys, "chekout", status=1)
    assert said.err == ("pbmon: experiment 'chekout' is not declared; declared: checkout, other\n")


def test_none_at_all(store, capsys, monkeypatch):
    store()
    monkeypatch.delenv("PBMON_CONFIG")
    assert report(capsys).out == "no experiment is declared\n"


def test_a_store_that_is_not_there_is_one_line(store, capsys):
    said = report(capsys, status=1)
    assert said.out == ""
    assert "is made by the first event, and none is there yet" in said.err
