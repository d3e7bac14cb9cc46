"""docs/collector.md names every variable of the configurations, with its default."""

from __future__ import annotations

import re

from tests.collector_config.paths import CONFIG, ENVIRONMENT, PAGE, PROVISIONING, SINGLE

ROW = re.compile(r"^\| `(?P<name>PBMON_\w+)` \| (?:`(?P<default>[^`]+)`)? ?\|", re.MULTILINE)
VARIABLE = re.compile(r"\$\{(?P<name>PBMON_\w+)(?::-(?P<default>[^}]*))?\}")


def test_the_page_lists_the_variables_with_their_defaults() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (CONFIG / "tempo.yaml", PROVISIONING / "datasources/pbmon.yaml")
    )
    single = SINGLE.read_text(encoding="utf-8")
    found = [*ENVIRONMENT.finditer(single), *VARIABLE.finditer(text)]
    defaults = {each["name"]: each["default"] for each in found}

    listed = {row["name"]: row["default"] for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))}
    assert listed == defaults
