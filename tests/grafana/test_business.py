"""The business dashboard's queries, from the committed JSON, against data whose truth is known.

Its money is the store's; how the form for processes does is in test_growth.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest

from tests.grafana.panel_queries import panel_queries
from tests.grafana.promtool import (
    DAY,
    HOUR,
    WEEK,
    Labels,
    Process,
    Store,
    check,
    check_all,
    data,
    labels,
    truth,
)  # fmt: skip
from tests.stack.servers import ServerError

REVENUE = "pbmon_revenue_total"
REFUNDS = "pbmon_refunds_total"
TRANSACTIONS = "pbmon_transactions_total"
BOOKED = "pbmon_revenue_booked"
FEATURES = "pbmon_feature_usage_total"
USERS = "pbmon_users_active"

END = 3 * DAY
EUR, USD = labels(pbmon_currency="EUR"), labels(pbmon_currency="USD")


def panel(title: str, **values: str) -> str:
    (expr,) = panel_queries("business", title, **values)
    return expr


def check_revenue(stores: list[Store], at: int, expected: dict[Labels, float]) -> None:
    check(data(stores, REVENUE, at), panel("Revenue (24h)"), at, expected)


# --- revenue ---


def shops(seed: int) -> list[Store]:
    """Two stores over three days, 20 sales an hour, now and then no export for minutes or hours."""
    stores = [
        Store("a", 0, silent=range(DAY - 40, DAY + 30)),
        Store("b", 0, silent=range(2 * DAY - 3, 2 * DAY + 5)),
        Store("c", DAY // 2, before=100_000),  # older than what Prometheus knows of it
    ]
    random = Random(seed)
    for hour in range(0, END, HOUR):
        for _ in range(20):
            store = random.choice(stores)
            minute = hour + random.randrange(1, HOUR)
            if minute > store.start:
                # Multiples of a quarter are exact in binary, so the comparison can be exact too.
                amount = random.randrange(1, 4000) / 4
                store.count(
                    minute, amount, pbmon_currency="USD" if store.instance == "b" else "EUR"
                )
    return stores


def test_revenue_is_exact_at_any_minute():
    stores = shops(1)
    lines = data(stores, REVENUE, END)
    moments = [HOUR, 3 * HOUR, DAY, DAY + 10, DAY + 91, 2 * DAY + 1, 2 * DAY + 667, END]
    assert all(truth(stores, DAY, at) for at in moments)
    wanted = [(panel("Revenue (24h)"), at, truth(stores, DAY, at)) for at in moments]
    check_all(lines, wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        "sum by (pbmon_currency) (pbmon_revenue_total)",  # the seed's
        "sum by (pbmon_currency) (increase(pbmon_revenue_total[24h]))",
    ],
)
def test_other_queries_are_not_exact_on_the_same_data(wrong):
    """So the data can tell right from wrong."""
    stores = shops(1)
    with pytest.raises(ServerError, match="pbmon_currency"):
        check(data(stores, REVENUE, 2 * DAY), wrong, 2 * DAY, truth(stores, DAY, 2 * DAY))


def test_a_store_from_its_installation_on():
    store = Store("a", 1)
    store.count(5, 40, pbmon_currency="EUR")
    check_revenue([store], 4, {EUR: 0})
    check_revenue([store], 29, {EUR: 40})


def test_a_new_prometheus_over_an_old_store_shows_only_what_is_new():
    store = Store("a", 100, before=1_000_000)
    store.count(200, 10, pbmon_currency="EUR")
    check_revenue([store], 299, {EUR: 10})


def test_days_of_silence_and_another_leader():
    store = Store("a", 0, silent=range(DAY, 4 * DAY))
    for minute in range(10, 5 * DAY, 10):
        store.count(minute, 1, pbmon_currency="EUR")
    at = 4 * DAY + HOUR
    assert truth([store], DAY, at)[EUR] == (at - DAY) // 10 + 1
    check_revenue([store], at, truth([store], DAY, at))


def test_services_that_share_a_store_and_lead_in_turn_are_one_store():
    store = Store("a", 0)
    for minute in range(1, 2 * DAY):
        store.count(minute, 1, pbmon_currency="EUR")
    (web,) = store.series(REVENUE, 2 * DAY)
    values = web["values"].split()
    worker = {**web, "series": web["series"].replace('"pocketbook"', '"pocketbook-worker"')}
    assert worker != web
    turns = [i // 300 % 2 for i in range(len(values))]  # each five hours
    for line, turn in ((web, 0), (worker, 1)):
        line["values"] = " ".join(v if t == turn else "_" for v, t in zip(values, turns))
    for at in (HOUR, 6 * HOUR, DAY + 5 * HOUR + 1, 2 * DAY - 1):
        check([web, worker], panel("Revenue (24h)"), at, {EUR: min(at, DAY)})


def test_revenue_of_a_quiet_day_is_zero_and_not_missing():
    store = Store("a", 0)
    store.count(10, 99, pbmon_currency="EUR")
    for at, value in ((DAY + 9, 99), (DAY + 10, 0), (END, 0)):
        check_revenue([store], at, {EUR: value})


def test_no_series_give_no_figure():
    titles = (
        "Revenue (24h)", "Refunds (24h)", "Net Revenue (24h)", "Average Charge (24h)",
        "Revenue per Hour", "Metric and Store (24h)", "Waiting for a Rate", "Transaction Rate",
        "Transactions (24h)", "Active Users", "Feature Usage",
    )  # fmt: skip
    check_all([], [(e, DAY, {}) for title in titles for e in panel_queries("business", title)])


def test_environment_and_service_choose():
    production, staging, unnamed, other = stores = [Store(name, 0) for name in "psuo"]
    staging.resource["deployment_environment_name"] = "staging"
    unnamed.resource = {"service_name": "pocketbook"}
    other.resource = {"service_name": "other"}
    for amount, store in zip((1, 2, 4, 8), stores):
        store.count(1, amount, pbmon_currency="EUR")
    assert production.resource["deployment_environment_name"] == "production"
    wanted = [
        (panel("Revenue (24h)", **values), 5, {EUR: figure})
        for values, figure in (
            ({}, 15),  # All takes in what sets no environment
            ({"service": "pocketbook"}, 7),
            ({"environment": "production"}, 1),
            ({"environment": "(production|staging)"}, 3),
            ({"service": "pocketbook", "environment": "staging"}, 2),
        )
    ]
    check_all(data(stores, REVENUE, 5), wanted)


# --- what goes back, what is left, and what a charge is worth ---


def ledger(instance: str, currency: str) -> dict[str, Store]:
    """A store's counters at 0; metric → counter."""
    found = {name: Store(instance, 0) for name in (REVENUE, REFUNDS, TRANSACTIONS)}
    for name in (REVENUE, REFUNDS):
        found[name].count(0, 0, pbmon_currency=currency)
    for kind, status in (("charge", "completed"), ("charge", "failed"), ("refund", "completed")):
        sell(found, 0, kind, status, 0)
    return found


def sell(books: dict[str, Store], minute: int, kind: str, status: str, count: int = 1) -> None:
    books[TRANSACTIONS].count(
        minute, count, pbmon_transaction_kind=kind, pbmon_transaction_status=status
    )


def lines_of(*ledgers: dict[str, Store], until: int) -> list[dict[str, str]]:
    return [
        line for books in ledgers for name, s in books.items() for line in s.series(name, until)
    ]


def traded() -> list[dict[str, Store]]:
    """Two stores: 3 charges of 60 € with 20 € back, and 2 of 25 $; a day before, one of 1000 €."""
    euros, dollars = ledger("a", "EUR"), ledger("b", "USD")
    # The setting was USD until the first transaction.
    euros[REVENUE].count(0, 0, pbmon_currency="USD")
    for minute, amount in ((5, 1000), (DAY, 20), (DAY + 7, 60), (DAY + 8, 100)):
        euros[REVENUE].count(minute, amount, pbmon_currency="EUR")
        sell(euros, minute, "charge", "completed")
    euros[REFUNDS].count(DAY + 30, 20, pbmon_currency="EUR")
    sell(euros, DAY + 30, "refund", "completed")
    sell(euros, DAY + 31, "charge", "failed")
    dollars[REVENUE].count(DAY + 9, 50, pbmon_currency="USD")
    sell(dollars, DAY + 9, "charge", "completed", 2)
    return [euros, dollars]


def test_refunds_net_and_the_average_charge():
    at = DAY + HOUR
    lines = lines_of(*traded(), until=at)
    check_all(
        lines,
        [
            (panel("Refunds (24h)"), at, {EUR: 20, USD: 0}),
            (panel("Net Revenue (24h)"), at, {EUR: 160, USD: 50}),
            (panel("Average Charge (24h)"), at, {EUR: 60, USD: 25}),
            (panel("Average Charge (24h)"), 4, {}),  # nobody has bought anything yet
            (panel("Average Charge (24h)"), HOUR, {EUR: 1000}),
        ],
    )


def test_an_hour_and_the_same_hour_a_week_before():
    at = WEEK + 30 * HOUR
    # Every five minutes: promtool holds 10,000 samples at once.
    store = Store("a", 0, silent=[minute for minute in range(at) if minute % 5])
    edges = (0, 1, HOUR, HOUR + 1, WEEK, WEEK + 1, WEEK + HOUR)
    for power, after in enumerate(edges):
        store.count(at - WEEK - HOUR + after, 2**power, pbmon_currency="EUR")
    now, before = panel_queries("business", "Revenue per Hour")
    lines = data([store], REVENUE, at)
    check_all(lines, [(now, at, {EUR: 96}), (before, at, {EUR: 6}), (before, WEEK - 1, {})])


def test_metric_store_and_their_difference():
    """The counters lost 12.30 € on their way; a binary fraction leaves no dust."""
    counters = ledger("a", "EUR")
    counters[REVENUE].count(10, 0.1, pbmon_currency="EUR")
    counters[REVENUE].count(20, 0.2, pbmon_currency="EUR")
    counters[REFUNDS].count(20, 1, pbmon_currency="EUR")
    lines = lines_of(counters, until=60)
    part = {"pbmon_currency": "EUR", "pbmon_window": "24h"}
    for name, value in (("gross", 12.6), ("refunds", 1)):
        store = counters[REVENUE]
        lines.append(store.gauge(BOOKED, value, range(61), pbmon_revenue_part=name, **part))
    values = (0.3, 12.6, -12.3, 1, 1, 0)
    found = panel_queries("business", "Metric and Store (24h)")
    check_all(lines, [(expr, 60, {EUR: v}) for expr, v in zip(found, values, strict=True)])


def test_what_waits_for_a_rate_by_currency_and_for_ten_minutes():
    lines = [
        Store(name, 0).gauge("pbmon_revenue_unconverted", n, range(30), pbmon_currency=currency)
        for name, currency, n in (("a", "EUR", 0), ("a", "VND", 3), ("b", "VND", 4))
    ]
    wanted = {EUR: 0, labels(pbmon_currency="VND"): 7}
    expr = panel("Waiting for a Rate")
    # Prometheus leaves a range's start out: a sample ten minutes old is too old.
    check_all(lines, [(expr, 29, wanted), (expr, 38, wanted), (expr, 39, {})])


# --- transactions ---


def test_transactions_of_a_day_by_kind_and_status():
    at = DAY + HOUR
    expected = {
        labels(pbmon_transaction_kind=kind, pbmon_transaction_status=status): n
        for kind, status, n in (("charge", "completed", 5), ("charge", "failed", 1),
                                ("refund", "completed", 1))
    }  # fmt: skip
    check(lines_of(*traded(), until=at), panel("Transactions (24h)"), at, expected)


def test_transaction_rate_is_per_second_by_status():
    stores = [Store("a", 0), Store("b", 0)]
    for store in stores:
        for minute in range(60):
            store.count(minute, 60, pbmon_transaction_status="completed")
            store.count(minute, 6, pbmon_transaction_status="failed")
    expected = {
        labels(pbmon_transaction_status="completed"): 2.0,
        labels(pbmon_transaction_status="failed"): 0.2,
    }
    check(data(stores, TRANSACTIONS, 59), panel("Transaction Rate"), 59, expected)


# --- users and features ---


def users(instance: str, value: float, minutes: range, window: str = "24h", **resource: str):
    store = Store(instance, 0)
    store.resource.update(resource)
    return store.gauge(USERS, value, minutes, pbmon_window=window)


def check_users(lines: list[dict[str, str]], at: int, expected: dict[str, float]) -> None:
    windows = ("24h", "7d", "30d")
    found = panel_queries("business", "Active Users")
    wanted = []
    for window, expr in zip(windows, found, strict=True):
        names = labels(pbmon_window=window)
        wanted.append((expr, at, {names: expected[window]} if window in expected else {}))
    check_all(lines, wanted)


def test_active_users_of_two_stores_add_up():
    lines = [users(s, 120, range(60)) for s in "ab"]
    lines += [users("a", 300, range(60), "7d"), users("a", 500, range(60), "30d")]
    check_users(lines, 59, {"24h": 240, "7d": 300, "30d": 500})


def test_active_users_are_one_figure_whoever_leads():
    lines = [
        users("a", 120, range(60)), users("a", 120, range(60, 120), service_name="worker"),
    ]  # fmt: skip
    check_users(lines, 90, {"24h": 120})


def test_active_users_stand_while_nothing_runs_and_for_a_day_at_most():
    line = users("a", 120, range(60))
    check_users([line], 59 + DAY - 1, {"24h": 120})
    check_users([line], 59 + DAY, {})


def test_feature_usage_is_the_ten_most_used_by_action():
    lives = [Process(f"{worker}-{start}", start, start + 2 * HOUR)
             for worker in range(3) for start in range(0, DAY, 2 * HOUR)]  # fmt: skip
    random = Random(3)
    for place in range(13):  # thirteen features; the later, the more used
        for _ in range(5 + 7 * place):
            life = random.choice(lives)
            life.count(
                random.randrange(life.start, life.end),
                pbmon_feature_name=f"feature-{place}",
                pbmon_feature_action=random.choice(("viewed", "clicked", "completed")),
            )
    at, window = DAY, 6 * HOUR
    use = truth(lives, window, at)
    totals: dict[str, float] = defaultdict(float)
    for which, amount in use.items():
        totals[dict(which)["pbmon_feature_name"]] += amount
    ranked = sorted(totals.values(), reverse=True)
    assert ranked[9] > ranked[10], "a tie would leave the tenth place open"
    top = {name for name, total in totals.items() if total >= ranked[9]}
    expected = {which: n for which, n in use.items() if dict(which)["pbmon_feature_name"] in top}
    check(data(lives, FEATURES, at), panel("Feature Usage", range_="6h"), at, expected)


def test_a_feature_nobody_used_in_the_range_has_no_bar():
    process = Process("p", 0)
    process.count(5, pbmon_feature_name="export", pbmon_feature_action="viewed")
    process.count(500, pbmon_feature_name="budget", pbmon_feature_action="viewed")
    process.count(5, pbmon_feature_name="budget", pbmon_feature_action="clicked")
    expr = panel("Feature Usage", range_="1h")
    viewed = labels(pbmon_feature_name="budget", pbmon_feature_action="viewed")
    check(data([process], FEATURES, 510), expr, 510, {viewed: 1})
    check(data([process], FEATURES, 600), expr, 600, {})
