"""Charts say the numbers they were given."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from pbmon.reports import charts
from pbmon.reports.page import Chart
from tests.reports.samples import NASTY

SVG = "{http://www.w3.org/2000/svg}"


def heights(svg: str, colour: str) -> list[float]:
    """Of the bars of a colour, in the picture's units."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if f"fill: {colour}" in path.get("style", "") and path.get("clip-path"):
            ys = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path.get("d", ""))]
            found.append(max(ys) - min(ys))
    return found


def test_bars_are_as_high_as_their_values():
    svg = charts.draw(Chart("x", "bars", ("a", "b", "c"), {"n": (1, 2, 4), "m": (4, None, 2)}))
    first = heights(svg, charts.COLOURS[0])
    assert [round(height / first[0], 3) for height in first] == [1, 2, 4]
    second = heights(svg, charts.COLOURS[1])
    assert [round(height / first[0], 3) for height in second] == [4, 0, 2]


def test_the_same_numbers_are_the_same_picture():
    chart = Chart("x", "lines", ("a", "b"), {"n": (1, None)}, "%")
    assert charts.draw(chart) == charts.draw(chart)


def test_texts_stay_texts_whatever_they_are():
    svg = charts.draw(Chart("x", "lines", ("$x^2$", "_b"), {NASTY: (1, 2), "_hidden": (2, 1)}))
    texts = [each.text for each in ET.fromstring(svg).iter(f"{SVG}text")]
    assert "$x^2$" in texts
    assert any(text and text.strip() == "_hidden" for text in texts)
    assert "<script" not in svg


def test_labels_do_not_run_into_each_other():
    days = [f"2026-11-{day:02}" for day in range(1, 31)]
    texts = [
        each.text
        for each in ET.fromstring(
            charts.draw(Chart("x", "lines", days, {"n": list(range(30))}))
        ).iter(f"{SVG}text")
    ]
    assert sum(text in days for text in texts) <= 7


def test_a_chart_without_numbers_is_drawn():
    assert charts.draw(Chart("x", "bars", (), {})).startswith("<svg")
