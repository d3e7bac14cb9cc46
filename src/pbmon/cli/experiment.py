"""`pbmon experiment`: what the experiments say so far."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from pbmon.cli.place import Place, in_place
from pbmon.experiments import Comparison, ExperimentReport, VariantFigures, judge
from pbmon.reports import experiments as words
from pbmon.store.access import open_reader

NAME = "experiment"
HELP = "report what the experiments say so far"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    report = actions.add_parser("report", help="people, conversions and differences by variant")
    report.add_argument("key", nargs="?", help="one experiment; all that are declared if left out")
    report.add_argument("--json", action="store_true", help="as JSON: a list of reports")


def run(args: argparse.Namespace) -> int:
    return in_place(lambda place: _report(place, args.key, args.json))


def _report(place: Place, key: str | None, as_json: bool) -> int:
    declared = place.settings.experiments
    if key is not None and key not in declared:
        known = ", ".join(declared) or "none"
        print(f"pbmon: experiment {key!r} is not declared; declared: {known}", file=sys.stderr)
        return 1
    reader = open_reader(place.url)
    reports = [
        judge(each, reader.exposed(each.key, each.goal, each.window_s))
        for each in (declared.values() if key is None else [declared[key]])
    ]
    reader.close()
    if as_json:
        print(json.dumps([asdict(each) for each in reports], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(map(_text, reports)) or "no experiment is declared")
    return 0


def _text(report: ExperimentReport) -> str:
    lines = [words.goal(report)]
    width = max(len(row.variant) for row in report.variants)
    for row in report.variants:
        lines.append(f"  {row.variant:<{width}}  {_figures(row)}")
        if row.comparison is not None:
            lines.append(f"  {'':<{width}}  {_compared(row.comparison)}")
    lines += [f"  {text}" for text in (report.decision, *words.warnings(report))]
    return "\n".join(lines)


def _figures(row: VariantFigures) -> str:
    text = f"{words.count(row.people):>20}  {words.count(row.converted, 'converted'):>23}"
    return text if row.rate is None else f"{text}  {row.rate:7.2%}"


def _compared(found: Comparison) -> str:
    between = words.difference(found)
    told = f"{between[0]} points, {between[1]}, " if between is not None else ""
    return (
        f"{told}p {words.probability(found.p_value)}; "
        f"{found.detectable * 100:.2f} points would stand out"
    )
