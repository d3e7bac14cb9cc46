"""`pbmon alerts`: whether the sinks of alerts take a message, and what became of the real ones."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
import uuid
from typing import TYPE_CHECKING

from pbmon import settings
from pbmon.alerting.notices import FIRING, RESOLVED, Notice, link_of, moment
from pbmon.cli.place import Place, in_place
from pbmon.store.access import open_notifications
from pbmon.telemetry import providers
from pbmon.worker import sinks

if TYPE_CHECKING:
    from pbmon.delivery.alerts.receipts import Sink
    from pbmon.settings import Settings
    from pbmon.store.notifications import Alert, Status, Unsent

NAME = "alerts"
HELP = "send the sinks of alerts a test, and say what became of alerts"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    test = actions.add_parser(
        "test", help="send each sink an alert marked as a test, and that it is over"
    )
    test.add_argument("--sink", metavar="NAME", help="this one alone")
    status = actions.add_parser(
        "status", help="list alerts that are open, the last 20, and messages that were not taken"
    )
    status.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """0; 1 where a sink takes nothing, or the store can't be read; 2 for wrong settings."""
    if args.action == "test":
        return _test(args.sink)
    return in_place(lambda place: _status(place, as_json=args.json))


# --- test ---


def _test(only: str | None) -> int:
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    choices = resolved.alerts.sinks
    if only is not None and only not in choices:
        known = ", ".join(choices) or "none"
        print(f"pbmon: there is no sink {only}; there are: {known}", file=sys.stderr)
        return 2
    if not choices:
        print("pbmon: there are no sinks; add [alerts.sinks.NAME] with url", file=sys.stderr)
    if not choices or any(problem.name == "alerts" for problem in problems):
        return 2
    made: list[Sink] = []
    for name in [only] if only is not None else list(choices):
        try:
            made.append(sinks.make(choices[name]))
        except sinks.UnusableError as error:
            print(f"pbmon: {error}", file=sys.stderr)
            return 2
    taken = [_try(sink, resolved) for sink in made]
    return 0 if all(taken) else 1


def _try(sink: Sink, resolved: Settings) -> bool:
    now = time.time_ns() // 1000
    alert_id = str(uuid.uuid4())
    good = True
    for kind in (FIRING, RESOLVED):
        receipt = sink.send(_notice(resolved, alert_id, kind, now))
        print(
            f"{'  ' if receipt.taken else '✗ '}{sink.name} at {sink.where}: {kind}, {receipt.said}"
        )
        good &= receipt.taken
    sink.close()
    return good


def _notice(resolved: Settings, alert_id: str, kind: str, now: int) -> Notice:
    return Notice(
        alert_id=alert_id,
        kind=kind,
        service=providers.service_name(resolved),
        environment=providers.environment(resolved),
        rule=str(resolved.alerts.rule),
        fingerprint="0" * 32,
        error_type="TestError",
        place="pbmon alerts test",
        route=None,
        release=providers.release(resolved),
        is_new=False,
        first_at=now,
        opened_at=now,
        resolved_at=now if kind == RESOLVED else None,
        errors=0,
        people=0,
        trace_id=None,
        link=link_of(resolved.alerts.url, None, "0" * 32),
        is_test=True,
    )


# --- status ---


def _status(place: Place, *, as_json: bool) -> int:
    book = open_notifications(place.url, 0.0)
    status = book.status()
    book.close()
    if as_json:
        print(json.dumps({name: [_row(each) for each in rows] for name, rows in
                          status._asdict().items()}, indent=2))  # fmt: skip
        return 0
    _print(status)
    return 0


def _row(each: Alert | Unsent) -> dict[str, object]:
    """Times as RFC 3339."""
    return {
        name: moment(value) if name.endswith("_at") and value is not None else value
        for name, value in each._asdict().items()
    }


def _print(status: Status) -> None:
    print(f"{len(status.open)} open")
    for alert in status.open:
        print(f"  {_line(alert)}")
    if status.recent:
        print("\nThe last that are over")
    for alert in status.recent:
        print(f"  {_line(alert)}, over {_time(alert.resolved_at or 0)}")
    for title, rows in (("Messages that wait", status.waiting), ("Given up", status.dead)):
        if rows:
            print(f"\n{title}")
        for each in rows:
            fault = f" ({each.fault})" if each.fault else ""
            print(
                f"  {each.sink}: {each.kind} of {each.alert_id}, since {_time(each.made_at)}, "
                f"tried {each.attempts} times{fault}"
            )


def _line(alert: Alert) -> str:
    return (
        f"{_time(alert.opened_at)} {alert.error_type} in {alert.place}: {alert.errors:,} errors, "
        f"{alert.people:,} people ({alert.rule})"
    )


def _time(at: int) -> str:
    return dt.datetime.fromtimestamp(at // 1_000_000).astimezone().isoformat(" ", "seconds")
