"""A hook is a table of patches on one library, applied when that library is imported.

The library is never imported by us: an application that does not use it pays nothing. Applying
twice is a no-op, `uninstrument()` restores each attribute by identity, and an attribute that is
not where it was in the tested version is left alone and named by `pbmon doctor`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, ClassVar

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from pbmon import runtime, signals


@dataclass(frozen=True, slots=True)
class Patch:
    """Replace one attribute: module `uvicorn.server`, attribute `Server.startup`.

    replace: given the original, returns what stands in its place.
    optional: some versions of the library don't have it, and need it not.
    """

    module: str
    attribute: str
    replace: Callable[[Any], Any]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class _Applied:
    owner: Any
    name: str
    original: Any
    replacement: Any
    inherited: bool

    def undo(self) -> None:
        if vars(self.owner).get(self.name) is not self.replacement:
            return  # patched again by somebody else since; theirs stays
        if self.inherited:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)


class Hook(BaseInstrumentor):
    """Base of every hook; loaded through an `opentelemetry_instrumentor` entry point.

    library: the import it wraps, also the hook's name. tested: versions it was tested with.
    system: `db.system.name` of what a driver connects to.
    upstream: `module:Class` of what mode `upstream` runs outside our patches; an instrumentor,
    where run_upstream() is not overridden.
    """

    library: ClassVar[str]
    tested: ClassVar[str]
    upstream: ClassVar[str | None] = None
    system: ClassVar[str | None] = None
    patches: ClassVar[tuple[Patch, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # BaseInstrumentor keeps its one instance in an inherited attribute: without this a
        # second hook's class would return the first one's instance.
        cls._instance = None

    def instrumentation_dependencies(self) -> Collection[str]:
        # Checked per distribution by the launcher: one absent driver would disable every hook.
        return ()

    def instrument(self, **kwargs: Any) -> None:
        """Twice is a no-op: configure() runs the hooks, and then a launcher may."""
        if not self.is_instrumented_by_opentelemetry:
            super().instrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        self._applied: list[_Applied] = []
        self._patched: set[str] = set()
        self._wanted = True
        mode = runtime.active.settings.hook_mode(self.library)
        self._state = runtime.HookState(self.library, mode, "waiting", "not imported yet")
        runtime.active.hooks[self.library] = self._state
        if mode == "off":
            self._state.state, self._state.reason = "skipped", "hooks setting says off"
            self._wanted = False
            return
        for name in dict.fromkeys(patch.module for patch in self.patches):
            wrapt.register_post_import_hook(self._imported, name)

    def _imported(self, module: ModuleType) -> None:
        """wrapt calls this once the module is there, at once if it is already."""
        if not self._wanted or module.__name__ in self._patched:
            return
        self._patched.add(module.__name__)
        with signals.guard(f"hook {self.library}"):
            for patch in self.patches:
                if patch.module == module.__name__:
                    self._apply(module, patch)
            if self.system is not None:
                runtime.active.queries.prepare(self.system)
            if self._state.mode == "upstream" and module.__name__ == self.patches[0].module:
                self._start_upstream()

    def _apply(self, module: ModuleType, patch: Patch) -> None:
        owner: Any = module
        *path, name = patch.attribute.split(".")
        for step in path:
            owner = getattr(owner, step, None)
        original = getattr(owner, name, None)
        if original is None and patch.optional:
            return
        if original is None:
            self._state.state = "skipped"
            self._state.reason = (
                f"{patch.module}.{patch.attribute} not found in {self._version()}; "
                f"tested with {self.tested}"
            )
            signals.tell(f"hook:{self.library}", "pbmon: hook %s: %s", self.library,
                         self._state.reason)  # fmt: skip
            return
        inherited = name not in vars(owner)
        stored = vars(owner).get(name)  # getattr() unwraps a static or class method
        replacement = patch.replace(original)
        if isinstance(stored, (staticmethod, classmethod)):
            replacement = staticmethod(replacement)
        setattr(owner, name, replacement)
        self._applied.append(_Applied(owner, name, stored, replacement, inherited))
        if self._state.state == "waiting":
            self._state.state, self._state.reason = "active", self._version()

    def _version(self) -> str:
        try:
            return f"{self.library} {metadata.version(self.library)}"
        except metadata.PackageNotFoundError:
            module = sys.modules.get(self.library)
            return f"{self.library} {getattr(module, '__version__', '')}".strip()

    def _start_upstream(self) -> None:
        if self.upstream is None:
            self._run_ours("there is no upstream mode for it; pbmon's own hook runs")
            return
        module_name, _, class_name = self.upstream.partition(":")
        try:
            module = __import__(module_name, fromlist=[class_name])
        except ImportError:
            self._run_ours(
                "mode upstream needs its package (pip install 'pbmon[upstream]'); "
                "pbmon's own hook runs instead"
            )
            return
        self.run_upstream(getattr(module, class_name))

    def _run_ours(self, reason: str) -> None:
        self._state.mode, self._state.reason = "pbmon", reason
        signals.tell(f"hook:{self.library}", "pbmon: hook %s: %s", self.library, reason)

    def run_upstream(self, upstream: Any) -> None:
        self._upstream = upstream()
        self._upstream.instrument(skip_dep_check=True)

    def _uninstrument(self, **kwargs: Any) -> None:
        self._wanted = False
        if (upstream := getattr(self, "_upstream", None)) is not None:
            upstream.uninstrument()
        for applied in reversed(self._applied):
            applied.undo()
        self._applied.clear()
        runtime.active.hooks.pop(self.library, None)
