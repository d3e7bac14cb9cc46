"""configure(): builds every part from the settings and puts it in its place.

The only module that knows everyone. Called by the launcher, by code, or by both: the second call
changes the one configuration, it does not make another.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from opentelemetry import metrics, trace

from pbmon import catalog, endings, identity, privacy, runtime, settings, signals, sources
from pbmon.business.errors import ErrorMonitor
from pbmon.business.events import Events
from pbmon.business.experiments import Experiments
from pbmon.business.features import FeatureUsage
from pbmon.business.feedback import Responses
from pbmon.business.intake import Taker
from pbmon.business.labels import SegmentLabels
from pbmon.business.refusals import Refusals
from pbmon.business.revenue import Cashbook
from pbmon.hooks import dbapi
from pbmon.purposes import ANALYTICS
from pbmon.reload import Reload
from pbmon.runtime import active
from pbmon.telemetry import providers
from pbmon.telemetry.budgets import BudgetFigures
from pbmon.telemetry.clock import Clock, SystemClock
from pbmon.telemetry.loops import LoopLag
from pbmon.telemetry.notices import Notices
from pbmon.telemetry.providers import Providers
from pbmon.telemetry.queries import Queries
from pbmon.telemetry.requests import Requests
from pbmon.worker.embedded import Embedded
from pbmon.worker.roles import Roles
from pbmon.worker.rounds import Rounds

EXIT_TIMEOUT_S = 3.0
"""What waits on the disk is not lost by an end, so an end does not wait long for it."""

INSTRUMENTORS = "opentelemetry_instrumentor"

_lock = threading.RLock()
_keywords: dict[str, Any] = {}
_parts: dict[str, Any] = {}
_worker: Embedded | None = None
_directory: Path | None = None
"""Where the settings file is looked for: where the process was when it was first configured."""
_reload: Reload | None = None
_RELOADED = ("budgets", "requests", "queries")
"""The parts that settings concern which change while the process runs."""
_log = logging.getLogger("pbmon")


def configure(**values: Any) -> None:
    """Start pbmon in this process, or change the settings of the one that runs.

    values: any setting of `pbmon doctor`, for example service_name="shop",
        slow_request_s=0.5, budgets=[Budget("/api/users", max_s=0.2)]. They win over the
        environment, `pbmon.toml` and defaults, in this order. Under opentelemetry-instrument
        it refines what the launcher configured.

    A setting that can't be used is one warning with the remedy, and is left out; under
    strict, SettingsError (a ValueError). Nothing else raises. OTEL_SDK_DISABLED=true makes it
    a no-op.
    """
    with _lock:
        _find_file()
        merged = {**_keywords, **values}
        resolved, problems = settings.resolve(merged, directory=_directory)
        if problems and resolved.strict and values:
            raise settings.SettingsError("; ".join(map(str, problems)))
        for problem in problems:
            signals.tell(str(problem), "%s", problem)
        if providers.disabled():
            return
        usable = {n: v for n, v in values.items() if resolved.source(n) == "configure()"}
        if usable.keys() != values.keys():  # what was set before stays where this can't be used
            resolved, _ = settings.resolve({**_keywords, **usable}, directory=_directory)
        _keywords.update(usable)
        with signals.guard("configure"):
            _apply(resolved) if active.configured else _start(resolved)


def _find_file() -> None:
    """Before the settings are read for the first time, so that no change is missed."""
    global _directory, _reload
    if _directory is None:
        _directory = sources.working_directory()
        _reload = Reload(_directory, _resolve_again, _take)


def _resolve_again() -> tuple[settings.Settings, list[sources.Problem]]:
    with _lock, signals.importing:  # a parser may import what it needs
        return settings.resolve(_keywords, directory=_directory)


def _take(resolved: settings.Settings) -> None:
    """Settings that change while the process runs, and nothing else is another."""
    with _lock:
        active.settings = resolved
        for name in _RELOADED:
            _parts[name].apply(resolved)


def _start(resolved: settings.Settings) -> None:
    global _worker
    # For upstream's instrumentors, which read it once: one vocabulary, the stable one.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    active.settings = resolved
    active.configured = True  # whatever fails below: a second call must not build a second set
    _parts["providers"] = Providers(resolved)
    meter = _meter()
    worker = _worker = Embedded(
        lambda: active.settings,
        lambda: providers.service_name(active.settings),
        _parts["providers"].hear,
    )
    parts = install_sinks(
        resolved,
        trace.get_tracer("pbmon", catalog.VERSION, schema_url=catalog.SCHEMA_URL),
        meter,
        SystemClock(),
        worker.intake,
    )
    _parts.update(parts)
    worker.every_second = parts["errors"].write_sums
    active.event_totals = worker.totals
    worker.install(meter)
    _parts["providers"].accounts.install(meter)
    active.reader = worker.reader.open
    active.eraser = worker
    _name_people(resolved)
    active.flush = _finish
    active.accounts = _parts["providers"].accounts.summary
    activate_hooks()
    atexit.register(_end)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=signals.begin_fork,
            after_in_parent=signals.end_fork,
            after_in_child=_begin_in_child,
        )
    if resolved.reload and _reload is not None:
        _parts["providers"].watch(_reload.look, alone=_reload.has_file)
    if resolved.signals:
        endings.install(_hand_over)
    _log.info("%s", describe())


def export(resolved: settings.Settings, roles: Roles) -> None:
    """For a process that has these roles and nothing else: until shutdown() it exports what it
    does, and the store's figures where it leads."""
    if providers.disabled() or roles.leader is None:
        return
    with _lock, signals.guard("exporting"):
        active.settings = resolved
        active.event_totals = roles.totals
        if (built := _parts.get("providers")) is None:  # as under the launcher
            built = _parts["providers"] = Providers(resolved)
            built.accounts.install(_meter())
        roles.install(_meter())
        roles.leader.publish = built.hear


@contextmanager
def lent(keywords: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[None]:
    """Within the block these sinks are the configuration, which configure() changes; keywords: what
    they were made with. The one before it waits, and is not told."""
    global _keywords, _parts, _worker
    before = _keywords, _parts, _worker, active.configured
    _keywords, _parts, _worker, active.configured = dict(keywords), dict(parts), None, True
    try:
        yield
    finally:
        _keywords, _parts, _worker, active.configured = before


def _meter() -> metrics.Meter:
    return metrics.get_meter("pbmon", catalog.VERSION, schema_url=catalog.SCHEMA_URL)


def _end() -> None:
    """At exit. A signal from here on ends the process at once."""
    endings.remove()
    shutdown(EXIT_TIMEOUT_S)


def _begin_in_child() -> None:
    """After a fork: what the parent counted, queued and spooled stays the parent's."""
    global _lock
    _lock = threading.RLock()
    with signals.guard("beginning after a fork"):
        signals.forget()
        _parts["providers"].forget()


def _hand_over(everything: bool) -> None:
    """At a signal. everything: there is time to send; else only to write it down."""
    if everything:
        _finish(EXIT_TIMEOUT_S)  # not shutdown(): the process may go on, if its owner so wishes
    elif (built := _providers()) is not None:
        built.hand_over()


def install_sinks(
    resolved: settings.Settings,
    tracer: trace.Tracer,
    meter: metrics.Meter,
    clock: Clock,
    intake: Taker,
) -> dict[str, Any]:
    """Make the sinks and hand them to the hooks and the business API.

    Returns those whose apply() takes changed settings.
    """
    notices = Notices(clock)
    budgets = BudgetFigures(resolved, meter, notices)
    requests = Requests(resolved, tracer, meter, clock, notices, budgets)
    queries = Queries(resolved, tracer, meter, clock, notices)
    labels = SegmentLabels(resolved)
    features = FeatureUsage(resolved, meter, labels)
    events = Events(resolved, meter, intake, labels)
    cashbook = Cashbook(resolved, intake)
    experiments = Experiments(resolved, meter, intake)
    feedback = Responses(resolved, meter, intake)
    errors = ErrorMonitor(resolved, meter, intake, lambda: providers.release(active.settings))
    _find_people(resolved)
    active.requests, active.queries, active.features = requests, queries, features
    active.budgets = budgets
    active.events, active.experiments = events, experiments
    active.revenue, active.feedback, active.errors = cashbook, feedback, errors
    active.refusals = Refusals(meter).count
    active.open_websockets = lambda: requests.open_websockets
    active.watch_loop = LoopLag(meter).watch
    return {
        "budgets": budgets, "requests": requests, "queries": queries, "labels": labels,
        "features": features, "events": events, "cashbook": cashbook, "experiments": experiments,
        "feedback": feedback, "errors": errors,
    }  # fmt: skip


def _find_people(resolved: settings.Settings) -> None:
    """How a request is asked for its user and session."""
    active.find_user = _finder(resolved.user_from)
    active.find_session = _finder(resolved.session_from)


def _name_people(resolved: settings.Settings) -> None:
    """Whether spans do."""
    active.pseudonyms = _worker.pseudonyms if _worker is not None and resolved.user_spans else None


def _finder(wanted: Any) -> identity.Finder | None:
    if not isinstance(wanted, str):
        return wanted  # type: ignore[no-any-return]
    kind, _, name = wanted.partition(":")
    return identity.in_header(name) if kind == "header" else identity.in_cookie(name)


def _apply(resolved: settings.Settings) -> None:
    previous = active.settings
    active.settings = resolved
    for part in _parts.values():
        part.apply(resolved)
    _find_people(resolved)
    _name_people(resolved)
    if resolved.hooks != previous.hooks:
        signals.tell(
            "hooks",
            "pbmon: the hooks setting is fixed when pbmon starts; set PBMON_HOOKS, or the table "
            "in pbmon.toml, and restart",
        )


def activate_hooks() -> None:
    """Instrument by pbmon's own entry points; twice is a no-op, as under the launcher."""
    unwanted = {
        name.strip()
        for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    }
    known = own_instrumentors()
    for name in active.settings.hooks.keys() - {e.name for e in known}:
        signals.tell(
            f"hooks:{name}",
            "pbmon: setting hooks names %s, which is no hook; there are %s",
            name,
            ", ".join(sorted(e.name for e in known)),
        )
    for entry_point in known:
        if "*" in unwanted or entry_point.name in unwanted:
            active.hooks[entry_point.name] = runtime.HookState(
                entry_point.name, "off", "skipped", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS says so"
            )
            continue
        try:
            entry_point.load()().instrument(skip_dep_check=True)
        except Exception as error:
            active.hooks[entry_point.name] = runtime.HookState(
                entry_point.name, "pbmon", "skipped", f"failed with {privacy.error_type(error)}"
            )
            signals.failed(f"hook {entry_point.name}", error)


def own_instrumentors() -> list[EntryPoint]:
    """The entry points of our hooks."""
    return [e for e in entry_points(group=INSTRUMENTORS) if e.value.startswith("pbmon.")]


def describe() -> str:
    """The start line: what was hooked, what was skipped and why, and where it all goes."""
    by_state: dict[str, list[str]] = {}
    for hook in active.hooks.values():
        text = f"{hook.name} ({hook.reason})" if hook.state == "skipped" else hook.name
        by_state.setdefault(hook.state, []).append(text)
    hooks = "; ".join(f"{state}: {', '.join(names)}" for state, names in sorted(by_state.items()))
    kept = (
        f"; the application's own {' and '.join(k)} kept" if (k := _parts["providers"].kept) else ""
    )
    return (
        f"pbmon {catalog.VERSION} runs as {providers.service_name(active.settings)}, "
        f"engine {active.settings.engine}, to {privacy.mask_url(active.settings.endpoint)}; "
        f"hooks {hooks}{kept}; consent {_consent(active.settings)}"
    )


def _consent(resolved: settings.Settings) -> str:
    words = ", ".join(f"{purpose} {basis}" for purpose, basis in resolved.consent.items())
    if resolved.consent[ANALYTICS] != "opt-in":
        return words
    return f"{words} (nothing is kept of a person who has not agreed: pbmon.consent.grant())"


def flush(timeout_s: float = 5.0, *, durable: bool = False) -> bool:
    """Send what is waiting now. True if all of it was handed over within timeout_s seconds.

    durable: instead, have what this process has accepted (track() and what else returns Accepted)
        on the disk itself, where it survives a loss of power; the store need not be up. True only
        if it is there. The rows of outbox() are as durable as your own commit.
    """
    if durable:
        if _worker is None:
            return True
        active.errors.write_sums()
        synced = _worker.sync()
        wait([synced], timeout_s)
        return synced.done() and synced.result()
    active.errors.write_sums()
    stored = _worker is None or _worker.finish(timeout_s)
    built = _providers()
    return (built.flush(timeout_s) if built is not None else True) and stored


async def aflush(timeout_s: float = 5.0, *, durable: bool = True) -> bool:
    """flush() for asyncio: in a thread of ours, so that the event loop goes on.

        pbmon.track("order_placed", {"order": 7})
        if not await pbmon.aflush():
            ...    # it survives this process, but perhaps no loss of power

    Many may wait at once: one write to the disk serves all who asked before it began. Cancelling
    one of them changes nothing for the others.
    """
    if durable and _worker is None:
        return True
    if durable:
        active.errors.write_sums()
    asked = _worker.sync() if durable and _worker is not None else _flushes.join(timeout_s)
    joined = asyncio.wrap_future(asked)
    await asyncio.wait([joined], timeout=timeout_s)
    return joined.done() and joined.result()


_flushes = Rounds("pbmon-flush", flush)


def _finish(timeout_s: float) -> bool:
    """For the hooks, at the end of a server or a worker."""
    built = _providers()
    return built.finish(timeout_s) if built is not None else True


def shutdown(timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Send what is waiting and stop, within timeout_s seconds over all signals.

    Called by itself at exit. True if all of it was handed over.
    """
    active.errors.write_sums()
    if _worker is not None:
        _worker.close(timeout_s / 2)
    built = _providers()
    return built.shutdown(timeout_s) if built is not None else True


def _providers() -> Providers | None:
    """What there is to flush, once statements whose cursors are gone have been counted, and what
    errors are only counted is written down."""
    active.errors.write_sums()
    with signals.guard("ending abandoned statements"):
        dbapi.end_abandoned()
    built: Providers | None = _parts.get("providers")
    return built


def websocket_connections() -> int:
    """WebSockets open in this process now."""
    return active.open_websockets()
