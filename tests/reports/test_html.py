"""One file that loads nothing and runs nothing, whatever people wrote."""

from __future__ import annotations

import sys
from html.parser import HTMLParser

import pytest

from pbmon.reports import html
from tests.reports.samples import NASTY, PAGE


class Reading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def read() -> Reading:
    reading = Reading()
    reading.feed(html.write(PAGE))
    return reading


def test_every_number_is_there(read):
    for text in ("1,234.50 USD", "+23.4 % · before 1,000.00 USD", "few people", "12,345 JPY"):
        assert text in read.texts


def test_nothing_is_loaded_and_nothing_runs(read):
    tags = {tag for tag, _ in read.tags}
    assert not tags & {"script", "link", "iframe", "object", "a", "form"}
    sources = [attrs["src"] for _, attrs in read.tags if "src" in attrs]
    assert len(sources) == 2, "a chart without labels has no picture"
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    (policy,) = (a["content"] for _, a in read.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_what_people_wrote_is_text_without_control_characters(read):
    shown = NASTY.replace("\n", r"\n").replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert shown in read.texts
    assert not any("\x1b" in text for text in read.texts)


def test_pictures_say_in_words_what_they_show(read):
    assert [a["alt"] for tag, a in read.tags if tag == "img"][0] == "Net revenue by day"


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra_the_remedy_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(html.ExtraMissingError, match=rf"needs {missing}.*pbmon\[report\]"):
        html.write(PAGE)
