"""`pbmon budget`: what is promised, and whether a run, or production, keeps it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from importlib import import_module
from pathlib import Path

from pbmon import privacy, settings
from pbmon.budgets import Budget, Budgets
from pbmon.cli import arguments, runs
from pbmon.gate import regressions, verdicts
from pbmon.gate.regressions import Change
from pbmon.gate.runs import Request, RunError
from pbmon.gate.verdicts import Count, shown_s
from pbmon.reports import gate, observed, text
from pbmon.reports.gate import Findings
from pbmon.reports.page import NONE, Table
from pbmon.reports.prometheus import PrometheusError, connect, scope_of
from pbmon.settings import Settings
from pbmon.telemetry import providers

NAME = "budget"
HELP = "judge a run, or what Prometheus counted, by the performance budgets; for CI"

PASSED, FAILED, UNKNOWN = 0, 1, 2
SUMMARY = "GITHUB_STEP_SUMMARY"


class _UnknownError(Exception):
    """There is nothing that can be judged; the text says why."""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_check(actions.add_parser("check", help="0: kept. 1: broken. 2: nothing to judge"))
    actions.add_parser("list", help="the budgets in force, and where they are from")
    suggested = actions.add_parser("suggest", help="budgets as a run would keep them, for TOML")
    suggested.add_argument("files", nargs="+", metavar="FILE", help="a run; - is standard input")
    suggested.add_argument(
        "--headroom", type=_share, default=0.5, metavar="SHARE",
        help="above what the run showed (50%%)",
    )  # fmt: skip
    for each in actions.choices.values():
        each.add_argument(
            "--import", dest="module", metavar="MODULE",
            help="import this module first, where budgets are given to pbmon.configure()",
        )  # fmt: skip


def _configure_check(check: argparse.ArgumentParser) -> None:
    add = check.add_argument
    add("files", nargs="*", metavar="FILE", help="a run of requests_file or --pbmon-budgets; "
        "- is standard input")  # fmt: skip
    add("--baseline", nargs="+", default=[], metavar="FILE", help="a run to be no slower than")
    add("--tolerance", type=_share, default=regressions.TOLERANCE, metavar="SHARE",
        help=f"by which a route may be slower ({regressions.TOLERANCE:.0%}%)")  # fmt: skip
    add("--prometheus", nargs="?", const="", metavar="URL",
        help="judge what it counted (the setting prometheus_url)")  # fmt: skip
    add(
        "--window", type=_window, default=3600, metavar="TIME", help="of Prometheus, until now (1h)"
    )
    add("--since-release", action="store_true", help="only of the release that is set")
    add("--service", metavar="NAME", help="of Prometheus (the one that is set)")
    add("--environment", metavar="NAME", help="deployment.environment.name (all)")
    add("--warmup", type=arguments.whole(0), default=0, metavar="N",
        help="first requests of each route and file that don't count (0)")  # fmt: skip
    add("--max-allow", type=arguments.whole(0), default=0, metavar="N",
        help="requests of each endpoint that may be over its max (0)")  # fmt: skip
    add("--strict", action="store_true", help="fail also where there are too few requests to tell")
    add("--json", action="store_true", help="as JSON")
    add("--markdown", type=Path, metavar="FILE", help="write it as Markdown too")
    add("--summary", action="store_true", help=f"add that to the file that ${SUMMARY} names")
    add("--junit", type=Path, metavar="FILE", help="write it as JUnit XML too")


def _share(value: str) -> float:
    number = value.strip()
    try:
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 10:
        raise argparse.ArgumentTypeError(f"{value!r} is no share; write 0.15 or 15%")
    return share


def _window(value: str) -> int:
    try:
        if (whole := round(arguments.length_s(value))) >= 1:
            return whole
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{value!r} is no time; write one such as 30m, 1h or 7d")


def run(args: argparse.Namespace) -> int:
    """0: every budget is kept, or can't be said to be broken. 1: one is broken. 2: nothing was seen
    that can be judged, or the input is wrong."""
    actions: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "check": _check, "list": _list, "suggest": _suggest,
    }  # fmt: skip
    try:
        return actions[args.action](args, _settings(args.module))
    except (_UnknownError, RunError, PrometheusError) as error:
        print(f"pbmon budget: {privacy.escape(str(error))}", file=sys.stderr)
        return UNKNOWN


def _settings(module: str | None) -> Settings:
    if module is not None:
        sys.path.insert(0, str(Path.cwd()))  # where uvicorn finds the application
        try:
            import_module(module)
        except Exception as error:  # its message may quote a setting
            reason = privacy.error_type(error)
            raise _UnknownError(f"import of {module} failed with {reason}") from None
        from pbmon.runtime import active

        if active.configured:
            return active.settings
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    if any(problem.name == "budgets" for problem in problems):
        raise _UnknownError("a budget can't be used, and so not be judged; mend it")
    return resolved


# --- check ---


def _check(args: argparse.Namespace, resolved: Settings) -> int:
    if bool(args.files) == (args.prometheus is not None):
        raise _UnknownError("check FILE, or check --prometheus")
    if args.baseline and not args.files:
        raise _UnknownError("--baseline goes with FILE")
    found = _of_prometheus(args, resolved) if not args.files else _of_files(args, resolved)
    if not found.is_seen:
        raise _UnknownError(_nothing(args, resolved))
    print(gate.as_json(found) if args.json else gate.as_text(found))
    _write(args, found)
    return FAILED if found.has_failed else PASSED


def _nothing(args: argparse.Namespace, resolved: Settings) -> str:
    if args.files and not resolved.budgets.all and not args.baseline:
        return "there are no budgets; set them, or compare with --baseline"
    if args.files:
        return "no request of the run is of a route with a budget, or of the baseline"
    return (
        "Prometheus counted no request of a budget; look at --service, --environment and --window"
    )


def _of_files(args: argparse.Namespace, resolved: Settings) -> Findings:
    requests, tallies = runs.read(args.files, args.warmup)
    counts = verdicts.count(requests, resolved.budgets) if requests else []
    try:
        counts += verdicts.add_up(tallies, resolved.budgets)
    except ValueError as error:
        raise RunError(str(error)) from None
    changes, notes = _changes(args, requests) if args.baseline else ([], [])
    return _judged(args, counts, changes, [*notes, *_left_out(requests, resolved.budgets)])


def _judged(
    args: argparse.Namespace, counts: Iterable[Count], changes: list[Change], notes: list[str]
) -> Findings:
    judgements = [verdicts.judge(each, args.max_allow) for each in counts]
    return Findings(judgements, changes, notes, args.strict)


def _changes(args: argparse.Namespace, after: list[Request]) -> tuple[list[Change], list[str]]:
    before, _ = runs.read(args.baseline, args.warmup)
    old, new = regressions.durations(before), regressions.durations(after)
    notes = [f"{method} {route}: only in the baseline" for method, route in old.keys() - new.keys()]
    notes += [f"{method} {route}: not in the baseline" for method, route in new.keys() - old.keys()]
    if len(args.files) == 1:
        notes.append("One run after another: what the machine did meanwhile counts as a change.")
    return regressions.compare(old, new, args.tolerance), sorted(notes)


def _left_out(requests: list[Request], budgets: Budgets) -> Iterable[str]:
    """What a run can't judge, in words."""
    routes = {r.route for r in requests if budgets.find(r.method, r.route) is None}
    if routes and budgets.all:
        yield f"{len(routes):,} routes without a budget"
    if operations := sum(not budget.is_route for budget in budgets.all):
        yield f"{operations:,} budgets of operations: a run has none; --prometheus judges them"


def _of_prometheus(args: argparse.Namespace, resolved: Settings) -> Findings:
    release = providers.release(resolved) if args.since_release else None
    if args.since_release and release is None:
        raise _UnknownError("--since-release: no release is set; set PBMON_RELEASE")
    service = args.service or providers.service_name(resolved)
    scope = scope_of(service, args.environment, release)
    with closing(connect(resolved, args.prometheus or None)) as prometheus:
        counts = list(observed.counts(prometheus, scope, args.window, time.time()))
    of = f"{service}, release {release}" if release else service
    return _judged(args, counts, [], [f"{of}, the last {args.window:,} s, {prometheus.shown}"])


def _write(args: argparse.Namespace, found: Findings) -> None:
    if args.markdown is not None:
        _put(args.markdown, "wb", gate.as_markdown(found).encode("utf-8", "replace"))
    if args.summary:
        if not os.environ.get(SUMMARY):
            raise _UnknownError(f"--summary: {SUMMARY} is not set")
        _put(Path(os.environ[SUMMARY]), "ab", gate.as_markdown(found).encode("utf-8", "replace"))
    if args.junit is not None:
        _put(args.junit, "wb", gate.as_junit(found))


def _put(path: Path, mode: str, content: bytes) -> None:
    try:
        with path.open(mode) as file:
            file.write(content)
    except OSError as error:
        raise _UnknownError(f"{path}: {error.strerror}") from None


# --- list and suggest ---


def _list(_args: argparse.Namespace, resolved: Settings) -> int:
    budgets = resolved.budgets.all
    if not budgets:
        print("there are no budgets")
        return PASSED
    rows = [
        [b.endpoint, b.method or "any", *(_threshold(b, n) for n in ("max", "p95", "p99")),
         NONE if b.availability is None else f"{b.availability:g}"]
        for b in budgets
    ]  # fmt: skip
    table = Table(("endpoint", "method", "max", "p95", "p99", "availability"), rows)
    print("\n".join([*text.write_table(table), f"from: {resolved.source('budgets')}"]))
    return PASSED


def _threshold(budget: Budget, limit: str) -> str:
    value = getattr(budget, f"{limit}_s")
    return NONE if value is None else shown_s(value)


def _suggest(args: argparse.Namespace, _resolved: Settings) -> int:
    requests, _ = runs.read(args.files)
    found = regressions.durations(requests)
    if not found:
        raise _UnknownError("there is no request that did not fail in the run")
    for (method, route), durations in sorted(found.items()):
        ordered = sorted(durations)
        print(f"[[budgets]]\nendpoint = {_quoted(route)}\nmethod = {_quoted(method)}")
        for limit, quantile in (("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
            if len(ordered) * (1 - quantile) >= 1 or quantile == 1:
                at = min(len(ordered) - 1, math.floor(quantile * len(ordered)))
                print(f'{limit} = "{_round_up(ordered[at] * (1 + args.headroom))}"')
        print()
    return PASSED


def _quoted(value: str) -> str:
    """As a basic string of TOML, which is one of JSON but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _round_up(duration_s: float) -> str:
    """To two digits, as parse_budget reads it; 1 ms at least."""
    ms = max(1.0, duration_s * 1e3)
    step = 10 ** max(0, math.floor(math.log10(ms)) - 1)
    return f"{math.ceil(ms / step - 1e-9) * step}ms"
