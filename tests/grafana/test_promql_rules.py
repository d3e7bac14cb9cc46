"""Each rule about queries turns red on a query that breaks it, and stays green on good ones."""

from __future__ import annotations

import pytest

from grafana import queries
from pbmon import catalog
from tests.grafana import promql_rules
from tests.grafana.changes import FEATURES, RATE, SCOPE, USERS, ask, findings, put
from tests.grafana.promql_rules import RULES

SELECTOR = "pbmon_feature_usage_total{@@}"
EXACT = (
    "sum by (pbmon_feature_name) (clamp_min(max_over_time(M[24h])"
    " - (last_over_time(M[1d] offset 24h) or max_over_time(M[24h]) * 0), 0))"
).replace("M", SELECTOR)
OF_STORE = (
    "sum by (pbmon_currency) (max by (instance, pbmon_currency) (max_over_time(M[24h]))"
    " - (max by (instance, pbmon_currency) (last_over_time(M[7d] offset 24h))"
    " or min by (instance, pbmon_currency) (min_over_time(M[24h]))))"
).replace("M", "pbmon_revenue_total{@@}")


def exact_but(old, new, form=EXACT):
    assert old in form
    return ask(form.replace(old, new))


def rate(matchers="@@", by="by (pbmon_transaction_status)", window="$__rate_interval"):
    return ask(f"sum {by} (rate(pbmon_transactions_total{{{matchers}}}[{window}]))", RATE)


def annotation(expr):
    return put("annotations", "list", 0, "target", "expr", expr.replace("@@", SCOPE))


def service_variable(query):
    return put("templating", "list", 1, "query", {"query": query})


# rule: (what is wrong, change, part of the finding)
BAD = {
    "parses": [
        ("no PromQL", ask("sum by (("), "Revenue"),
        ("no PromQL of a mark", annotation("sum by (("), "Deploys"),
        ("unknown variable", rate(window="$__nonsense"), "Transaction Rate"),
    ],
    "counters_increase": [
        ("the seed's sum", ask("sum(pbmon_revenue_total{@@})"), "counter"),
        (
            "the seed's topk",
            ask("topk(10, sum by (pbmon_feature_name) (pbmon_feature_usage_total{@@}))", FEATURES),
            "pbmon_feature_usage_total is a counter",
        ),
        ("a count", ask("sum(http_server_request_duration_seconds_count{@@})"), "counter"),
        ("half of the form", ask(f"max_over_time({SELECTOR}[24h])"), "counter"),
        ("base of another window", exact_but("offset 24h", "offset 12h"), "counter"),
        ("base not before the window", exact_but(" offset 24h", ""), "counter"),
        ("base of 15 minutes", exact_but("[1d]", "[15m]"), "counter"),
        ("no case without base", exact_but(f" or max_over_time({SELECTOR}[24h]) * 0", ""),
         "counter"),
        ("base of another series", exact_but("last_over_time(pbmon_feature_usage_total",
                                             "last_over_time(pbmon_events_total"), "counter"),
        ("other matchers in the base", exact_but("@@}[1d]", 'pbmon_feature_name="x", @@}[1d]'),
         "counter"),
        ("the store's form of a process's", ask(OF_STORE.replace(
            "pbmon_revenue_total", "pbmon_feature_usage_total").replace(
            "pbmon_currency", "pbmon_feature_name")), "counter"),
        ("a process's form of the store's",
         exact_but("pbmon_feature_usage_total", "pbmon_revenue_total"), "counter"),
        ("a base of the store's of one day", exact_but("[7d]", "[1d]", OF_STORE), "counter"),
        ("a week ago less last week's base",
         exact_but("[24h])", "[24h] offset 1w)", OF_STORE), "counter"),
    ],
    "gauges_bounded": [
        ("a bare gauge", ask("max by (pbmon_window) (pbmon_users_active{@@})", USERS), "look-back"),
        ("a bare mark", annotation("pbmon_mark_time_seconds{@@} * 1000"), "look-back"),
        ("bare connections", ask("sum(pbmon_websocket_connections{@@})"), "look-back"),
    ],
    "rates_span_samples": [
        ("a fixed window", rate(window="5m"), "$__rate_interval"),
        ("the graph's step", rate(window="$__interval"), "$__rate_interval"),
    ],
    "scoped": [
        ("no service", rate('deployment_environment_name=~"$environment"'), "service_name"),
        ("no environment", rate('service_name=~"$service"'), "deployment_environment_name"),
        ("one value only", rate(SCOPE.replace("=~", "=")), "service_name"),
        ("a mark of all", annotation("max(last_over_time(pbmon_mark_time_seconds[10m])) * 1000"),
         "'Deploys': pbmon_mark_time_seconds without service_name"),
        ("one selector of three", exact_but("{@@}[1d]", "[1d]"), "service_name"),
    ],
    "catalogued": [
        ("the seed's metric", ask("sum(rate(revenue_usd{@@}[$__rate_interval]))"), "revenue_usd"),
        ("a histogram's bare name", ask("http_server_request_duration_seconds{@@}"),
         "unknown metric"),
        ("no name", ask("sum(rate({@@}[$__rate_interval]))"), "unknown metric"),
        ("an unknown matcher", rate('status="failed", @@'), "no label status"),
        ("another metric's matcher", rate('http_route="/", @@'), "no label http_route"),
        ("an unknown group", rate(by="by (status)"), "grouped by status"),
        ("another metric's group", rate(by="by (pbmon_feature_name)"), "by pbmon_feature_name"),
        ("le of a counter", rate(by="by (le)"), "grouped by le"),
        ("an unknown match", ask(f"{EXACT} and on (nobody) {EXACT}"), "grouped by nobody"),
        ("an unknown join", ask(f"{EXACT} * on (pbmon_feature_name) group_left (nobody) {EXACT}"),
         "grouped by nobody"),
        ("another label's legend", put("panels", RATE, "targets", 0, "legendFormat", "{{status}}"),
         "legend status"),
        ("an annotation's own legend",
         put("annotations", "list", 0, "textFormat", "{{status}}"), "Deploys: status"),
        ("a variable of another metric", service_variable('label_values({__name__=~"up"}, job)'),
         "'up'"),
        ("a variable of another label",
         service_variable('label_values({__name__=~"pbmon_revenue_total"}, app)'), "label app"),
        ("another kind of variable", service_variable("metrics(pbmon)"), "not label_values"),
    ],
    "never_merged": [
        ("currencies added", exact_but("sum by (pbmon_currency)", "sum", OF_STORE),
         "over pbmon_currency"),
        ("added later", ask(f"sum({OF_STORE})"), "over pbmon_currency"),
        ("left out", exact_but("sum by (pbm", "sum without (pbm", OF_STORE), "over pbmon_currency"),
        ("gross and refunds", ask("sum by (pbmon_currency, pbmon_window)"
                                  " (last_over_time(pbmon_revenue_booked{@@}[10m]))"),
         "over pbmon_revenue_part"),
        ("windows mixed", ask("max(last_over_time(pbmon_users_active{@@}[3m]))", USERS),
         "over pbmon_window"),
        ("a choice of windows",
         ask('max(last_over_time(pbmon_users_active{pbmon_window=~"7d|30d", @@}[3m]))', USERS),
         "over pbmon_window"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "change", "finding"),
    [
        pytest.param(rule, change, finding, id=f"{rule}: {name}")
        for rule, cases in BAD.items()
        for name, change, finding in cases
    ],
)
def test_a_bad_query_turns_the_rule_red(rule, change, finding):
    found = findings(change, f"{rule}: ")
    assert any(finding in line for line in found), findings(change)


def test_every_rule_has_a_bad_query():
    assert list(BAD) == [rule.__name__ for rule in RULES]


QUANTILE = (
    "histogram_quantile(0.95, sum by (le, http_route)"
    " (rate(http_server_request_duration_seconds_bucket{@@}[$__rate_interval])))"
)


@pytest.mark.parametrize(
    "expr",
    [
        EXACT,
        OF_STORE,
        OF_STORE.replace("[24h]", "[24h] offset 1w").replace("offset 24h", "offset 8d"),
        QUANTILE,
        "sum by (pbmon_currency) (increase(pbmon_revenue_total{@@}[1h]))",
        "sum without (instance) (rate(pbmon_transactions_total{@@}[$__rate_interval]))",
        # One window is chosen, so nothing is mixed.
        'max(last_over_time(pbmon_users_active{pbmon_window="7d", @@}[3m]))',
        f"topk by (pbmon_currency) (3, {OF_STORE} > 0)",
    ],
)
def test_a_good_query_stays_green(expr):
    # The panel's legend may not fit the other query.
    assert [line for line in findings(ask(expr)) if "legend" not in line] == []


def test_who_exports_a_counter_says_the_catalogue():
    usage = queries.exact(catalog.FEATURE_USAGE, [catalog.FEATURE_NAME], "24h")
    revenue = queries.exact(catalog.REVENUE, [catalog.CURRENCY], "24h")
    assert (usage, revenue) == (EXACT.replace("@@", SCOPE), OF_STORE.replace("@@", SCOPE))
    assert findings(ask(queries.exact(catalog.REVENUE, [catalog.CURRENCY], "1h", ago="1w"))) == []


def test_series_names_are_those_of_the_catalogue():
    assert "pbmon_revenue_total" in promql_rules.SERIES
    assert "le" in promql_rules.SERIES["http_server_request_duration_seconds_bucket"].labels
    assert "le" not in promql_rules.SERIES["http_server_request_duration_seconds_sum"].labels
    assert "pbmon_revenue" not in promql_rules.SERIES
