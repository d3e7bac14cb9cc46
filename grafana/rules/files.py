"""Every file of rules, in the text that Prometheus reads."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from grafana import rules
from grafana.rules.model import Group, render

# Beside Prometheus' configuration, which loads them by a path relative to itself.
OUTPUT = Path(__file__).resolve().parents[2] / "collector-config" / "rules"


def groups() -> dict[str, tuple[Group, ...]]:
    """The groups of each module that has some, by its name."""
    found = {}
    for info in pkgutil.iter_modules(rules.__path__):
        module = importlib.import_module(f"{rules.__name__}.{info.name}")
        if hasattr(module, "GROUPS"):
            found[info.name] = module.GROUPS
    return found


def build() -> dict[str, str]:
    """File name -> YAML."""
    return {
        f"{name}.yml": render(made, f"grafana/rules/{name}.py") for name, made in groups().items()
    }
