"""A report as one HTML file that loads nothing: styles and charts are in it."""

from __future__ import annotations

import base64
from pathlib import Path

from pbmon import privacy
from pbmon.reports import charts
from pbmon.reports.page import Chart, Page, change, shown

_TEMPLATE = "page.html.j2"


class ExtraMissingError(Exception):
    """What HTML needs is not installed; the text is the remedy."""


def write(page: Page) -> str:
    """The page. Raises ExtraMissingError."""
    try:
        import jinja2
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise ExtraMissingError(
            f"a report as HTML needs {error.name}: pip install 'pbmon[report]'; "
            "Markdown needs nothing"
        ) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(shown=shown, change=change, picture=picture)
    return environment.get_template(_TEMPLATE).render(page=page)


def _finalize(value: object) -> object:
    """Every text of the page without control characters: names and comments come from people."""
    return privacy.escape(value) if type(value) is str else value


def picture(chart: Chart) -> str:
    """The chart as a data URI: an image can run nothing and reaches for nothing."""
    svg = charts.draw(chart).encode()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
