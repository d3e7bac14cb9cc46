"""Everything pbmon emits, declared once: metrics, attributes, log records.

Instruments, documentation, Prometheus names, rules and dashboards are derived from these
tables or checked against them. A name that is stable in the OpenTelemetry semantic
conventions is imported from them; a name still in development there is a literal, marked
`development` (a drift test compares it with the installed conventions); ours are `pbmon.*`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from opentelemetry.semconv.attributes import (
    client_attributes,
    code_attributes,
    db_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
    user_agent_attributes,
)
from opentelemetry.semconv.metrics import db_metrics, http_metrics

VERSION = "0.1.0"

# The semantic conventions whose names this file uses.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

Kind = Literal["counter", "updowncounter", "histogram", "gauge"]
Stability = Literal["stable", "development", "pbmon"]
Value = Literal["string", "boolean", "int", "double", "string[]"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a metric, span or log record.

    values: the finite set it can take, where there is one.
    """

    name: str
    type: Value
    meaning: str
    stability: Stability = "pbmon"
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument. unit is UCUM; buckets are upper bounds in that unit.

    reasons: what `pbmon.reason` can be on this metric, where that is a finite set.
    by_segment: it also has SEGMENT of each segment that the setting `segment_metrics` names.
    of_store: its figures come from the store, by one process of all that share it, under the
    store's own identity; no process counts it.
    daily: of the newest day that is over, and so true until the next one is.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[Attribute, ...] = ()
    buckets: tuple[float, ...] = ()
    stability: Stability = "pbmon"
    reasons: tuple[str, ...] = ()
    of_store: bool = False
    daily: bool = False
    by_segment: bool = False

    def finite_series(self) -> list[dict[str, str | bool]]:
        """The attributes of every series there can be; none where an attribute's set of values
        is not finite."""
        sets = [self.reasons if a.name == "pbmon.reason" else a.values for a in self.attributes]
        return [
            {
                a.name: value == "true" if a.type == "boolean" else value
                for a, value in zip(self.attributes, values, strict=True)
            }
            for values in itertools.product(*sets)
        ]

    @property
    def prometheus_name(self) -> str:
        """The family's name under Prometheus' `UnderscoreEscapingWithSuffixes`, its default.

        A histogram's series add `_bucket`, `_sum` and `_count` to it.
        """
        name = self.name.replace(".", "_")
        suffix = _PROMETHEUS_UNITS.get(self.unit, "")
        if self.unit == "1" and self.kind == "gauge":
            suffix = "ratio"
        if suffix and not name.endswith("_" + suffix):
            name += "_" + suffix
        return name + "_total" if self.kind == "counter" else name

    def prometheus_labels(self) -> tuple[str, ...]:
        """The attributes as Prometheus labels, `le` and the resource's labels left out."""
        return tuple(a.name.replace(".", "_") for a in self.attributes)


# Units in braces are annotations and leave no suffix (Prometheus' otlptranslator).
_PROMETHEUS_UNITS = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True, slots=True)
class Log:
    """One stdlib log record: `message` starts its text, `fields` are its extra attributes."""

    message: str
    logger: str
    level: Literal["INFO", "WARNING"]
    meaning: str
    fields: tuple[str, ...]


# --- attributes: HTTP ---------------------------------------------------------------------

KNOWN_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""What `http.request.method` may hold; any other method is `_OTHER` (the conventions' rule)."""

METHOD = Attribute(
    http_attributes.HTTP_REQUEST_METHOD,
    "string",
    "Request method in upper case; `_OTHER` for one the conventions do not know.",
    "stable",
    (*sorted(KNOWN_METHODS), "_OTHER"),
)
METHOD_ORIGINAL = Attribute(
    http_attributes.HTTP_REQUEST_METHOD_ORIGINAL,
    "string",
    "The method as sent, where `http.request.method` is `_OTHER`.",
    "stable",
)
ROUTE = Attribute(
    http_attributes.HTTP_ROUTE,
    "string",
    "Full route template through mounts and routers; absent where nothing matched.",
    "stable",
)
STATUS = Attribute(
    http_attributes.HTTP_RESPONSE_STATUS_CODE, "int", "Response status code.", "stable"
)
SCHEME = Attribute(url_attributes.URL_SCHEME, "string", "http, https, ws or wss.", "stable")
PATH = Attribute(url_attributes.URL_PATH, "string", "Path of the request.", "stable")
QUERY = Attribute(
    url_attributes.URL_QUERY,
    "string",
    "Keys of the query string in their order, every value replaced by REDACTED.",
    "stable",
)
PROTOCOL_VERSION = Attribute(
    network_attributes.NETWORK_PROTOCOL_VERSION, "string", "HTTP version: 1.1, 2 …", "stable"
)
PEER_ADDRESS = Attribute(
    network_attributes.NETWORK_PEER_ADDRESS,
    "string",
    "Address of the TCP peer, only where `client_address` is switched on.",
    "stable",
)
CLIENT_ADDRESS = Attribute(
    client_attributes.CLIENT_ADDRESS,
    "string",
    "The client's address as the server's proxy handling left it, only where "
    "`client_address` is switched on.",
    "stable",
)
SERVER_ADDRESS = Attribute(
    server_attributes.SERVER_ADDRESS, "string", "Host of the server or database.", "stable"
)
SERVER_PORT = Attribute(
    server_attributes.SERVER_PORT, "int", "Port of the server or database.", "stable"
)
USER_AGENT = Attribute(
    user_agent_attributes.USER_AGENT_ORIGINAL, "string", "The User-Agent header.", "stable"
)
ERROR_TYPE = Attribute(
    error_attributes.ERROR_TYPE,
    "string",
    "Exception class, or the status code of a 5xx answered without one.",
    "stable",
)

# --- attributes: databases ------------------------------------------------------------------

DB_SYSTEM = Attribute(
    db_attributes.DB_SYSTEM_NAME, "string", "Database product: postgresql, sqlite …", "stable"
)
DB_NAMESPACE = Attribute(
    db_attributes.DB_NAMESPACE, "string", "Database the connection is on.", "stable"
)
DB_OPERATION = Attribute(
    db_attributes.DB_OPERATION_NAME, "string", "SELECT, INSERT, COPY …", "stable"
)
DB_COLLECTION = Attribute(
    db_attributes.DB_COLLECTION_NAME, "string", "The table, where there is one only.", "stable"
)
DB_SUMMARY = Attribute(
    db_attributes.DB_QUERY_SUMMARY,
    "string",
    "Operations and tables of the statement, short and free of values.",
    "stable",
)
DB_TEXT = Attribute(
    db_attributes.DB_QUERY_TEXT,
    "string",
    "The statement with every literal replaced by `?`; absent where that is in doubt.",
    "stable",
)
DB_STATUS = Attribute(
    db_attributes.DB_RESPONSE_STATUS_CODE,
    "string",
    "SQLSTATE, or the product's own code where it has no SQLSTATE.",
    "stable",
)
DB_BATCH_SIZE = Attribute(
    db_attributes.DB_OPERATION_BATCH_SIZE, "int", "Statements in a batch, from 2.", "stable"
)
DB_RETURNED_ROWS = Attribute(
    "db.response.returned_rows", "int", "Rows given back to the caller.", "development"
)
DB_AFFECTED_ROWS = Attribute(
    "pbmon.db.affected_rows", "int", "Rows an INSERT, UPDATE, DELETE or COPY changed."
)
DB_SLOW = Attribute(
    "pbmon.db.slow",
    "boolean",
    "Whether the statement took longer than `slow_query_s`.",
    values=("true", "false"),
)

CODE_FILE = Attribute(
    code_attributes.CODE_FILE_PATH,
    "string",
    "File of a slow statement's caller, or of a log call.",
    "stable",
)
CODE_LINE = Attribute(
    code_attributes.CODE_LINE_NUMBER,
    "int",
    "Line of a slow statement's caller, or of a log call.",
    "stable",
)
CODE_FUNCTION = Attribute(
    code_attributes.CODE_FUNCTION_NAME,
    "string",
    "Function of a slow statement's caller, or of a log call.",
    "stable",
)

# --- attributes: pbmon ------------------------------------------------------------------------

SLOW = Attribute(
    "pbmon.slow", "boolean", "The request took longer than `slow_request_s`.", values=("true",)
)
BUDGET_EXCEEDED = Attribute(
    "pbmon.budget.exceeded",
    "boolean",
    "Whether the request took longer than its budget's `max`.",
    values=("true", "false"),
)
BUDGET_LIMITS = Attribute(
    "pbmon.budget.limits", "string[]", "Every threshold of the budget that was passed."
)
OPERATION = Attribute(
    "pbmon.operation",
    "string",
    "Name of what a budget is for that is no route: a job, say, which check_budget() judges.",
)
BUDGET_EXCESS = Attribute("pbmon.budget.excess", "double", "Seconds beyond `max`.")
BUDGET_LIMIT = Attribute(
    "pbmon.budget.limit",
    "string",
    "Which promise of the budget.",
    values=("max", "p95", "p99", "availability"),
)
WEBSOCKET_CLOSE_CODE = Attribute(
    "pbmon.websocket.close_code", "int", "Close code of the WebSocket (RFC 6455, 7.4)."
)
WEBSOCKET_ID = Attribute(
    "pbmon.websocket.connection_id", "string", "Random id of the connection, as in the logs."
)
FEATURE_NAME = Attribute("pbmon.feature.name", "string", "Registered feature, else `_other`.")
FEATURE_ACTION = Attribute(
    "pbmon.feature.action", "string", "What was done.", values=("viewed", "clicked", "completed")
)
EVENT_NAME = Attribute("pbmon.event.name", "string", "Declared event, else `_other`.")
SEGMENT = Attribute(
    "pbmon.segment.<name>",
    "string",
    "Segment of the person, as given to context(), of those that the settings name.",
)
SURVEY = Attribute("pbmon.feedback.survey", "string", "Survey of the settings.")
SCORE = Attribute("pbmon.feedback.score", "int", "Score given; absent where a survey has none.")
CONSENT = Attribute(
    "pbmon.consent",
    "string",
    "granted: not to be asked for. denied: only counted here. undecided: the store decides. "
    "anonymous: nobody's event.",
    values=("granted", "denied", "undecided", "anonymous"),
)
USER_PSEUDONYM = Attribute(
    "enduser.pseudo.id",
    "string",
    "Pseudonym of the request's user, with `user_spans`; of people of whom something may be kept.",
    "development",
)
SESSION_PSEUDONYM = Attribute(
    "session.id", "string", "Pseudonym of a session of that user, likewise.", "development"
)
FLAG_KEY = Attribute("feature_flag.key", "string", "Declared experiment.", "development")
FLAG_VARIANT = Attribute(
    "feature_flag.result.variant", "string", "Declared variant of it.", "development"
)
ALERT_SOURCE = Attribute(
    "pbmon.alerts.source",
    "string",
    "Who tells of bursts of errors: the worker by itself, or Prometheus by its rules.",
    values=("worker", "prometheus"),
)
MARK_KIND = Attribute(
    "pbmon.mark.kind",
    "string",
    "deploy: of a release. change: of anything else, as somebody noted it.",
    values=("deploy", "change"),
)
MARK_NAME = Attribute("pbmon.mark.name", "string", "The release, or what was changed.")
ALERT_SINK = Attribute("pbmon.alerts.sink", "string", "Who is told, by its name in the settings.")
NOTIFICATION_STATE = Attribute(
    "pbmon.notification.state",
    "string",
    "waiting: to be sent, or tried again. dead: given up in the last 24 hours.",
    values=("waiting", "dead"),
)
JOB = Attribute("pbmon.job", "string", "Job of the worker: retention, months, delivery:<name> …")
ROLE = Attribute(
    "pbmon.role",
    "string",
    "shipper: from the journals to the store. leader: from the store to everything else.",
    values=("shipper", "leader"),
)
DESTINATION = Attribute(
    "pbmon.destination", "string", "Where events are delivered to: webhook, segment …"
)
PLACE = Attribute(
    "pbmon.deletion.place",
    "string",
    "Where something of a person may still be: store, journals, outbox, disk, or a destination.",
)
CURRENCY = Attribute("pbmon.currency", "string", "ISO 4217 code of the amounts counted.")
TRANSACTION_KIND = Attribute(
    "pbmon.transaction.kind",
    "string",
    "Kind of transaction.",
    values=("charge", "refund", "chargeback", "adjustment"),
)
TRANSACTION_STATUS = Attribute(
    "pbmon.transaction.status",
    "string",
    "Status that a transaction came to; only a charge has others than completed.",
    values=("pending", "completed", "failed", "cancelled"),
)
WINDOW = Attribute(
    "pbmon.window", "string", "Length of the look-back.", values=("24h", "7d", "30d")
)
REVENUE_PART = Attribute(
    "pbmon.revenue.part",
    "string",
    "gross: what `pbmon.revenue` counts. refunds: what `pbmon.refunds` counts.",
    values=("gross", "refunds"),
)
CALL = Attribute("pbmon.call", "string", "Function of pbmon's API that refused its input.")
REASON = Attribute("pbmon.reason", "string", "Why, as a short fixed word.")
REPLACED_VALUES = Attribute(
    "pbmon.replaced_values",
    "int",
    "Values of this span or log record that could not be sent as they were, and were replaced.",
)

SIGNAL = Attribute(
    "pbmon.signal", "string", "What was on its way.", values=("traces", "metrics", "logs", "events")
)
OUTCOME = Attribute(
    "pbmon.outcome",
    "string",
    "accepted = delivered + dropped + what waits. refused: never accepted, as the spool was full.",
    values=("accepted", "delivered", "dropped", "refused"),
)
COMPONENT_TYPE = Attribute(
    "otel.component.type", "string", "Kind of the telemetry's component.", "development"
)
COMPONENT_NAME = Attribute(
    "otel.component.name", "string", "The component, unique in its process.", "development"
)
SAMPLING_RESULT = Attribute(
    "otel.span.sampling_result",
    "string",
    "What the sampler decided.",
    "development",
    ("DROP", "RECORD_ONLY", "RECORD_AND_SAMPLE"),
)

LOG_FORMAT_ERROR = Attribute(
    "pbmon.log.format_error",
    "boolean",
    "The record's arguments don't fit its message, which stands there without them.",
    values=("true",),
)

# --- metrics ----------------------------------------------------------------------------------

# Both bucket lists are those of the semantic conventions.
_HTTP_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
_DB_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)

REQUEST_DURATION = Metric(
    http_metrics.HTTP_SERVER_REQUEST_DURATION,
    "histogram",
    "s",
    "Time from the request's start to the last byte of its answer.",
    (METHOD, SCHEME, PROTOCOL_VERSION, ROUTE, STATUS, ERROR_TYPE),
    _HTTP_BUCKETS,
    "stable",
)
ACTIVE_REQUESTS = Metric(
    "http.server.active_requests",
    "updowncounter",
    "{request}",
    "Requests being answered now.",
    (METHOD, SCHEME),
    stability="development",
)
SLOW_REQUESTS = Metric(
    "pbmon.http.server.slow_requests",
    "counter",
    "{request}",
    "Requests that took longer than `slow_request_s`.",
    (METHOD, ROUTE),
)
ABORTED_REQUESTS = Metric(
    "pbmon.http.server.aborted_requests",
    "counter",
    "{request}",
    "Requests that ended before the last byte of an answer, without an exception of the app.",
    (METHOD, ROUTE),
)
WEBSOCKET_CONNECTIONS = Metric(
    "pbmon.websocket.connections",
    "updowncounter",
    "{connection}",
    "WebSockets that are open now.",
    (ROUTE,),
)
EVENT_LOOP_LAG = Metric(
    "pbmon.event_loop.lag",
    "histogram",
    "s",
    "How late a timer of an event loop that serves requests came, looked at every 0.5 s.",
    (),
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
QUERY_DURATION = Metric(
    db_metrics.DB_CLIENT_OPERATION_DURATION,
    "histogram",
    "s",
    "Time a statement kept the caller waiting in the driver, fetching included.",
    (
        DB_SYSTEM, DB_NAMESPACE, DB_OPERATION, DB_COLLECTION, SERVER_ADDRESS, SERVER_PORT,
        ERROR_TYPE, DB_STATUS, DB_SLOW,
    ),
    _DB_BUCKETS,
    "stable",
)  # fmt: skip
SLOW_QUERIES = Metric(
    "pbmon.db.slow_queries",
    "counter",
    "{query}",
    "Statements that took longer than `slow_query_s`.",
    (DB_SYSTEM, DB_SUMMARY),
)
QUERY_ERRORS = Metric(
    "pbmon.db.errors",
    "counter",
    "{error}",
    "Statements that failed.",
    (DB_SYSTEM, ERROR_TYPE, DB_STATUS),
)
BUDGET_REQUESTS = Metric(
    "pbmon.budget.requests",
    "counter",
    "{request}",
    "Requests, or runs of an operation, that a promise of a budget applies to.",
    (METHOD, ROUTE, OPERATION, BUDGET_LIMIT),
)
BUDGET_BREACHES = Metric(
    "pbmon.budget.breaches",
    "counter",
    "{request}",
    "Requests, or runs of an operation, that broke a promise of a budget.",
    (METHOD, ROUTE, OPERATION, BUDGET_LIMIT),
)
BUDGET_THRESHOLD = Metric(
    "pbmon.budget.threshold",
    "gauge",
    "s",
    "The limit that a budget sets.",
    (METHOD, ROUTE, OPERATION, BUDGET_LIMIT),
)
BUDGET_ALLOWED = Metric(
    "pbmon.budget.allowed",
    "gauge",
    "1",
    "Share that may break the promise: p95 0.05, p99 0.01, max 0, availability 1 less itself.",
    (METHOD, ROUTE, OPERATION, BUDGET_LIMIT),
)
ERRORS = Metric(
    "pbmon.errors",
    "counter",
    "{error}",
    "Exceptions that nobody handled, and those given to track_error().",
    (ERROR_TYPE, ROUTE),
)
ALERTS_PAGING = Metric(
    "pbmon.alerts.paging",
    "gauge",
    "{source}",
    "1 for who tells of bursts of errors, by the settings of this process, 0 for the other.",
    (ALERT_SOURCE,),
)
ALERTS_OPEN = Metric(
    "pbmon.alerts.open",
    "gauge",
    "{alert}",
    "Bursts of errors that are alerts, and not over.",
    of_store=True,
)
ALERTS_NOTIFICATIONS = Metric(
    "pbmon.alerts.notifications",
    "gauge",
    "{notification}",
    "Messages about alerts that a sink has not got.",
    (ALERT_SINK, NOTIFICATION_STATE),
    of_store=True,
)
FEATURE_USAGE = Metric(
    "pbmon.feature.usage",
    "counter",
    "{use}",
    "Uses of the product's features.",
    (FEATURE_NAME, FEATURE_ACTION),
    by_segment=True,
)
EVENTS = Metric(
    "pbmon.events",
    "counter",
    "{event}",
    "User events, by whether they may be kept.",
    (CONSENT, EVENT_NAME),
    by_segment=True,
)
FEEDBACK_RESPONSES = Metric(
    "pbmon.feedback.responses",
    "counter",
    "{response}",
    "Answers to surveys, whether or not they may be kept.",
    (SCORE, SURVEY),
)
EXPOSURES = Metric(
    "pbmon.experiment.exposures",
    "counter",
    "{exposure}",
    "Exposures to experiments that were recorded, whether or not they may be kept; the store has "
    "each person once.",
    (FLAG_KEY, FLAG_VARIANT),
)
REVENUE = Metric(
    "pbmon.revenue",
    "counter",
    "{currency}",
    "Completed charges and positive adjustments in major units of the base currency.",
    (CURRENCY,),
    of_store=True,
)
REFUNDS = Metric(
    "pbmon.refunds",
    "counter",
    "{currency}",
    "Refunds, chargebacks and negative adjustments in major units of the base currency.",
    (CURRENCY,),
    of_store=True,
)
TRANSACTIONS = Metric(
    "pbmon.transactions",
    "counter",
    "{transaction}",
    "Transactions, each once for every status that it came to.",
    (TRANSACTION_KIND, TRANSACTION_STATUS),
    of_store=True,
)
REVENUE_UNCONVERTED = Metric(
    "pbmon.revenue.unconverted",
    "gauge",
    "{transaction}",
    "Transactions that count but wait for a rate, by their own currency.",
    (CURRENCY,),
    of_store=True,
)
REVENUE_BOOKED = Metric(
    "pbmon.revenue.booked",
    "gauge",
    "{currency}",
    "What the ledger itself says was booked in the 24 hours before, in major units of the base "
    "currency: the truth that the counters are compared with.",
    (CURRENCY, REVENUE_PART, WINDOW),
    of_store=True,
)
USERS_ACTIVE = Metric(
    "pbmon.users.active",
    "gauge",
    "{user}",
    "Users active within the window that ends with the newest day that is over.",
    (WINDOW,),
    of_store=True,
    daily=True,
)
USERS_NEW = Metric(
    "pbmon.users.new",
    "gauge",
    "{user}",
    "Users who came on that day for the first time.",
    of_store=True,
    daily=True,
)
USERS_CHURNED = Metric(
    "pbmon.users.churned",
    "gauge",
    "{user}",
    "Users active in the 30 days before the last 30, and not since.",
    of_store=True,
    daily=True,
)
USERS_REACTIVATED = Metric(
    "pbmon.users.reactivated",
    "gauge",
    "{user}",
    "Users active on that day who had not been in the 30 days before, and are not new.",
    of_store=True,
    daily=True,
)
USERS_REGISTERED = Metric(
    "pbmon.users.registered",
    "gauge",
    "{user}",
    "Users there have been by the end of that day.",
    of_store=True,
    daily=True,
)
USERS_RETENTION = Metric(
    "pbmon.users.retention",
    "gauge",
    "1",
    "Of the users active in the 30 days before the last 30, the share active since.",
    of_store=True,
    daily=True,
)
USERS_STICKINESS = Metric(
    "pbmon.users.stickiness",
    "gauge",
    "1",
    "Users active on that day as a share of those active in 30 days.",
    of_store=True,
    daily=True,
)
REFUSED_CALLS = Metric(
    "pbmon.refused_calls",
    "counter",
    "{call}",
    "Calls of pbmon's API refused for a wrong value.",
    (CALL, REASON),
)
REFUSED_MEASUREMENTS = Metric(
    "pbmon.refused_measurements",
    "counter",
    "{measurement}",
    "Measurements of any instrument refused for a wrong value or wrong attributes.",
    (REASON,),
    reasons=("type", "not_finite", "negative", "out_of_range", "attributes"),
)

# --- metrics: the telemetry's own --------------------------------------------------------------

SPOOL_RECORDS = Metric(
    "pbmon.spool.records",
    "counter",
    "{record}",
    "Spans, data points, log records and events by what became of them in the spool.",
    (SIGNAL, OUTCOME, REASON),
)
SPOOL_SIZE = Metric(
    "pbmon.spool.size", "gauge", "By", "Bytes of this process's spool on the disk.", (SIGNAL,)
)
STORE_LAG = Metric(
    "pbmon.store.lag",
    "gauge",
    "s",
    "For how long events have waited for the store; of the process that ships them.",
)
JOB_LAST_SUCCESS = Metric(
    "pbmon.job.last_success",
    "gauge",
    "s",
    "When a job last succeeded, seconds since 1970; of the process that leads.",
    (JOB,),
)
WORKER_ACTIVE = Metric(
    "pbmon.worker.active",
    "gauge",
    "{role}",
    "1 where this process has the role, 0 where it stands by for it.",
    (ROLE,),
)
DELIVERY_WAITING = Metric(
    "pbmon.delivery.waiting",
    "gauge",
    "{event}",
    "Events that a destination has not got yet.",
    (DESTINATION,),
    of_store=True,
)
DELIVERY_DEAD_LETTERS = Metric(
    "pbmon.delivery.dead_letters",
    "gauge",
    "{event}",
    "Events that a destination refuses for themselves: see `pbmon delivery status`.",
    (DESTINATION,),
    of_store=True,
)
MARK_TIME = Metric(
    "pbmon.mark.time",
    "gauge",
    "s",
    "When a release was deployed or something was changed, seconds since 1970; of the newest 20.",
    (MARK_KIND, MARK_NAME),
    of_store=True,
)
DELETIONS_OUTSTANDING = Metric(
    "pbmon.deletions.outstanding",
    "gauge",
    "{deletion}",
    "Deletions of people that are not done in a place: see `pbmon privacy status`.",
    (PLACE,),
    of_store=True,
)
SPOOL_REPLACED = Metric(
    "pbmon.spool.replaced_values",
    "counter",
    "{value}",
    "Values that OTLP can't carry, and what was put in their place: see `pbmon.replaced_values`.",
    (SIGNAL, REASON),
)


def _sdk(name: str, kind: Kind, unit: str, meaning: str, *attributes: Attribute) -> Metric:
    return Metric(f"otel.sdk.{name}", kind, unit, meaning, attributes, stability="development")


_COMPONENT = (COMPONENT_TYPE, COMPONENT_NAME)

SDK_SPAN_STARTED = _sdk(
    "span.started", "counter", "{span}", "Spans started, by what was decided.", SAMPLING_RESULT
)
SDK_SPAN_LIVE = _sdk(
    "span.live", "updowncounter", "{span}", "Recording spans not ended yet.", SAMPLING_RESULT
)
SDK_LOG_CREATED = _sdk("log.created", "counter", "{log_record}", "Log records made.")
SDK_SPAN_PROCESSED = _sdk(
    "processor.span.processed", "counter", "{span}",
    "Spans that reached the spool, or with an error.type did not.", *_COMPONENT, ERROR_TYPE,
)  # fmt: skip
SDK_LOG_PROCESSED = _sdk(
    "processor.log.processed", "counter", "{log_record}",
    "Log records that reached the spool, or with an error.type did not.", *_COMPONENT, ERROR_TYPE,
)  # fmt: skip
SDK_SPAN_QUEUE_SIZE = _sdk(
    "processor.span.queue.size", "updowncounter", "{span}", "Spans before the spool.", *_COMPONENT
)
SDK_LOG_QUEUE_SIZE = _sdk(
    "processor.log.queue.size", "updowncounter", "{log_record}", "Log records before the spool.",
    *_COMPONENT,
)  # fmt: skip
SDK_SPAN_QUEUE_CAPACITY = _sdk(
    "processor.span.queue.capacity", "updowncounter", "{span}",
    "Spans that may stand before the spool until a request's own thread has to write.",
    *_COMPONENT,
)  # fmt: skip
SDK_LOG_QUEUE_CAPACITY = _sdk(
    "processor.log.queue.capacity", "updowncounter", "{log_record}",
    "Log records that may stand before the spool until the logging thread has to write.",
    *_COMPONENT,
)  # fmt: skip
SDK_SPAN_EXPORTED = _sdk(
    "exporter.span.exported", "counter", "{span}",
    "Spans that a receiver took, or with an error.type that were given up.",
    *_COMPONENT, ERROR_TYPE,
)  # fmt: skip
SDK_LOG_EXPORTED = _sdk(
    "exporter.log.exported", "counter", "{log_record}",
    "Log records that a receiver took, or with an error.type that were given up.",
    *_COMPONENT, ERROR_TYPE,
)  # fmt: skip
SDK_DATA_POINT_EXPORTED = _sdk(
    "exporter.metric_data_point.exported", "counter", "{data_point}",
    "Data points that a receiver took, or with an error.type that were given up.",
    *_COMPONENT, ERROR_TYPE,
)  # fmt: skip
SDK_SPAN_INFLIGHT = _sdk(
    "exporter.span.inflight", "updowncounter", "{span}", "Spans in a request.", *_COMPONENT
)
SDK_LOG_INFLIGHT = _sdk(
    "exporter.log.inflight", "updowncounter", "{log_record}", "Log records in a request.",
    *_COMPONENT,
)  # fmt: skip
SDK_DATA_POINT_INFLIGHT = _sdk(
    "exporter.metric_data_point.inflight", "updowncounter", "{data_point}",
    "Data points in a request.", *_COMPONENT,
)  # fmt: skip

METRICS: tuple[Metric, ...] = tuple(m for m in tuple(globals().values()) if isinstance(m, Metric))
ATTRIBUTES: tuple[Attribute, ...] = tuple(
    a for a in tuple(globals().values()) if isinstance(a, Attribute)
)

# --- log records --------------------------------------------------------------------------------

REQUEST_COMPLETED = Log(
    "Request completed",
    "pbmon.http",
    "INFO",
    "A request ended; with `request_log=notable` only a slow, failed or over-budget one.",
    ("endpoint", "method", "duration", "status", "slow"),
)
FAILED_LATE = Log(
    "Failed after the answer",
    "pbmon.http",
    "WARNING",
    "The application raised after the last byte of an answer below 500: in background work, or in "
    "a stream whose end a middleware had sent. The span had ended without it.",
    ("endpoint", "method", "error", "frames"),
)
SLOW_QUERY = Log(
    "Slow query detected",
    "pbmon.db",
    "WARNING",
    "A statement took longer than `slow_query_s`; its literals are removed.",
    ("query", "duration", "rows"),
)
BUDGET_EXCEEDED_LOG = Log(
    "Performance budget exceeded",
    "pbmon.budget",
    "WARNING",
    "A request, or an operation that check_budget() judged, took longer than its budget's `max`.",
    ("endpoint", "method", "duration", "budget", "exceeded"),
)
WEBSOCKET_CONNECTED = Log(
    "WebSocket connected",
    "pbmon.websocket",
    "INFO",
    "A WebSocket was accepted; total is of this process.",
    ("connection_id", "total_connections", "endpoint"),
)
WEBSOCKET_DISCONNECTED = Log(
    "WebSocket disconnected",
    "pbmon.websocket",
    "INFO",
    "A WebSocket ended; total is of this process.",
    ("connection_id", "total_connections", "endpoint", "code"),
)
DAILY_GROWTH = Log(
    "Daily growth metrics",
    "pbmon.growth",
    "INFO",
    "The growth figures of a day that is over; once for each day, by the process that leads.",
    (
        "day", "source", "new", "active_24h", "active_7d", "active_30d", "churned", "reactivated",
        "registered", "retention", "stickiness",
    ),
)  # fmt: skip
RELEASE_DEPLOYED = Log(
    "Release deployed",
    "pbmon.marks",
    "INFO",
    "A release runs that was not the newest before; once, by the process that noted its mark.",
    ("release", "previous"),
)
USER_DELETED = Log(
    "User analytics deleted",
    "pbmon.privacy",
    "INFO",
    "The tables of the store hold nothing any more of a person who was to be deleted; once for "
    "each, without who it was.",
    ("receipt", "rows", "outstanding"),
)
LOGS: tuple[Log, ...] = tuple(r for r in tuple(globals().values()) if isinstance(r, Log))
