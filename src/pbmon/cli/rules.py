"""`pbmon rules`: list Prometheus' rules, write them to a directory, show what to do at an alert."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

from pbmon.cli import assets, exporting
from pbmon.cli.exporting import Refusal

NAME = "rules"
HELP = "list or export Prometheus' rules, or show an alert's runbook"

ASSETS = "collector-config/rules"
RUNBOOKS = "docs/runbooks"
_ALERT = re.compile(r"^ *- alert: (\w+)$", re.MULTILINE)
_URL = re.compile(r"https?://[^\s'\"#]+")


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="show each file and its alerts")
    export = actions.add_parser("export", help="write the rules' YAML to a directory")
    exporting.configure(export)
    export.add_argument(
        "--runbooks",
        type=_url,
        metavar="URL",
        help=f"where you publish {RUNBOOKS}, for the link of each alert",
    )
    show = actions.add_parser("show", help="print an alert's runbook")
    show.add_argument("alert", metavar="ALERT")


def run(args: argparse.Namespace) -> int:
    try:
        for line in _lines(args):
            print(line)
    except (Refusal, assets.AssetsMissing) as refusal:
        print(f"pbmon rules: {refusal}", file=sys.stderr)
        return 1
    return 0


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as https://host/runbooks")
    return text.rstrip("/")


def _lines(args: argparse.Namespace) -> Iterator[str]:
    if args.action == "show":
        return _shown(args.alert)
    rules = exporting.carried(ASSETS, "*.yml", "file of rules")
    if args.action == "list":
        return _listed(rules)
    if args.runbooks is not None:
        new = f"runbook_url: {args.runbooks}/".encode()
        old = f"runbook_url: {RUNBOOKS}/".encode()
        rules = {name: content.replace(old, new) for name, content in rules.items()}
    return exporting.exported(rules, args.directory, force=args.force)


def _listed(rules: dict[str, bytes]) -> Iterator[str]:
    width = max(map(len, rules))
    for name, content in rules.items():
        alerts = dict.fromkeys(_ALERT.findall(content.decode()))  # in their order, each once
        yield f"{name:{width}}  {' '.join(alerts)}"


def _shown(alert: str) -> Iterator[str]:
    pages = exporting.carried(RUNBOOKS, "*.md", "runbook")
    page = pages.get(f"{alert}.md")
    if page is None:
        known = ", ".join(name.removesuffix(".md") for name in pages)
        raise Refusal(f"no alert is called {alert!r}; known: {known}")
    yield page.decode().rstrip()
