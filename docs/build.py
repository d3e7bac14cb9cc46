"""Writes docs/api.md, docs/catalogue.md, docs/settings.md and docs/export.schema.json from
docstrings and tables.

    python docs/build.py [--check]

--check writes nothing and exits with 1 when a file is not what they say.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pbmon
from pbmon import catalog, settings
from pbmon.store.export import schema_of_export

HERE = Path(__file__).parent


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
                     for row in lines)  # fmt: skip


def _attributes(metric: catalog.Metric) -> tuple[catalog.Attribute, ...]:
    return metric.attributes + ((catalog.SEGMENT,) if metric.by_segment else ())


def catalogue() -> str:
    """Every metric, attribute and log record."""
    metrics = _table(
        ("metric", "in Prometheus", "kind, unit", "attributes", "meaning"),
        (
            (
                f"`{m.name}`",
                f"`{m.prometheus_name}`",
                f"{m.kind}, `{m.unit}`",
                ", ".join(f"`{a.name}`" for a in _attributes(m)) or "–",
                m.meaning + (" Of the store." if m.of_store else ""),
            )
            for m in catalog.METRICS
        ),
    )
    attributes = _table(
        ("attribute", "type", "stability", "meaning"),
        ((f"`{a.name}`", a.type, a.stability, a.meaning) for a in catalog.ATTRIBUTES),
    )
    logs = _table(
        ("record", "logger", "level", "fields", "meaning"),
        (
            (r.message, f"`{r.logger}`", r.level, ", ".join(f"`{f}`" for f in r.fields), r.meaning)
            for r in catalog.LOGS
        ),
    )
    return f"""# Catalogue

Everything pbmon emits, written from `src/pbmon/catalog.py` by `docs/build.py`; do not edit.
Names of stability `stable` and `development` are OpenTelemetry's semantic conventions
({catalog.SCHEMA_URL.rpartition("/")[2]}); the others are pbmon's own.

## Metrics

{metrics}

An instrument has at most 2,000 series in a process, the last of which, with `otel.metric.overflow`,
counts what comes after. A histogram's Prometheus name is followed by `_bucket`, `_sum`, `_count`.
What is marked "of the store" is no process's figure: see [events](events.md#what-is-exported).

## Attributes

{attributes}

## Log records

Standard library `logging`; the fields are attributes of the record and are written into its text as
`name=value`. Each carries `trace_id` and `span_id`.

Beside these, `pbmon` says at the start what is hooked (INFO), `pbmon.api` warns of a call that was
refused, once for each line that makes it, and `pbmon.internal` of what pbmon itself meets, each
thing at most once a minute. They carry no ids.

{logs}
"""


def setting_table() -> str:
    """Every setting."""
    rows = (
        (
            f"`{name}`",
            "<br>".join(f"`{v}`" for v in settings.variables(name)),
            _default(name),
            row.metadata["meaning"],
        )
        for name, row in settings.FIELDS.items()
    )
    return f"""# Settings

Written from `src/pbmon/settings.py` by `docs/build.py`; do not edit. `pbmon doctor` shows the
values in force and where each one came from.

Order: keyword of `pbmon.configure()`, environment, `pbmon.toml` (or `[tool.pbmon]` in
`pyproject.toml`; `PBMON_CONFIG` names another file), default. A setting that can't be used is one
warning that names it, its source and the remedy; the next source takes its place.

A change of the file takes effect
[while the process runs](budgets.md#changes-while-the-process-runs) for
{", ".join(f"`{name}`" for name in settings.RELOADING)}.

{_table(("setting", "environment", "default", "meaning"), rows)}

## Standard variables

Besides those above these variables of OpenTelemetry keep their meaning:

- `OTEL_SDK_DISABLED`: `true` switches pbmon off.
- `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER`: `otlp` (default),
  `console`, `none`, or the name of an installed exporter or metric reader; several are parted by
  commas.
- `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf`, `grpc`), `…_HEADERS`, `…_TIMEOUT` (seconds),
  `…_COMPRESSION`, `…_CERTIFICATE`, `…_CLIENT_CERTIFICATE`, `…_CLIENT_KEY`; these and `…_ENDPOINT`
  for one signal too, as in `OTEL_EXPORTER_OTLP_TRACES_HEADERS`.
- `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` and
  `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`; `OTEL_METRIC_EXPORT_INTERVAL`.
- `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` and `OTEL_BSP_MAX_QUEUE_SIZE`, and
  with `OTEL_BLRP_…` the same for logs. A full queue loses nothing: it slows who adds to it.
- `OTEL_TRACES_SAMPLER` with `OTEL_TRACES_SAMPLER_ARG`: a sampler of the specification, or an
  installed one (entry point of `opentelemetry_traces_sampler`). pbmon's own, which knows
  `trusted_peers`, decides where it is unset.
- `OTEL_PYTHON_ID_GENERATOR`: an installed generator (entry point of `opentelemetry_id_generator`).
- `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_PROPAGATORS`, the limits of attributes, events and links, and
  `OTEL_METRICS_EXEMPLAR_FILTER`, as the SDK reads them.

Without a meaning for what goes by OTLP are `OTEL_METRIC_EXPORT_TIMEOUT`,
`OTEL_BSP_EXPORT_TIMEOUT` and `OTEL_BLRP_EXPORT_TIMEOUT`: what waits does so in the spool, and
`OTEL_EXPORTER_OTLP_TIMEOUT` says how long one request may take. `OTEL_CONFIG_FILE`,
`OTEL_PYTHON_TRACER_CONFIGURATOR` and their like are for the SDK's own configurator, in whose place
pbmon stands.

## Extras

{_table(("`pip install 'pbmon[…]'`", "what it is for"), EXTRAS)}
"""


EXTRAS = (
    ("`postgres`", "psycopg2, for PostgreSQL where the application has no driver."),
    ("`grpc`", "OTLP by gRPC: `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`, or port 4317."),
    ("`alerts`", "apprise, for sinks of [alerts](alerts.md) beside webhooks and PagerDuty."),
    ("`openfeature`", "`pbmon.OpenFeatureHook`: see [experiments](experiments.md)."),
    ("`upstream`", "OpenTelemetry's own instrumentation of ASGI and psycopg2: mode `upstream`."),
    ("`sentry`", "`track_error()` tells Sentry too: see [errors](errors.md#sentry)."),
    ("`scheduler`", "APScheduler, whose jobs that raise are [errors](errors.md#what-counts)."),
    ("`report`", "matplotlib and Jinja, for [reports](report.md) as HTML with charts."),
)


def _default(name: str) -> str:
    value = settings.FIELDS[name].metadata["default"]
    if name == "strict":
        return "`False`, under pytest `True`"
    if name == "surveys":
        return ", ".join(f"`{survey}`" for survey in value)
    if isinstance(value, settings.Budgets) or value in ((), None) or value == {}:
        return "–"
    if isinstance(value, tuple):
        return "<br>".join(f"`{item}`" for item in value)
    return f"`{value}`"


def _described() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every public callable by its name; of an object with methods, each method."""
    for name in (*pbmon.__all__, *pbmon.EXTRAS):
        public = getattr(pbmon, name)
        if name.startswith("_"):
            continue
        if callable(public):
            yield name, public
            continue
        for method in vars(type(public)):
            if not method.startswith("_"):
                yield f"{name}.{method}", getattr(public, method)


def _signature(described: Callable[..., object]) -> str:
    if isinstance(described, type) and issubclass(described, Exception):
        return ""  # to be caught, not to be made
    # Annotations are kept as text, which inspect shows in quotes.
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(described)))


def api() -> str:
    """Every public name, by its signature and docstring."""
    parts = [
        "# Public API",
        "Written from the docstrings by `docs/build.py`; do not edit.",
        "Before `configure()` each call is a safe no-op; what asks the store raises StoreError.",
    ]
    for name, described in _described():
        doc = inspect.getdoc(described) or ""
        shown = f"{name}{_signature(described)}"
        parts.append(f"## {name}\n\n```python\n{shown}\n```\n\n```text\n{doc}\n```")
    return "\n\n".join(parts) + "\n"


def privacy_map() -> str:
    """What is held and sent of people."""
    from pbmon.reports import data_map

    speaking = _table(
        ("attribute", "what there is of people in it"),
        ((f"`{each.name}`", said) for each, said in data_map.SPEAKING.items()),
    )
    held = data_map.table_of(settings.Settings())
    return f"""# Privacy

Written from `src/pbmon/reports/data_map.py`, the tables of the store, the catalogue and the settings by
`docs/build.py`; do not edit. `pbmon privacy map` writes the first table with your own settings, as
Markdown or with `--json`, for a record of processing (GDPR, article 30) or an impact assessment
(article 35). The legal bases are those that the settings and the law of most countries suggest; which
ones hold for you is for you to say.

What nobody agreed to is not kept: see [consent](consent.md). What is to go goes everywhere: see
[deletion, export, retention](deletion.md). Nothing leaves but to where you send it: by default that is a
receiver on this host.

## What is collected, why, where it goes, how long, and who can end it

By the default settings.

{_table(held.columns, held.rows)}

## What attributes may say of people

All others are names and numbers of the application, or one of a finite set.

{speaking}

## What is taken out, and where

| | at the source, by pbmon | a second time, by the [collector](collector.md) |
| --- | --- | --- |
| exceptions | their messages, source lines and variables never leave, whoever recorded them on a span or a log record: type, frames and a fingerprint do. What the application writes as text of its own, as with `%s` in a log call, is one of the texts below | rows and literals that databases quote |
| queries of URLs | every value, in attributes and in texts | likewise |
| headers | all but those that the settings name; credentials and cookies always | credentials, cookies, addresses |
| SQL | every literal, by a tokenizer for the dialect; a statement that is in doubt is left out | literals, whoever wrote the span |
| texts of spans and logs, whoever wrote them, and the `tracestate` of callers | e-mail addresses, payment cards (Luhn), IBANs (their check digits), credentials, IP addresses of no private network | the same but for addresses |
| properties of events, keys and texts | the same, phone numbers and all IP addresses, before they are stored | – |
| comments | the same, before they are written down | – |
| log lines of pbmon | control characters are written out, so that no value can begin a line | – |

`scrub = false` switches the texts of spans, logs and events off, and lets messages through that others
record of exceptions; pbmon itself records none. Numbers are left as they are: an amount
and a card number look alike there, so declare the properties of your [events](events.md).

## Who can read it

State directory and store are for their user alone (0700, 0600); pbmon refuses a directory, and a file of
SQLite, that is open to others. What people did is told of ten or more, and never so that a smaller number
follows from the sums ([growth](growth.md)). How many an [error](errors.md) met is told as it is, to who may
read the store and to the sinks of [alerts](alerts.md). Secrets in settings are masked wherever settings are
shown.
TLS is verified; without it pbmon sends to this host alone, but for OTLP, which goes where you say.
"""  # noqa: E501 - the lines of tables


def main() -> int:
    """Write the files, or compare them."""
    stale = []
    pages = {
        "api.md": api(),
        "catalogue.md": catalogue(),
        "settings.md": setting_table(),
        "privacy.md": privacy_map(),
        "export.schema.json": json.dumps(schema_of_export(), indent=2) + "\n",
    }
    for name, text in pages.items():
        path = HERE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"not what the code says: {', '.join(stale)}; run python docs/build.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
