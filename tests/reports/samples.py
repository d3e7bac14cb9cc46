"""A report with everything that a page can have."""

from __future__ import annotations

from decimal import Decimal

from pbmon.reports.page import Amount, Chart, Headline, Page, Section, Table

NASTY = 'a|b *c* _d_ <script>alert(1)</script> [x](http://x) `y` $z$ \n# "q" é 漢字 \x1b[31m \u202e'

PAGE = Page(
    "Weekly review of pocketbook",
    "2026-11-16 to 2026-11-22, Europe/Berlin",
    (
        Headline(
            "Net revenue", Amount(Decimal("1234.50"), "USD"), Amount(Decimal("1000.00"), "USD")
        ),
        Headline("Transactions", Amount(12), Amount(0)),
        Headline("Retention", Amount(0.25, "%"), Amount(0.2, "%")),
        Headline("NPS", Amount(31, "points"), Amount(-4, "points")),
        Headline("Active users", Amount(None, hidden=True), Amount(120)),
        Headline("Churned", Amount(None), Amount(3)),
    ),
    (
        Section(
            "Revenue",
            ("3 transactions wait for a rate.",),
            (
                Chart(
                    "Net revenue by day",
                    "bars",
                    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
                    {
                        "this week": (1, 2, 3, Decimal("4.5"), 5, 6, 7),
                        "week before": (7, 6, 5, 4, 3, 2, 1),
                    },
                    "USD",
                ),
            ),
            (
                Table(
                    ("currency", "net", "transactions"),
                    (
                        ("USD", Amount(Decimal("1234.50"), "USD"), Amount(12)),
                        ("JPY", Amount(12345, "JPY"), Amount(1)),
                    ),
                    "By currency",
                ),
            ),
        ),
        Section(
            NASTY,
            (NASTY,),
            (
                Chart(
                    NASTY,
                    "lines",
                    [f"2026-11-{day:02}" for day in range(1, 31)],
                    {NASTY: [None, *(day * 0.01 for day in range(29))], "_b": [0.1] * 30},
                    "%",
                ),
            ),
            (Table(("name", "comment"), ((NASTY, NASTY), ("plain", ""))),),
        ),
        Section("Empty", (), (Chart("Nothing", "lines", (), {}),), (Table(("a",), ()),)),
    ),
)  # fmt: skip
