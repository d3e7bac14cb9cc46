"""`pbmon doctor`: what pbmon would do in this environment, and what stands in its way."""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import importlib
import os
import socket
import sys
import urllib.error
import urllib.request
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pbmon import catalog, privacy, runtime, settings, wiring
from pbmon.budgets import Budget
from pbmon.outbound import url_of
from pbmon.spool import directory, inspection, journal
from pbmon.spool.ledger import REASONS
from pbmon.store import access
from pbmon.telemetry import exporters, providers, transport
from pbmon.worker import sinks
from pbmon.worker.urls import default_file

NAME = "doctor"
HELP = "Show hooks, engine, settings with their sources, and whether the exporter is reachable."

_TIMEOUT_S = 2.0
_PACKAGES = (
    "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation",
    "opentelemetry-exporter-otlp-proto-http", "wrapt",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module too, such as your application, before looking at the hooks",
    )


def run(args: argparse.Namespace) -> int:
    """Print the report. 1 when a setting is unusable, a hook failed or nothing is reachable."""
    resolved, problems = settings.resolve()
    print(f"pbmon {catalog.VERSION}, Python {sys.version.split()[0]}")
    _print_versions()
    good = _print_hooks(resolved, args.modules)
    if runtime.active.configured:  # by a module that was imported
        resolved = runtime.active.settings
    if "service.instance.id" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        print(
            "\n  ✗ service.instance.id is set by OTEL_RESOURCE_ATTRIBUTES: processes that share it "
            "overwrite\n    each other's counters, and restarts lose counts; leave it out"
        )
    print(f"\nService: {providers.service_name(resolved)}\nEngine: {resolved.engine}")
    _print_settings(resolved)
    good &= _print_exporters(resolved)
    good &= _print_spool(resolved)
    good &= _print_events(resolved)
    good &= _print_alerts(resolved)
    if problems:
        print("\nProblems")
        for problem in problems:
            print(f"  ✗ {problem}")
    if providers.disabled():
        print("\n  ✗ OTEL_SDK_DISABLED=true: pbmon does nothing; unset it to run")
    return 0 if good and not problems else 1


def _print_versions() -> None:
    for name in _PACKAGES:
        try:
            print(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"  ✗ {name} is not installed; pip install pbmon")


def _print_hooks(resolved: settings.Settings, modules: list[str]) -> bool:
    runtime.active.settings = resolved
    wiring.activate_hooks()
    good = True
    sys.path.insert(0, str(Path.cwd()))  # where uvicorn finds the application
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            good = False
            # Without its message, which may quote a setting: this output is passed on.
            print(f"\n  ✗ import {module} failed: {privacy.error_type(error)}")
            print(f"    {privacy.frames(error.__traceback__, 1)}")
    for entry_point in wiring.own_instrumentors():
        if util.find_spec(entry_point.name) is not None:
            for patch in entry_point.load().patches:
                with contextlib.suppress(ImportError):
                    importlib.import_module(patch.module)
    print("\nHooks")
    for hook in runtime.active.hooks.values():
        if hook.state == "waiting":
            hook.reason = f"{hook.name} is not installed"
        mark = "✗" if hook.state == "skipped" and hook.mode != "off" else " "
        good &= mark == " "
        print(f"  {mark} {hook.name:<12} {_STATES[hook.state]:<10} {hook.mode:<9} {hook.reason}")
    return good


_STATES = {"active": "active", "waiting": "absent", "skipped": "skipped"}


def _print_settings(resolved: settings.Settings) -> None:
    print("\nSettings (value, source)")
    width = max(map(len, settings.FIELDS))
    for name in settings.FIELDS:
        value = _shown(name, getattr(resolved, name))
        print(f"    {name:<{width}}  {value}  ({resolved.source(name)})")


def _budget(budget: Budget) -> str:
    """As it may be written in PBMON_BUDGETS."""
    words = [f"{limit}={value:g}s" for limit, value in budget.thresholds.items()]
    if budget.availability is not None:
        words.append(f"availability={budget.availability:g}")
    return " ".join([*([budget.method] if budget.method else []), budget.endpoint, *words])


_URLS = ("store_url", "outbox_url", "prometheus_url", "rates_url")


def _shown(name: str, value: Any) -> str:
    if name == "budgets":
        return "; ".join(map(_budget, value.all)) or "none"
    if name in (*_URLS, "prometheus_token", "pepper") and (value or "").startswith("env:"):
        variable = value.removeprefix("env:")
        return value if os.environ.get(variable) else f"{value} ✗ {variable} is not set"
    if name in ("endpoint", "analytics_endpoint", *_URLS) and value is not None:
        return privacy.mask_url(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if hasattr(value, "items"):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
    return "none" if value is None else str(value)


def _print_exporters(resolved: settings.Settings) -> bool:
    print("\nExport")
    good = True
    for signal in ("traces", "metrics", *(("logs",) if resolved.logs else ())):
        for name in exporters.names(signal) or ["none"]:
            if name in ("otlp", "otlp_proto_http", "otlp_proto_grpc"):
                where = exporters.endpoint(signal, resolved)
                trouble = _unreachable(signal, where, exporters.protocol(signal, resolved))
                shown = f"{name} to {privacy.mask_url(where)}"
            else:
                trouble, shown = exporters.missing(signal, name), name
            good &= not trouble
            print(
                f"  {'✗' if trouble else ' '} {signal:<8} {shown}"
                + (f": {trouble}" if trouble else "")
            )
    return good


def _print_spool(resolved: settings.Settings) -> bool:
    """Where telemetry waits, and what does."""
    print("\nState directory")
    service = providers.service_name(resolved)
    for path in directory.candidates(resolved.state_dir):
        trouble = _unusable(path, service)
        if trouble:
            print(f"  ✗ {trouble}")
            continue
        place = path / "spool" / directory.slug(service)
        print(f"    {place}")
        for seen in inspection.look(place):
            state = "running" if seen.running else "ended; the next process delivers it"
            print(f"    {seen.name}: {state}, {seen.size:,} bytes")
            for channel, row in seen.rows.items():
                if row["accepted"]:
                    print(f"      {_ITEMS[channel]}: {_books(row, seen.waiting[channel])}")
        return True
    print("  ✗ no directory can be used: what waits is lost with the process; set PBMON_STATE_DIR")
    return False


def _print_events(resolved: settings.Settings) -> bool:
    """Where events wait, and where they are stored."""
    basis = resolved.consent["analytics"]
    wanted = resolved.consent_version.get("analytics")
    version = f", version {wanted}" if wanted is not None else ""
    print(f"\nEvents\n    consent: analytics {basis}{version}{_UNASKED[basis]}")
    service = providers.service_name(resolved)
    place = next(
        (path for path in directory.candidates(resolved.state_dir) if not _unusable(path, service)),
        None,
    )
    if place is None:
        print("  ✗ no directory can be used: events are refused; set PBMON_STATE_DIR")
        return False
    journals = inspection.look_at_journals(place / journal.AREA / directory.slug(service))
    for seen in journals:
        state = "running" if seen.running else "ended; the next shipper reads it"
        print(f"    journal {seen.name}: {state}, {seen.size:,} bytes")
    url = url_of("store_url", resolved.store_url) or f"sqlite:///{default_file(place, service)}"
    try:
        print(f"    store {privacy.mask_url(url)} {access.status(url)}")
        for where, count, why in access.outstanding_deletions(url):
            print(f"    deletions outstanding in {where}: {count}{f' ({why})' if why else ''}")
        _print_decisions(url, basis)
    except access.StoreError as error:
        print(f"  ✗ store {privacy.mask_url(url)} {error}")
        return False
    return True


def _print_decisions(url: str, basis: str) -> None:
    """How many people have said what. Raises StoreError."""
    if not access.may_be_there(url):
        return
    reader = access.open_reader(url)
    try:
        agree, refuse = reader.consent_counts("analytics")
    finally:
        reader.close()
    few = f"fewer than {privacy.K}"
    said = [f"{n:,}" if n == 0 or n >= privacy.K else few for n in (agree, refuse)]
    print(f"    decisions: {said[0]} people agree, {said[1]} refuse")
    if basis == "opt-in" and agree == 0:
        print(
            "    so no figure has anybody; tell pbmon.consent.grant() who agrees, or set `consent` "
            "to the\n    legal basis that there is"
        )


def _print_alerts(resolved: settings.Settings) -> bool:
    """Who tells of bursts of errors, and whom."""
    choices = resolved.alerts
    print(f"\nAlerts\n    told by {choices.teller}: {choices.rule}")
    good = True
    for choice in choices.sinks.values():
        try:
            sink = sinks.make(choice)
            sink.close()
            print(f"    {choice.name}: {sink.where}")
        except sinks.UnusableError as error:
            good = False
            print(f"  ✗ {error}")
        if choice.has_literal and sinks.is_secret(choice):
            print(
                f"    {choice.name}: its secret stands in the settings; env:NAME or file:PATH "
                "keeps it out of them"
            )
    if choices.teller == "worker" and not choices.sinks:
        good = False
        print("  ✗ there are no sinks, so nobody is told; add [alerts.sinks.NAME] with url")
    if util.find_spec("apprise") is None:
        print(f"    apprise is not installed: {sinks.INSTALL}")
    if choices.sinks and (fault := _last_fault(resolved)):
        print(f"    last fault: {fault}")
    return good


def _last_fault(resolved: settings.Settings) -> str:
    """Of what sinks have not got, or an empty text."""
    service = providers.service_name(resolved)
    for path in directory.candidates(resolved.state_dir):
        if _unusable(path, service):
            continue
        url = url_of("store_url", resolved.store_url) or f"sqlite:///{default_file(path, service)}"
        with contextlib.suppress(access.StoreError):
            if access.may_be_there(url):
                book = access.open_notifications(url, 0.0)
                found = book.last_fault()
                book.close()
                return found
        break
    return ""


_UNASKED = {
    "opt-in": ": nothing is kept of a person who has not agreed",
    "opt-out": ": a person's events are kept unless they have refused",
    "not-required": "",
}


def _books(row: dict[str, int], waiting: int) -> str:
    """accepted = delivered + waiting + dropped, for people."""
    dropped = {reason: row[reason] for reason in REASONS if row[reason]}
    text = f"{row['accepted']} accepted, {row['delivered']} delivered, {waiting} waiting"
    return text + "".join(f", {count} dropped as {reason}" for reason, count in dropped.items())


_ITEMS = {"traces": "spans", "metrics": "data points", "logs": "log records", "events": "events"}


def _unusable(path: Path, service: str) -> str:
    """Why a state directory can't be used, or an empty text; nothing is made."""
    nearest = path
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest != path or not (path / "spool").exists():
        writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
        return "" if writable else f"{path} can't be made: {nearest} can't be written to"
    try:
        directory.Home(path, service)
    except directory.UnusableError as error:
        return str(error)
    return ""


def _unreachable(signal: str, where: str, protocol: str) -> str:
    """Why an OTLP receiver can't be reached, or an empty text. An empty export is legal OTLP."""
    if protocol == "grpc":
        parts = urlsplit(where if "://" in where else f"//{where}")
        try:
            socket.create_connection((parts.hostname or "", parts.port or 4317), _TIMEOUT_S).close()
        except OSError as error:
            return f"{_cause(error)}; start a collector, or set OTEL_EXPORTER_OTLP_ENDPOINT"
        return ""
    try:
        request = _empty_export(signal, where)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"answers {error.code}; check the path and OTEL_EXPORTER_OTLP_HEADERS"
    except http.client.HTTPException:
        return "what listens there is no OTLP/HTTP receiver; check the port"
    except (OSError, ValueError) as error:
        return f"{_cause(error)}; start a collector, or set OTEL_EXPORTER_OTLP_ENDPOINT"


def _empty_export(signal: str, where: str) -> urllib.request.Request:
    headers = {"Content-Type": "application/x-protobuf", **transport.headers(signal)}
    parts = urlsplit(where)
    userinfo, at, place = parts.netloc.rpartition("@")
    if at:  # urllib would take it for the host's name
        where = parts._replace(netloc=place).geturl()
        token = base64.b64encode(unquote(userinfo).encode()).decode()
        headers.setdefault("authorization", f"Basic {token}")
    return urllib.request.Request(where, data=b"", headers=headers)  # noqa: S310


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, TimeoutError):
        return "no answer within 2 s"
    if isinstance(reason, socket.gaierror):
        return "unknown host"
    return privacy.error_type(reason if isinstance(reason, BaseException) else error)
