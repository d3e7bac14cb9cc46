"""Write the dashboards' JSON and the rules' YAML: `python -m grafana.build`.

`--check` fails if they are not up to date.

A dashboard is a module of this package with a `DASHBOARD`; its JSON has the module's name. The same
holds for `grafana.rules`, `GROUPS` and YAML.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grafana
from grafana.annotations import MARKS
from grafana.rules import files as rules
from grafana.sdk import JSONEncoder, model

OUTPUT = Path(__file__).parent / "dashboards"
SCHEMA_VERSION = 42  # the newest of the classic schema; Grafana migrates from it by itself
COLUMNS = 24


def build() -> dict[str, str]:
    """Every dashboard as file name -> JSON text."""
    found = {}
    for info in pkgutil.iter_modules(grafana.__path__):
        if info.ispkg or info.name == Path(__file__).stem:
            continue
        dashboard = getattr(importlib.import_module(f"grafana.{info.name}"), "DASHBOARD", None)
        if isinstance(dashboard, model.Dashboard):
            found[f"{info.name}.json"] = render(dashboard)
    return found


def render(dashboard: model.Dashboard) -> str:
    plain = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    return json.dumps(finish(plain), indent=2, ensure_ascii=False) + "\n"


def finish(dashboard: dict[str, Any]) -> dict[str, Any]:
    """Add the marks, and repair what grafana-foundation-sdk 0.0.21 leaves wrong, in place.

    Panels without ids, queries without refIds, a layout that runs past the 24th column, an
    empty list of `calcs` (which shows nothing), on every variable the `auto*` fields that
    belong to interval variables, and on every link a placement that hides it in a menu.
    """
    dashboard["schemaVersion"] = SCHEMA_VERSION
    dashboard["annotations"] = {"list": MARKS}
    for variable in dashboard["templating"]["list"]:
        for field in [name for name in variable if name.startswith("auto")]:
            del variable[field]
    for link in dashboard.get("links", ()):
        link.pop("placement", None)
    for number, panel in enumerate(dashboard["panels"], start=1):
        panel["id"] = number
        for index, target in enumerate(panel.get("targets", ())):
            target["refId"] = chr(ord("A") + index)
        reduce = panel.get("options", {}).get("reduceOptions", {"calcs": True})
        reduce["calcs"] = reduce["calcs"] or ["lastNotNull"]
    _lay_out(dashboard["panels"])
    return dashboard


def _lay_out(panels: Sequence[dict[str, Any]]) -> None:
    """Left to right in the given order; a panel that doesn't fit starts the next line."""
    x = y = line_height = 0
    for panel in panels:
        position = panel["gridPos"]
        if x + position["w"] > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        position["x"], position["y"] = x, y
        x += position["w"]
        line_height = max(line_height, position["h"])


def differences(built: dict[str, str], directory: Path, source: str = "grafana") -> list[str]:
    """What is wrong with the files in `directory`, made by modules of `source`, a line each."""
    patterns = {f"*{Path(name).suffix}" for name in built}
    paths = [path for pattern in patterns for path in directory.glob(pattern)]
    present = {path.name: path.read_text(encoding="utf-8") for path in paths}
    lines = []
    for name in sorted(built.keys() | present.keys()):
        if name not in built:
            lines.append(f"{name}: no module makes it; delete it")
        elif name not in present:
            lines.append(f"{name}: missing")
        elif built[name] != present[name]:
            lines.append(f"{name}: differs from what {source}/{Path(name).stem}.py makes")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    arguments = parser.parse_args(argv)
    parts = ((OUTPUT, build(), "grafana"), (rules.OUTPUT, rules.build(), "grafana/rules"))
    if arguments.check:
        found = [
            line
            for directory, built, source in parts
            for line in differences(built, directory, source)
        ]
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print("run `python -m grafana.build` and commit the result", file=sys.stderr)
        return 1 if found else 0
    for directory, built, _ in parts:
        directory.mkdir(exist_ok=True)
        for name, text in built.items():
            (directory / name).write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
