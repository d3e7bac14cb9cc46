"""Figures in a page of the docs, between markers that say what writes them."""

from __future__ import annotations

import sys
from pathlib import Path


def write(page: Path, name: str, command: str, table: str) -> None:
    """Put the table between `<!-- NAME: COMMAND -->` and `<!-- end of NAME -->`."""
    text = page.read_text(encoding="utf-8")
    marks = (f"<!-- {name}: {command} -->", f"<!-- end of {name} -->")
    head, begin, rest = text.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        sys.exit(f"{page} has no {' … '.join(marks)}")
    page.write_text(f"{head}{begin}\n\n{table}\n\n{end}{tail}", encoding="utf-8")
