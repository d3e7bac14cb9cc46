"""A process of its own with a spool, to be killed: python -m tests.spool.worker COMMAND ...

    write STATE LOG FIRST FORKS [DELIVERED]
                                  append numbered records as fast as it can, also in forked
                                  children, and note in LOG each number that was taken; deliver
                                  them, and note in DELIVERED what was settled
    adopt STATE LOG               adopt and drain again and again, and note in LOG what was found;
                                  ends as soon as standard input does and nothing is left
    hold STATE COUNT              append so many records to every channel, say "ready", wait for
                                  the end of standard input

A number in LOG is eight bytes. Each process that writes has its own range of 10**9 numbers.
"""

from __future__ import annotations

import os
import random
import select
import struct
import sys
import threading
import time
from pathlib import Path

from pbmon.spool import adoption
from pbmon.spool.adoption import Orphan
from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from pbmon.spool.frames import CHANNELS
from pbmon.spool.queue import Spool

NUMBER = struct.Struct("<Q")
RANGE = 10**9


def write(state: str, log: str, first: str, forks: str, delivered: str = "") -> None:
    home, books = Home(Path(state), "shop"), Books()
    spool = Spool(home, books)
    noted = note_in(log)
    number = int(first)
    for child in range(1, int(forks) + 1):
        if os.fork() == 0:
            spool.forget()
            home.forget()
            books.forget()
            spool = Spool(home, books)
            number += child * RANGE
            break
    if delivered:
        threading.Thread(target=deliver, args=(spool, note_in(delivered)), daemon=True).start()
    generator = random.Random(number)
    while True:
        payload = NUMBER.pack(number) + bytes(generator.randrange(600))
        if not spool.append(CHANNELS[number % 4], payload, 1):
            os.write(noted, NUMBER.pack(number))
        number += 1


def note_in(log: str) -> int:
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def deliver(source: Spool | Orphan, noted: int, *, once: bool = False) -> None:
    while True:
        for channel in CHANNELS:
            while (batch := source.read(channel, 64, 2**20)) is not None:
                numbers = [record.payload[: NUMBER.size] for record in batch.records]
                source.settle(batch, batch.items, {})
                os.write(noted, b"".join(numbers))
        if once:
            return


def adopt(state: str, log: str) -> None:
    home, books = Home(Path(state), "shop"), Books()
    noted = note_in(log)
    while True:
        ending = bool(select.select([sys.stdin], [], [], 0)[0])
        orphans = adoption.adopt(home, books, None)
        for orphan in orphans:
            deliver(orphan, noted, once=True)
            orphan.close()
        if ending and not orphans:
            return
        time.sleep(0.001)


def hold(state: str, count: str) -> None:
    spool = Spool(Home(Path(state), "shop"), Books())
    for channel in CHANNELS:
        for number in range(int(count)):
            reason = spool.append(channel, NUMBER.pack(number), 1)
            assert not reason, reason
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    {"write": write, "adopt": adopt, "hold": hold}[sys.argv[1]](*sys.argv[2:])
