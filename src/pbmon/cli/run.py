"""`pbmon run`: one of the worker's jobs, now; for cron, or to make up for a day."""

from __future__ import annotations

import argparse
import datetime as dt
import sys

from pbmon import privacy, settings
from pbmon.spool import journal
from pbmon.spool.directory import UnusableError
from pbmon.store.access import StoreError, open_runs
from pbmon.telemetry import providers
from pbmon.worker import jobs
from pbmon.worker.urls import store_url

NAME = "run"
HELP = "do one of the worker's jobs for a day, unless it is done"


def configure(parser: argparse.ArgumentParser) -> None:
    meanings = "; ".join(f"{job.name}: {job.meaning}" for job in jobs.JOBS.values())
    parser.add_argument("job", choices=sorted(jobs.JOBS), help=meanings)
    parser.add_argument(
        "--day", type=dt.date.fromisoformat, help="YYYY-MM-DD (today, in the zone of the settings)"
    )


def run(args: argparse.Namespace) -> int:
    resolved, problems = settings.resolve()
    for problem in problems:
        print(problem, file=sys.stderr)
    try:
        home = journal.open_home(resolved.state_dir, providers.service_name(resolved))
    except UnusableError as error:
        print(f"pbmon: no state directory: {error}", file=sys.stderr)
        return 1
    url = store_url(resolved, home)
    day = args.day or jobs.today_in(resolved.timezone)
    try:
        done = jobs.run(open_runs(url), jobs.JOBS[args.job], resolved, day)
    except StoreError as error:
        print(f"pbmon: the store {privacy.mask_url(url)} {error}", file=sys.stderr)
        return 1
    print(f"{args.job} for {day}: {'done' if done else 'was done before'}")
    return 0
