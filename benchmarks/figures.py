"""Figures of several rounds as text, and their place in a page."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them is not above; they are sorted."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Median and range."""
    low, middle, high = (
        form.format(value) for value in (min(values), statistics.median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}–{high})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of theirs by ours."""
    return statistics.median(t / o for o, t in zip(ours, theirs, strict=True))


def table(rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first row is the head."""
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}"


def write(page: Path, name: str, text: str) -> None:
    """Put the text between the markers of this name; the program ends where there are none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{page} has no {begin} … {end}")
    page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
