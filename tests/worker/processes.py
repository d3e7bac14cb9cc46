"""A process of its own that tracks events, to be killed: python -m tests.worker.processes

    LOG FIRST FORKS     track numbered events, a thousand a second, also in forked children, and
                        note in LOG each number that was accepted; ship them too

A number in LOG is eight bytes. Each process that tracks has its own range of 10**9 numbers.
"""

from __future__ import annotations

import os
import struct
import sys
import time

import pbmon

NUMBER = struct.Struct("<Q")
RANGE = 10**9
_AT_ONCE = 5


def main(log: str, first: str, forks: str) -> None:
    number = int(first)
    pbmon.configure()
    pbmon.track("begun")  # so that a forked child has a journal of its parent's
    for child in range(1, int(forks) + 1):
        if os.fork() == 0:
            number += child * RANGE
            break
    noted = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    print("ready", flush=True)
    while True:
        for _ in range(_AT_ONCE):
            if pbmon.track("numbered", {"n": number}, user_id=number % 100):
                os.write(noted, NUMBER.pack(number))
            number += 1
        time.sleep(_AT_ONCE / 1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
