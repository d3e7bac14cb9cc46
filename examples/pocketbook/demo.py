"""`make demo`: the app under the launcher, real traffic, and what the telemetry tells of it.

    python -m examples.pocketbook.demo [--seconds 20] [--report demo-report.html] [--open]

Every figure comes from what the app exported to a receiver in this process, and from its store of
events; the load generator's own counts only check it. Needs nothing but Python: the database is an
SQLite file in a temporary directory, unless DATABASE_URL names another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from examples.pocketbook import checks, database, page, schema, terminal
from examples.pocketbook.books import Sent
from examples.pocketbook.business import Business, from_json
from examples.pocketbook.checks import Check
from examples.pocketbook.page import Run
from examples.pocketbook.receiver import Forwarder, Receiver
from examples.pocketbook.server import Server, StartError, environment, run_module
from examples.pocketbook.summary import Summary, summarise
from examples.pocketbook.traffic import Traffic

REPORT = "demo-report.html"
INTERRUPTED = 130
MISMATCH = 1
NOT_STARTED = 2


class Outcome(NamedTuple):
    summary: Summary
    business: Business
    checks: list[Check]
    run: Run


def main(arguments: list[str] | None = None, console: Console | None = None) -> int:
    options = _parse(arguments)
    console = console or Console()
    try:
        outcome = run(options.seconds, console)
        terminal.show(console, outcome.summary, outcome.business, outcome.checks)
        options.report.write_text(page.render(*outcome), encoding="utf-8")
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return INTERRUPTED
    except (StartError, OSError) as error:
        console.print(Text(f"The demo failed: {error}", "bold red"))
        return NOT_STARTED
    console.print(Text(f"\nThe same with charts: {options.report}", "bold"), soft_wrap=True)
    if options.open:
        webbrowser.open(options.report.resolve().as_uri())
    return 0 if all(check.ok for check in outcome.checks) else MISMATCH


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description="Pocketbook, observed by pbmon.")
    parser.add_argument("--seconds", type=_seconds, default=20.0, help="length of the traffic (20)")
    parser.add_argument("--report", type=Path, default=Path(REPORT), metavar="FILE")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be from 1 to 3600")
    return seconds


def run(seconds: float, console: Console) -> Outcome:
    """Start the app, drive it, stop it, and only then read what it exported."""
    forwarder = Forwarder()
    forwarder.start()
    console.print(Text(forwarder.describe()), soft_wrap=True)
    started = datetime.now().astimezone()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pocketbook-")))
        receiver = stack.enter_context(Receiver(forwarder))
        url = os.environ.get("DATABASE_URL") or f"sqlite:///{directory / 'demo.sqlite3'}"
        env = environment(receiver.endpoint, url, directory / "state")
        with console.status("Starting uvicorn under opentelemetry-instrument …"):
            _prepare(url, env)
            server = stack.enter_context(Server(env))
        console.print(f"Traffic for {seconds:g} s …", highlight=False)
        sent = _drive(server.url, seconds, console)
        with console.status("Stopping the app; what it still holds arrives now …"):
            server.stop()
            business = _settle(env)
            forwarder.close()
        summary = summarise(receiver.telemetry)
    compared = checks.compare(sent, summary, business, probes=1)
    system = "PostgreSQL" if url.startswith("postgres") else "SQLite"
    return Outcome(summary, business, compared, Run(started, seconds, system, forwarder.describe()))


def _prepare(url: str, env: Mapping[str, str]) -> None:
    """Make the tables before the app runs, its own and pbmon's, as deployments do."""
    try:
        opened = database.connect({"DATABASE_URL": url})
        try:
            schema.prepare(opened)
        finally:
            opened.close()
    except Exception as error:  # whatever a driver raises
        raise StartError(f"the database can't be used: {error}") from None
    run_module(env, "pbmon.cli", "store", "upgrade")


def _settle(env: Mapping[str, str]) -> Business:
    """What the app could not store within the time that its end may take, and yesterday's users if
    it had no time for them either; then what the store says."""
    run_module(env, "pbmon.cli", "run", "users")
    run_module(env, "pbmon.cli", "worker", "--once")
    silent = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    return from_json(run_module({**env, **silent}, "examples.pocketbook.business"))


def _drive(url: str, seconds: float, console: Console) -> Sent:
    bar = Progress(
        TextColumn("Traffic"),
        BarColumn(),
        TextColumn("{task.fields[sent]:,} requests"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    traffic = Traffic(url, seconds=seconds)
    with bar:
        task = bar.add_task("", total=1.0, sent=0)

        def progress(part: float) -> None:
            bar.update(task, completed=part, sent=traffic.sent.requests)

        return asyncio.run(traffic.run(progress))


if __name__ == "__main__":
    sys.exit(main())
