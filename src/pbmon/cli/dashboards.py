"""`pbmon dashboards`: list the Grafana dashboards, or write them to a directory."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from pbmon.cli import assets, exporting
from pbmon.cli.exporting import Refusal

NAME = "dashboards"
HELP = "list or export the Grafana dashboards"

ASSETS = "grafana/dashboards"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show each dashboard's file, uid and title")
    export = actions.add_parser("export", help="write the dashboards' JSON to a directory")
    exporting.configure(export)


def run(args: argparse.Namespace) -> int:
    try:
        dashboards = _carried()
        lines = (
            _listed(dashboards)
            if args.action == "list"
            else exporting.exported(dashboards, args.directory, force=args.force)
        )
        for line in lines:
            print(line)
    except (Refusal, assets.AssetsMissing) as refusal:
        print(f"pbmon dashboards: {refusal}", file=sys.stderr)
        return 1
    return 0


def _carried() -> dict[str, bytes]:
    return exporting.carried(ASSETS, "*.json", "dashboard")


def _listed(dashboards: dict[str, bytes]) -> Iterator[str]:
    width = max(map(len, dashboards), default=0)
    for name, content in dashboards.items():
        dashboard = json.loads(content)
        yield f"{name:{width}}  {dashboard['uid']}  {dashboard['title']}"
