"""What must be found nowhere behind the collector, and what must come through unharmed."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.collector_config import otlp
from tests.collector_config.conftest import Pipeline
from tests.stack.servers import wait_until

# The text that is sent, and the part of it that must be gone.
CANARIES: dict[str, tuple[str, str]] = {
    "e-mail": ("mail to ada.lovelace+x@mail.example.com failed", "ada.lovelace"),
    "e-mail, not ASCII": ("für jürgen@beispiel.example", "jürgen"),
    "e-mail in a path": ("GET /users/ada%40mail.example.com", "ada%40"),
    "Visa": ("paid with 4111111111111111.", "4111111111111111"),
    "Visa in groups": ("paid with 4111 1111 1111 1111", "1111 1111"),
    "Visa with 13 digits": ("4222222222222", "4222222222222"),
    "Visa with 19 digits": ("pan=4111111111111111110", "4111111111111111110"),
    "Visa after a sentence": ("No.4716461583322103", "4716461583322103"),
    "two cards": ("4012888888881881,5555555555554444", "5555555555554444"),
    "Mastercard": ("card:5105-1051-0510-5100", "5105-1051"),
    "Mastercard, new range": ("2223003122003222", "2223003122003222"),
    "American Express": ("378282246310005 declined", "378282246310005"),
    "American Express in groups": ("3782 822463 10005", "822463"),
    "Diners Club": ("30569309025904", "30569309025904"),
    "Discover": ("6011111111111117", "6011111111111117"),
    "JCB": ("3530111333300000", "3530111333300000"),
    "UnionPay": ("6240008631401148", "6240008631401148"),
    "Maestro": ("6759649826438453", "6759649826438453"),
    "IBAN": ("to DE89370400440532013000", "DE89370400440532013000"),
    "IBAN in groups": ("to GB29 NWBK 6016 1331 9268 19", "NWBK 6016"),
    "IBAN, short": ("NO93 8601 1117 947", "8601 1117"),
    "bearer token": ("curl -H 'Authorization: Bearer s3cr3t-t0ken'", "s3cr3t-t0ken"),
    "bearer token alone": ("Bearer abcdef123456", "abcdef123456"),
    "basic authorization": ("authorization: Basic YWRhOnNlY3JldA==", "YWRhOnNlY3JldA"),
    "an authorization scheme of one's own": ("Authorization: ApiKey q1w2e3", "q1w2e3"),
    "cookie": ("Cookie: session=a1s2d3; theme=dark", "a1s2d3"),
    "set-cookie": ("set-cookie: sid=z1x2c3; HttpOnly", "z1x2c3"),
    "JSON web token": ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln", "eyJzdWIiOiI3In0"),
    "password": ("login failed: password=hunter11", "hunter11"),
    "password in JSON": ('{"password": "hunter12"}', "hunter12"),
    "API key": ("api_key: hunter13", "hunter13"),
    "password of a connection": ("postgresql://app:hunter14@db/shop", "hunter14"),
    "token in a query string": ("GET /export?page=2&token=hunter15 HTTP/1.1", "hunter15"),
    "any value of a query string": ("https://shop.example/?q=hunter16#top", "hunter16"),
    "a row's key": ("DETAIL:  Key (name)=(Lovelace7) already exists.", "Lovelace7"),
    "a failing row": ("Failing row contains (7, Lovelace8, null).", "Lovelace8"),
    "a failing statement": ("LINE 1: SELECT * FROM t WHERE n = 'Lovelace9'", "Lovelace9"),
    "a literal of a wrong type": (
        'invalid input syntax for type integer: "Lovelace10"',
        "Lovelace10",
    ),
    "a duplicate entry": ("Duplicate entry 'Lovelace11' for key 'name'", "Lovelace11"),
}

Request = Callable[[str, str], Any]


def _span(**about: Any) -> Request:
    def build(name: str, text: str) -> Any:
        place = {key: make(text) for key, make in about.items()}
        return otlp.traces([otlp.span(**{"name": name, **place})])

    return build


def _name(name: str, text: str) -> Any:
    return otlp.traces([otlp.span(text, attributes={"marker": name})])


def _scope(name: str, text: str) -> Any:
    request = otlp.traces([otlp.span(name)])
    scope = request.resource_spans[0].scope_spans[0].scope
    scope.attributes.extend(otlp.pairs({"about": text}))
    return request


# Where a text can stand. Each makes a request in which `name` is found again.
SPAN_PLACES: dict[str, Request] = {
    "a span's attribute": _span(attributes=lambda text: {"about": text}),
    "a list": _span(attributes=lambda text: {"about": ["fine", text]}),
    "a nested map": _span(attributes=lambda text: {"about": {"deep": {"deeper": text}}}),
    "a span's name": _name,
    "a status message": _span(error=lambda text: text),
    "an event's name": _span(events=lambda text: [(text, {})]),
    "an exception's message": _span(
        events=lambda text: [("exception", {"exception.message": text})]
    ),
    "a stack trace": _span(
        events=lambda text: [
            ("exception", {"exception.stacktrace": f"Traceback:\n  raise E\nE: {text}\n"})
        ]
    ),
    "a resource attribute": lambda name, text: otlp.traces([otlp.span(name)], {"about": text}),
    "a scope attribute": _scope,
}
LOG_PLACES: dict[str, Request] = {
    "a log's body": lambda name, text: otlp.log(text, {"marker": name}),
    "a map as a log's body": lambda name, text: otlp.log({"about": text}, {"marker": name}),
    "a list as a log's body": lambda name, text: otlp.log([["a", text]], {"marker": name}),
    "a log's attribute": lambda name, text: otlp.log("x", {"marker": name, "about": text}),
    "an event record's name": lambda name, text: otlp.log("x", {"marker": name}, event=text),
}
METRIC_PLACES: dict[str, Request] = {
    "a metric's attribute": lambda name, text: otlp.counter(name, 1, attributes={"about": text}),
    "an exemplar": lambda name, text: otlp.counter(name, 1, exemplar={"about": text}),
    "the resource of a metric": lambda name, text: otlp.counter(name, 1, instance=text),
}
PLACES = {**SPAN_PLACES, **LOG_PLACES, **METRIC_PLACES}
_numbers = itertools.count()


def arrived(running: Pipeline, name: str) -> Any:
    """The request, as the sink received it, in which `name` is; None until it is there."""
    for request in reversed(running.sink.requests):
        if name.encode() in request.SerializeToString():
            return request
    return None


def through(running: Pipeline, place: Request, text: str) -> str:
    """Send `text` at `place` and return everything that came out with it."""
    name = f"canary-{next(_numbers)}."
    running.send(place(name, text))
    wait_until(lambda: arrived(running, name) is not None, f"{text!r} at the sink", 20)
    return str(arrived(running, name).SerializeToString(), errors="replace")


@pytest.mark.parametrize("place", PLACES)
def test_no_canary_gets_through(keeps_all: Pipeline, place: str) -> None:
    """All canaries of a place travel at once; each is looked for in all that arrived."""
    before = len(keeps_all.sink.requests)
    for number, (text, _) in enumerate(CANARIES.values()):
        keeps_all.send(PLACES[place](f"{place} {number}.", text))
    wait_until(
        lambda: all(arrived(keeps_all, f"{place} {n}.") for n in range(len(CANARIES))),
        f"all canaries in {place}",
        20,
    )

    out = [
        str(request.SerializeToString(), errors="replace")
        for request in keeps_all.sink.requests[before:]
    ]
    leaks = {
        canary: text
        for canary, (text, secret) in CANARIES.items()
        if any(secret in each for each in out)
    }
    assert leaks == {}


SECRET_KEYS = (
    "http.request.header.authorization",
    "http.request.header.proxy-authorization",
    "http.request.header.cookie",
    "http.response.header.set-cookie",
    "http.request.header.x-api-key",
    "http.request.header.x_api_key",
    "http.request.header.x-forwarded-for",
    "http.request.header.x_forwarded_for",
    "http.request.header.forwarded",
    "http.request.header.cf-connecting-ip",
    "user.password",
    "client_secret",
    "csrf_token",
    "accessToken",
    "user.email",
    "user.full_name",
    "enduser.id",
    "db.query.parameter.0",
    "db.statement.parameters",
)


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("kind", [str, lambda text: [text]], ids=["text", "list"])
def test_keys_that_hold_secrets_are_masked(
    keeps_all: Pipeline, key: str, kind: Callable[[str], Any]
) -> None:
    out = through(keeps_all, _span(attributes=lambda text: {key: kind(text)}), "harmless-looking")

    assert key in out
    assert "harmless-looking" not in out


PEER_KEYS = (
    "client.address",
    "network.peer.address",
    "net.peer.ip",
    "net.sock.peer.addr",
    "http.client_ip",
)


def test_the_address_of_a_visitor_is_removed(keeps_all: Pipeline) -> None:
    addresses = dict.fromkeys(PEER_KEYS, "203.0.113.7")
    span = otlp.span("visited", kind=otlp.SERVER, attributes=addresses)
    keeps_all.send(otlp.traces([span]))

    found = keeps_all.sink.wait_for_span("visited")
    assert otlp.attributes_of(found) == {}


def test_the_address_of_a_database_stays(keeps_all: Pipeline) -> None:
    about = {"network.peer.address": "10.0.0.5", "server.address": "db", "server.port": 5432}
    keeps_all.send(otlp.traces([otlp.span("queried", kind=otlp.CLIENT, attributes=about)]))

    assert otlp.attributes_of(keeps_all.sink.wait_for_span("queried")) == about


def test_of_a_query_string_the_keys_stay(keeps_all: Pipeline) -> None:
    about = {
        "url.full": "https://shop.example/p?page=2&token=hunter2#part",
        "url.query": "page=2&token=hunter2&flag",
        "http.target": "/p?page=2&token=hunter2",
    }
    keeps_all.send(otlp.traces([otlp.span("asked", kind=otlp.CLIENT, attributes=about)]))

    assert otlp.attributes_of(keeps_all.sink.wait_for_span("asked")) == {
        "url.full": "https://shop.example/p?page=&token=#part",
        "url.query": "page=&token=&flag",
        "http.target": "/p?page=&token=",
    }


@pytest.mark.parametrize("place", ["an exception's message", "a log's body", "a log's attribute"])
def test_of_a_query_string_in_a_text_the_keys_stay(keeps_all: Pipeline, place: str) -> None:
    out = through(keeps_all, PLACES[place], "GET /p?page=2&token=hunter2 HTTP/1.1")

    assert "GET /p?page=&token= HTTP/1.1" in out


@pytest.mark.parametrize("key", ["db.query.text", "db.statement"])
def test_sql_loses_its_literals(keeps_all: Pipeline, key: str) -> None:
    sql = "SELECT id FROM users WHERE name = 'Lovelace' AND age > 41 AND city = %s"
    about = {"db.system.name": "postgresql", key: sql}
    keeps_all.send(otlp.traces([otlp.span(f"sql {key}", kind=otlp.CLIENT, attributes=about)]))

    found = otlp.attributes_of(keeps_all.sink.wait_for_span(f"sql {key}"))
    assert found[key] == "SELECT id FROM users WHERE name = ? AND age > ? AND city = %s"


LINE = {"process.command_args": ["app", "-p", "hunter2"], "process.command_line": "app -p hunter2"}
RESOURCES: dict[str, tuple[Callable[[], Any], str]] = {
    "traces": (lambda: otlp.traces([otlp.span("started traces")], LINE), "resource_spans"),
    "metrics": (lambda: otlp.counter("started metrics", 1, resource=LINE), "resource_metrics"),
    "logs": (lambda: otlp.log("started logs", resource=LINE), "resource_logs"),
}


@pytest.mark.parametrize("signal", RESOURCES)
def test_the_command_line_is_removed(keeps_all: Pipeline, signal: str) -> None:
    make, field = RESOURCES[signal]
    keeps_all.send(make())
    wait_until(lambda: arrived(keeps_all, f"started {signal}") is not None, "the resource", 20)

    resource = getattr(arrived(keeps_all, f"started {signal}"), field)[0].resource
    assert set(otlp.attributes_of(resource)) <= {"service.name", "service.instance.id"}


HARMLESS: dict[str, Any] = {
    "nanoseconds": 1_795_467_223_395_930_866,
    "nanoseconds to come": 1_999_999_999_999_999_999,
    "microseconds": 1_795_467_223_395_930,
    "milliseconds": 1_795_467_223_395,
    "times in a text": "from 1795467223395930866 to 1795467223395 (1795467223395930)",
    "fraction like a Visa": 0.4111111111111111,
    "fraction like a Mastercard": "took 0.5213784917235124 s",
    "negative": -0.4111111111111111,
    "bytes": 4_111_111_111,
    "slow": True,
    "version": "1.2.3",
    "address": "10.0.0.5:5432",
    "route": "/api/users/{user_id}/orders/{order_id:int}",
    "trace id": "4111111111111111aaaaaaaaaaaaaaaa",
    "span id": "a411111111111111",
    "digest": "sha256:4111111111111111f5105105105105100e",
    "agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
    "content type": "text/html; charset=utf-8",
    "tokens": "unexpected token in line 3",
    "sql": "INSERT INTO t (a) VALUES (?) ON CONFLICT DO NOTHING",
    "jsonb": "SELECT a ?& b FROM t WHERE c ? d",
    "list": ["a", "b"],
    "map": {"a": {"b": 1}},
    "gen_ai.usage.input_tokens": 512,
    "pbmon.budget.limits": ["max", "p95"],
    "pbmon.budget.excess": 0.4242424242424242,
}


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_values_keep_their_form_and_type(keeps_all: Pipeline, what: str) -> None:
    about = {what: HARMLESS[what]}
    keeps_all.send(otlp.traces([otlp.span(f"harmless {what}", attributes=about)]))

    found = otlp.attributes_of(keeps_all.sink.wait_for_span(f"harmless {what}"))
    assert found == about
    assert type(found[what]) is type(HARMLESS[what])


def test_no_uuid_is_taken_for_a_card(keeps_all: Pipeline) -> None:
    """service.instance.id is one; masked, the series of all processes would fall together."""
    ids = [str(uuid.UUID(bytes=otlp.trace_id(), version=4)) for _ in range(20_000)]
    # Those with no letter at all in the places where a card's groups could be.
    ids += [f"12345678-4{a:03}-8567-{b:012}" for a in range(0, 1000, 97) for b in (0, 4 * 10**11)]
    keeps_all.send(otlp.traces([otlp.span("many ids", attributes={"ids": ids})]))

    assert otlp.attributes_of(keeps_all.sink.wait_for_span("many ids")) == {"ids": ids}


def test_names_and_messages_come_back_as_they_went(keeps_all: Pipeline) -> None:
    """They travel through attributes; nothing of that way may remain."""
    sent = otlp.span(
        "GET /api/users/{user_id}",
        attributes={"http.route": "/api/users/{user_id}"},
        error="no such user",
        events=[("exception", {"exception.type": "KeyError"})],
    )
    keeps_all.send(otlp.traces([sent]))

    assert keeps_all.sink.wait_for_span(sent.name) == sent


def test_an_event_record_comes_back_as_it_went(keeps_all: Pipeline) -> None:
    sent = otlp.log("Slow query detected", {"marker": "whole"}, event="pbmon.slow_query")
    keeps_all.send(sent)

    wait_until(lambda: arrived(keeps_all, "pbmon.slow_query") is not None, "the record", 20)
    found = keeps_all.sink.logs()[-1]
    assert found == sent.resource_logs[0].scope_logs[0].log_records[0]
