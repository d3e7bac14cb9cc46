"""Run the fault laboratory: python -m tests.faults [--only NAME] [--stack both] [--scale full].

Prints one line an experiment; --write puts the figures between the markers of a page. Exit
status 1 if pbmon missed a bar.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import page
from tests.faults.experiments import EXPERIMENTS, QUIET, Result, Scale, leave_on_request, run

NAME, COMMAND = "figures", "python -m tests.faults --write docs/reliability.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="experiments whose name contains this")
    parser.add_argument("--stack", choices=("pbmon", "upstream", "both"), default="both")
    parser.add_argument("--scale", choices=("full", "reduced"), default="full")
    parser.add_argument("--at-once", type=int, default=3, help="experiments side by side")
    parser.add_argument("--write", type=Path, help="page that holds the figures")
    arguments = parser.parse_args()
    stacks = ["upstream", "pbmon"] if arguments.stack == "both" else [arguments.stack]
    names = [name for name in EXPERIMENTS if arguments.only in name]
    scale = Scale(arguments.scale)
    start_s = time.monotonic()
    pairs = [(name, stack) for name in names for stack in stacks]
    alone = [pair for pair in pairs if pair[0] in QUIET and pair[1] == "pbmon"]
    together = [pair for pair in pairs if pair not in alone]
    results = [
        *run_all(alone, scale, 1),
        *run_all(together, scale, arguments.at_once),
    ]
    print(f"{len(results)} experiments in {time.monotonic() - start_s:.0f} s")
    if arguments.write:
        page.write(arguments.write, NAME, COMMAND, table(results, names, stacks))
    return any(result.missed for result in results if result.stack == "pbmon")


def run_all(pairs: list[tuple[str, str]], scale: Scale, at_once: int) -> Iterator[Result]:
    """Each in an interpreter of its own: sink and load of one don't slow those of the other."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(at_once, leave_on_request, maxtasksperchild=1) as pool:
        tasks = [pool.apply_async(run, (name, stack, scale)) for name, stack in pairs]
        for task in tasks:
            result = task.get()
            print(_line(result), flush=True)
            yield result
        pool.close()
        pool.join()


def _line(result: Result) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in result.figures.items())
    missed = f"  MISSED: {'; '.join(result.missed)}" if result.missed else ""
    said = "".join(f"\n    {line}" for line in result.said) if missed else ""
    return f"{result.name:<32} {result.stack:<8} {_losses(result):<20} {figures}{missed}{said}"


def _losses(result: Result) -> str:
    return " / ".join(_short(value) for value in (result.spans, result.logs, result.counters))


def _short(value: float) -> str:
    """Per cent: a loss, however small, never reads as 0."""
    return f"{value:.2g}" if 0 < value < 10 else f"{value:.0f}"


def table(results: list[Result], names: list[str], stacks: list[str]) -> str:
    by_key = {(result.name, result.stack): result for result in results}
    lines = [
        f"| fault | {' | '.join(stacks)} | pbmon, more |",
        "|---|" + "---|" * (len(stacks) + 1),
    ]
    for name in names:
        cells = [_losses(by_key[name, stack]) for stack in stacks]
        ours = by_key.get((name, "pbmon"))
        more = "" if ours is None else "; ".join(f"{k} {v}" for k, v in ours.figures.items())
        lines.append(f"| {name} | {' | '.join(cells)} | {more} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
