"""`pbmon run`: one of the worker's jobs, now; for cron, or to make up for a day."""

from __future__ import annotations

import argparse
import datetime as dt

from pbmon.cli.place import Place, in_place
from pbmon.store.access import open_runs
from pbmon.worker import jobs

NAME = "run"
HELP = "do one of the worker's jobs for a day, unless it is done"


def configure(parser: argparse.ArgumentParser) -> None:
    meanings = "; ".join(f"{job.name}: {job.meaning}" for job in jobs.JOBS.values())
    parser.add_argument("job", choices=sorted(jobs.JOBS), help=meanings)
    parser.add_argument(
        "--day", type=dt.date.fromisoformat, help="YYYY-MM-DD (today, in the zone of the settings)"
    )


def run(args: argparse.Namespace) -> int:
    def work(place: Place) -> int:
        day = args.day or jobs.today_in(place.settings.timezone)
        done = jobs.run(open_runs(place.url), jobs.JOBS[args.job], place.settings, day)
        print(f"{args.job} for {day}: {'done' if done else 'was done before'}")
        return 0

    return in_place(work)
