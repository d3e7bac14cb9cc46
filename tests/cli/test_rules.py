"""`pbmon rules`, through its own parser; what `export` does to files is in test_dashboards.py."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from pbmon.cli import assets, rules

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "collector-config" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="pbmon rules")
    rules.configure(parser)
    return rules.run(parser.parse_args(words))


def urls(directory: Path) -> set[str]:
    return {
        rule["annotations"]["runbook_url"]
        for path in directory.glob("*.yml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def test_list_names_every_alert_beside_its_file(capsys):
    assert run("list") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["budgets.yml"] == "BudgetBurn BudgetBreached BudgetExhausted"
    named = {alert for alerts in lines.values() for alert in alerts.split()}
    assert named == {path.stem for path in RUNBOOKS.glob("*.md")}


def test_export_writes_what_is_committed(tmp_path):
    assert run("export", str(tmp_path)) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in COMMITTED.glob("*.yml")}


def test_export_links_runbooks_where_they_are_published(tmp_path):
    assert run("export", str(tmp_path), "--runbooks", "https://wiki.example/books/") == 0
    pages = {path.name for path in RUNBOOKS.glob("*.md")}
    assert urls(tmp_path) == {f"https://wiki.example/books/{page}" for page in pages}


@pytest.mark.parametrize(
    "url", ["", "wiki", "https://", "https://a b", "https://a#b", "https://a'b"]
)
def test_no_address(tmp_path, capsys, url):
    with pytest.raises(SystemExit) as stopped:
        run("export", str(tmp_path), "--runbooks", url)
    assert stopped.value.code == 2
    assert "is no address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_content_stays_unless_forced(tmp_path, capsys):
    mine = tmp_path / "budgets.yml"
    mine.write_text("mine")
    assert run("export", str(tmp_path)) == 1
    assert mine.read_text() == "mine"
    assert capsys.readouterr().err.startswith(f"pbmon rules: {mine}: has other content")
    assert run("export", str(tmp_path), "--force") == 0
    assert mine.read_bytes() == (COMMITTED / mine.name).read_bytes()


def test_show_prints_the_runbook(capsys):
    assert run("show", "ErrorBurst") == 0
    assert capsys.readouterr().out == (RUNBOOKS / "ErrorBurst.md").read_text(encoding="utf-8")


def test_show_of_no_alert_names_those_there_are(capsys):
    assert run("show", "Errorburst") == 1
    line = capsys.readouterr().err
    assert line.startswith("pbmon rules: no alert is called 'Errorburst'; known: BudgetBreached, ")


def test_an_installation_without_the_files_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "a" / "pbmon")
    assert run("list") == 1
    assert "has no collector-config/rules" in capsys.readouterr().err
