"""Where the files lie that this folder tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "collector-config"
SINGLE = CONFIG / "single.yaml"
COMPOSE = ROOT / "compose.yaml"
PROVISIONING = ROOT / "grafana" / "provisioning"
PAGE = ROOT / "docs" / "collector.md"

ENVIRONMENT = re.compile(r"\$\{env:(?P<name>PBMON_\w+)(?::-(?P<default>[^}]*))?\}")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def logs_overlay() -> str:
    """The second configuration by which docs/collector.md sends logs on, as written there."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(?P<text>exporters:\n  otlp_http/logs:.*?)```", page, re.DOTALL)
    assert found, "docs/collector.md no longer shows how logs are sent on"
    return found["text"]
