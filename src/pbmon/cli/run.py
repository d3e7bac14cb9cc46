"""`pbmon run`: one of the worker's jobs, now; for cron, or to make up for a day."""

from __future__ import annotations

import argparse
import datetime as dt
import sys

from pbmon.cli.place import Place, in_place
from pbmon.store.access import open_runs
from pbmon.worker import growth, jobs

NAME = "run"
HELP = "do one of the worker's jobs for a day, unless it is done"


def configure(parser: argparse.ArgumentParser) -> None:
    meanings = "; ".join(f"{job.name}: {job.meaning}" for job in jobs.JOBS.values())
    parser.add_argument("job", choices=sorted(jobs.JOBS), help=meanings)
    parser.add_argument(
        "--day",
        type=dt.date.fromisoformat,
        help="YYYY-MM-DD (today; of growth and users the newest day that is over)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=dt.date.fromisoformat,
        help="growth: take the figures of each day from this one on anew",
    )
    parser.add_argument(
        "--to", dest="end", type=dt.date.fromisoformat, help="with --from: the last of them"
    )


def run(args: argparse.Namespace) -> int:
    if (args.start or args.end) and (args.job != "growth" or args.day or not args.start):
        print("pbmon run: --from, and --to with it, are for growth, without --day", file=sys.stderr)
        return 2

    def work(place: Place) -> int:
        job, runs = jobs.JOBS[args.job], open_runs(place.url)
        if not jobs.applies(job, place.settings):
            print(f"pbmon run: {job.name} needs the setting {job.needs}", file=sys.stderr)
            return 1
        newest = jobs.newest_day(job, runs, place.settings, dt.datetime.now(dt.timezone.utc))
        if args.start:
            for figures in growth.backfill(runs, args.start, min(args.end or newest, newest)):
                print(
                    f"growth of {figures.day}: {figures.active_24h:,} active, {figures.new:,} new"
                )
            return 0
        day = args.day or newest
        if job.take is not None and day > newest:
            print(
                f"pbmon run: {day} is not over; the newest day that is: {newest}", file=sys.stderr
            )
            return 1
        try:
            done = jobs.run(runs, job, place.settings, day)
        except growth.NotTakenError as error:
            print(f"pbmon run: {error}", file=sys.stderr)
            return 1
        print(f"{args.job} for {day}: {'done' if done else 'was done before'}")
        return 0

    return in_place(work)
