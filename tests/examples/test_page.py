"""The page and the terminal's summary."""

from __future__ import annotations

import io
import re
from datetime import datetime, timezone
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from rich.console import Console

from examples.pocketbook import page, terminal
from examples.pocketbook.books import Amounts
from examples.pocketbook.business import Business, Feature, Variant
from examples.pocketbook.checks import Check
from examples.pocketbook.page import Run, Scale, columns
from examples.pocketbook.summary import Second, summarise
from pbmon import catalog
from tests.examples.otlp import Export, telemetry

HOSTILE = "</th><script>alert(1)</script>'\"&[bold red]"
RUN = Run(datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc), 20, "SQLite", "No collector.")
CHECKS = [Check("requests (spans)", "3", "3"), Check("WebSockets", "1", "0")]


def everything(text="/a"):
    """A summary in which every text that comes from outside is this one."""
    export = Export()
    export.request(text, 0.25, 500, attributes={catalog.ERROR_TYPE: text})
    export.request(text, 1.25, attributes={catalog.BUDGET_LIMITS: ["max"]})
    export.request(text, 2.0, 101, scheme="ws")
    described = {catalog.DB_TEXT: text, catalog.DB_SYSTEM: text, catalog.CODE_FUNCTION: text}
    export.query(text, 0.4, attributes=described | {catalog.ERROR_TYPE: text})
    for metric in (catalog.BUDGET_REQUESTS, catalog.BUDGET_BREACHES):
        export.series(metric, 2, {catalog.ROUTE: text, catalog.BUDGET_LIMIT: "max"})
    key = {catalog.ROUTE: text, catalog.BUDGET_LIMIT: "max"}
    export.series(catalog.BUDGET_THRESHOLD, 0.5, key)
    key = {catalog.TRANSACTION_KIND: text, catalog.TRANSACTION_STATUS: "completed"}
    export.series(catalog.TRANSACTIONS, 3, key)
    key = {catalog.FEATURE_NAME: text, catalog.FEATURE_ACTION: "viewed"}
    export.series(catalog.FEATURE_USAGE, 4321, key)
    return summarise(telemetry(export))


def answers(text="/a"):
    """What the store says, likewise."""
    return Business(
        currency=text,
        revenue=Amounts(Decimal("2345.5"), Decimal("100.25")),
        by_currency={text: Amounts(Decimal("1234.5"), Decimal(0))},
        unconverted=0,
        held=0,
        active=27,
        registered=48,
        new=3,
        features=[Feature(text, 26, {"free": 15, "pro": None})],
        experiment=text,
        variants=[Variant(text, 25, None)],
        decision=text,
        answers=31,
        nps=12.34,
    )


class Reader(HTMLParser):
    """Checks that tags are balanced and collects what a test asks about."""

    EMPTY = ("meta", "link", "br", "img")

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_the_figures():
    text = " ".join(
        " ".join(Reader(page.render(everything(), answers(), CHECKS, RUN)).text).split()
    )
    for figure in ("1,234.50", "2,245.25", "4,321", "1.25 s", "250 ms", "max ≤ 500 ms", "400 ms",
                   "27", "26", "25", "not told", "+12.3"):  # fmt: skip
        assert figure in text
    for said in ("20 seconds of traffic on SQLite", "No collector.", "✗ over", "✓ yes", "✗ no"):
        assert said in text


def test_hostile_text_stays_text():
    html = page.render(
        everything(HOSTILE), answers(HOSTILE), CHECKS, Run(RUN.started, 20, HOSTILE, HOSTILE)
    )
    read = Reader(html)
    assert "script" not in read.tags
    assert "".join(read.text).count(HOSTILE) >= 12
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]


def test_the_page_needs_nothing_from_anywhere():
    html = page.render(everything(), answers(), CHECKS, RUN)
    read = Reader(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    names = {name for _, name, _ in read.attributes}
    assert not names & {"src", "href", "srcset", "data", "action"}
    assert not re.search(r"url\(|@import|https?:", html)
    assert len(html.encode()) < 60_000


def test_the_page_can_be_read_aloud():
    read = Reader(page.render(everything(), answers(), CHECKS, RUN))
    assert read.tags.count("h1") == 1
    assert ("html", "lang", "en") in read.attributes
    labelled = [value for _, name, value in read.attributes if name == "aria-labelledby"]
    ids = [value for tag, name, value in read.attributes if (tag, name) == ("h2", "id")]
    assert labelled == ids
    assert len(ids) == len(set(ids)) >= 8
    pictures = [1 for _, name, value in read.attributes if (name, value) == ("role", "img")]
    labels = [1 for _, name, _ in read.attributes if name == "aria-label"]
    assert len(pictures) == len(labels) == 2
    heads = [(tag, name) for tag, name, _ in read.attributes if (tag, name) == ("th", "scope")]
    assert len(heads) == read.tags.count("th")


def test_an_empty_run_has_a_page_and_a_summary():
    empty = summarise(telemetry())
    assert "None." in page.render(empty, answers(), [], RUN)
    assert "0 requests" in printed(empty, answers(), [Check("requests (spans)", "0", "0")])


def test_positions_on_the_scale_are_those_of_the_logarithm():
    scale = Scale(1.0)
    assert [scale(s) for s in (0, 0.001, 0.01, 0.1, 1, 5)] == [0, 0, 33.33, 66.67, 100, 100]
    assert [name for _, name in scale.ticks] == ["1 ms", "10 ms", "100 ms", "1 s"]


def test_columns_fill_the_height_at_the_busiest_second():
    low, high = columns([Second(1, 1, 0), Second(5, 2, 1)])
    assert (low.ok, low.client, low.server) == (12.5, 12.5, 0)
    assert high.ok + high.client + high.server == 100


# --- terminal -----------------------------------------------------------------------------------


def printed(summary, business, checks, width=100):
    out = io.StringIO()
    terminal.show(Console(file=out, width=width), summary, business, checks)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_holds_the_figures(width):
    text = printed(everything(), answers(), CHECKS[:1], width)
    for figure in (
        "1,234.50",
        "4,321",
        "1.25 s",
        "250 ms",
        "max ≤ 500 ms",
        "27",
        "+12.3",
        "✗ over",
    ):
        assert figure in text
    assert "sent 3 requests, telemetry shows 3" in text
    assert max(map(len, text.splitlines())) <= width


def test_markup_in_names_is_printed_as_it_is():
    text = printed(everything(HOSTILE), answers(HOSTILE), CHECKS[:1], width=400)
    # Route, budget, statement, two errors' types (shortened) and places, currency twice, feature,
    # experiment, variant, kind of transaction, WebSocket's route.
    assert text.count("[bold red]") == 13


def test_a_difference_is_told():
    text = printed(everything(), answers(), CHECKS)
    assert "does not match" in text
    assert "WebSockets: sent 1, telemetry shows 0" in text
