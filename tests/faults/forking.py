"""Counts in a parent, forks as a preloading server does, counts on in the children."""

from __future__ import annotations

import os

from tests.faults.app import count

BEFORE = 100
CHILDREN = 2
EACH = 50


def main() -> None:
    for number in range(BEFORE):
        count(number)
    children = []
    for index in range(CHILDREN):
        child = os.fork()
        if child == 0:
            first = BEFORE + index * EACH
            for number in range(first, first + EACH):
                count(number)
            return  # ends as a worker does, through its exit handlers
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
