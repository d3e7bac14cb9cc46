"""The committed rules are what their modules make; each alert has a runbook and its tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grafana.rules import files
from tests.grafana.rules.cases import FILES, rules
from tests.stack.plugin import missing
from tests.stack.programs import MissingProgram
from tests.stack.servers import promtool

ROOT = FILES.parents[1]
RUNBOOKS = ROOT / "docs" / "runbooks"
PAGE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
ALERTS = sorted({rule["alert"] for rule in rules("alert")})
SECTIONS = ["What it means", "Look at", "Do", "When it lies"]
TESTS = "".join(
    path.read_text(encoding="utf-8")
    for path in Path(__file__).parent.glob("test_*.py")
    if path.name != Path(__file__).name
)


def test_committed_rules_are_up_to_date() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FILES.iterdir()}
    assert committed == files.build()


def test_there_are_at_most_51_rules_however_many_endpoints() -> None:
    assert len(rules()) <= 51
    assert f"There are {len(rules())} of them" in PAGE
    assert not [rule for rule in rules() if "/" in rule["expr"].replace(" / ", "")]  # no route


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yml")), ids=lambda path: path.stem)
def test_promtool_accepts_them(path: Path) -> None:
    try:
        found = promtool("check", "rules", "--lint=all", "--lint-fatal", path)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)
    assert "SUCCESS" in found


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_runbook_a_row_and_cases(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")
    assert re.findall(r"^# (.+)$", text, re.MULTILINE) == [alert]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert section.strip()
    assert f"| [{alert}](runbooks/{alert}.md) |" in PAGE
    assert re.search(rf'\.fires\(\s*"{alert}"', TESTS), "no case in which it fires"
    assert alert == "Watchdog" or f'.silent("{alert}"' in TESTS, "no case in which it doesn't"


def test_each_runbook_is_of_an_alert() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_the_page_names_the_severities(alert: str) -> None:
    told = {r["labels"]["severity"] for r in rules("alert") if r["alert"] == alert}
    (row,) = re.findall(rf"^\| \[{alert}\].*$", PAGE, re.MULTILINE)
    assert set(re.findall(r"page|ticket|none", row.split("|")[2])) == told
