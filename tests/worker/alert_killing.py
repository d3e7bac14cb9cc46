"""The process that tells of alerts is killed at random moments around each of many bursts; then it
is counted what came to a real receiver:

    python -m tests.worker.alert_killing [--kills 200] [--write docs/alerts.md]

Each burst has its beginning and its end there, each under one key. What came twice under a key is
counted too: its sender was killed after it was taken, and before that was noted. Exit status 1
where something was not told, or told under a second key.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pbmon.store import schema
from pbmon.store.access import open_engine, open_notifications
from tests.delivery.alerts.receivers import Receiver
from tests.faults import page
from tests.fresh import environment
from tests.stack.process import wait_until
from tests.stack.servers import Postgres
from tests.store.burst import fail
from tests.store.test_writer import NOON
from tests.worker.telling import clock

NAME, COMMAND = "alert-kills", "python -m tests.worker.alert_killing --write docs/alerts.md"
_AROUND_S = 0.6
_END_S = 120


@dataclass(frozen=True)
class Outcome:
    kills: int
    bursts: int
    alerts: int
    """Opened in the store."""
    begun: int
    """Keys of a beginning at the receiver."""
    over: int
    repeated: int
    """Messages that came a second time, under their key."""

    @property
    def is_right(self):
        return self.bursts == self.alerts == self.begun == self.over

    def row(self, place):
        return (
            f"| {place} | {self.kills} | {self.bursts} | {self.begun} | {self.over} "
            f"| {self.repeated} |"
        )


class SlowReceiver(Receiver):
    """It takes a moment to answer, within which its sender may die."""

    def take(self, request):
        answer = super().take(request)
        time.sleep(random.uniform(0, 0.1))
        return answer


class Teller:
    """A process that tells, or waits to lead."""

    def __init__(self, store, receiver, said):
        self.said = said
        with said.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.worker.telling", store, receiver],
                env=environment(), stdout=sink, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def leads(self):
        return b"leads" in self.said.read_bytes()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def run(store, kills, seed):
    chance = random.Random(seed)
    engine = open_engine(store)
    schema.upgrade(engine)
    engine.dispose()
    with tempfile.TemporaryDirectory(prefix="pbmon-alert-kills-") as home, SlowReceiver() as to:
        count = 0

        def start():
            nonlocal count
            count += 1
            return Teller(store, to.url, Path(home) / f"said-{count}")

        tellers = [start(), start()]
        try:
            for burst in range(kills):
                wait_until(lambda: any(each.leads() for each in tellers), "a leader", _END_S)
                at = (clock() - NOON) / 1e6
                fail(store, *[at] * 11, key=f"{burst:032x}", source=f"{burst}-x")
                time.sleep(chance.uniform(0, _AROUND_S))
                leading = next(each for each in tellers if each.leads())
                leading.kill()
                tellers[tellers.index(leading)] = start()
            return _outcome(store, to, kills)
        finally:
            for each in tellers:
                each.kill()


def _outcome(store, receiver, kills):
    book = open_notifications(store, 0.0)

    def is_over():
        status = book.status()
        return not status.open and not status.waiting and len(receiver.keys) >= 2 * kills

    wait_until(is_over, "that all is told", _END_S)
    book.close()
    engine = open_engine(store)
    with engine.connect() as connection:
        table = "pbmon.alerts" if engine.dialect.name == "postgresql" else "alerts"
        opened = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
    engine.dispose()
    return Outcome(
        kills=kills,
        bursts=kills,
        alerts=opened,
        begun=sum(key.endswith("-firing") for key in receiver.keys),
        over=sum(key.endswith("-resolved") for key in receiver.keys),
        repeated=sum(receiver.keys.values()) - len(receiver.keys),
    )


def in_sqlite(kills, seed):
    with tempfile.TemporaryDirectory(prefix="pbmon-alert-kills-") as place:
        return run(f"sqlite:///{place}/store.sqlite3", kills, seed)


def in_postgresql(kills, seed):
    with Postgres() as postgres:
        return run(postgres.url, kills, seed)


def main():
    parser = argparse.ArgumentParser(prog="tests.worker.alert_killing", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in each store")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--write", type=Path, help="page that holds the figures")
    args = parser.parse_args()
    lines = [
        "| store | kills | bursts | told that it began | told that it is over | told twice |",
        "|---|---|---|---|---|---|",
    ]
    good = True
    for place, trial in (("SQLite", in_sqlite), ("PostgreSQL", in_postgresql)):
        outcome = trial(args.kills, args.seed)
        good &= outcome.is_right
        lines.append(outcome.row(place))
        print(f"(seed {args.seed}) {lines[-1]}", flush=True)
    if args.write:
        page.write(args.write, NAME, COMMAND, "\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
