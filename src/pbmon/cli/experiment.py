"""`pbmon experiment`: what the experiments say so far."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from pbmon.cli.place import Place, in_place
from pbmon.experiments import Comparison, ExperimentReport, VariantFigures, judge
from pbmon.privacy import K
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
    window = f" within {_days(report.window_s)}" if report.window_s is not None else ""
    lines = [f"{report.key}: people who did {report.goal}{window}"]
    width = max(len(row.variant) for row in report.variants)
    for row in report.variants:
        lines.append(f"  {row.variant:<{width}}  {_figures(row)}")
        if row.comparison is not None:
            lines.append(f"  {'':<{width}}  {_compared(row.comparison)}")
    lines.append(f"  {report.decision}")
    if not report.is_sound:
        lines.append(
            "  DO NOT TRUST THIS: there are not as many people in the variants as their weights "
            f"say (p {_probability(report.sample_ratio_p)}). Something decides who is counted: "
            "look for variants that fail, redirect or are recorded elsewhere, and for weights "
            "that were changed."
        )
    if report.crossed is None or report.crossed:
        lines.append(f"  {_count(report.crossed)} met a second variant; they count for their first")
    return "\n".join(lines)


def _figures(row: VariantFigures) -> str:
    text = f"{_count(row.people):>20}  {_count(row.converted, 'converted'):>23}"
    return text if row.rate is None else f"{text}  {row.rate:7.2%}"


def _compared(found: Comparison) -> str:
    text = f"p {_probability(found.p_value)}; {found.detectable * 100:.2f} points would stand out"
    if found.difference is None or found.low is None or found.high is None:
        return text
    between = f"{_points(found.low)} to {_points(found.high)}"
    return f"{_points(found.difference)} points, {between}, {text}"


def _count(people: int | None, word: str = "people") -> str:
    return f"fewer than {K} {word}" if people is None else f"{people:,} {word}"


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _days(length_s: float) -> str:
    days = length_s / 86_400
    return f"{days:g} days" if days >= 1 else f"{length_s:g} s"
