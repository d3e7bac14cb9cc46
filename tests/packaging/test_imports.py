"""Who may import what, read from the sources by `ast`, so that lazy imports count as well."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

SOURCE = ROOT / "src" / "pbmon"
# What each library may be imported by: parts (top-level modules) of pbmon.
OWNERS = {
    "opentelemetry.sdk": {"telemetry", "testing"},
    "wrapt": {"hooks"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "currency_converter": {"rates"},
    "openfeature": {"business"},
}
# Private names of other libraries that we use. Each may change in any release of theirs: a new
# one is a decision, and an upgrade looks at these first.
PRIVATE = {
    # How to tell that no meter provider was set; the API offers it for tracers only.
    ("telemetry/providers.py", "opentelemetry.metrics._internal"),
    ("telemetry/providers.py", "opentelemetry.metrics._internal._ProxyMeterProvider"),
    # The SDK's own way to renew the resource after a fork.
    ("telemetry/providers.py", "provider._update_resource"),
    # The channel and headers of the stock gRPC exporter, whose export() hides the answer.
    ("telemetry/transport.py", "stock._client"),
    ("telemetry/transport.py", "stock._headers"),
    # A span's end, which has no setter: mended where the wall clock was set meanwhile.
    ("telemetry/processors.py", "span._end_time"),
    # Threads and loops below the level of threading and asyncio, inside a signal handler.
    ("endings.py", "_thread"),
    ("endings.py", "asyncio._get_running_loop"),
    # How multiprocessing started this process.
    ("hooks/multiprocessing.py", "multiprocessing.current_process()._start_method"),
    # How to tell that no logger provider was set.
    ("telemetry/providers.py", "opentelemetry._logs._internal"),
    ("telemetry/providers.py", "opentelemetry._logs._internal.ProxyLoggerProvider"),
    # The logs API, which upstream keeps private as long as it may still change.
    ("telemetry/encoding/logs.py", "opentelemetry._logs"),
    ("telemetry/encoding/logs.py", "opentelemetry._logs.SeverityNumber"),
    ("telemetry/encoding/logs.py", "opentelemetry.exporter.otlp.proto.common._log_encoder"),
    (
        "telemetry/encoding/logs.py",
        "opentelemetry.exporter.otlp.proto.common._log_encoder.encode_logs",
    ),
    ("telemetry/encoding/logs.py", "opentelemetry.sdk._logs"),
    ("telemetry/encoding/logs.py", "opentelemetry.sdk._logs.ReadableLogRecord"),
    ("telemetry/processors.py", "opentelemetry.sdk._logs"),
    ("telemetry/processors.py", "opentelemetry.sdk._logs.LogRecordProcessor"),
    ("telemetry/processors.py", "opentelemetry.sdk._logs.ReadWriteLogRecord"),
    ("telemetry/processors.py", "opentelemetry.sdk._logs.ReadableLogRecord"),
    ("telemetry/providers.py", "opentelemetry._logs"),
    ("telemetry/providers.py", "opentelemetry.sdk._logs"),
    ("telemetry/providers.py", "opentelemetry.sdk._logs.LoggerProvider"),
    ("telemetry/providers.py", "opentelemetry.sdk._logs.export"),
    ("telemetry/providers.py", "opentelemetry.sdk._logs.export.BatchLogRecordProcessor"),
    ("telemetry/logs.py", "opentelemetry._logs"),
    ("telemetry/logs.py", "opentelemetry._logs.Logger"),
    ("telemetry/logs.py", "opentelemetry._logs.LoggerProvider"),
    ("telemetry/logs.py", "opentelemetry._logs.LogRecord"),
    ("telemetry/logs.py", "opentelemetry._logs.NoOpLogger"),
    ("telemetry/logs.py", "opentelemetry._logs.SeverityNumber"),
    # Where the SDK keeps its series: to cap them, and to start again after a fork.
    *(
        ("telemetry/storages.py", name)
        for name in (
            "provider._measurement_consumer",
            "provider._meters",
            "consumer._lock",
            "consumer._reader_storages",
            "storage._lock",
            "storage._instrument_view_instrument_matches",
            "match._lock",
            "match._attributes_aggregation",
            "match._cardinality_limit",
            "match._view",
            "match._instrument_class_aggregation",
            "view._aggregation",
            "view._exemplar_reservoir_factory",
            "kind._create_aggregation",
            "aggregation._attributes",
            "meter._instrument_registration_lock",
            "meter._instrument_ids_lock",
            "reader._lock",
            "reader._export_lock",
        )
    ),
    # CPython's documented name for the caller's frame.
    ("business/refusals.py", "sys._getframe"),
    ("telemetry/queries.py", "sys._getframe"),
    # asyncio's mark of a coroutine function, for wrappers that aren't one themselves.
    ("hooks/asgi.py", "asyncio.coroutines._is_coroutine"),
    ("hooks/asgi.py", "function._is_coroutine"),
}
OURS = ("self", "cls", "super()")
DOTTED = re.compile(r"opentelemetry(\.\w+)+")
# namedtuple's own methods are public; their underscore only keeps them apart from the fields.
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
FILES = sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """The top-level module of pbmon that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported: `a.b` and, of `from a.b import c`, also `a.b.c`.

    Names given to import_module() and find_spec() count; a relative import has a leading dot.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield str(name.value)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE


def private_names(tree: ast.AST) -> Iterator[str]:
    """Private names of others: imports, attributes except our own (`self`, `_pbmon_…`), and
    OpenTelemetry's dotted names in strings: loggers, patch points.
    """
    for name in imported(tree):
        if not name.startswith("pbmon.") and any(map(is_private, name.split("."))):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and DOTTED.fullmatch(str(node.value)):
            if any(map(is_private, node.value.split("."))):
                yield node.value
            continue
        if isinstance(node, ast.Attribute):
            owner, name = ast.unparse(node.value), node.attr
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            owner, name = ast.unparse(node.args[0]), str(node.args[1].value)
        else:
            continue
        if is_private(name) and not name.startswith("_pbmon_") and owner not in OURS:
            yield f"{owner}.{name}"


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_there_is_something_to_look_at():
    assert {"telemetry", "hooks", "business", "store", "cli", "wiring"} <= set(map(part, FILES))


@pytest.mark.parametrize("library", OWNERS)
def test_library_is_imported_by_its_owners_only(library):
    importers = {
        path.relative_to(SOURCE).as_posix(): part(path)
        for path in FILES
        if any(within(name, library) for name in imported(parsed(path)))
    }
    strangers = {file for file, owner in importers.items() if owner not in OWNERS[library]}
    assert not strangers


def test_nothing_inside_uses_the_public_names():
    """They are loaded lazily from the modules: the way back would be a circle."""
    offences = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in FILES
        for name in imported(parsed(path))
        if name.startswith(".")
        or (name == "pbmon" and _binds_the_package(path))
        or (name.startswith("pbmon.") and name.count(".") == 1 and not _is_module(name))
    ]
    assert not offences


def _binds_the_package(path: Path) -> bool:
    return any(
        isinstance(node, ast.Import) and any(alias.name == "pbmon" for alias in node.names)
        for node in ast.walk(parsed(path))
    )


def _is_module(name: str) -> bool:
    place = SOURCE / name.removeprefix("pbmon.")
    return place.is_dir() or place.with_suffix(".py").is_file()


def test_private_names_of_others_are_these():
    found = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path in FILES
        for name in private_names(parsed(path))
    }
    assert found == PRIVATE


@pytest.mark.parametrize(
    "code",
    [
        "import opentelemetry.sdk.trace",
        "from opentelemetry import sdk",
        "from opentelemetry.sdk.trace import TracerProvider",
        "def f():\n    from opentelemetry.sdk import trace",
        "importlib.import_module('opentelemetry.sdk.trace')",
    ],
)
def test_every_form_of_import_is_seen(code):
    assert any(within(name, "opentelemetry.sdk") for name in imported(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from a._b import c",
        "from a import _b",
        "import a._b",
        "a._b()",
        "getattr(a, '_b', None)",
        "getLogger('opentelemetry.a._b')",
    ],
)
def test_every_form_of_private_use_is_seen(code):
    assert list(private_names(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["self._a", "x._pbmon_rows", "a.__class__", "a._replace()", "import a_b"]
)
def test_our_own_names_are_let_be(code):
    assert not list(private_names(ast.parse(code)))
