"""A table as aligned lines, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pbmon import privacy
from pbmon.reports.page import Amount, Table, shown


def write_table(table: Table) -> Iterator[str]:
    """Lines; columns with numbers stand on the right."""
    rows = [list(table.columns), *([privacy.escape(shown(c)) for c in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = [
        any(isinstance(row[n], Amount) for row in table.rows) for n in range(len(table.columns))
    ]
    for row in rows:
        cells = (
            f"{cell:>{width}}" if is_number else f"{cell:<{width}}"
            for cell, width, is_number in zip(row, widths, numbers, strict=True)
        )
        yield "  ".join(cells).rstrip()
