"""Drives the request and query protocols by hand, as a hook would, on the capture's clock."""

from __future__ import annotations

from pbmon import runtime

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def traceparent(flag="01"):
    return (b"traceparent", f"00-{TRACE}-{PARENT}-{flag}".encode())


def http(path="/", method="GET", *, headers=(), query=b"", client=("127.0.0.1", 4000), **more):
    """An ASGI http scope as uvicorn makes it; more: other keys, None takes one out."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "http_version": "1.1",
        "query_string": query,
        "headers": headers,
        "server": ("127.0.0.1", 8000),
        "client": client,
        **more,
    }
    return {key: value for key, value in scope.items() if value is not None or key == "client"}


def websocket(path="/ws", **more):
    scope = http(path, **more)
    del scope["method"]
    return scope | {"type": "websocket", "scheme": "ws"}


def raised(error):
    """The error with a traceback, as one that was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def request(
    seen, scope=None, *, route=None, status=200, first_s=0.0, last_s=0.0, error=None, after_s=0.0,
    response=(), completed=True,
):  # fmt: skip
    """One request: after first_s its head is sent, after last_s more its last byte; then error
    is raised and after_s more it is closed. status None: no answer is sent."""
    record = runtime.active.requests.request(scope if scope is not None else http())
    record.route = route
    seen.clock.advance(first_s)
    if status is not None:
        record.response_started(status, response)
        seen.clock.advance(last_s)
        if completed:
            record.response_completed()
    if error is not None:
        record.failed(error)
    seen.clock.advance(after_s)
    record.closed()
    return record


POSTGRES = runtime.Database("postgresql", "shop", "db.example", 5432)


def query(seen, statement="SELECT name FROM users", *, took_s=0.0, database=POSTGRES, **finish):
    """One statement that takes took_s in the driver."""
    batch = {k: finish.pop(k) for k in ("operation", "batch_size") if k in finish}
    record = runtime.active.queries.query(database, statement, **batch)
    if record is not None:
        seen.clock.advance(took_s)
        record.finish(**finish)
    return record


def points(seen, name):
    """The data points of a metric, as the SDK made them."""
    data = seen._reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]
