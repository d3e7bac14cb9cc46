"""Writers that fork, competing shippers and the database are killed at random; then it is counted.

What was accepted, or committed, is in the store, and nothing is there twice:

    python -m tests.worker.killing [--kills 250] [--write docs/reliability.md]

kills so often in each of four trials: journals and outbox, SQLite and PostgreSQL. --write puts the
figures between the markers of a page. Exit status 1 where something was lost or is there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pbmon.store import schema
from pbmon.store.access import make_outbox, open_engine
from tests.faults import page
from tests.fresh import environment
from tests.stack.process import wait_until
from tests.stack.servers import Postgres
from tests.worker.processes import NUMBER, RANGE
from tests.worker.work import WORKS

WRITERS, FORKS, SHIPPERS = 2, 1, 2
_PAUSE_S = 0.2
_END_S = 120
_RESTART_EVERY = 25
NAME, COMMAND = "kills", "python -m tests.worker.killing --write docs/reliability.md"
"""Of the figures in a page, and what writes them there."""


@dataclass(frozen=True)
class Outcome:
    """Of all works together."""

    kills: int
    crashes: int
    """Of the kills, those of the database."""
    accepted: int
    """As the writers noted; with the outbox, committed."""
    rolled_back: int
    stored: int
    lost: int
    """Accepted, and not in the store."""
    duplicated: int
    wrong: int
    """Rolled back, and in the store."""
    unnoted: int
    """Stored, while the writer was killed before it could note that."""

    @property
    def is_right(self):
        return not (self.lost or self.duplicated or self.wrong)

    def __str__(self):
        return (
            f"{self.kills} kills ({self.crashes} of the database): {self.accepted:,} accepted, "
            f"{self.stored:,} stored, {self.lost} lost, {self.duplicated} duplicated, "
            f"{self.wrong} of {self.rolled_back:,} rolled back and stored"
        )


class Trial:
    """url: of the store, else a file of SQLite. with_outbox: events come by the application's
    transactions, in the store's server or a file of its own. restart: kills the database at the
    roughest and has it up again when it returns."""

    def __init__(self, url, seed, *, with_outbox=False, restart=None):
        self.directory = Path(tempfile.mkdtemp(prefix="pbmon-kills-"))
        self.url = url or f"sqlite:///{self.directory}/store/store.sqlite3"
        self.app = (url or f"sqlite:///{self.directory}/app.sqlite3") if with_outbox else ""
        self.random = random.Random(seed)
        self.restart = restart
        self.started = 0
        self.crashes = 0
        self.processes = []

    @property
    def settings(self):
        return {
            "PBMON_STATE_DIR": str(self.directory / "state"), "PBMON_STORE_URL": self.url,
            "PBMON_CONSENT": "opt-out", "OTEL_LOGS_EXPORTER": "none",
        } | ({"PBMON_OUTBOX_URL": self.app} if self.app else {})  # fmt: skip

    def start(self, kind):
        self.started += 1
        if kind == "writer":
            first = str(self.started * 10 * RANGE)
            command = ["-m", "tests.worker.processes", self.directory / "log", first, FORKS]
            command += [self.app] if self.app else []
        else:
            command = ["-m", "pbmon.cli", "worker"]
        said = self.directory / f"said-{self.started}"
        with said.open("wb") as sink:
            return kind, said, subprocess.Popen(
                [sys.executable, *map(str, command)], env=environment(**self.settings),
                stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def run(self, kills):
        if self.app:
            made = open_engine(self.app)
            make_outbox(made)
            made.dispose()
        kinds = ["writer"] * WRITERS + ["shipper"] * SHIPPERS
        self.processes = [self.start(kind) for kind in kinds]
        try:
            wait_until(lambda: bool(self.numbers("log")), "the first event", _END_S)
            for count in range(1, kills + 1):
                time.sleep(self.random.uniform(0, _PAUSE_S))
                if self.restart is not None and count % _RESTART_EVERY == 0:
                    self.restart()
                    self.crashes += 1
                    continue
                place = self.random.randrange(len(self.processes))
                kind, said, process = self.processes[place]
                wait_until(lambda said=said: said.stat().st_size, f"{kind} {said}", _END_S)
                kill(process)
                self.processes[place] = self.start(kind)
        finally:
            for _, _, process in self.processes:
                kill(process)
        self.ship_the_rest()
        outcome = self.outcome(kills)
        shutil.rmtree(self.directory)
        return outcome

    def ship_the_rest(self):
        done = subprocess.run(
            [sys.executable, "-m", "pbmon.cli", "worker", "--once"],
            env=environment(**self.settings), capture_output=True, text=True, timeout=_END_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert list((self.directory / "state").glob("events/*/[0-9]*")) == []

    def numbers(self, name):
        path = self.directory / name
        data = path.read_bytes() if path.exists() else b""
        return {number for (number,) in NUMBER.iter_unpack(data[: len(data) // 8 * 8])}

    def outcome(self, kills):
        accepted, gone = self.numbers("log"), self.numbers("log.gone")
        made = open_engine(self.url)
        found = [work.find(made) for work in WORKS]
        made.dispose()
        return Outcome(
            kills=kills,
            crashes=self.crashes,
            accepted=len(accepted) * len(WORKS),
            rolled_back=len(gone) * len(WORKS),
            stored=sum(map(len, found)),
            lost=sum(len(accepted - each.keys()) for each in found),
            duplicated=sum(sum(each.values()) - len(each) for each in found),
            wrong=sum(len(gone & each.keys()) for each in found),
            unnoted=sum(len(each.keys() - accepted) for each in found),
        )


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def in_postgresql(seed, kills, *, with_outbox=False):
    with Postgres() as postgres:
        schema.upgrade(open_engine(postgres.url))
        trial = Trial(postgres.url, seed, with_outbox=with_outbox, restart=postgres.crash)
        return trial.run(kills)


TRIALS = [(way, place) for way in ("journals", "outbox") for place in ("SQLite", "PostgreSQL")]


def main():
    parser = argparse.ArgumentParser(prog="tests.worker.killing", description=__doc__)
    parser.add_argument("--kills", type=int, default=250, help="in each of the four trials")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--write", type=Path, help="page that holds the figures")
    args = parser.parse_args()
    outcomes = []
    for way, place in TRIALS:
        with_outbox = way == "outbox"
        if place == "SQLite":
            outcome = Trial(None, args.seed, with_outbox=with_outbox).run(args.kills)
        else:
            outcome = in_postgresql(args.seed, args.kills, with_outbox=with_outbox)
        print(f"{way} to {place} (seed {args.seed}): {outcome}", flush=True)
        outcomes.append(outcome)
    if args.write:
        page.write(args.write, NAME, COMMAND, table(outcomes))
    return 0 if all(outcome.is_right for outcome in outcomes) else 1


def table(outcomes):
    head = "way | store | kills | of the database | accepted | lost | duplicated | rolled back"
    lines = [
        f"| {head} | of these stored |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (way, place), each in zip(TRIALS, outcomes, strict=True):
        rolled_back = f"{each.rolled_back:,} | {each.wrong}" if way == "outbox" else "– | –"
        lines.append(
            f"| {way} | {place} | {each.kills} | {each.crashes} | {each.accepted:,} | {each.lost} "
            f"| {each.duplicated} | {rolled_back} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
