"""Every setting: one table of field, environment variables, default and meaning.

Order of precedence: keyword of configure(), environment, `pbmon.toml` (or `[tool.pbmon]` of
`pyproject.toml`), default. A setting that can't be used is a Problem, one line naming it, its
source and the remedy; the next source in the order takes its place.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pbmon import parsing, privacy, segments, sources, surveys
from pbmon.alerting import choices as alerting
from pbmon.alerting.choices import AlertChoices
from pbmon.budgets import Budgets
from pbmon.experiments import Experiment
from pbmon.money import Rates
from pbmon.parsing import Mode
from pbmon.peers import Network
from pbmon.purposes import PURPOSES
from pbmon.sources import Problem


class SettingsError(ValueError):
    """A setting that can't be used, under strict."""


def _setting(
    default: Any,
    parse: Callable[[Any], Any],
    meaning: str,
    *variables: str,
    reloads: bool = False,
) -> Any:
    """One row of the table. variables: standard OTEL_* names read after PBMON_<NAME>. reloads: a
    change of it in the file takes effect while the process runs."""
    row = {
        "default": default,
        "parse": parse,
        "meaning": meaning,
        "variables": variables,
        "reloads": reloads,
    }
    return field(default_factory=lambda: default, metadata=row)


_PRIVATE_PEERS = (
    "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
    "fe80::/10",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The settings in force; immutable. `sources` says where each one came from."""

    service_name: str | None = _setting(
        None, parsing.text, "Name of the service on everything it emits.", "OTEL_SERVICE_NAME"
    )
    release: str | None = _setting(
        None,
        parsing.release,
        "Release that runs, as a version or a commit: `service.version` on everything it emits. "
        "Unset: as OTEL_RESOURCE_ATTRIBUTES says.",
    )
    endpoint: str = _setting(
        "http://localhost:4318",
        parsing.url,
        "Base URL of the OTLP receiver; /v1/traces, /v1/metrics and /v1/logs are added to it.",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    )
    state_dir: str | None = _setting(
        None,
        parsing.text,
        "Directory of the spool, where telemetry waits. Unset: the first of systemd's "
        "STATE_DIRECTORY, XDG_STATE_HOME, ~/.local/state and the temporary directory that can "
        "be used.",
    )
    logs: bool = _setting(
        False,
        parsing.flag,
        "Send the records of Python's logging as well, with their trace.",
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED",
    )
    engine: str = _setting(
        "sdk", parsing.one_of("sdk"), "Telemetry engine; sdk is OpenTelemetry's own."
    )
    strict: bool = _setting(
        "pytest" in sys.modules,
        parsing.flag,
        "Raise ValueError for a wrong value handed to the API instead of refusing it quietly. "
        "On by default under pytest.",
    )
    slow_request_s: float = _setting(
        1.0,
        parsing.above_zero,
        "A request that takes longer is slow (seconds, or 800ms).",
        reloads=True,
    )
    slow_query_s: float = _setting(
        0.1,
        parsing.above_zero,
        "A statement that takes longer is slow (seconds, or 80ms).",
        reloads=True,
    )
    request_log: str = _setting(
        "notable",
        parsing.one_of("notable", "all", "off"),
        'Which requests log "Request completed": notable is slow, failed or over budget.',
        reloads=True,
    )
    budgets: Budgets = _setting(
        Budgets(),
        parsing.budgets,
        "Performance budgets: [[budgets]], or '/route max=500ms p95=300ms; …'.",
        reloads=True,
    )
    reload: bool = _setting(
        True,
        parsing.flag,
        "Read the settings file again when it changes, for the settings that can change while the "
        "process runs.",
    )
    requests_file: str | None = _setting(
        None,
        parsing.text,
        "File to which each request of a known route is added as a line, for `pbmon budget check`. "
        "For load runs: it grows without end. Unset: none.",
    )
    features: tuple[str, ...] = _setting(
        (),
        parsing.words,
        "Names track_feature() counts by; any other is `_other`. Empty: the first 100 used.",
    )
    store_url: str | None = _setting(
        None,
        parsing.text,
        "Where events are stored: an SQLAlchemy URL of PostgreSQL or SQLite; env:NAME reads it "
        "from that variable. Unset: an SQLite file in the state directory.",
    )
    outbox_url: str | None = _setting(
        None,
        parsing.text,
        "Database of the transactions of pbmon.outbox(), likewise, if it is not the store's.",
    )
    base_currency: str = _setting(
        "USD",
        parsing.currency,
        "ISO 4217 code of the currency that revenue is converted into. A store keeps the one of "
        "its first transaction.",
    )
    worker: str = _setting(
        "thread",
        parsing.one_of("thread", "process"),
        "What brings events into the store: a thread of the application, or `pbmon worker` alone.",
    )
    events: Mapping[str, Mapping[str, str]] = _setting(
        MappingProxyType({}),
        parsing.events,
        "Events track() knows, with the types of their properties: [events.NAME] tables. Empty: "
        "any event.",
    )
    unregistered_events: str = _setting(
        "accept",
        parsing.one_of("accept", "refuse"),
        "What track() does with an event that is not in `events`, where there are any. Accepted "
        "ones count as `_other`.",
    )
    experiments: Mapping[str, Experiment] = _setting(
        MappingProxyType({}),
        parsing.experiments,
        "Experiments: [experiments.KEY] tables with variants and goal; window_days or window_s, "
        "share, salt, enabled.",
    )
    consent: Mapping[str, str] = _setting(
        MappingProxyType(dict.fromkeys(PURPOSES, "opt-in")),
        parsing.consent,
        "Legal basis of each purpose: opt-in, opt-out or not-required, as "
        "analytics=opt-in,sharing=opt-in.",
    )
    consent_version: Mapping[str, str] = _setting(
        MappingProxyType({}),
        parsing.consent_versions,
        "Version of the text that people must have agreed to, such as 2026-11, or one for each "
        "purpose: an older grant counts as not asked. Unset: any.",
    )
    pepper: str | None = _setting(
        None,
        parsing.secret,
        "Where the secret is by which the store finds people's keys: env:NAME, that variable, or "
        "file:PATH; 32 characters or more. Unset: the store's own.",
    )
    user_spans: bool = _setting(
        False,
        parsing.flag,
        "Pseudonyms of user and session on the spans of requests, of people of whom something may "
        "be kept.",
    )
    events_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which events are deleted; totals and days of activity stay. Unset: never.",
    )
    feedback_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which answers to surveys are deleted. Unset: never.",
    )
    exposures_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which it is forgotten who met which variant; more than any experiment takes. "
        "Unset: never.",
    )
    sessions_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which it is forgotten whose a session turned out to be, as long as a session "
        "lives at least. Unset: never.",
    )
    dead_letters_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which events that a destination refused are no dead letters any more. Unset: "
        "never, but not beyond their event.",
    )
    timezone: str = _setting(
        "UTC",
        parsing.zone,
        "Time zone in which the days of jobs begin, such as Europe/Berlin; and those of growth "
        "figures, in a store that is made with it.",
    )
    rates: str | Rates = _setting(
        "ecb",
        parsing.rates,
        "Exchange rates: ecb, the bundled ones of the European Central Bank; url, rates_url's; "
        "module:callable, which makes a provider; off. Behind url and a provider stands ecb.",
    )
    rates_url: str | None = _setting(
        None,
        parsing.dated_url,
        "Where rates = url asks for the rates of a day, with {date} in it, such as "
        "https://api.frankfurter.dev/v1/{date}; env:NAME reads it from that variable.",
    )
    rates_max_age_days: int = _setting(
        7, parsing.whole_above_zero, "How many days older than its day a rate may be."
    )
    destinations: Mapping[str, parsing.Target] = _setting(
        MappingProxyType({}),
        parsing.targets,
        "Where stored events go as well: [destinations.webhook], .segment, .mixpanel, .amplitude; "
        "a value may be env:NAME. Empty: nothing leaves.",
    )
    analytics_endpoint: str | None = _setting(
        None,
        parsing.url,
        "URL of a webhook, as [destinations.webhook] with this url; with analytics_enabled alone.",
        "ANALYTICS_ENDPOINT",
    )
    analytics_enabled: bool = _setting(
        False, parsing.flag, "Whether analytics_endpoint gets events.", "ANALYTICS_ENABLED"
    )
    alerts: AlertChoices = _setting(
        AlertChoices(),
        alerting.parse,
        "Who is told of bursts of errors: [alerts] with errors, people, window, cooldown, "
        "resolve, repeat, url, source (worker or prometheus; worker where there are sinks), "
        "[alerts.types.NAME], and [alerts.sinks.NAME] with url, which may be env:NAME or "
        "file:PATH. No sinks: nobody.",
    )
    segments: Mapping[str, tuple[str, ...]] = _setting(
        MappingProxyType({}),
        segments.parse,
        "Segments of context() that are kept: names, or [segments.NAME] with values = [...], "
        "beside which any other is `_other`; in the environment plan=free|pro,region.",
    )
    segment_metrics: tuple[str, ...] = _setting(
        (),
        parsing.words,
        "Segments that are attributes of pbmon.events and pbmon.feature.usage as well.",
    )
    segment_spans: bool | tuple[str, ...] = _setting(
        False,
        parsing.all_or_some,
        "Segments that are attributes of the spans of requests: names, or true for all.",
    )
    surveys: Mapping[str, surveys.Survey] = _setting(
        surveys.BUILT_IN,
        surveys.parse,
        'Surveys beside nps, csat and text: [surveys.NAME] with type = "nps", "csat" or "text", '
        "and for csat a scale such as [1, 7].",
    )
    feedback_origins: tuple[str, ...] = _setting(
        (),
        parsing.words,
        "Origins of other sites that may send to feedback_app, such as https://shop.example.com.",
    )
    user_from: str | Callable[[Mapping[str, Any]], Any] | None = _setting(
        None,
        parsing.finder,
        "Where a request names its user: header:NAME, cookie:NAME or a function of the ASGI "
        'scope. Unset: scope["user"], as authentication middleware sets it.',
    )
    session_from: str | Callable[[Mapping[str, Any]], Any] | None = _setting(
        None, parsing.finder, "Where a request names its session, likewise. Unset: nowhere."
    )
    activity_retention_days: int | None = _setting(
        None,
        parsing.whole_above_zero,
        "Days after which it is forgotten on which days people were active, 61 at least for exact "
        "growth figures. Unset: never.",
    )
    request_id_header: str = _setting(
        "x-request-id",
        parsing.header_name,
        "Header that names a request: error_middleware() believes it of `trusted_peers`, and sends "
        "it with its answer.",
    )
    error_monitor: bool = _setting(
        True,
        parsing.flag,
        "Keep errors in the store, with what is known of each. Off: they only move the metric "
        "`pbmon.errors`.",
    )
    errors_retention_days: int = _setting(
        90,
        parsing.whole_above_zero,
        "Days after which an error that was not seen again is forgotten, and whom it met.",
    )
    users: parsing.Users | None = _setting(
        None,
        parsing.users,
        "The application's own table of users, for growth figures: [users] with url, table, id, "
        "created_at, and if there are any last_seen_at, status with active. Unset: by activity.",
    )
    prometheus_url: str | None = _setting(
        None,
        parsing.named_url,
        "Where `pbmon reconcile` and `pbmon report` ask for metrics: base URL of Prometheus, https "
        "or of this machine; env:NAME reads it from that variable. Unset: nowhere.",
    )
    prometheus_token: str | None = _setting(
        None,
        parsing.secret,
        "Where the bearer token for it is: env:NAME, that variable, or file:PATH.",
    )
    reconcile: parsing.Payments | None = _setting(
        None,
        parsing.payments,
        "The application's own payments, for `pbmon reconcile`: [reconcile] with url and query, "
        "one SELECT of day, currency, amount and count from :start to :end. Unset: none.",
    )
    hooks: Mapping[str, Mode] = _setting(
        MappingProxyType({}),
        parsing.modes,
        "Mode of single hooks: pbmon, upstream or off, as psycopg2=upstream,sqlite3=off.",
    )
    excluded_urls: tuple[str, ...] = _setting(
        (),
        parsing.patterns,
        "Requests whose URL any of these regular expressions finds are not observed.",
        "OTEL_PYTHON_ASGI_EXCLUDED_URLS",
        "OTEL_PYTHON_DJANGO_EXCLUDED_URLS",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS",
        "OTEL_PYTHON_STARLETTE_EXCLUDED_URLS",
        "OTEL_PYTHON_EXCLUDED_URLS",
    )
    stream_routes: tuple[str, ...] = _setting(
        (),
        parsing.words,
        "Routes judged on their first byte, as text/event-stream answers always are.",
    )
    public_endpoint: bool | tuple[str, ...] | Callable[[Mapping[str, Any]], bool] = _setting(
        False,
        parsing.public,
        "Whether an inbound trace context becomes a link and not the parent: true, false, path "
        "prefixes, or a function of the ASGI scope.",
    )
    trusted_peers: tuple[Network, ...] = _setting(
        parsing.networks(_PRIVATE_PEERS),
        parsing.networks,
        "Networks whose sampled flag counts; for other peers the local sampler decides.",
    )
    request_headers: tuple[str, ...] = _setting(
        (),
        parsing.patterns,
        "Request headers put on server spans: names or regular expressions.",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST",
    )
    response_headers: tuple[str, ...] = _setting(
        (),
        parsing.patterns,
        "Response headers put on server spans, likewise.",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE",
    )
    masked_headers: tuple[str, ...] = _setting(
        (),
        parsing.patterns,
        "Captured headers whose value is masked; credentials and cookies always are.",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS",
    )
    client_address: bool = _setting(
        False, parsing.flag, "Put the client's IP address on server spans (it is personal data)."
    )
    scrub: bool = _setting(
        True,
        parsing.flag,
        "Take e-mail addresses, IBANs, payment cards and credentials out of the texts of spans, "
        "logs and events, and out of events phone numbers and IP addresses too.",
    )
    signals: bool = _setting(
        True,
        parsing.flag,
        "Flush on SIGTERM and SIGINT where nobody else handles them; the process ends as without.",
    )
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    def hook_mode(self, library: str) -> Mode:
        return self.hooks.get(library, "pbmon")

    def source(self, name: str) -> str:
        return self.sources.get(name, "default")

    def __repr__(self) -> str:
        """URLs without their secrets: it gets into logs and reports of errors."""
        told = (f"{name}={_masked(getattr(self, name))!r}" for name in FIELDS)
        return f"Settings({', '.join(told)})"


def _masked(value: Any) -> Any:
    return privacy.mask_url(value) if isinstance(value, str) and "://" in value else value


FIELDS: Mapping[str, dataclasses.Field[Any]] = MappingProxyType(
    {f.name: f for f in dataclasses.fields(Settings) if f.metadata}
)


RELOADING = tuple(name for name, row in FIELDS.items() if row.metadata["reloads"])
"""The settings of which a change in the file takes effect while the process runs."""


def variables(name: str) -> tuple[str, ...]:
    """The environment variables of a setting, the first one that is set wins."""
    return (sources.PREFIX + name.upper(), *FIELDS[name].metadata["variables"])


def resolve(
    keywords: Mapping[str, Any] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[Settings, list[Problem]]:
    """The settings in force and what could not be used of the sources.

    environ: the process environment if left out. directory: where `pbmon.toml` is looked for,
    the working directory if left out.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    layers = [
        sources.defined("configure()", keywords, FIELDS, problems),
        *sources.from_environment(environ, {n: variables(n) for n in FIELDS}, problems),
        sources.from_file(environ, directory, FIELDS, problems),
    ]
    values: dict[str, Any] = {}
    found: dict[str, str] = {}
    for layer in layers:
        for name, (source, raw) in layer.items():
            if name in values:
                continue
            try:
                values[name] = FIELDS[name].metadata["parse"](raw)
                found[name] = source
            except parsing.PartlyUsable as error:
                if error.usable.all:
                    values[name], found[name] = error.usable, source
                problems += [Problem(name, source, f"{m}; it is ignored") for m in error.messages]
            except ValueError as error:
                problems.append(Problem(name, source, f"{error}; it is ignored"))
    return Settings(**values, sources=MappingProxyType(found)), problems
