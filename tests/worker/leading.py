"""A process of its own that tracks events and, if it leads, exports how many the store holds:

    python -m tests.worker.leading

It tracks as fast as it is asked to by lines on its standard input, each the number of events to
track, answers each with what was accepted, and ends as a program does where the input ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from sqlalchemy import Connection, func, select

import pbmon
from pbmon import wiring
from pbmon.catalog import Metric
from pbmon.runtime import Figure, Reading
from pbmon.store.tables import event_totals
from pbmon.worker import figures, leader

STORED = Metric("test.stored", "counter", "{event}", "Events in the store.", of_store=True)


def stored(connection: Connection) -> Iterator[Figure]:
    count = select(func.coalesce(func.sum(event_totals.c.events), 0))
    yield Figure(STORED, int(connection.execute(count).scalar_one()), {})


def main() -> None:
    figures.SOURCES += (stored,)
    leader._EVERY_S = leader._FIGURES_EVERY_S = 0.1
    wiring.EXIT_TIMEOUT_S = 60.0
    pbmon.configure()
    hear = wiring._worker._publish

    def publish(reading: Reading | None) -> None:
        hear(reading)
        if reading is not None:
            (total,) = (f.value for f in reading.figures if f.metric is STORED)
            sys.stderr.write(f"leads {total}\n")

    wiring._worker._publish = publish
    for line in sys.stdin:
        print(sum(bool(pbmon.track("made", {"n": n})) for n in range(int(line))), flush=True)


if __name__ == "__main__":
    main()
