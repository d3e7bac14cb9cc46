"""Writers that fork, competing shippers and the database are killed at random; then it is counted.

What was accepted is in the store, and nothing is there twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pbmon.store import engine
from pbmon.store.access import open_engine
from tests.fresh import environment
from tests.stack.process import wait_until
from tests.worker.processes import NUMBER, RANGE

WRITERS, FORKS, SHIPPERS = 2, 1, 2
_PAUSE_S = 0.2
_END_S = 120


@dataclass(frozen=True)
class Outcome:
    kills: int
    accepted: int
    stored: int
    lost: int
    """Accepted, as the writer noted, and not in the store."""
    duplicated: int
    unnoted: int
    """Stored, while the writer was killed before it could note that: one for each kill at most."""

    def __str__(self):
        return (
            f"{self.kills} kills: {self.accepted:,} accepted, {self.stored:,} stored, "
            f"{self.lost} lost, {self.duplicated} duplicated"
        )


class Trial:
    """restart: kills the database at the roughest and has it up again when it returns."""

    def __init__(self, url, seed, restart=None):
        self.directory = Path(tempfile.mkdtemp(prefix="pbmon-kills-"))
        self.url = url or f"sqlite:///{self.directory}/store/store.sqlite3"
        self.random = random.Random(seed)
        self.restart = restart
        self.started = 0
        self.processes = []

    def start(self, kind):
        self.started += 1
        if kind == "writer":
            first = str(self.started * 10 * RANGE)
            command = ["-m", "tests.worker.processes", self.directory / "log", first, str(FORKS)]
        else:
            command = ["-m", "pbmon.cli", "worker"]
        said = self.directory / f"said-{self.started}"
        return kind, said, subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(
                PBMON_STATE_DIR=str(self.directory / "state"), PBMON_STORE_URL=self.url,
                PBMON_CONSENT="opt-out", OTEL_LOGS_EXPORTER="none",
            ),
            stdout=said.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, kills):
        kinds = ["writer"] * WRITERS + ["shipper"] * SHIPPERS
        self.processes = [self.start(kind) for kind in kinds]
        try:
            for count in range(kills):
                time.sleep(self.random.uniform(0, _PAUSE_S))
                if self.restart is not None and count % 25 == 24:
                    self.restart()
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
        return self.outcome(kills)

    def ship_the_rest(self):
        done = subprocess.run(
            [sys.executable, "-m", "pbmon.cli", "worker", "--once"],
            env=environment(
                PBMON_STATE_DIR=str(self.directory / "state"), PBMON_STORE_URL=self.url,
                PBMON_CONSENT="opt-out",
            ),
            capture_output=True, text=True, timeout=_END_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert list((self.directory / "state").glob("events/*/[0-9]*")) == []

    def outcome(self, kills):
        log = (self.directory / "log").read_bytes()
        accepted = {number for (number,) in NUMBER.iter_unpack(log[: len(log) // 8 * 8])}
        made = open_engine(self.url)
        table = f"{engine.SCHEMA}.events" if made.dialect.name == "postgresql" else "events"
        number = "properties->>'n'"
        with made.connect() as connection:
            found = Counter(
                int(n)
                for (n,) in connection.exec_driver_sql(
                    f"SELECT {number} FROM {table} WHERE name = 'numbered'"
                )
            )
        made.dispose()
        return Outcome(
            kills=kills,
            accepted=len(accepted),
            stored=len(found),
            lost=len(accepted - found.keys()),
            duplicated=sum(found.values()) - len(found),
            unnoted=len(found.keys() - accepted),
        )


def kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
