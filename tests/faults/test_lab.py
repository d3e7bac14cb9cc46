"""The laboratory measures what it says: a stack that sends nothing loses everything."""

from __future__ import annotations

import pytest

from tests.faults import __main__ as command
from tests.faults import page
from tests.faults.experiments import EXPERIMENTS, REDUCED, Result, clearly_slower, keep_books, run
from tests.faults.lab import Lab
from tests.faults.test_sink import counter, post


def test_a_stack_that_sends_nothing_has_lost_everything():
    result = EXPERIMENTS["SIGTERM, uvicorn"]("none", REDUCED)
    assert result.done >= 100
    assert (result.spans, result.logs, result.counters) == (100.0, 100.0, 100.0)
    assert len(result.missed) == 3


def test_an_experiment_that_breaks_down_is_a_missed_bar(monkeypatch):
    def explode(stack, scale):
        raise OSError("no room")

    monkeypatch.setitem(EXPERIMENTS, "explosion", explode)
    assert run("explosion", "pbmon", REDUCED).missed == ["broke down: OSError: no room"]


BOOKS = {
    "balanced": ({"accepted": 5, "delivered": 3, "dropped": 2}, "balanced", []),
    "refused": ({"accepted": 5, "delivered": 5, "refused": 4}, "balanced", []),
    "short": (
        {"accepted": 5, "delivered": 3},
        "metrics off by 2",
        ["books: metrics off by 2"],
    ),
    "twice": (
        {"accepted": 5, "delivered": 9},
        "metrics off by -4",
        ["books: metrics off by -4"],
    ),
    "absent": ({}, "none", ["books: none"]),
}


@pytest.mark.parametrize(("sums", "figure", "missed"), BOOKS.values(), ids=BOOKS)
def test_books(sums, figure, missed):
    result = Result("a name", "pbmon", 1)
    with Lab("pbmon") as lab:
        for outcome, value in sums.items():
            # Over two instances, as after a restart.
            for instance, part in (("one", value - 1), ("two", 1)):
                request = counter(part, name="pbmon.spool.records", instance=instance, **{
                    "pbmon.signal": "metrics", "pbmon.outcome": outcome
                })  # fmt: skip
                post(lab.sink, request, "/v1/metrics")
        keep_books(result, lab, wait_s=0.1)
    assert result.figures["books"] == figure
    assert result.missed == missed
    shown = {f"{each} as None" for each in ("dropped", "refused") if each in sums}
    assert {figure for figure in result.figures if " as " in figure} == shown


@pytest.mark.parametrize(
    ("during", "before", "after", "slower"),
    [
        (1.04, 1.0, 1.0, False),
        (1.06, 1.0, 1.0, True),
        (1.06, 0.5, 1.0, False),  # the machine has got slower by itself
        (1.29, 1.1, 1.2, False),  # within what the calm times differ by
        (1.31, 1.1, 1.2, True),
        (0.5, 1.0, 1.0, False),
    ],
)
def test_what_is_clearly_slower(during, before, after, slower):
    assert clearly_slower(during, before, after) is slower


def test_the_figures_take_their_place_in_the_page(tmp_path):
    place = tmp_path / "page.md"
    begin, end = "<!-- figures: python -m it -->", "<!-- end of figures -->"
    place.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    results = [
        Result("a fault", "upstream", 10, 66.7, 0.004, 0.0),
        Result("a fault", "pbmon", 10, figures={"exit": "0.1 s"}),
    ]
    table = command.table(results, ["a fault"], ["upstream", "pbmon"])
    page.write(place, "figures", "python -m it", table)
    assert place.read_text().splitlines() == [
        "before",
        begin,
        "",
        "| fault | upstream | pbmon | pbmon, more |",
        "|---|---|---|---|",
        "| a fault | 67 / 0.004 / 0 | 0 / 0 / 0 | exit 0.1 s |",
        "",
        end,
        "after",
    ]
    with pytest.raises(SystemExit, match="has no <!-- kills: python -m it -->"):
        page.write(place, "kills", "python -m it", table)
