"""`pbmon doctor`: what it shows, what it calls a fault, and that it shows no secret."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import fields

import pytest

from pbmon import catalog, settings, wiring
from pbmon.cli import main
from pbmon.runtime import active
from tests import fresh
from tests.faults import sink as sinks
from tests.faults.sink import Sink
from tests.stack.process import unused_port
from tests.telemetry.programs import Program
from tests.telemetry.receiver import Receiver, closed_port, hanging, unknown_host


@pytest.fixture
def doctor(monkeypatch, tmp_path, capsys):
    """Runs the command in a directory and environment of its own: (exit code, output)."""
    import os

    for name in [n for n in os.environ if n.startswith(("OTEL_", "PBMON_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = copy.copy(active)
    hooks = dict(active.hooks)

    def run(*arguments, **environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        code = main(["doctor", *arguments])
        return code, capsys.readouterr().out

    yield run
    for entry_point in wiring.own_instrumentors():
        if entry_point.name not in hooks and entry_point.name in active.hooks:
            entry_point.load()().uninstrument()
    for item in fields(active):
        setattr(active, item.name, getattr(before, item.name))
    active.hooks = hooks


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def line(output, start):
    """The one line that starts so, its spaces squeezed."""
    squeezed = [re.sub(r"\s+", " ", text.strip()) for text in output.splitlines()]
    (found,) = [text for text in squeezed if text.startswith(start)]
    return found


def test_all_is_well(doctor, receiver):
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert code == 0, output
    assert "✗" not in output
    assert output.startswith(f"pbmon {catalog.VERSION}, Python 3.")
    assert "  opentelemetry-sdk 1." in output
    assert "Engine: sdk" in output
    for library in ("uvicorn", "starlette", "fastapi", "psycopg2", "sqlite3"):
        assert line(output, f"{library} active pbmon {library}")
    assert line(output, "endpoint ") == (
        f"endpoint {receiver.url} (environment OTEL_EXPORTER_OTLP_ENDPOINT)"
    )
    assert line(output, "slow_request_s") == "slow_request_s 1.0 (default)"
    for name in settings.FIELDS:
        assert line(output, f"{name} ")
    assert line(output, "traces") == f"traces otlp to {receiver.url}/v1/traces"
    assert line(output, "metrics") == f"metrics otlp to {receiver.url}/v1/metrics"
    assert [(path, body) for path, _, body in receiver.arrived] == [
        ("/v1/traces", b""),
        ("/v1/metrics", b""),
    ]


def test_settings_are_shown_with_their_source(doctor, tmp_path):
    (tmp_path / "pbmon.toml").write_text(
        """
        features = ["export", "import"]
        hooks = {sqlite3 = "off"}
        [[budgets]]
        endpoint = "/pay"
        method = "POST"
        max = "500ms"
        p95 = 0.3
        availability = 0.999
        """,
        encoding="utf-8",
    )
    code, output = doctor(PBMON_SLOW_QUERY_S="80ms", OTEL_TRACES_EXPORTER="none",
                          OTEL_METRICS_EXPORTER="none")  # fmt: skip
    assert code == 0, output
    source = f"({tmp_path / 'pbmon.toml'})"
    assert line(output, "features") == f"features export, import {source}"
    assert line(output, "hooks") == f"hooks sqlite3=off {source}"
    assert line(output, "budgets") == (
        f"budgets POST /pay max=0.5s p95=0.3s availability=0.999 {source}"
    )
    assert line(output, "slow_query_s") == "slow_query_s 0.08 (environment PBMON_SLOW_QUERY_S)"
    assert line(output, "sqlite3") == "sqlite3 skipped off hooks setting says off"
    assert line(output, "traces") == "traces none"


def test_problems_are_listed_and_fail(doctor, receiver):
    code, output = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, PBMON_SLOW_QUERY="1", PBMON_STRICT="perhaps"
    )
    assert code == 1
    assert "✗ pbmon: setting PBMON_SLOW_QUERY (environment): there is no such setting; " in output
    assert "✗ pbmon: setting strict (environment PBMON_STRICT): 'perhaps' is not true" in output


def test_an_unreachable_collector_is_a_fault(doctor):
    url = closed_port()
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert code == 1
    assert line(output, "✗ traces") == (
        f"✗ traces otlp to {url}/v1/traces: connection refused; start a collector, or set "
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    assert line(output, "✗ metrics")


def test_a_collector_that_does_not_answer_is_a_fault(doctor, monkeypatch):
    monkeypatch.setattr("pbmon.cli.doctor._TIMEOUT_S", 0.05)
    with hanging() as url:
        code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert code == 1
    assert "no answer within 2 s; start a collector" in output


def test_a_collector_that_refuses_is_a_fault(doctor, receiver):
    receiver.status = 401
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert code == 1
    assert "answers 401; check the path and OTEL_EXPORTER_OTLP_HEADERS" in output


def test_an_unknown_host_is_a_fault(doctor, monkeypatch):
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=unknown_host(monkeypatch))
    assert code == 1
    assert "unknown host; start a collector" in output


def test_something_else_at_the_port_is_a_fault(doctor):
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet():
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.close()

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url)
        thread.join()
    assert code == 1
    assert "what listens there is no OTLP/HTTP receiver; check the port" in output


@pytest.mark.parametrize("listening", [True, False])
def test_grpc_is_tried_at_its_port(doctor, receiver, listening):
    url = receiver.url if listening else closed_port()
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert code == int(not listening)
    assert ("connection refused" in output) is not listening
    assert receiver.arrived == []


def test_headers_are_sent_and_nothing_secret_is_shown(doctor, receiver, caplog, tmp_path):
    file = tmp_path / "settings.toml"
    url = "postgresql://app:hunter6@db/shop?password=hunter7"
    file.write_text(f'[users]\nurl = "{url}"\ntable = "crm.people"\nid = "i"\ncreated_at = "c"\n')
    where = receiver.url.replace("http://", "http://app:hunter2@")
    code, output = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=where,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=hunter3,authorization Bearer hunter4",
        OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-key=hunter5",
        PBMON_CONFIG=str(file),
    )
    assert code == 0, output
    assert [headers["x-key"] for _, headers, _ in receiver.arrived] == ["hunter3", "hunter5"]
    assert receiver.arrived[0][1]["authorization"] == "Basic YXBwOmh1bnRlcjI="
    assert "hunter" not in output
    assert "hunter" not in caplog.text
    assert line(output, "users").startswith(
        "users crm.people at postgresql://REDACTED@db/shop?password=REDACTED "
    )


def test_where_revenue_is_compared_is_shown_without_its_secrets(doctor, receiver, tmp_path):
    file = tmp_path / "settings.toml"
    url = "postgresql://app:hunter2@db/shop"
    query = "SELECT :start, :end, 'hunter3'"
    file.write_text(f'[reconcile]\nurl = "{url}"\nquery = "{query}"\n')
    _, output = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        PBMON_CONFIG=str(file),
        PBMON_PROMETHEUS_URL="https://app:hunter4@h/prom",
        PBMON_PROMETHEUS_TOKEN="env:NOT_SET",  # noqa: S106 - where it is
        PBMON_RATES_URL="https://h/{date}?key=hunter5",
    )
    assert "hunter" not in output
    assert line(output, "reconcile").startswith("reconcile a query at postgresql://REDACTED@db/sh")
    assert line(output, "prometheus_url").startswith("prometheus_url https://REDACTED@h/prom ")
    assert line(output, "prometheus_token").startswith(
        "prometheus_token env:NOT_SET ✗ NOT_SET is not set "
    )
    assert line(output, "rates_url").startswith("rates_url https://h/{date}?key=REDACTED ")


def test_the_databases_of_events_are_shown_without_their_passwords(doctor, receiver):
    url = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/shop"
    code, output = doctor(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, PBMON_STORE_URL=url, PBMON_OUTBOX_URL=url
    )
    assert code == 1
    assert "hunter2" not in output
    assert line(output, "store_url").startswith("store_url postgresql://REDACTED@127.0.0.1:")
    assert line(output, "outbox_url").startswith("outbox_url postgresql://REDACTED@127.0.0.1:")
    assert line(output, "✗ store").endswith(
        "can't be used: nobody listens there; start the server, or mend host and port in its URL"
    )


def test_events_are_where_doctor_says(doctor, receiver, tmp_path):
    state = tmp_path / "state"
    settings = {
        "PBMON_STATE_DIR": str(state), "PBMON_SERVICE_NAME": "shop", "PBMON_CONSENT": "opt-out",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
    }  # fmt: skip
    store = f"store sqlite:///{state}/store/shop.sqlite3"
    code, output = doctor(**settings)
    assert (code, line(output, "store sqlite")) == (0, f"{store} is made by the first event")
    assert line(output, "consent: analytics") == (
        "consent: analytics opt-out: a person's events are kept unless they have refused"
    )
    assert not (state / "store").exists()
    fresh.python(
        "import os, pbmon; pbmon.configure(worker='process'); pbmon.track('made'); os._exit(0)",
        **settings | {"OTEL_LOGS_EXPORTER": "none"},
    )
    fresh.run(sys.executable, "-m", "pbmon.cli", "store", "upgrade", **settings)
    code, output = doctor()
    assert (code, line(output, "store sqlite")) == (0, f"{store} is up to date")
    assert "ended; the next shipper reads it" in line(output, "journal ")


def test_a_module_is_imported_first(doctor, receiver, tmp_path, monkeypatch):
    (tmp_path / "shopapp.py").write_text("print('the application')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    good = doctor("--import", "shopapp", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert good[0] == 0
    assert "the application" in good[1]
    code, output = doctor("--import", "no_such_module")
    assert code == 1
    assert "✗ import no_such_module failed: ModuleNotFoundError\n" in output


def test_what_the_application_configures_in_code_is_in_force(receiver, tmp_path):
    (tmp_path / "shopapp.py").write_text(
        "import pbmon\n"
        "pbmon.configure(service_name='in-code', slow_request_s=0.8,\n"
        "                budgets=[pbmon.Budget('/pay', max_s=0.5)])\n",
        encoding="utf-8",
    )
    done = fresh.run(
        sys.executable, "-m", "pbmon.cli", "doctor", "--import", "shopapp",
        cwd=tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_SERVICE_NAME="in-the-environment",
        PBMON_SLOW_QUERY_S="80ms",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert line(done.stdout, "Service:") == "Service: in-code"
    assert line(done.stdout, "service_name ") == "service_name in-code (configure())"
    assert line(done.stdout, "slow_request_s") == "slow_request_s 0.8 (configure())"
    assert line(done.stdout, "budgets") == "budgets /pay max=0.5s (configure())"
    assert line(done.stdout, "slow_query_s") == "slow_query_s 0.08 (environment PBMON_SLOW_QUERY_S)"
    (place,) = re.findall(r"/spool/(.+)$", done.stdout, re.MULTILINE)
    assert place == "in-code"


def test_what_became_of_what_is_said_for_every_process(doctor, tmp_path):
    with Sink() as sink, Program(sink, PBMON_STATE_DIR=str(tmp_path)) as program:
        program.work(0, 7)
        program.do("assert pbmon.flush(20)")
        sink.become(sinks.status(503))
        program.work(7, 5)
        _, output = doctor(
            PBMON_STATE_DIR=str(tmp_path),
            OTEL_SERVICE_NAME="shop",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        )
    (name,) = [path.name for path in tmp_path.glob("spool/shop/*")]
    assert re.search(rf"^ +{name}: running, [0-9,]+ bytes$", output, re.MULTILINE)
    assert "      spans: 12 accepted, 7 delivered, 5 waiting\n" in output
    assert "      log records: 12 accepted, 7 delivered, 5 waiting\n" in output


def test_the_application_is_found_where_doctor_is_called(doctor, receiver, tmp_path, monkeypatch):
    (tmp_path / "besides.py").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, _ = doctor("--import", "besides", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert code == 0


def test_an_exporter_that_is_not_installed_is_said(doctor):
    code, output = doctor(OTEL_TRACES_EXPORTER="zipkin9", OTEL_METRICS_EXPORTER="none")
    assert code == 1
    assert "✗ traces   zipkin9: exporter 'zipkin9' for traces is not installed" in output


def test_a_fixed_instance_id_is_said(doctor):
    _, output = doctor(OTEL_RESOURCE_ATTRIBUTES="service.instance.id=1")
    assert "✗ service.instance.id is set" in output


def test_disabled_is_said(doctor, receiver):
    _, output = doctor(OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert "✗ OTEL_SDK_DISABLED=true: pbmon does nothing; unset it to run" in output


def test_a_hook_that_finds_another_shape_is_a_fault(doctor, receiver, monkeypatch):
    import uvicorn

    monkeypatch.delattr(uvicorn.Server, "startup")
    code, output = doctor(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert code == 1
    assert "✗ uvicorn" in output
    assert "not found in uvicorn" in output
