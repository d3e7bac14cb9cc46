"""Settings: where each comes from, what is refused, and that nothing ever raises."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.budgets import Budget, Budgets
from pbmon.experiments import Experiment
from pbmon.parsing import Payments, Users
from pbmon.settings import FIELDS, Settings, resolve, variables
from tests.patience import patiently

TOML = "pbmon.toml"


@pytest.fixture
def write(tmp_path):
    def write(text, name=TOML):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def value_of(name, *, keywords=None, env=None, directory=None):
    settings, problems = resolve(keywords or {}, env or {}, directory or Path("/nonexistent"))
    assert problems == []
    return getattr(settings, name), settings.source(name)


def problems_of(*, keywords=None, env=None, directory=None):
    _, problems = resolve(keywords or {}, env or {}, directory or Path("/nonexistent"))
    return [str(problem) for problem in problems]


# --- precedence ---


def test_each_source_gives_way_to_the_one_before_it(write):
    directory = write('[tool.pbmon]\nservice_name = "pyproject"\n', "pyproject.toml")
    env = {}
    steps = [(value_of("service_name", directory=Path("/nonexistent")), (None, "default"))]

    def look(**keywords):
        return value_of("service_name", keywords=keywords, env=env, directory=directory)

    steps.append((look(), ("pyproject", str(directory / "pyproject.toml"))))
    write('service_name = "toml"\n')
    steps.append((look(), ("toml", str(directory / TOML))))
    env["OTEL_SERVICE_NAME"] = "otel"
    steps.append((look(), ("otel", "environment OTEL_SERVICE_NAME")))
    env["PBMON_SERVICE_NAME"] = "pbmon"
    steps.append((look(), ("pbmon", "environment PBMON_SERVICE_NAME")))
    steps.append((look(service_name="code"), ("code", "configure()")))
    assert [seen for seen, _ in steps] == [wanted for _, wanted in steps]


def test_the_two_standard_variables_for_excluded_urls_have_an_order():
    env = {"OTEL_PYTHON_EXCLUDED_URLS": "general", "OTEL_PYTHON_ASGI_EXCLUDED_URLS": "asgi"}
    assert value_of("excluded_urls", env=env)[0] == ("asgi",)
    del env["OTEL_PYTHON_ASGI_EXCLUDED_URLS"]
    assert value_of("excluded_urls", env=env)[0] == ("general",)


def test_a_broken_setting_gives_way_to_the_next_source(write):
    directory = write('slow_query_s = "80ms"\n')
    settings, problems = resolve(
        {"slow_query_s": -1}, {"PBMON_SLOW_QUERY_S": "fast"}, directory=directory
    )
    assert settings.slow_query_s == 0.08
    assert settings.source("slow_query_s") == str(directory / TOML)
    assert [p.source for p in problems] == ["configure()", "environment PBMON_SLOW_QUERY_S"]


def test_a_broken_variable_gives_way_to_the_next_one():
    env = {"PBMON_ENDPOINT": "ftp://a", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://b:4318"}
    settings, problems = resolve({}, env, Path("/nonexistent"))
    assert settings.endpoint == "http://b:4318"
    assert settings.source("endpoint") == "environment OTEL_EXPORTER_OTLP_ENDPOINT"
    assert [p.source for p in problems] == ["environment PBMON_ENDPOINT"]


def test_config_variable_names_the_file(write, tmp_path):
    write('service_name = "beside"\n')
    other = tmp_path / "other.toml"
    other.write_text('service_name = "named"\n', encoding="utf-8")
    env = {"PBMON_CONFIG": str(other)}
    assert value_of("service_name", env=env, directory=tmp_path) == ("named", str(other))


@pytest.mark.parametrize("text", ["", "tool = 3\n", "[tool.other]\nservice_name = 'x'\n"])
def test_a_pyproject_without_our_table_is_no_source(write, text):
    directory = write(text, "pyproject.toml")
    assert value_of("service_name", directory=directory) == (None, "default")


# --- each setting from each source ---

PRIVATE = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fc00::/7"))

PARSED = [
    ("service_name", "shop", '"shop"', "shop"),
    ("release", "1.4.2", '"1.4.2"', "1.4.2"),
    ("endpoint", "collector:4318", '"collector:4318"', "collector:4318"),
    ("engine", "sdk", '"sdk"', "sdk"),
    ("strict", "yes", "true", True),
    ("strict", "0", "false", False),
    ("slow_request_s", "1.5", "1.5", 1.5),
    ("slow_request_s", "1500ms", '"1500 ms"', 1.5),
    ("slow_query_s", "80ms", '"80ms"', 0.08),
    ("request_log", "all", '"all"', "all"),
    ("requests_file", "/tmp/run.jsonl", '"/tmp/run.jsonl"', "/tmp/run.jsonl"),
    ("features", "export, import ,", '["export", "import"]', ("export", "import")),
    ("request_headers", "x-tenant, x-.*", '["x-tenant", "x-.*"]', ("x-tenant", "x-.*")),
    ("response_headers", "x-cache", '["x-cache"]', ("x-cache",)),
    ("masked_headers", "x-secret", '["x-secret"]', ("x-secret",)),
    ("store_url", "env:DATABASE_URL", '"env:DATABASE_URL"', "env:DATABASE_URL"),
    ("outbox_url", "env:DATABASE_URL", '"env:DATABASE_URL"', "env:DATABASE_URL"),
    ("worker", "process", '"process"', "process"),
    ("base_currency", "EUR", '"EUR"', "EUR"),
    ("events_retention_days", "400", "400", 400),
    ("request_id_header", "X-Correlation-Id", '"X-Correlation-Id"', "x-correlation-id"),
    ("error_monitor", "off", "false", False),
    ("errors_retention_days", "30", "30", 30),
    ("timezone", "Europe/Berlin", '"Europe/Berlin"', "Europe/Berlin"),
    ("rates", "shop.rates:provider", '"shop.rates:provider"', "shop.rates:provider"),
    ("rates", "off", '"off"', "off"),
    ("rates_url", "https://h/v1/{date}?base=EUR", '"https://h/v1/{date}?base=EUR"',
     "https://h/v1/{date}?base=EUR"),
    ("rates_url", "env:RATES", '"env:RATES"', "env:RATES"),
    ("rates_max_age_days", "4", "4", 4),
    ("prometheus_url", "https://h/prom", '"https://h/prom"', "https://h/prom"),
    ("prometheus_url", "env:PROMETHEUS", '"env:PROMETHEUS"', "env:PROMETHEUS"),
    ("prometheus_token", "env:TOKEN", '"env:TOKEN"', "env:TOKEN"),
    ("prometheus_token", "file:/run/token", '"file:/run/token"', "file:/run/token"),
    ("analytics_endpoint", "https://h/e", '"https://h/e"', "https://h/e"),
    ("analytics_enabled", "true", "true", True),
    ("unregistered_events", "refuse", '"refuse"', "refuse"),
    ("consent", "opt-out", '"opt-out"', {"analytics": "opt-out", "sharing": "opt-out"}),
    ("consent", "analytics=opt-out", '{analytics = "opt-out"}',
     {"analytics": "opt-out", "sharing": "opt-in"}),
    ("consent_version", "2026-11", '"2026-11"', {"analytics": "2026-11", "sharing": "2026-11"}),
    ("consent_version", "sharing=v2", '{sharing = "v2"}', {"sharing": "v2"}),
    ("pepper", "env:PEPPER", '"env:PEPPER"', "env:PEPPER"),
    ("pepper", "file:/run/pepper", '"file:/run/pepper"', "file:/run/pepper"),
    ("user_spans", "true", "true", True),
    ("segments", "plan,region", '["plan", "region"]', {"plan": (), "region": ()}),
    ("segments", "plan=free|pro, region", '{plan = {values = ["free", "pro"]}, region = {}}',
     {"plan": ("free", "pro"), "region": ()}),
    ("segment_metrics", "plan,region", '["plan", "region"]', ("plan", "region")),
    ("segment_spans", "true", "true", True),
    ("segment_spans", "plan", '["plan"]', ("plan",)),
    ("feedback_origins", "https://a.b", '["https://a.b"]', ("https://a.b",)),
    ("user_from", "header:x-user", '"header:x-user"', "header:x-user"),
    ("session_from", "cookie: sid", '"cookie:sid"', "cookie:sid"),
    ("activity_retention_days", "800", "800", 800),
    ("feedback_retention_days", "700", "700", 700),
    ("exposures_retention_days", "400", "400", 400),
    ("sessions_retention_days", "400", "400", 400),
    ("dead_letters_retention_days", "30", "30", 30),
    ("state_dir", "/var/lib/shop", '"/var/lib/shop"', "/var/lib/shop"),
    ("logs", "true", "true", True),
    ("hooks", "psycopg2=upstream, sqlite3=off", '{psycopg2 = "upstream", sqlite3 = "off"}',
     {"psycopg2": "upstream", "sqlite3": "off"}),
    ("excluded_urls", "/health,/metrics", '["/health", "/metrics"]', ("/health", "/metrics")),
    ("stream_routes", "/events", '["/events"]', ("/events",)),
    ("public_endpoint", "true", "true", True),
    ("public_endpoint", "/api,/web", '["/api", "/web"]', ("/api", "/web")),
    ("trusted_peers", "10.0.0.0/8,fc00::/7", '["10.0.0.0/8", "fc00::/7"]', PRIVATE),
    ("client_address", "on", "true", True),
    ("scrub", "off", "false", False),
    ("signals", "off", "false", False),
    ("reload", "off", "false", False),
]  # fmt: skip


def test_the_table_of_this_test_knows_every_setting():
    assert {row[0] for row in PARSED} | {
        "alerts", "budgets", "destinations", "events", "experiments", "reconcile", "surveys",
        "users",
    } == set(FIELDS)  # fmt: skip


@pytest.mark.parametrize(("name", "env", "toml", "expected"), PARSED)
def test_parsed_from_the_environment(name, env, toml, expected):
    variable = f"PBMON_{name.upper()}"
    assert value_of(name, env={variable: env}) == (
        expected,
        f"environment {variable}",
    )


@pytest.mark.parametrize(("name", "env", "toml", "expected"), PARSED)
def test_parsed_from_toml(name, env, toml, expected, write):
    directory = write(f"{name} = {toml}\n")
    assert value_of(name, directory=directory) == (expected, str(directory / TOML))


@pytest.mark.parametrize(("name", "env", "toml", "expected"), PARSED)
def test_parsed_from_a_keyword(name, env, toml, expected):
    keywords = {name: expected}
    if name == "trusted_peers":
        keywords = {name: [str(n) for n in expected]}
    assert value_of(name, keywords=keywords) == (expected, "configure()")


def test_budgets_from_every_source(write):
    wanted = (
        Budget("/api/users", max_s=0.2, p95_s=0.15, p99_s=0.18),
        Budget("/api/export", max_s=2, availability=0.999, method="POST"),
    )
    text = "/api/users max=200ms p95=150ms p99=0.18 ; POST /api/export max=2s availability=0.999"
    toml = """
        [[budgets]]
        endpoint = "/api/users"
        max = "200ms"
        p95 = 0.15
        p99 = "180ms"
        [[budgets]]
        endpoint = "/api/export"
        method = "POST"
        max = 2
        availability = 0.999
    """
    assert value_of("budgets", env={"PBMON_BUDGETS": text})[0].all == wanted
    assert value_of("budgets", directory=write(toml))[0].all == wanted
    assert value_of("budgets", keywords={"budgets": list(wanted)})[0].all == wanted
    assert value_of("budgets", keywords={"budgets": Budgets(wanted)})[0].all == wanted
    assert value_of("budgets", keywords={"budgets": text})[0].all == wanted


def test_events_are_tables_of_properties(write):
    wanted = {"bought": {"amount": "int", "tags": "list"}, "left": {}}
    toml = '[events.bought]\namount = "int"\ntags = "list"\n[events.left]\n'
    assert value_of("events", directory=write(toml))[0] == wanted
    assert value_of("events", keywords={"events": wanted})[0] == wanted


def test_experiments_are_tables_in_whose_order_the_control_is_first(write):
    toml = """
        [experiments.checkout]
        variants = { old = 90, new = 10 }
        goal = "paid"
        window_days = 7
        [experiments."new price"]
        goal = "signed_up"
        share = 0.5
        [experiments."new price".variants]
        b = 1
        a = 1
    """
    found = value_of("experiments", directory=write(toml))[0]
    assert found == {
        "checkout": Experiment("checkout", {"old": 90, "new": 10}, "paid", 604_800.0),
        "new price": Experiment("new price", {"b": 1, "a": 1}, "signed_up", share=0.5),
    }
    assert [next(iter(each.variants)) for each in found.values()] == ["old", "b"]


@pytest.mark.parametrize(
    ("experiments", "remedy"),
    [
        ("a", "must be a table of experiments ([experiments.KEY] in pbmon.toml)"),
        ({"a": {"goal": "g"}}, "experiment a has no variants; add it"),
        ({"a": {"variants": {"b": 1}, "goal": "g"}}, "experiment a: variants must be 2 to 10"),
        (dict.fromkeys(map(str, range(101)), {}), "has more than 100 experiments; remove"),
    ],
)
def test_a_malformed_experiment_says_what_is_wrong(experiments, remedy):
    (line,) = problems_of(keywords={"experiments": experiments})
    assert remedy in line
    assert line.startswith("pbmon: setting experiments (configure()): ")


def test_destinations_are_tables_of_options(write):
    toml = '[destinations.segment]\nwrite_key = "env:KEY"\n[destinations.webhook]\nplain = true\n'
    found = value_of("destinations", directory=write(toml))[0]
    assert {name: dict(target.options) for name, target in found.items()} == {
        "segment": {"write_key": "env:KEY"}, "webhook": {"plain": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("destinations", "remedy"),
    [
        ("segment", "must be a table of destinations ([destinations.NAME] in pbmon.toml)"),
        ({"posthog": {}}, "destination 'posthog' is not one of webhook, segment, mixpanel"),
        ({"segment": "hunter2"}, "destination segment must be a table of options"),
        ({"segment": {"key": "hunter2"}}, "has no option 'key'; it has write_key, url"),
    ],
)
def test_a_malformed_destination_says_what_is_wrong_and_no_secret(destinations, remedy):
    (line,) = problems_of(keywords={"destinations": destinations})
    assert remedy in line
    assert "hunter2" not in line


USERS = {"url": "env:URL", "table": "crm.users", "id": "id", "created_at": "born"}


def test_users_are_a_table_and_its_columns(write):
    toml = """
        [users]
        url = "env:URL"
        table = "crm.users"
        id = "id"
        created_at = "born"
        last_seen_at = "seen"
        status = "state"
        active = ["active", "trial"]
    """
    found = value_of("users", directory=write(toml))[0]
    assert found == Users(
        "env:URL", "crm.users", "id", "born", "seen", "state", ("active", "trial")
    )
    assert value_of("users", keywords={"users": found})[0] is found
    assert value_of("users", keywords={"users": USERS})[0].last_seen_at is None
    state = {"status": "state", "active": 1}
    assert value_of("users", keywords={"users": USERS | state})[0].active == ("1",)


@pytest.mark.parametrize(
    ("users", "remedy"),
    [
        ("SELECT 1", "must be a table of url, table, id, created_at ([users] in pbmon.toml)"),
        (
            USERS | {"query": "x"},
            "there is no option 'query'; there are url, table, id",
        ),
        ({"url": "env:URL"}, "table is missing"),
        (USERS | {"id": 7}, "must be a text with something in it, not int"),
        (USERS | {"status": "state"}, "status and active belong together"),
        (USERS | {"active": ["x"]}, "status and active belong together"),
    ],
)
def test_a_malformed_table_of_users_says_what_is_wrong(users, remedy):
    (line,) = problems_of(keywords={"users": users})
    assert remedy in line


def test_the_password_of_the_table_of_users_is_never_shown():
    url = f"postgresql://app:{SECRET}@db/shop"
    found = value_of("users", keywords={"users": USERS | {"url": url}})[0]
    assert str(found) == "crm.users at postgresql://REDACTED@db/shop"
    assert SECRET not in repr(found)
    for wrong in ({"id": [url]}, {"table": [url]}):
        for line in problems_of(keywords={"users": {"url": url} | wrong}):
            assert SECRET not in line


def test_the_text_of_all_settings_has_no_secret():
    """As it gets into a log, or into what reports an error with its variables."""
    place = f"https://user:{SECRET}@there.example.com/{{date}}?key={SECRET}"
    database = f"postgresql://user:{SECRET}@db/shop?password={SECRET}"
    found, problems = resolve(
        {
            "endpoint": place, "rates_url": place, "prometheus_url": place,
            "analytics_endpoint": place, "store_url": database, "outbox_url": database,
            "users": USERS | {"url": database}, "reconcile": {"url": database, "query": ASKED},
            "pepper": "env:PEPPER", "prometheus_token": "file:/run/token",
            "destinations": {"webhook": {"url": place, "secret": SECRET}},
            "alerts": {"sinks": {"team": {"url": f"slack://{SECRET}"}}},
        },
        {},
    )  # fmt: skip
    assert problems == []
    assert SECRET in found.store_url
    for said in (repr(found), str(found), f"{found!r}"):
        assert SECRET not in said
        assert "store_url='postgresql://REDACTED@db/shop?password=REDACTED'" in said
        assert "pepper='env:PEPPER'" in said
        assert all(f"{name}=" in said for name in FIELDS)


ASKED = "SELECT day, currency, amount, count FROM paid WHERE at >= :start AND at < :end"


def test_payments_are_asked_by_one_query(write):
    toml = f"""
        [reconcile]
        url = "env:URL"
        query = '''
        {ASKED} AND at::date < 'x';
        '''
    """
    found = value_of("reconcile", directory=write(toml))[0]
    assert found == Payments("env:URL", ASKED + " AND at::date < 'x'")
    assert value_of("reconcile", keywords={"reconcile": found})[0] is found


@pytest.mark.parametrize(
    ("payments", "remedy"),
    [
        (ASKED, "must be a table of url and query ([reconcile] in pbmon.toml)"),
        ({"url": "env:URL", "query": ASKED, "table": "x"}, "there is no option 'table'"),
        ({"url": "env:URL"}, "query is missing"),
        ({"url": "env:URL", "query": f"UPDATE x; {ASKED}"}, "query must be one SELECT"),
        ({"url": "env:URL", "query": f"{ASKED}; DROP TABLE x"}, "query must be one SELECT"),
        ({"url": "env:URL", "query": "SELECT 1 WHERE a >= :start"}, "query must have :end in it"),
        ({"url": "env:URL", "query": "SELECT a::start, :end"}, "query must have :start in it"),
    ],
)
def test_a_malformed_table_of_payments_says_what_is_wrong(payments, remedy):
    (line,) = problems_of(keywords={"reconcile": payments})
    assert remedy in line


def test_the_secrets_of_a_comparison_are_never_shown():
    url = f"postgresql://app:{SECRET}@db/shop"
    found = value_of("reconcile", keywords={"reconcile": {"url": url, "query": ASKED}})[0]
    assert str(found) == "a query at postgresql://REDACTED@db/shop"
    assert SECRET not in repr(found)
    (line,) = problems_of(env={"PBMON_PROMETHEUS_TOKEN": SECRET})
    assert "must be env:NAME or file:PATH, where the secret is" in line
    assert SECRET not in line


def test_a_misspelt_variable_of_a_comparison_is_told():
    (line,) = problems_of(env={"PBMON_PROMETHEUS_TOKN": "env:TOKEN"})
    assert "did you mean PBMON_PROMETHEUS_TOKEN?" in line


def test_a_function_may_find_the_user():
    def find(scope):
        return scope["path"]

    assert value_of("user_from", keywords={"user_from": find})[0] is find


def test_a_function_may_say_what_is_public():
    def public(scope):
        return scope["path"] == "/"

    assert value_of("public_endpoint", keywords={"public_endpoint": public})[0] is public


def test_trusted_peers_take_network_objects():
    assert value_of("trusted_peers", keywords={"trusted_peers": PRIVATE})[0] == PRIVATE


def test_defaults():
    settings, problems = resolve({}, {}, Path("/nonexistent"))
    assert problems == []
    assert (settings.slow_request_s, settings.slow_query_s) == (1.0, 0.1)
    assert settings.endpoint == "http://localhost:4318"
    assert settings.request_log == "notable"
    assert settings.hook_mode("psycopg2") == "pbmon"
    assert settings.strict is True  # pytest is running
    assert {settings.source(name) for name in FIELDS} == {"default"}


def test_settings_are_immutable():
    settings, _ = resolve({"hooks": {"uvicorn": "off"}}, {}, Path("/nonexistent"))
    with pytest.raises(AttributeError):
        settings.strict = False
    with pytest.raises(TypeError):
        settings.hooks["uvicorn"] = "pbmon"


def test_variables_of_a_setting():
    assert variables("service_name") == ("PBMON_SERVICE_NAME", "OTEL_SERVICE_NAME")
    assert variables("strict") == ("PBMON_STRICT",)


# --- what can't be used ---


@pytest.mark.parametrize(
    ("events", "remedy"),
    [
        ({"": {}}, "event name '' is not 1 to 100 printable characters"),
        ({"a\n": {}}, "is not 1 to 100 printable characters"),
        ({"a": "int"}, 'event a must be a table of properties, such as amount = "int"'),
        ({"a": {"n": "number"}}, "property n of event a is of type 'number', which is not one of"),
    ],
)
def test_a_malformed_declaration_says_what_is_wrong(events, remedy):
    (line,) = problems_of(keywords={"events": events})
    assert remedy in line


REFUSED = [
    ("slow_request_s", "fast", "'fast' is no duration; write seconds, or text such as '300ms'"),
    ("slow_request_s", "0", "must be above 0"),
    ("slow_query_s", "-1", "must be finite and not negative"),
    ("slow_query_s", "inf", "must be finite and not negative"),
    ("strict", "perhaps", "'perhaps' is not true or false"),
    ("engine", "fast", "'fast' is not one of sdk"),
    ("request_log", "some", "'some' is not one of notable, all, off"),
    ("release", "x" * 101, "is not 1 to 100 printable characters"),
    ("release", "1\n2", "is not 1 to 100 printable characters"),
    ("endpoint", "ftp://collector", "must be a URL such as http://localhost:4318"),
    ("endpoint", "http://collector:port", "must be a URL such as http://localhost:4318"),
    ("endpoint", "http://collector:99999", "must be a URL such as http://localhost:4318"),
    ("endpoint", "http://[::1", "must be a URL such as http://localhost:4318"),
    ("hooks", "psycopg2=maybe", "mode 'maybe' of hook psycopg2 is not one of pbmon, upstream, off"),
    ("hooks", "psycopg2", "mode '' of hook psycopg2 is not one of pbmon, upstream, off"),
    ("excluded_urls", "a(b", "'a(b' is no regular expression"),
    ("excluded_urls", "a{99999999999999999999}", "is no regular expression"),
    ("excluded_urls", "[[a]", "is no regular expression"),
    ("trusted_peers", "10.0.0.1/8", "write networks such as 10.0.0.0/8"),
    ("trusted_peers", "nearby", "write networks such as 10.0.0.0/8"),
    ("public_endpoint", "api", "paths starting with '/'"),
    ("consent", "maybe", "basis 'maybe' of analytics is not one of opt-in, opt-out, not-required"),
    ("consent", "fun=opt-in", "purpose 'fun' is not one of analytics, sharing"),
    ("consent_version", "fun=1", "purpose 'fun' is not one of analytics, sharing"),
    ("consent_version", "x" * 51, "not a text of 1 to 50 printable characters"),
    ("pepper", "hunter2", "must be env:NAME or file:PATH, where the secret is, and not the secret"),
    ("user_from", "x-user", "must be header:NAME, cookie:NAME or a function of the ASGI scope"),
    ("request_id_header", "x id", "'x id' is no name of a header, such as x-request-id"),
    ("events_retention_days", "0", "0 is not a whole number above 0"),
    ("events_retention_days", "1.5", "'1.5' is not a whole number above 0"),
    ("rates", "bank", "must be ecb, url, off, module:callable, or an object with rate and"),
    ("rates_url", "https://h/hunter2", "must have {date} in it, where the day is to stand"),
    ("rates_url", "h:x/{date}", "must be a URL such as"),
    ("rates_max_age_days", "0", "0 is not a whole number above 0"),
    ("base_currency", "XBT", "currency 'XBT' is not in ISO 4217; write a code such as USD"),
    ("base_currency", "eur", "currency 'eur' is not in ISO 4217; write a code such as USD"),
    ("timezone", "Mars/Olympus", "'Mars/Olympus' is no time zone that is known here"),
    ("events", "bought", "must be a table of events"),
    ("budgets", "/x", "promises nothing; give max_s, p95_s, p99_s or availability"),
    ("budgets", "/x y max=1", "'y' is not name=value, for example max=500ms"),
]


@pytest.mark.parametrize(("name", "value", "remedy"), REFUSED)
def test_a_malformed_setting_is_one_line_with_name_source_and_remedy(name, value, remedy):
    variable = f"PBMON_{name.upper()}"
    env = {variable: value, "PBMON_CLIENT_ADDRESS": "true"}
    settings, problems = resolve({}, env, Path("/nonexistent"))
    (line,) = map(str, problems)
    assert line.startswith(f"pbmon: setting {name} (environment {variable}): ")
    assert remedy in line
    assert line.endswith("; it is ignored")
    assert settings.client_address is True  # the others are kept
    assert settings.source(name) == "default" or name == "budgets"


def test_good_budgets_beside_a_bad_one_are_kept():
    settings, problems = resolve(
        {}, {"PBMON_BUDGETS": "/a max=1; /b p95=2 max=1; /c max=3"}, Path("/nonexistent")
    )
    assert [b.endpoint for b in settings.budgets.all] == ["/a", "/c"]
    (problem,) = problems
    assert "budget for /b: p95 (2 s) is above max (1 s); the order is p95 ≤ p99 ≤ max" in str(
        problem
    )


def test_an_unknown_setting_is_named_with_the_nearest_one(write):
    directory = write("slow_query = 1\n")
    lines = problems_of(
        keywords={"servicename": "x"}, env={"PBMON_SLOW_QUERY": "1"}, directory=directory
    )
    assert lines == [
        (
            "pbmon: setting servicename (configure()): there is no such setting; "
            "did you mean service_name? It is ignored"
        ),
        (
            "pbmon: setting PBMON_SLOW_QUERY (environment): there is no such setting; "
            "did you mean PBMON_SLOW_QUERY_S? It is ignored"
        ),
        (
            f"pbmon: setting slow_query ({directory / TOML}): there is no such setting; "
            "did you mean slow_query_s? It is ignored"
        ),
    ]


def test_an_unknown_setting_near_none_points_to_the_list():
    (line,) = problems_of(keywords={"zzz": 1})
    assert "see `pbmon doctor` for those there are" in line


@pytest.mark.parametrize("text", ["", "  ", "\t"])
def test_an_empty_variable_is_unset(text):
    env = {"PBMON_SERVICE_NAME": text, "OTEL_SERVICE_NAME": "otel", "PBMON_STRICT": text}
    assert value_of("service_name", env=env) == ("otel", "environment OTEL_SERVICE_NAME")
    assert value_of("strict", env=env) == (True, "default")


def test_the_tests_own_variables_are_no_settings():
    assert problems_of(env={"PBMON_TEST_POSTGRES_URL": "x", "PBMON_CONFIG": ""}) == []


def test_the_collectors_variables_are_no_settings():
    page = (Path(__file__).parents[1] / "docs" / "collector.md").read_text(encoding="utf-8")
    named = set(re.findall(r"PBMON_[A-Z_]+[A-Z]", page)) - {v for f in FIELDS for v in variables(f)}
    assert len(named) > 10
    told = "\n".join(problems_of(env=dict.fromkeys(named, "x")))
    assert re.findall(r"PBMON_(?:COLLECTOR|TRACE|TEMPO|PROMETHEUS|LOGS)\w*", told) == []


def test_a_missing_config_file_is_named(tmp_path):
    path = tmp_path / "absent.toml"
    assert problems_of(env={"PBMON_CONFIG": str(path)}) == [
        f"pbmon: setting PBMON_CONFIG (environment): {path} does not exist; create it"
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (TOML, "service_name = \n"),
        (TOML, "a = " + "[" * 3000),
        ("pyproject.toml", "[tool]\npbmon = 3\n"),
        ("pyproject.toml", "[[tool.pbmon]]\nstrict = true\n"),
    ],
)
def test_a_file_of_the_wrong_shape_is_one_line(write, name, text):
    directory = write(text, name)
    (line,) = problems_of(directory=directory)
    assert line.startswith(f"pbmon: setting {directory / name} (file): ")
    assert line.endswith("it is ignored")
    assert "\n" not in line


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / TOML).write_bytes(b"\xff\xfe")
    (line,) = problems_of(directory=tmp_path)
    assert "can't be read" in line


def test_a_directory_in_the_files_place_is_one_line(tmp_path):
    (tmp_path / TOML).mkdir()
    (line,) = problems_of(directory=tmp_path)
    assert "can't be read" in line


def test_a_working_directory_that_is_gone_is_no_fault(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    settings, problems = resolve({}, {"PBMON_STRICT": "no"})
    assert problems == []
    assert settings.strict is False


# --- secrets ---

SECRET = "hunter2-sehr-geheim"
SECRET_URL = f"postgresql://app:{SECRET}@db/shop"


@pytest.mark.parametrize("value", [[SECRET_URL], {"url": SECRET_URL}, SECRET_URL.encode()])
def test_a_store_url_of_the_wrong_type_is_not_echoed(value):
    (line,) = problems_of(keywords={"store_url": value})
    assert "store_url" in line
    assert SECRET not in line


@pytest.mark.parametrize(
    "value",
    [
        f"ftp://u:{SECRET}@h",
        f"http://u:{SECRET}@h:port",
        f"http://u:{SECRET}@[h",
        f"http:// u:{SECRET}@h",
        [f"http://u:{SECRET}@h"],
    ],
)
def test_a_malformed_endpoint_is_not_echoed(value):
    (line,) = problems_of(keywords={"endpoint": value})
    assert SECRET not in line


# --- nothing raises ---

json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 1e999, float("nan")])
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["endpoint", "max", "p95", "availability", "method", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
pieces = st.lists(
    st.sampled_from(
        ["/a", "max=", "1", "ms", "p95=", " ", ";", ",", "=", "GET", "http://", "[", "(", ":", "٣"]
    )
    | st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    max_size=8,
).map("".join)


@patiently()
@given(st.dictionaries(st.sampled_from([v for n in FIELDS for v in variables(n)]), pieces))
def test_no_environment_makes_resolve_raise(env):
    settings, problems = resolve({}, env, Path("/nonexistent"))
    assert isinstance(settings, Settings)
    for problem in problems:
        assert len(str(problem).splitlines()) == 1


@patiently()
@given(st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), json_like, max_size=5))
def test_no_value_makes_resolve_raise(values):
    settings, problems = resolve(values, {}, Path("/nonexistent"))
    assert isinstance(settings, Settings)
    assert {p.name for p in problems} <= set(values)
    for problem in problems:
        assert len(str(problem).splitlines()) == 1


@patiently()
@given(st.text(max_size=60))
def test_no_toml_text_makes_resolve_raise(tmp_path_factory, text):
    directory = tmp_path_factory.getbasetemp()
    (directory / TOML).write_text(text, encoding="utf-8", errors="replace")
    settings, problems = resolve({}, {}, directory)
    assert isinstance(settings, Settings)
    for problem in problems:
        assert len(str(problem).splitlines()) == 1


def test_a_budget_given_twice_is_named_and_the_first_one_counts():
    env = {"PBMON_BUDGETS": "/a max=1s; GET /a max=3s; /a max=2s"}
    (problem,) = problems_of(env=env)
    assert "budget for /a is given twice, the second time without effect" in problem
    settings, _ = resolve({}, env, Path("/nonexistent"))
    assert settings.budgets.find("POST", "/a").max_s == 1
    assert settings.budgets.find("GET", "/a").max_s == 3
