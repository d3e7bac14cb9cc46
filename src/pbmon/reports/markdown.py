"""A report as Markdown, for a chat, a ticket or a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pbmon import privacy
from pbmon.reports.page import Cell, Page, Table, change, shown

# What Markdown or a chat gives a meaning to: names and comments come from people.
_MARKS = re.compile(r"([\\`*_\[\]<>#!|~@&$^]|:(?=//)|(?<=www)\.|^[-+](?=\s))")


def write(page: Page) -> str:
    """The page; charts are left out, for every chart's numbers are in a table too."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield f"# {escape(page.title)}"
    yield ""
    yield escape(page.subtitle)
    yield ""
    rows: list[Sequence[Cell]] = [
        (each.name, each.now, each.before, change(each)) for each in page.headlines
    ]
    yield from write_table(Table(("", *page.times, "change"), rows))
    for section in page.sections:
        yield f"## {escape(section.title)}"
        yield ""
        for note in section.notes:
            yield escape(note)
            yield ""
        for table in section.tables:
            if table.caption:
                yield f"**{escape(table.caption)}**"
                yield ""
            yield from write_table(table)


def write_table(table: Table) -> Iterator[str]:
    """Lines, without the caption; an empty one at the end."""
    yield "| " + " | ".join(map(escape, table.columns)) + " |"
    yield "|" + "|".join([" --- ", *(" ---: " for _ in table.columns[1:])]) + "|"
    for row in table.rows:
        yield "| " + " | ".join(escape(shown(cell)) for cell in row) + " |"
    yield ""


def escape(text: str) -> str:
    """The text as it is, whatever Markdown would make of it, in one line."""
    line = " ".join(privacy.escape(" ".join(text.split())).split())
    return _MARKS.sub(r"\\\1", line)
