"""Charts of a report as SVG, drawn by matplotlib (the extra `report`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pbmon.reports.page import Chart, Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#3566c8", "#b97a06", "#1d7f49", "#8a4fbf", "#c5352c", "#59616e")
_SOFT = "#59616e"
_LINE = "#cfd4db"
_MOST_LABELS = 11
_MOST_CHARACTERS = 80
"""Of the labels below a chart, beside each other."""


def draw(chart: Chart) -> str:
    """The chart as one `<svg>` document of 720 × 240 px, the same for the same numbers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Texts stay texts: readable, small, and without the fonts of the machine that drew them.
    style = {"svg.fonttype": "none", "svg.hashsalt": "pbmon", "font.size": 9,
             "font.family": "sans-serif", "axes.unicode_minus": False}  # fmt: skip
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7.2, 2.4), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        _plot(axes, chart)
        _dress(axes, chart)
        out = io.StringIO()
        # On the page's own ground, whether that is light or dark.
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = out.getvalue()
    return text[text.index("<svg") :]


def _plot(axes: Axes, chart: Chart) -> None:
    places = range(len(chart.labels))
    width = 0.8 / max(1, len(chart.series))
    for index, (name, values) in enumerate(chart.series.items()):
        colour = COLOURS[index % len(COLOURS)]
        if chart.kind == "bars":
            left = [place - 0.4 + width * (index + 0.5) for place in places]
            axes.bar(left, _floats(values, 0.0), width * 0.92, label=_plain(name), color=colour)
        else:
            marker = "o" if len(chart.labels) <= _MOST_LABELS else ""
            axes.plot(places, _floats(values, float("nan")), label=_plain(name), color=colour,
                      linewidth=1.6, marker=marker, markersize=3)  # fmt: skip


def _floats(values: Sequence[Number | None], gap: float) -> list[float]:
    return [float(value) if value is not None else gap for value in values]


def _dress(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter

    labels = [_plain(label) for label in chart.labels]
    longest = max(map(len, labels), default=1)
    most = max(1, min(_MOST_LABELS, _MOST_CHARACTERS // (longest + 2)))
    shown = range(0, len(labels), -(-len(labels) // most) or 1)
    axes.set_xticks(list(shown), [labels[place] for place in shown], color=_SOFT)

    def tick(value: Any, _place: Any) -> str:
        return f"{value:.0%}" if chart.unit == "%" else f"{value:,.10g}"

    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.tick_params(length=0, colors=_SOFT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    if all(value is None or value >= 0 for values in chart.series.values() for value in values):
        axes.set_ylim(bottom=0)
    if len(chart.series) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8,
                    labelcolor=_SOFT)  # fmt: skip


def _plain(text: str) -> str:
    """A name as it is: matplotlib reads `$…$` as a formula, and hides names that begin with `_`."""
    cut = text if len(text) <= 24 else text[:23] + "…"
    escaped = cut.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
